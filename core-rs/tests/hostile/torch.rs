//! PyTorch checkpoints: archives that lie or explode, storages and tensors that do not fit.

use llamero::error::ErrorKind::{self, InvalidFormat, Unsupported};
use llamero::formats::torch;

use crate::archive::{End, Entry, archive, archive_with, zip64};
use crate::pickle::Pickle;
use crate::{assert_every_cut_refused, assert_refused};

#[track_caller]
fn refused(bytes: &[u8], kind: ErrorKind, wanted: &str) {
    assert_refused(|bytes| torch::parse(bytes, 0), bytes, kind, wanted);
}

/// A lie of the end of an archive.
type ChangeEnd = fn(&mut End);

/// What a tensor says of itself; change a field to lie.
struct Tensor {
    tag: &'static str,
    module: &'static str,
    class: &'static str,
    key: &'static str,
    count: i64,
    offset: i64,
    shape: &'static [i64],
    strides: &'static [i64],
}

/// Of the storage `0` of six values, which `files` has.
const HONEST: Tensor = Tensor {
    tag: "storage",
    module: "torch",
    class: "HalfStorage",
    key: "0",
    count: 6,
    offset: 0,
    shape: &[2, 3],
    strides: &[3, 1],
};

impl Tensor {
    fn storage(&self, p: Pickle) -> Pickle {
        let id =
            |p: Pickle| p.text(self.tag).global(self.module, self.class).text(self.key).text("cpu").int(self.count);
        p.tuple(id).op(b'Q')
    }

    fn rebuilt(&self, p: Pickle) -> Pickle {
        p.call("torch._utils", "_rebuild_tensor_v2", |p| {
            let p = self.storage(p).int(self.offset).sizes(self.shape).sizes(self.strides);
            p.op(0x89).call("collections", "OrderedDict", |p| p)
        })
    }

    fn file(&self) -> Vec<u8> {
        archive(&files(|p| self.rebuilt(p)))
    }
}

/// The files of a checkpoint with one value under `w` and one storage of twelve bytes.
fn files(value: impl FnOnce(Pickle) -> Pickle) -> Vec<Entry> {
    let pickle = Pickle::new(2).dict(|p| value(p.text("w"))).stop();
    vec![
        Entry::new("m/data.pkl", &pickle),
        Entry::new("m/byteorder", b"little"),
        Entry::new("m/data/0", b"abcdefghijkl"),
    ]
}

/// The files of an honest checkpoint.
fn honest() -> Vec<Entry> {
    files(|p| HONEST.rebuilt(p))
}

fn changed(change: impl FnOnce(&mut Vec<Entry>)) -> Vec<u8> {
    let mut files = honest();
    change(&mut files);
    archive(&files)
}

#[test]
fn an_honest_checkpoint_is_read() {
    let bytes = archive(&honest());
    let tensors = torch::parse(&bytes, 0).unwrap();
    assert_eq!((tensors[0].shape.as_slice(), tensors[0].column_major), (&[2, 3][..], false));
    assert_eq!(tensors[0].bytes(&[&bytes]).unwrap(), b"abcdefghijkl".as_slice());
    assert_every_cut_refused(|bytes| torch::parse(bytes, 0), &bytes);
    let turned = Tensor { strides: &[1, 2], ..HONEST }.file();
    let tensors = torch::parse(&turned, 0).unwrap();
    assert!(tensors[0].column_major);
    let part = Tensor { offset: 4, shape: &[2, 1], strides: &[1, 9], ..HONEST }.file();
    assert_eq!(torch::parse(&part, 0).unwrap()[0].bytes(&[&part]).unwrap(), b"ijkl".as_slice());
}

#[test]
fn pickles_in_archives_run_nothing() {
    let bytes = archive(&files(|p| p.call("os", "system", |p| p.text("id"))));
    refused(&bytes, Unsupported, "expected only functions that rebuild arrays, got os.system");
    let bytes = archive(&files(|p| p.call("torch._utils", "_rebuild_qtensor", |p| p)));
    refused(&bytes, Unsupported, "got torch._utils._rebuild_qtensor");
    let script = archive(&files(|p| p.global("__torch__.m", "Model")));
    refused(&script, Unsupported, "got __torch__.m.Model");
}

#[test]
fn storages_and_tensors_that_lie_are_refused() {
    let cases = [
        (Tensor { tag: "module", ..HONEST }, Unsupported, "the persistent id of a storage, got another"),
        (Tensor { module: "collections", class: "OrderedDict", ..HONEST }, InvalidFormat, "got OrderedDict"),
        (Tensor { module: "torch", class: "float16", ..HONEST }, InvalidFormat, "got float16"),
        (Tensor { module: "torch.storage", class: "UntypedStorage", ..HONEST }, InvalidFormat, "got UntypedStorage"),
        (Tensor { class: "QInt8Storage", ..HONEST }, Unsupported, "got torch.QInt8Storage"),
        (Tensor { key: "1", ..HONEST }, InvalidFormat, r#"expected a file "1" of its bytes, got none"#),
        (Tensor { key: "../data.pkl", ..HONEST }, InvalidFormat, "of its bytes, got none"),
        (Tensor { count: 7, ..HONEST }, InvalidFormat, "expected 7 values of 2 bytes, got 12"),
        (Tensor { count: 1 << 62, ..HONEST }, InvalidFormat, "of 2 bytes, got 12"),
        (Tensor { count: i64::MAX, ..HONEST }, InvalidFormat, "of 2 bytes, got 12"),
        (Tensor { count: -6, ..HONEST }, InvalidFormat, "expected a size from 0 to"),
        (Tensor { class: "FloatStorage", ..HONEST }, InvalidFormat, "expected 6 values of 4 bytes, got 12"),
        (Tensor { offset: 1, ..HONEST }, InvalidFormat, "from value 1 in its storage, got 12 bytes"),
        (Tensor { offset: -1, ..HONEST }, InvalidFormat, "expected a size from 0 to"),
        (Tensor { offset: i64::MAX, ..HONEST }, InvalidFormat, "in its storage, got 12 bytes"),
        (Tensor { shape: &[3, 3], ..HONEST }, InvalidFormat, "in its storage, got 12 bytes"),
        (Tensor { shape: &[1 << 62, 3], ..HONEST }, InvalidFormat, "in its storage, got 12 bytes"),
        (Tensor { shape: &[6], ..HONEST }, InvalidFormat, "a stride for each dimension of [6], got [3, 1]"),
        (Tensor { shape: &[1; 9], strides: &[1; 9], ..HONEST }, InvalidFormat, "at most 8 sizes, got 9"),
    ];
    for (tensor, kind, wanted) in cases {
        refused(&tensor.file(), kind, wanted);
    }
    let short = files(|p| p.call("torch._utils", "_rebuild_tensor_v2", |p| p.int(1)));
    refused(&archive(&short), InvalidFormat, "expected 6 arguments of a tensor, got 1");
    let inside =
        files(|p| p.call("torch._utils", "_rebuild_tensor_v2", |p| p.text("0").int(0).sizes(&[1]).sizes(&[1])));
    refused(&archive(&inside), InvalidFormat, "storage: expected a persistent id, got a text");
    // Views are there and refuse to be read: their strides lead nowhere, as nobody follows them.
    let view = Tensor { strides: &[i64::MAX, 1 << 62], ..HONEST }.file();
    let e = torch::parse(&view, 0).unwrap()[0].bytes(&[&view]).unwrap_err();
    assert_eq!((e.kind(), e.to_string().ends_with("got a strided view")), (Unsupported, true));
}

#[test]
fn archives_without_their_parts_are_refused() {
    refused(b"not a zip", InvalidFormat, "expected a zip archive that ends with its directory");
    refused(b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.", Unsupported, "PyTorch before 1.6");
    refused(&archive(&[]), InvalidFormat, "expected one file NAME/data.pkl in the archive, got 0");
    refused(&archive(&honest()[1..]), InvalidFormat, "got 0");
    refused(&changed(|files| files.push(Entry::new("n/data.pkl", b""))), InvalidFormat, "got 2");
    refused(&changed(|files| files[0].name = "a/m/data.pkl".into()), InvalidFormat, "got 0");
    refused(&changed(|files| files[0].name = "data.pkl".into()), InvalidFormat, "got 0");
    refused(&changed(|files| files[1].bytes = b"big".into()), Unsupported, "expected the byte order little");
    refused(&changed(|files| files[0].bytes.clear()), InvalidFormat, "reading pickle: file ends early");
}

#[test]
fn compressed_and_encrypted_files_are_refused() {
    // 42 kB that would become gigabytes: nothing here unpacks.
    for (method, wanted) in [(8, "compression method 8"), (12, "compression method 12"), (99, "method 99")] {
        refused(&changed(|files| files[2].method = method), Unsupported, wanted);
    }
    for bit in [0, 6, 13] {
        refused(&changed(|files| files[2].flags = 1 << bit), Unsupported, "expected a file that is not encrypted");
    }
    // torch sets the flags of data descriptors and of UTF-8 names.
    assert!(torch::parse(&changed(|files| files[2].flags = 0x0808), 0).is_ok());
}

#[test]
fn directories_that_lie_are_refused() {
    let end_of_data = archive(&honest()).windows(4).position(|w| w == b"PK\x01\x02").unwrap() as u32;
    let cases: [(Vec<u8>, &str); 12] = [
        (changed(|files| files[2].told_len = Some(13)), "expected 13 bytes, got 12"),
        (changed(|files| (files[2].told_len, files[2].told_packed_len) = (Some(13), Some(13))), "file ends early"),
        (changed(|files| files[2].told_len = Some(u32::MAX)), "Zip64 sizes of file"),
        (changed(|files| files[2].told_offset = Some(0)), "expected a header as in the directory"),
        (changed(|files| files[2].told_offset = Some(end_of_data)), "expected a header, got byte"),
        (changed(|files| files[2].told_offset = Some(u32::MAX - 1)), "expected a header, got byte 4294967294"),
        (changed(|files| files[2].told_name = Some("m/data/1".into())), "expected a header as in the directory"),
        (changed(|files| files[1].name = files[2].name.clone()), "expected each name once, got it twice"),
        (changed(|files| files[2].name = "n".repeat(1025)), "a file name of at most 1024 bytes, got 1025"),
        (changed(|files| files[2].extra = vec![1, 0, 99, 0]), "extra field: file ends early"),
        (archive_with(&honest(), |end| end.count = 2), "expected 2 files, got"),
        (archive_with(&honest(), |end| end.count = 4), "in a directory of 167 bytes, got 4"),
    ];
    for (bytes, wanted) in cases {
        refused(&bytes, InvalidFormat, wanted);
    }
    let ends: [(ChangeEnd, &str); 5] = [
        (|end| end.count = u16::MAX, "got 65535"),
        (|end| end.size += 1, "expected the directory to end at byte"),
        (|end| end.offset = u32::MAX, "expected the directory to end at byte"),
        (|end| end.offset -= 1, "expected the directory to end at byte"),
        (|end| end.comment = b"x".into(), "expected a zip archive that ends with its directory"),
    ];
    for (lie, wanted) in ends {
        refused(&archive_with(&honest(), lie), InvalidFormat, wanted);
    }
    refused(
        &[b"#!/bin/sh\n", &archive(&honest())[..]].concat(),
        InvalidFormat,
        "expected the directory to end at byte",
    );
}

/// Two names for the same bytes, and a file inside another: how small archives unpack to large ones.
#[test]
fn files_that_overlap_are_refused() {
    let twice = changed(|files| {
        let mut again = files[2].clone();
        again.told_offset = None;
        files.push(again);
        files[3].told_name = Some("m/data/1".into());
    });
    refused(&twice, InvalidFormat, "expected a header as in the directory");
    let inner = archive(&[Entry::new("m/data/1", b"xy")]);
    let within = changed(|files| {
        files[2].bytes = inner[..40].into();
        files.push(Entry::new("m/data/1", b"xy"));
        // The header lies at the start of the bytes of the file before.
        let start = files[..2].iter().map(|f| 30 + f.name.len() + f.bytes.len()).sum::<usize>() + 30 + 8;
        files[3].told_offset = Some(start as u32);
    });
    refused(&within, InvalidFormat, "expected files apart, got one to byte");
}

#[test]
fn zip64_ends_must_agree() {
    let plain = archive(&honest());
    let offset = plain.windows(4).position(|w| w == b"PK\x01\x02").unwrap() as u64;
    let size = (plain.len() - 22) as u64 - offset;
    let with =
        |count: u64, size: u64, at: u64| archive_with(&honest(), |end| end.zip64 = zip64(count, size, offset, at));
    let at = offset + size;
    assert!(torch::parse(&with(3, size, at), 0).is_ok());
    let narrow = archive_with(&honest(), |end| {
        (end.count, end.size, end.offset) = (u16::MAX, u32::MAX, u32::MAX);
        end.zip64 = zip64(3, size, offset, at);
    });
    assert!(torch::parse(&narrow, 0).is_ok());
    assert_every_cut_refused(|bytes| torch::parse(bytes, 0), &narrow);
    refused(&with(4, size, at), InvalidFormat, "two directory ends that agree");
    refused(&with(3, size + 1, at), InvalidFormat, "two directory ends that agree");
    refused(&with(3, size, at - 1), InvalidFormat, "expected a Zip64 end before its locator");
    let wrong = archive_with(&honest(), |end| {
        end.count = u16::MAX;
        end.zip64 = zip64(u64::MAX, size, offset, at);
    });
    refused(&wrong, InvalidFormat, "expected at most 65536 files");
}
