//! Zip archives of files that are stored as they are: which files, and where their bytes lie.
//!
//! Strict where general readers are lenient, so that nobody can read another file out of the same bytes: the directory
//! ends the archive, what it says twice agrees, names come once, and files lie apart. Compressed and encrypted files
//! are refused: weights are used in place, and what is not unpacked cannot explode.
//!
//! Layout: PKWARE's APPNOTE, sections 4.3 and 4.5.3. Absent: checksums, which would take a pass over all bytes.

use std::collections::BTreeMap;
use std::ops::Range;

use super::cursor::Cursor;
use crate::error::{Error, Result};

/// Most files of one archive: a tensor takes one.
const MAX_ENTRIES: u64 = 1 << 16;
/// Longest file name in bytes.
const MAX_NAME_LEN: u64 = 1 << 10;

const END: u64 = 0x0605_4B50;
const END_LEN: usize = 22;
const END64: u64 = 0x0606_4B50;
const END64_LEN: usize = 56;
const LOCATOR: u64 = 0x0706_4B50;
const LOCATOR_LEN: usize = 20;
const CENTRAL: u64 = 0x0201_4B50;
const CENTRAL_LEN: u64 = 46;
const LOCAL: u64 = 0x0403_4B50;
/// Encrypted, strongly encrypted, or with a masked directory.
const FLAGS_ENCRYPTED: u64 = 1 | 1 << 6 | 1 << 13;
const STORED: u64 = 0;
/// The extra field with sizes that do not fit 32 bits.
const EXTRA_ZIP64: u64 = 1;
/// In the place of a number that the Zip64 record or field has.
const IN_ZIP64: u64 = u32::MAX as u64;
const IN_ZIP64_SHORT: u64 = u16::MAX as u64;

/// The files of an archive: names and the ranges of their bytes.
///
/// # Errors
/// `invalid_format` when the bytes break a rule of the format or a limit of this module, `unsupported` for compressed,
/// encrypted or split archives.
pub(super) fn files(bytes: &[u8]) -> Result<BTreeMap<&str, Range<usize>>> {
    let directory = Directory::find(bytes)?;
    let mut cursor = Cursor::at(&bytes[..directory.range.end], directory.range.start);
    let (mut files, mut places) = (BTreeMap::new(), Vec::new());
    for _ in 0..directory.count {
        let entry = Entry::read(&mut cursor)?;
        let name = entry.name;
        let context = |e: Error| e.context(format_args!("file {name:?}"));
        let place = entry.place(&bytes[..directory.range.start]).map_err(context)?;
        places.push((entry.offset, place.end));
        if files.insert(name, place).is_some() {
            return Err(context(Error::invalid_format("expected each name once, got it twice")));
        }
    }
    if cursor.remaining() > 0 {
        let rest = cursor.remaining();
        return Err(Error::invalid_format(format!("expected {} files, got {rest} bytes more", directory.count)));
    }
    check_apart(places)?;
    Ok(files)
}

/// Refuses files that share bytes; a file begins at its header.
fn check_apart(mut places: Vec<(u64, usize)>) -> Result<()> {
    places.sort_unstable();
    match places.windows(2).find(|pair| pair[0].1 as u64 > pair[1].0) {
        Some(pair) => Err(Error::invalid_format(format!(
            "expected files apart, got one to byte {} and one from byte {}",
            pair[0].1, pair[1].0
        ))),
        None => Ok(()),
    }
}

/// Where the central directory lies and how many files it lists.
struct Directory {
    count: u64,
    range: Range<usize>,
}

impl Directory {
    fn find(bytes: &[u8]) -> Result<Self> {
        let end = bytes.len().checked_sub(END_LEN).ok_or_else(|| not_an_archive(bytes))?;
        let mut cursor = Cursor::at(bytes, end);
        if cursor.number(4)? != END {
            return Err(not_an_archive(bytes));
        }
        let [disk, directory_disk, count_here, count] = numbers(&mut cursor, [2, 2, 2, 2])?;
        let [size, offset, comment] = numbers(&mut cursor, [4, 4, 2])?;
        if [disk, directory_disk, comment] != [0, 0, 0] || count_here != count {
            return Err(Error::unsupported("expected an archive of one part and no comment, got another"));
        }
        match Self::find_zip64(bytes, end)? {
            None => Self::checked(count, size, offset, end),
            Some((wide, end)) => {
                let told = [(count, IN_ZIP64_SHORT), (size, IN_ZIP64), (offset, IN_ZIP64)];
                let differs = |((narrow, absent), wide): (&(u64, u64), &u64)| narrow != absent && narrow != wide;
                if told.iter().zip(&wide).any(differs) {
                    return Err(Error::invalid_format("expected two directory ends that agree, got others"));
                }
                let [count, size, offset] = wide;
                Self::checked(count, size, offset, end)
            }
        }
    }

    /// Count, size and offset of the Zip64 record if there is one, and where that begins.
    fn find_zip64(bytes: &[u8], end: usize) -> Result<Option<([u64; 3], usize)>> {
        let Some(locator) = end.checked_sub(LOCATOR_LEN) else { return Ok(None) };
        let mut cursor = Cursor::at(bytes, locator);
        let [signature, disk, at, disks] = numbers(&mut cursor, [4, 4, 8, 4])?;
        if signature != LOCATOR {
            return Ok(None);
        }
        let start = locator.checked_sub(END64_LEN).filter(|&start| at == start as u64 && disk == 0 && disks == 1);
        let start = start.ok_or_else(|| Error::invalid_format("expected a Zip64 end before its locator, got none"))?;
        let mut cursor = Cursor::at(bytes, start);
        let [signature, len, _versions, disk, directory_disk] = numbers(&mut cursor, [4, 8, 4, 4, 4])?;
        let [count_here, count, size, offset] = numbers(&mut cursor, [8, 8, 8, 8])?;
        let is_right = signature == END64 && len == END64_LEN as u64 - 12 && [disk, directory_disk] == [0, 0];
        if !is_right || count_here != count {
            return Err(Error::invalid_format("expected a Zip64 end of one part, got another record"));
        }
        Ok(Some(([count, size, offset], start)))
    }

    /// The directory must fill the bytes from `offset` to `end`.
    fn checked(count: u64, size: u64, offset: u64, end: usize) -> Result<Self> {
        if offset.checked_add(size) != Some(end as u64) {
            return Err(Error::invalid_format(format!(
                "expected the directory to end at byte {end}, got {size} bytes at byte {offset}"
            )));
        }
        if count > MAX_ENTRIES || count * CENTRAL_LEN > size {
            return Err(Error::invalid_format(format!(
                "expected at most {MAX_ENTRIES} files in a directory of {size} bytes, got {count}"
            )));
        }
        Ok(Self { count, range: offset as usize..end })
    }
}

/// A file as the directory has it.
struct Entry<'a> {
    name: &'a str,
    flags: u64,
    method: u64,
    packed_len: u64,
    len: u64,
    /// Where its own header begins.
    offset: u64,
}

impl<'a> Entry<'a> {
    fn read(cursor: &mut Cursor<'a>) -> Result<Self> {
        let [signature, _versions, flags, method, _time, _checksum] = numbers(cursor, [4, 4, 2, 2, 4, 4])?;
        let [mut packed_len, mut len, name_len, extra_len, comment_len] = numbers(cursor, [4, 4, 2, 2, 2])?;
        let [disk, _attributes, mut offset] = numbers(cursor, [2, 6, 4])?;
        if signature != CENTRAL || disk != 0 {
            return Err(Error::invalid_format("expected a file in the directory, got another record"));
        }
        let name = file_name(cursor, name_len)?;
        let extra = cursor.take(extra_len as usize)?;
        cursor.take(comment_len as usize)?;
        let mut zip64 = zip64_field(extra)?;
        for narrow in [&mut len, &mut packed_len, &mut offset] {
            if *narrow == IN_ZIP64 {
                *narrow = zip64.number(8).map_err(|e| e.context(format_args!("Zip64 sizes of file {name:?}")))?;
            }
        }
        Ok(Self { name, flags, method, packed_len, len, offset })
    }

    /// Where the bytes lie, in `bytes` that end where the directory begins.
    fn place(&self, bytes: &[u8]) -> Result<Range<usize>> {
        if self.flags & FLAGS_ENCRYPTED != 0 {
            return Err(Error::unsupported("expected a file that is not encrypted, got an encrypted one"));
        }
        if self.method != STORED {
            return Err(Error::unsupported(format!(
                "expected a file that is stored uncompressed, got compression method {}",
                self.method
            )));
        }
        if self.packed_len != self.len {
            return Err(Error::invalid_format(format!("expected {} bytes, got {}", self.len, self.packed_len)));
        }
        let start = usize::try_from(self.offset).ok().filter(|&start| start < bytes.len());
        let start =
            start.ok_or_else(|| Error::invalid_format(format!("expected a header, got byte {}", self.offset)))?;
        let mut cursor = Cursor::at(bytes, start);
        let [signature, _version, flags, method, _time, _checksum] = numbers(&mut cursor, [4, 2, 2, 2, 4, 4])?;
        let [_packed_len, _len, name_len, extra_len] = numbers(&mut cursor, [4, 4, 2, 2])?;
        let name = file_name(&mut cursor, name_len)?;
        if signature != LOCAL || (flags, method, name) != (self.flags, self.method, self.name) {
            return Err(Error::invalid_format("expected a header as in the directory, got another"));
        }
        cursor.take(extra_len as usize)?;
        cursor.take_range(self.len)
    }
}

fn file_name<'a>(cursor: &mut Cursor<'a>, len: u64) -> Result<&'a str> {
    if len > MAX_NAME_LEN {
        return Err(Error::invalid_format(format!("expected a file name of at most {MAX_NAME_LEN} bytes, got {len}")));
    }
    std::str::from_utf8(cursor.take(len as usize)?)
        .map_err(|e| Error::invalid_format(format!("expected a file name in UTF-8, got {e}")))
}

/// The content of the Zip64 field, which is empty when there is none.
fn zip64_field(extra: &[u8]) -> Result<Cursor<'_>> {
    let mut cursor = Cursor::at(extra, 0);
    while cursor.remaining() >= 4 {
        let [id, len] = numbers(&mut cursor, [2, 2])?;
        let content = cursor.take(len as usize).map_err(|e| e.context("extra field"))?;
        if id == EXTRA_ZIP64 {
            return Ok(Cursor::at(content, 0));
        }
    }
    Ok(Cursor::at(&[], 0))
}

/// Little-endian numbers of these widths.
fn numbers<const N: usize>(cursor: &mut Cursor, widths: [usize; N]) -> Result<[u64; N]> {
    let mut out = [0; N];
    for (number, width) in out.iter_mut().zip(widths) {
        *number = cursor.number(width)?;
    }
    Ok(out)
}

fn not_an_archive(bytes: &[u8]) -> Error {
    let start = bytes[..bytes.len().min(4)].escape_ascii();
    Error::invalid_format(format!(
        "expected a zip archive that ends with its directory, got {} bytes beginning with \"{start}\"",
        bytes.len()
    ))
}
