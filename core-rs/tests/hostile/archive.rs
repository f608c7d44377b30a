//! A writer of zip archives that can lie, for checkpoints of PyTorch. Shared with the fuzzer.

/// One file of an archive; what the directory and the file's own header say of it can be changed apart.
#[derive(Clone)]
pub struct Entry {
    pub name: String,
    pub bytes: Vec<u8>,
    pub flags: u16,
    pub method: u16,
    /// In the directory; the file's own header has the true ones.
    pub told_name: Option<String>,
    pub told_len: Option<u32>,
    pub told_packed_len: Option<u32>,
    pub told_offset: Option<u32>,
    pub extra: Vec<u8>,
}

impl Entry {
    pub fn new(name: &str, bytes: &[u8]) -> Self {
        Self {
            name: name.into(),
            bytes: bytes.into(),
            flags: 0,
            method: 0,
            told_name: None,
            told_len: None,
            told_packed_len: None,
            told_offset: None,
            extra: Vec::new(),
        }
    }

    fn local(&self) -> Vec<u8> {
        let len = (self.bytes.len() as u32).to_le_bytes();
        let mut out = b"PK\x03\x04\0\0".to_vec();
        out.extend(self.flags.to_le_bytes());
        out.extend(self.method.to_le_bytes());
        out.extend([0; 8]);
        out.extend([len, len].concat());
        out.extend((self.name.len() as u16).to_le_bytes());
        out.extend([0; 2]);
        out.extend(self.name.as_bytes());
        out.extend(&self.bytes);
        out
    }

    fn central(&self, offset: u32) -> Vec<u8> {
        let len = self.bytes.len() as u32;
        let name = self.told_name.as_ref().unwrap_or(&self.name);
        let mut out = b"PK\x01\x02\0\0\0\0".to_vec();
        out.extend(self.flags.to_le_bytes());
        out.extend(self.method.to_le_bytes());
        out.extend([0; 8]);
        out.extend(self.told_packed_len.unwrap_or(len).to_le_bytes());
        out.extend(self.told_len.unwrap_or(len).to_le_bytes());
        out.extend((name.len() as u16).to_le_bytes());
        out.extend((self.extra.len() as u16).to_le_bytes());
        out.extend([0; 10]);
        out.extend(self.told_offset.unwrap_or(offset).to_le_bytes());
        out.extend(name.as_bytes());
        out.extend(&self.extra);
        out
    }
}

/// What the end of an archive says; change a field to lie.
pub struct End {
    pub count: u16,
    pub size: u32,
    pub offset: u32,
    pub comment: Vec<u8>,
    /// The bytes before the end: a Zip64 end and its locator.
    pub zip64: Vec<u8>,
}

/// An archive of these files.
pub fn archive(entries: &[Entry]) -> Vec<u8> {
    archive_with(entries, |_| {})
}

/// The same, with an end that `lie` has changed.
pub fn archive_with(entries: &[Entry], lie: impl FnOnce(&mut End)) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for entry in entries {
        directory.extend(entry.central(out.len() as u32));
        out.extend(entry.local());
    }
    let (size, offset) = (directory.len() as u32, out.len() as u32);
    let mut end = End { count: entries.len() as u16, size, offset, comment: Vec::new(), zip64: Vec::new() };
    lie(&mut end);
    out.extend(directory);
    out.extend(end.zip64);
    out.extend(b"PK\x05\x06\0\0\0\0");
    out.extend([end.count.to_le_bytes(), end.count.to_le_bytes()].concat());
    out.extend([end.size.to_le_bytes(), end.offset.to_le_bytes()].concat());
    out.extend((end.comment.len() as u16).to_le_bytes());
    out.extend(end.comment);
    out
}

/// A Zip64 end and its locator for a directory of these numbers.
pub fn zip64(count: u64, size: u64, offset: u64, at: u64) -> Vec<u8> {
    let mut out = b"PK\x06\x06".to_vec();
    out.extend(44u64.to_le_bytes());
    out.extend([0; 12]);
    out.extend([count, count, size, offset].map(u64::to_le_bytes).concat());
    out.extend(b"PK\x06\x07\0\0\0\0");
    out.extend(at.to_le_bytes());
    out.extend(1u32.to_le_bytes());
    out
}
