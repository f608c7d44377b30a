//! SentencePiece's compiled table of normalisation: rules from one run of characters to another, found by a double-array
//! trie (the layout of darts-clone). A lookup outside the table finds nothing, so no table can do harm.

use crate::error::{Error, Result};

/// Longest replacement in bytes; the longest of Unicode's NFKC has 33.
const MAX_REPLACEMENT_LEN: usize = 128;
/// Longest run of bytes a rule is looked for with; those of NFKC are far below. A table whose trie has a cycle would
/// else make each lookup as long as the text.
const MAX_RULE_LEN: usize = 128;

/// A table of rules.
#[derive(Debug)]
pub(super) struct Charsmap {
    /// The double array: label, offset and whether a rule ends here, in one number.
    units: Vec<u32>,
    /// Replacements, each ended by NUL.
    replacements: String,
}

impl Charsmap {
    /// Reads a table: the length of the trie in bytes as a little-endian number, the trie, and the replacements.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let broken = |what: &str| Error::invalid_format(format!("reading the table of normalisation: {what}"));
        let (len, rest) = bytes.split_first_chunk().ok_or_else(|| broken("expected 4 bytes of length"))?;
        let len = u32::from_le_bytes(*len) as usize;
        let (trie, replacements) =
            rest.split_at_checked(len).ok_or_else(|| broken(&format!("expected {len} bytes, got {}", rest.len())))?;
        if !len.is_multiple_of(4) {
            return Err(broken(&format!("expected units of 4 bytes, got {len} bytes")));
        }
        let replacements = std::str::from_utf8(replacements).map_err(|_| broken("expected UTF-8"))?;
        if let Some(long) = replacements.split('\0').map(str::len).find(|&len| len > MAX_REPLACEMENT_LEN) {
            let what = format!("expected replacements of at most {MAX_REPLACEMENT_LEN} bytes, got {long}");
            return Err(broken(&what));
        }
        let units = trie.as_chunks().0.iter().map(|unit| u32::from_le_bytes(*unit)).collect();
        Ok(Self { units, replacements: replacements.into() })
    }

    /// The longest rule for what `text` begins with: the bytes it replaces, and by what.
    pub fn longest(&self, text: &str) -> Option<(usize, &str)> {
        let mut at = offset(*self.units.first()?);
        let mut found = None;
        for (i, byte) in text.bytes().enumerate().take(MAX_RULE_LEN) {
            at ^= u32::from(byte);
            let Some(&unit) = self.units.get(at as usize) else { break };
            if label(unit) != u32::from(byte) {
                break;
            }
            at ^= offset(unit);
            if has_value(unit) {
                found = Some((i + 1, at));
            }
        }
        let (len, at) = found?;
        let value = self.units.get(at as usize)? & !(1 << 31);
        let replacement = self.replacements.get(value as usize..)?.split('\0').next()?;
        text.is_char_boundary(len).then_some((len, replacement))
    }
}

/// The byte that leads to a unit; the bit above it is set in units that hold values.
fn label(unit: u32) -> u32 {
    unit & (1 << 31 | 0xFF)
}

/// Where the children of a unit stand, relative to it.
fn offset(unit: u32) -> u32 {
    (unit >> 10) << ((unit & 1 << 9) >> 6)
}

/// Whether a rule ends at this unit; its value is the child by the byte 0.
fn has_value(unit: u32) -> bool {
    unit >> 8 & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table by hand: the root's children lie at 0x100 and above; `a` ends a rule whose value is the place of "bc".
    fn table() -> Vec<u8> {
        let mut units = vec![0u32; 0x300];
        units[0] = 0x100 << 10;
        units[0x161] = 0x61 | 1 << 8 | (0x161 ^ 0x200) << 10;
        units[0x200] = 1 << 31 | 2;
        encode(&units, b"x\0bc\0")
    }

    fn encode(units: &[u32], replacements: &[u8]) -> Vec<u8> {
        let trie: Vec<u8> = units.iter().flat_map(|u| u.to_le_bytes()).collect();
        [&(trie.len() as u32).to_le_bytes()[..], &trie, replacements].concat()
    }

    #[test]
    fn a_rule_is_found() {
        let map = Charsmap::parse(&table()).unwrap();
        assert_eq!(map.longest("ab"), Some((1, "bc")));
        assert_eq!(map.longest("b"), None);
        assert_eq!(map.longest(""), None);
        assert_eq!(Charsmap::parse(&encode(&[], b"")).unwrap().longest("a"), None);
    }

    #[test]
    fn a_broken_table_is_refused_or_finds_nothing() {
        let table = table();
        for (bytes, wanted) in [
            (&table[..3], "expected 4 bytes of length"),
            (&table[..40], "expected 3072 bytes, got 36"),
            (&[5, 0, 0, 0, 0, 0, 0, 0, 0], "expected units of 4 bytes, got 5 bytes"),
            (&[0, 0, 0, 0, 0xFF], "expected UTF-8"),
            (&[[0; 4].as_slice(), &[b'x'; 129]].concat(), "of at most 128 bytes, got 129"),
        ] {
            let e = Charsmap::parse(bytes).expect_err(wanted).to_string();
            assert!(e.contains(wanted), "{wanted} not in {e}");
        }
        // A value behind all replacements, inside a character, and a trie that leads out of itself.
        let with = |at: usize, unit: u32, replacements: &[u8]| {
            let mut units = vec![0u32; 0x300];
            units[0] = 0x100 << 10;
            units[0x161] = 0x61 | 1 << 8 | (0x161 ^ 0x200) << 10;
            units[at] = unit;
            Charsmap::parse(&encode(&units, replacements)).unwrap().longest("a").map(|(len, _)| len)
        };
        assert_eq!(with(0x200, 1 << 31 | 9, b"x\0"), None);
        assert_eq!(with(0x200, 1 << 31 | 1, "é\0".as_bytes()), None);
        assert_eq!(with(0, 0x200000 << 10, b"x\0"), None);
        assert_eq!(with(0x161, 0x61 | 1 << 8 | 0x200000 << 10, b"x\0"), None);
    }

    #[test]
    fn a_cycle_ends() {
        let mut units = vec![0u32; 0x300];
        (units[0], units[0x161]) = (0x100 << 10, 0x61 | (0x161 ^ 0x100) << 10);
        assert_eq!(Charsmap::parse(&encode(&units, b"")).unwrap().longest(&"a".repeat(1 << 20)), None);
    }
}
