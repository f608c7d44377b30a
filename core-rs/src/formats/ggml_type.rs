//! Element types of GGUF tensors: id, name and block geometry in one table.
//!
//! Absent: arithmetic on blocks, and the sizes of types that no kernel of ours reads; those are only named, so that a
//! refusal can say what the file holds.

use crate::error::{Error, Result};

/// Values in one K-quant super-block.
const QK_K: usize = 256;
/// Values in one block of the older quantisations.
const QK: usize = 32;

macro_rules! ggml_types {
    ($($(#[$doc:meta])* $variant:ident = $id:literal, $name:literal, $block:expr, $bytes:expr;)*) => {
        /// How the values of a tensor are stored.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[allow(non_camel_case_types)]
        #[non_exhaustive]
        pub enum GgmlType { $($(#[$doc])* $variant,)* }

        impl GgmlType {
            /// Every type this build can size and read.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The type with this number in a GGUF file, if this build reads it.
            pub const fn from_id(id: u32) -> Option<Self> {
                match id { $($id => Some(Self::$variant),)* _ => None }
            }

            /// The number of this type in a GGUF file.
            pub const fn id(self) -> u32 {
                match self { $(Self::$variant => $id,)* }
            }

            /// The lower-case name ggml prints.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// Values in one block.
            pub const fn block_size(self) -> usize {
                match self { $(Self::$variant => $block,)* }
            }

            /// Bytes of one block.
            pub const fn type_size(self) -> usize {
                match self { $(Self::$variant => $bytes,)* }
            }
        }
    };
}

// Bytes are written as the fields of the block: scale, minimum, high bits, quants.
ggml_types! {
    /// IEEE single precision.
    F32 = 0, "f32", 1, 4;
    /// IEEE half precision.
    F16 = 1, "f16", 1, 2;
    /// 4 bits, half scale.
    Q4_0 = 2, "q4_0", QK, 2 + QK / 2;
    /// 4 bits, half scale and minimum.
    Q4_1 = 3, "q4_1", QK, 2 + 2 + QK / 2;
    /// 5 bits, half scale.
    Q5_0 = 6, "q5_0", QK, 2 + 4 + QK / 2;
    /// 5 bits, half scale and minimum.
    Q5_1 = 7, "q5_1", QK, 2 + 2 + 4 + QK / 2;
    /// 8 bits, half scale.
    Q8_0 = 8, "q8_0", QK, 2 + QK;
    /// 8 bits, half scale and half sum.
    Q8_1 = 9, "q8_1", QK, 2 + 2 + QK;
    /// 2-bit K-quant.
    Q2K = 10, "q2_k", QK_K, QK_K / 16 + QK_K / 4 + 2 + 2;
    /// 3-bit K-quant.
    Q3K = 11, "q3_k", QK_K, QK_K / 8 + QK_K / 4 + 12 + 2;
    /// 4-bit K-quant.
    Q4K = 12, "q4_k", QK_K, 2 + 2 + 12 + QK_K / 2;
    /// 5-bit K-quant.
    Q5K = 13, "q5_k", QK_K, 2 + 2 + 12 + QK_K / 8 + QK_K / 2;
    /// 6-bit K-quant.
    Q6K = 14, "q6_k", QK_K, QK_K / 2 + QK_K / 4 + QK_K / 16 + 2;
    /// 8-bit K-quant: single-precision scale, 16-bit sums of sixteen.
    Q8K = 15, "q8_k", QK_K, 4 + QK_K + QK_K / 16 * 2;
    /// 4 bits that stand for sixteen uneven steps, half scale.
    IQ4NL = 20, "iq4_nl", QK, 2 + QK / 2;
    /// The upper half of IEEE single precision.
    BF16 = 30, "bf16", 1, 2;
}

/// Names of the types ggml defines and this build does not read.
fn unread_name(id: u32) -> Option<&'static str> {
    Some(match id {
        16 => "iq2_xxs",
        17 => "iq2_xs",
        18 => "iq3_xxs",
        19 => "iq1_s",
        21 => "iq3_s",
        22 => "iq2_s",
        23 => "iq4_xs",
        24 => "i8",
        25 => "i16",
        26 => "i32",
        27 => "i64",
        28 => "f64",
        29 => "iq1_m",
        34 => "tq1_0",
        35 => "tq2_0",
        39 => "mxfp4",
        _ => return None,
    })
}

impl GgmlType {
    /// The type with this number, or a sentence naming the types that can be read.
    ///
    /// # Errors
    /// `unsupported` for a type ggml knows, `invalid_format` for a number it does not.
    pub fn require(id: u32) -> Result<Self> {
        Self::from_id(id).ok_or_else(|| {
            let known: Vec<_> = Self::ALL.iter().map(|t| t.name()).collect();
            match unread_name(id) {
                Some(name) => Error::unsupported(format!("expected one of the types {}, got {name}", known.join(" "))),
                None => {
                    Error::invalid_format(format!("expected one of the types {}, got number {id}", known.join(" ")))
                }
            }
        })
    }

    /// Bytes of `row_len` values times `rows`, or none when they do not fill whole blocks or do not fit a `u64`.
    pub fn byte_len(self, row_len: u64, rows: u64) -> Option<u64> {
        let block = self.block_size() as u64;
        let blocks = row_len.is_multiple_of(block).then_some(row_len / block)?;
        blocks.checked_mul(rows)?.checked_mul(self.type_size() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    /// Block bytes as ggml's static assertions state them.
    #[test]
    fn sizes_match_ggml() {
        let sizes: Vec<_> = GgmlType::ALL.iter().map(|t| (t.name(), t.block_size(), t.type_size())).collect();
        let expected = [
            ("f32", 1, 4),
            ("f16", 1, 2),
            ("q4_0", 32, 18),
            ("q4_1", 32, 20),
            ("q5_0", 32, 22),
            ("q5_1", 32, 24),
            ("q8_0", 32, 34),
            ("q8_1", 32, 36),
            ("q2_k", 256, 84),
            ("q3_k", 256, 110),
            ("q4_k", 256, 144),
            ("q5_k", 256, 176),
            ("q6_k", 256, 210),
            ("q8_k", 256, 292),
            ("iq4_nl", 32, 18),
            ("bf16", 1, 2),
        ];
        assert_eq!(sizes, expected);
    }

    #[test]
    fn ids_round_trip_and_unknown_ones_are_refused() {
        for &t in GgmlType::ALL {
            assert_eq!(GgmlType::require(t.id()), Ok(t));
        }
        let e = GgmlType::require(23).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Unsupported);
        assert!(e.to_string().ends_with("got iq4_xs"), "{e}");
        assert_eq!(GgmlType::require(4).unwrap_err().kind(), ErrorKind::InvalidFormat);
        assert_eq!(GgmlType::require(u32::MAX).unwrap_err().kind(), ErrorKind::InvalidFormat);
    }

    #[test]
    fn byte_len_wants_whole_blocks_and_never_wraps() {
        assert_eq!(GgmlType::Q4_0.byte_len(64, 3), Some(2 * 18 * 3));
        assert_eq!(GgmlType::Q4_0.byte_len(33, 1), None);
        assert_eq!(GgmlType::F32.byte_len(1 << 40, 1 << 40), None);
        assert_eq!(GgmlType::F32.byte_len(1, u64::MAX), None);
    }
}
