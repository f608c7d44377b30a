//! Pickles: code that would run, opcodes that are not of data, bombs, lengths, and arrays that lie.

use llamero::error::ErrorKind::{self, InvalidFormat, Unsupported};
use llamero::formats::pdparams;

use crate::{assert_every_cut_refused, assert_refused};

/// A pickle under construction; each method adds an opcode.
#[derive(Clone, Default)]
pub(crate) struct Pickle(Vec<u8>);

impl Pickle {
    pub(crate) fn new(protocol: u8) -> Self {
        Self(vec![0x80, protocol])
    }

    pub(crate) fn op(mut self, code: u8) -> Self {
        self.0.push(code);
        self
    }

    pub(crate) fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    pub(crate) fn text(self, text: &str) -> Self {
        self.op(b'X').raw(&(text.len() as u32).to_le_bytes()).raw(text.as_bytes())
    }

    pub(crate) fn bytes(self, bytes: &[u8]) -> Self {
        self.op(b'B').raw(&(bytes.len() as u32).to_le_bytes()).raw(bytes)
    }

    /// LONG1 of eight bytes.
    pub(crate) fn int(self, n: i64) -> Self {
        self.op(0x8A).op(8).raw(&n.to_le_bytes())
    }

    pub(crate) fn global(self, module: &str, name: &str) -> Self {
        self.op(b'c').raw(format!("{module}\n{name}\n").as_bytes())
    }

    /// The values that `fill` makes, as a tuple.
    pub(crate) fn tuple(self, fill: impl FnOnce(Self) -> Self) -> Self {
        fill(self.op(b'(')).op(b't')
    }

    pub(crate) fn sizes(self, sizes: &[i64]) -> Self {
        self.tuple(|p| sizes.iter().fold(p, |p, &size| p.int(size)))
    }

    /// A call with the arguments that `fill` makes.
    pub(crate) fn call(self, module: &str, name: &str, fill: impl FnOnce(Self) -> Self) -> Self {
        self.global(module, name).tuple(fill).op(b'R')
    }

    /// A dictionary of the keys and values that `fill` makes.
    pub(crate) fn dict(self, fill: impl FnOnce(Self) -> Self) -> Self {
        fill(self.op(b'}').op(b'(')).op(b'u')
    }

    pub(crate) fn dtype(self, name: &str) -> Self {
        let state = |p: Self| {
            let p = p.int(3).text("<").op(b'N').op(b'N').op(b'N');
            p.int(-1).int(-1).int(0)
        };
        self.call("numpy", "dtype", |p| p.text(name).op(0x89).op(0x88)).tuple(state).op(b'b')
    }

    /// The call that makes an array without its state.
    fn reconstruct(self, class: impl FnOnce(Self) -> Self) -> Self {
        self.call("numpy.core.multiarray", "_reconstruct", |p| class(p).sizes(&[0]).bytes(b"b"))
    }

    fn ndarray(self) -> Self {
        self.global("numpy", "ndarray")
    }

    /// An array of the shape, type and bytes that the functions make.
    fn array_of(self, shape: impl Fn(Self) -> Self, dtype: &str, bytes: impl Fn(Self) -> Self) -> Self {
        let state = |p: Self| bytes(shape(p.int(1)).dtype(dtype).op(0x89));
        self.reconstruct(Self::ndarray).tuple(state).op(b'b')
    }

    pub(crate) fn array(self, shape: &[i64], dtype: &str, bytes: &[u8]) -> Self {
        self.array_of(|p| p.sizes(shape), dtype, |p| p.bytes(bytes))
    }

    pub(crate) fn stop(self) -> Vec<u8> {
        self.op(b'.').0
    }
}

/// A checkpoint of one value under the name `w`.
fn with_value(fill: impl FnOnce(Pickle) -> Pickle) -> Vec<u8> {
    Pickle::new(2).dict(|p| fill(p.text("w"))).stop()
}

#[track_caller]
fn refused(bytes: &[u8], kind: ErrorKind, wanted: &str) {
    assert_refused(|bytes| pdparams::parse(bytes, 0), bytes, kind, wanted);
}

#[test]
fn an_honest_array_is_read() {
    let bytes = with_value(|p| p.array(&[2, 1], "f2", &[1, 2, 3, 4]));
    let tensors = pdparams::parse(&bytes, 0).unwrap();
    assert_eq!((tensors[0].name.as_str(), tensors[0].shape.as_slice()), ("w", &[2, 1][..]));
    assert_eq!(tensors[0].bytes(&[&bytes]).unwrap(), [1, 2, 3, 4].as_slice());
    assert_every_cut_refused(|bytes| pdparams::parse(bytes, 0), &bytes);
}

/// The functions of known attacks, and some that are near the known names.
#[test]
fn functions_that_would_run_are_named_and_not_run() {
    let functions = [
        ("os", "system"),
        ("posix", "system"),
        ("nt", "system"),
        ("subprocess", "Popen"),
        ("builtins", "eval"),
        ("__builtin__", "exec"),
        ("builtins", "getattr"),
        ("builtins", "__import__"),
        ("builtins", "open"),
        ("runpy", "run_path"),
        ("pickle", "loads"),
        ("socket", "socket"),
        ("webbrowser", "open"),
        ("functools", "partial"),
        ("operator", "attrgetter"),
        ("numpy", "load"),
        ("numpy", "memmap"),
        ("numpy.testing._private.utils", "runstring"),
        ("numpy.f2py", "compile"),
        ("numpy", "core.multiarray._reconstruct"),
        ("torch", "load"),
        ("torch", "hub.load"),
        ("torch._utils", "_import_dotted_name"),
        ("torch.storage", "_load_from_bytes"),
        ("torch.serialization", "load"),
        ("paddle", "load"),
        ("collections", "OrderedDict.fromkeys"),
        ("collections", "defaultdict"),
        ("copyreg", "_reconstructor"),
        ("_codecs", "decode"),
        ("codecs", "encode"),
        ("", ""),
    ];
    let folder = tempfile::tempdir().unwrap();
    let witness = folder.path().join("ran");
    let command = format!("touch '{}'", witness.display());
    for (module, name) in functions {
        let wanted = format!("expected only functions that rebuild arrays, got {module}.{name} (refused");
        let payload = |p: Pickle| p.call(module, name, |p| p.text(&command));
        refused(&Pickle::new(2).call(module, name, |p| p.text(&command)).stop(), Unsupported, &wanted);
        refused(&with_value(payload), Unsupported, &wanted);
        for protocol in 2..=5 {
            let by_stack = Pickle::new(protocol).text(module).text(name).op(0x93).tuple(|p| p.text(&command)).op(b'R');
            refused(&by_stack.stop(), Unsupported, &wanted);
        }
        // Named in a place where nobody would look: a name is refused when it is read.
        let unused = Pickle::new(2).dict(|p| p.text("a").op(b']').global(module, name).op(b'a'));
        refused(&unused.stop(), Unsupported, &wanted);
    }
    assert!(!witness.exists());
    assert_eq!(folder.path().read_dir().unwrap().count(), 0);
}

#[test]
fn names_are_shown_without_control_characters() {
    let bytes = Pickle::new(2).global("os\r\x1b[2J", "sys\0tem\u{ff}").stop();
    refused(&bytes, Unsupported, r"got os\r\x1b[2J.sys\x00tem\xc3\xbf");
    refused(&Pickle::new(2).global(&"m".repeat(129), "n").stop(), InvalidFormat, "a name that is longer");
    refused(&Pickle::new(4).text(&"m".repeat(129)).text("n").op(0x93).stop(), InvalidFormat, "got 129 bytes");
    refused(&Pickle::new(2).op(b'c').raw(&vec![b'm'; 10 << 20]).stop(), InvalidFormat, "a name that is longer");
    refused(&Pickle::new(2).op(b'c').raw(b"os").stop(), InvalidFormat, "and a line end, got the end of the file");
}

#[test]
fn opcodes_that_make_objects_are_refused_by_name() {
    let object = |p: Pickle| p.op(b'(').global("collections", "OrderedDict");
    let cases = [
        (Pickle::new(2).op(b'(').raw(b"ios\nsystem\n"), "INST"),
        (object(Pickle::new(2)).op(b'o'), "OBJ"),
        (object(Pickle::new(2)).op(b')').op(0x81), "NEWOBJ"),
        (object(Pickle::new(4)).op(b')').op(b'}').op(0x92), "NEWOBJ_EX"),
        (Pickle::new(2).op(0x82).op(1), "EXT1"),
        (Pickle::new(2).op(0x83).raw(&[1, 0]), "EXT2"),
        (Pickle::new(2).op(0x84).raw(&[1, 0, 0, 0]), "EXT4"),
        (Pickle::new(2).raw(b"Pid\n"), "PERSID"),
        (Pickle::new(2).text("id").op(b'Q'), "BINPERSID"),
        (Pickle::new(4).op(0x8F), "EMPTY_SET"),
        (Pickle::new(4).op(b']').op(b'(').op(0x90), "ADDITEMS"),
        (Pickle::new(4).op(b'(').op(0x91), "FROZENSET"),
        (Pickle::new(5).op(0x97), "NEXT_BUFFER"),
        (Pickle::new(5).bytes(b"").op(0x98), "READONLY_BUFFER"),
        (Pickle::new(2).op(0x80).op(2), "PROTO"),
        (Pickle::new(2).op(b'N').op(b'0'), "POP"),
        (Pickle::new(2).op(b'(').op(b'1'), "POP_MARK"),
        (Pickle::new(2).op(b'N').op(b'2'), "DUP"),
        (Pickle::new(2).raw(b"I1\n"), "INT"),
        (Pickle::new(2).raw(b"L1L\n"), "LONG"),
        (Pickle::new(2).raw(b"F1\n"), "FLOAT"),
        (Pickle::new(2).raw(b"S'a'\n"), "STRING"),
        (Pickle::new(2).raw(b"Va\n"), "UNICODE"),
        (Pickle::new(2).raw(b"g0\n"), "GET"),
        (Pickle::new(2).op(b'N').raw(b"p0\n"), "PUT"),
        (Pickle::new(2).op(b'(').op(b'd'), "DICT"),
        (Pickle::new(2).op(b'(').op(b'l'), "LIST"),
    ];
    for (pickle, name) in cases {
        refused(&pickle.stop(), Unsupported, name);
    }
    refused(&Pickle::new(2).op(0xFF).stop(), InvalidFormat, "expected a pickle opcode, got byte 0xff");
}

#[test]
fn calls_are_of_known_functions_with_tuples() {
    let cases = [
        (Pickle::new(2).text("os.system").op(b')').op(b'R'), "rebuilds arrays, got a text"),
        (Pickle::new(2).global("numpy", "ndarray").op(b')').op(b'R'), "rebuilds arrays, got ndarray"),
        (Pickle::new(2).global("numpy", "dtype").op(b']').op(b'R'), "a tuple of arguments, got a list of 0"),
        (Pickle::new(2).call("builtins", "tuple", |p| p), "expected one argument of tuple"),
        (Pickle::new(2).call("builtins", "tuple", |p| p.op(b']')), "the argument of tuple, got a list of 0"),
        (Pickle::new(4).int(1).int(2).op(0x93), "expected a name, got the integer 1"),
    ];
    for (pickle, wanted) in cases {
        refused(&pickle.stop(), InvalidFormat, wanted);
    }
    let torch = Pickle::new(2).global("torch", "HalfStorage").op(b')').op(b'R').stop();
    refused(&torch, InvalidFormat, "rebuilds arrays, got HalfStorage");
    let items = Pickle::new(2).call("collections", "OrderedDict", |p| p.op(b']')).stop();
    refused(&items, Unsupported, "OrderedDict without arguments");
}

#[test]
fn states_are_of_arrays_and_ordered_dictionaries() {
    let attributes = |p: Pickle| p.dict(|p| p.text("__class__").text("os"));
    let ordered = |p: Pickle| p.call("collections", "OrderedDict", |p| p);
    let array = |p: Pickle| p.reconstruct(Pickle::ndarray);
    let cases = [
        (attributes(Pickle::new(2).op(b'}')), "got a dictionary of 1 for a dictionary of 0"),
        (attributes(Pickle::new(2).op(b']')), "for a list of 0"),
        (attributes(Pickle::new(2).op(b')')), "for a tuple of 0"),
        (attributes(Pickle::new(2).text("a")), "for a text"),
        (attributes(Pickle::new(2).global("numpy", "ndarray")), "for ndarray"),
        (attributes(Pickle::new(2).call("_codecs", "encode", |p| p)), "for a value of encode"),
        (attributes(array(Pickle::new(2))), "got a dictionary of 1 for a value of _reconstruct"),
        (ordered(Pickle::new(2)).sizes(&[1]), "got a tuple of 1 for a dictionary of 0"),
        (array(Pickle::new(2)).sizes(&[1]).op(b'b').sizes(&[1]), "for a value of _reconstruct"),
    ];
    for (pickle, wanted) in cases {
        refused(&pickle.op(b'b').stop(), Unsupported, wanted);
    }
    let with_attributes = attributes(ordered(Pickle::new(2))).op(b'b').text("w").array(&[], "f4", &[0; 4]).op(b's');
    assert_eq!(pdparams::parse(&with_attributes.stop(), 0).unwrap().len(), 1);
}

#[test]
fn protocols_other_than_2_to_5_are_refused() {
    refused(b"(dp0\n.", Unsupported, "protocol 2 to 5, got bytes 0x28 0x64 (protocols 0 and 1");
    refused(b"}q\0.", Unsupported, "got bytes 0x7d 0x71");
    refused(b"cos\nsystem\n(S'id'\ntR.", Unsupported, "got bytes 0x63 0x6f");
    for protocol in [0, 1, 6, 255] {
        refused(&Pickle::new(protocol).op(b'}').stop(), Unsupported, &format!("got protocol {protocol}"));
    }
    refused(b"", InvalidFormat, "file ends early: wanted 1 bytes at byte 0, got 0");
}

#[test]
fn stacks_and_marks_do_not_run_dry() {
    for code in [b'.', b'a', b'q', 0x94, b'R', b'b', 0x93, b's'] {
        refused(&Pickle::new(2).op(code).op(0).stop(), InvalidFormat, "expected a value, got none");
        refused(&Pickle::new(2).op(b'N').op(b'(').op(code).op(0).stop(), InvalidFormat, "expected a value, got none");
    }
    for (code, n) in [(0x85, 1), (0x86, 2), (0x87, 3)] {
        let wanted = format!("expected {n} values for a tuple, got {}", n - 1);
        let below = (1..n).fold(Pickle::new(2).op(b'N').op(b'('), |p, _| p.op(b'N'));
        refused(&below.op(code).stop(), InvalidFormat, &wanted);
    }
    for code in [b't', b'e', b'u'] {
        refused(&Pickle::new(2).op(b'N').op(code).stop(), InvalidFormat, "expected a mark, got none");
    }
    let cases = [
        (Pickle::new(2).op(b'N').op(b'N').op(b'a'), "expected a list to append to, got None"),
        (Pickle::new(2).op(b'}').op(b'(').op(b'N').op(b'e'), "expected a list to append to, got a dictionary of 0"),
        (Pickle::new(2).op(b']').op(b'N').op(b'N').op(b's'), "expected a dictionary to fill, got a list of 0"),
        (Pickle::new(2).op(b'}').op(b'(').op(b'N').op(b'u'), "a value for each key, got a key alone"),
        (Pickle::new(2).op(b'N').op(b'N'), "expected one value at STOP, got 1 more"),
        (Pickle::new(2).op(b'(').op(b'N'), "expected one value at STOP, got 1 more"),
        (Pickle::new(2).op(b'h').op(7), "expected a remembered value, got number 7"),
        (Pickle::new(2).op(b'j').raw(&[255; 4]), "expected a remembered value, got number 4294967295"),
    ];
    for (pickle, wanted) in cases {
        refused(&pickle.stop(), InvalidFormat, wanted);
    }
    refused(&[&with_value(|p| p.int(1))[..], b"x"].concat(), InvalidFormat, "after STOP, got 1 bytes");
}

#[test]
fn lengths_beyond_the_file_take_no_memory() {
    let cases: [(u8, &[u8], &str); 12] = [
        (b'U', &[255], "wanted 255 bytes"),
        (b'T', &[255; 4], "wanted 4294967295 bytes"),
        (b'C', &[255], "wanted 255 bytes"),
        (b'B', &[255; 4], "wanted 4294967295 bytes"),
        (0x8E, &[255; 8], "wanted 18446744073709551615 bytes"),
        (0x96, &[255, 255, 255, 255, 255, 255, 255, 127], "wanted 9223372036854775807 bytes"),
        (0x8C, &[255], "wanted 255 bytes"),
        (b'X', &[255; 4], "wanted 4294967295 bytes"),
        (0x8D, &[255; 8], "wanted 18446744073709551615 bytes"),
        (0x8A, &[255], "wanted 255 bytes"),
        (0x8B, &[255, 255, 255, 127], "wanted 2147483647 bytes"),
        (0x95, &[255; 8], "frame: file ends early: wanted 18446744073709551615 bytes"),
    ];
    for (code, len, wanted) in cases {
        refused(&Pickle::new(4).op(code).raw(len).stop(), InvalidFormat, wanted);
    }
}

/// Lists of ten of the list before, sixty levels: 10^60 values for whoever unfolds them.
#[test]
fn memo_bombs_stay_small() {
    let start = Pickle::new(4).op(b']').op(0x94);
    let bomb = |p: Pickle| {
        (0..60u8).fold(p, |p, level| {
            let p = p.op(b']').op(b'(');
            (0..10).fold(p, |p, _| p.op(b'h').op(level)).op(b'e').op(0x94)
        })
    };
    let list = bomb(start.clone()).tuple(|p| p).op(0x86).stop();
    assert!(pdparams::parse(&list, 0).is_err());
    let value = Pickle::new(4).dict(|p| bomb(p.text("w").op(b']').op(0x94)).op(b'a')).stop();
    assert!(pdparams::parse(&value, 0).is_err());
    let tuples = (0..60).fold(Pickle::new(4).op(b')').op(b'q').op(0), |p, _| {
        let p = p.op(b'h').op(0).op(b'h').op(0).op(0x87);
        p.op(b'q').op(0)
    });
    refused(&tuples.stop(), InvalidFormat, "expected a dictionary, got a tuple of 3");
}

#[test]
fn deep_and_circular_values_need_no_stack() {
    let deep = (0..500_000).fold(Pickle::new(2).op(b')'), |p, _| p.op(0x85)).stop();
    refused(&deep, InvalidFormat, "expected a dictionary, got a tuple of 1");
    let circle = Pickle::new(2).op(b'}').op(b'q').op(0).text("w").op(b'h').op(0).op(b's').stop();
    refused(&circle, InvalidFormat, "expected a dictionary of tensors, got one without any");
    let list = Pickle::new(2).op(b']').op(b'q').op(0).op(b'h').op(0).op(b'a').stop();
    refused(&list, InvalidFormat, "expected a dictionary, got a list of 1");
    let shape = |p: Pickle| p.op(b']').op(b'q').op(0).op(b'h').op(0).op(b'a');
    refused(&with_value(|p| p.array_of(shape, "f2", |p| p.bytes(b""))), InvalidFormat, "a size, got a list of 1");
}

#[test]
fn counts_have_limits() {
    let many = |code: u8, n: usize| Pickle::new(2).op(b'N').raw(&vec![code; n]).stop();
    refused(&many(b'N', 70_000), InvalidFormat, "at most 65536 values on the stack");
    refused(&many(b'(', 70_000), InvalidFormat, "at most 65536 open marks");
    refused(&many(0x94, (1 << 20) + 1), InvalidFormat, "at most 1048576 remembered values");
    let puts = [b'q', 0].repeat(1 << 21);
    refused(&Pickle::new(2).op(b'N').raw(&puts).stop(), InvalidFormat, "at most 2097152 opcodes");
    let many = (0..=1 << 16).fold(Pickle::new(2).op(b'}'), |p, i| {
        let p = p.text(&i.to_string());
        let p = if i == 0 { p.array(&[0], "f2", b"").op(b'q').op(9) } else { p.op(b'h').op(9) };
        p.op(b's')
    });
    refused(&many.stop(), InvalidFormat, "at most 65536 tensors");
}

#[test]
fn arrays_that_lie_are_refused() {
    let array = |shape: &[i64], dtype: &str, bytes: &[u8]| with_value(|p| p.array(shape, dtype, bytes));
    let state = |fill: fn(Pickle) -> Pickle| with_value(|p| p.reconstruct(Pickle::ndarray).tuple(fill).op(b'b'));
    let cases = [
        (array(&[1 << 40, 1 << 40], "f2", b"ab"), "values of 2 bytes, got 2"),
        (array(&[i64::MAX, i64::MAX, i64::MAX], "f4", b""), "values of 4 bytes, got 0"),
        (array(&[2], "f2", b"abc"), "expected the bytes of [2] values of 2 bytes, got 3"),
        (array(&[2], "f2", b"abcde"), "values of 2 bytes, got 5"),
        (array(&[], "f2", b""), "expected the bytes of [] values of 2 bytes, got 0"),
        (array(&[0, 1 << 62], "f2", b"a"), "values of 2 bytes, got 1"),
        (array(&[-1], "f2", b""), "expected a size from 0 to 18446744073709551615, got -1"),
        (array(&[1; 9], "f2", b"ab"), "expected at most 8 sizes, got 9"),
        (with_value(|p| p.array_of(|p| p.op(b'N'), "f2", |p| p.bytes(b""))), "a tuple or list, got None"),
        (with_value(|p| p.array_of(|p| p.sizes(&[1]), "f2", |p| p.op(b'N'))), "expected bytes, got None"),
        (with_value(|p| p.array_of(|p| p.sizes(&[1]), "f2", |p| p.text("ab"))), "expected bytes, got a text"),
        (with_value(|p| p.reconstruct(Pickle::ndarray)), "expected an array with its state, got none"),
        (state(|p| p.int(1)), "expected an array's state, a tuple of 5, got a tuple of 1"),
        (state(|p| p.int(2).sizes(&[]).dtype("f2").op(0x89).bytes(b"ab")), "state of version 1, got the integer 2"),
        (state(|p| p.int(1).sizes(&[]).dtype("f2").int(2).bytes(b"ab")), "True or False, got the integer 2"),
        (state(|p| p.int(1).sizes(&[]).text("f2").op(0x89).bytes(b"ab")), "dtype with 3 arguments and a state"),
    ];
    for (bytes, wanted) in cases {
        refused(&bytes, InvalidFormat, wanted);
    }
    let subclass = with_value(|p| p.reconstruct(|p| p.global("collections", "OrderedDict")).sizes(&[]).op(b'b'));
    refused(&subclass, Unsupported, "expected an array of the class numpy.ndarray, got another class");
    let buffer = |order: &str| {
        let args = |p: Pickle| p.bytes(b"ab").dtype("f2").sizes(&[1]).text(order);
        with_value(|p| p.call("numpy.core.numeric", "_frombuffer", args))
    };
    assert!(pdparams::parse(&buffer("C"), 0).is_ok());
    refused(&buffer("K"), Unsupported, r#"in the order C or F, got "K""#);
    let no_order = with_value(|p| p.call("numpy.core.numeric", "_frombuffer", |p| p.bytes(b"ab").dtype("f2")));
    refused(&no_order, Unsupported, "expected 4 arguments of _frombuffer, got 2");
}

#[test]
fn bytes_as_text_are_checked_when_they_are_read() {
    let encoded = |text: &'static str, codec: &'static str| {
        let bytes = move |p: Pickle| p.call("_codecs", "encode", |p| p.text(text).text(codec));
        with_value(|p| p.array_of(|p| p.sizes(&[2]), "f2", bytes))
    };
    let honest = encoded("\u{80}a\u{ff}b", "latin1");
    let tensors = pdparams::parse(&honest, 0).unwrap();
    assert_eq!(tensors[0].bytes(&[&honest]).unwrap(), [0x80, b'a', 0xFF, b'b'].as_slice());
    for text in ["abcde", "\u{100}\u{100}", "a\u{2603}", "\u{80}\u{80}\u{80}"] {
        let bytes = encoded(text, "latin1");
        let tensors = pdparams::parse(&bytes, 0).unwrap();
        assert_refused(
            |bytes| tensors[0].bytes(&[bytes]).map(|b| b.len()),
            &bytes,
            InvalidFormat,
            "tensor w: expected",
        );
    }
    refused(&encoded("abc", "latin1"), InvalidFormat, "values of 2 bytes, got 3");
    refused(&encoded("123456789", "latin1"), InvalidFormat, "values of 2 bytes, got 9");
    refused(&encoded("abcd", "utf-16"), InvalidFormat, "expected a text encoded as latin1");
    let not_text = |p: Pickle| p.call("_codecs", "encode", |p| p.op(b'N').text("latin1"));
    let bytes = with_value(|p| p.array_of(|p| p.sizes(&[0]), "f2", not_text));
    refused(&bytes, InvalidFormat, "expected a text of bytes, got None");
    // A text of many megabytes where a name belongs is not read through.
    refused(&with_value(|p| p.array_of(|p| p.sizes(&[0]), &"f".repeat(5000), |p| p.bytes(b""))), InvalidFormat, "4096");
}

#[test]
fn tensors_come_once_and_under_names() {
    let value = |p: Pickle| p.array(&[1], "f2", b"ab");
    let twice = Pickle::new(2).dict(|p| value(value(p.text("w")).text("w"))).stop();
    refused(&twice, InvalidFormat, r#"expected each tensor once, got "w" twice"#);
    refused(&Pickle::new(2).dict(|p| value(p.int(1))).stop(), InvalidFormat, "expected a text, got the integer 1");
    let not_utf8 = Pickle::new(2).dict(|p| value(p.op(b'X').raw(&[2, 0, 0, 0, 0xC3, 0x28]))).stop();
    refused(&not_utf8, InvalidFormat, "expected a text in UTF-8");
    let long = Pickle::new(2).dict(|p| value(p.text(&"n".repeat(4097)))).stop();
    refused(&long, InvalidFormat, "expected a text of at most 4096 bytes, got 4097 bytes");
    refused(&Pickle::new(2).op(b'}').stop(), InvalidFormat, "got one without any");
    refused(&value(Pickle::new(2)).stop(), InvalidFormat, "expected a dictionary, got a value of _reconstruct");
}

#[test]
fn slices_that_lie_are_refused() {
    type Fill<'a> = &'a dyn Fn(Pickle) -> Pickle;
    let names = |names: &'static [&'static str]| {
        move |p: Pickle| names.iter().fold(p.op(b']'), |p, name| p.text(name).op(b'a'))
    };
    let file = |slices: Fill, info: Fill| {
        let all = |p: Pickle| info(slices(p).text("UnpackBigParamInfor@@").op(b'}').op(b'(').text("w")).op(b'u');
        Pickle::new(2).dict(all).stop()
    };
    let info = |shape: &'static [i64], parts: &'static [&'static str]| {
        move |p: Pickle| p.dict(|p| names(parts)(p.text("OriginShape").sizes(shape).text("slices")))
    };
    let two: Fill = &|p| p.text("w@@.0").array(&[2], "f2", b"abcd").text("w@@.1").array(&[1], "f2", b"ef");
    let good = file(two, &info(&[3, 1], &["w@@.0", "w@@.1"]));
    let tensors = pdparams::parse(&good, 0).unwrap();
    assert_eq!((tensors.len(), tensors[0].shape.as_slice()), (1, &[3, 1][..]));
    assert_eq!(tensors[0].bytes(&[&good]).unwrap(), b"abcdef".as_slice());
    let mixed: Fill = &|p| p.text("w@@.0").array(&[2], "f2", b"abcd").text("w@@.1").array(&[1], "f4", b"efgh");
    let matrix: Fill = &|p| p.text("w@@.0").array(&[2, 1], "f2", b"abcd");
    let single: Fill = &|p| p.text("w@@.0").array(&[], "f2", b"ab");
    let existing: Fill = &|p| two(p).text("w").array(&[1], "f2", b"ab");
    let cases = [
        (file(two, &info(&[4], &["w@@.0", "w@@.1"])), "expected slices that make up [4], got Some(3) values"),
        (file(two, &info(&[1 << 62, 8], &["w@@.0"])), "expected slices that make up"),
        (file(two, &info(&[2], &[])), "expected slices of one type, got 0"),
        (file(two, &info(&[3], &["w@@.0", "w@@.0"])), r#"expected a slice "w@@.0", got none"#),
        (file(two, &info(&[3], &["w@@.0", "w@@.2"])), r#"expected a slice "w@@.2", got none"#),
        (file(mixed, &info(&[3], &["w@@.0", "w@@.1"])), "expected slices of one type, got 2"),
        (file(matrix, &info(&[2], &["w@@.0"])), "to have 1 dimension, got 2"),
        (file(single, &info(&[], &["w@@.0"])), "to have 1 dimension, got 0"),
        (file(existing, &info(&[3], &["w@@.0", "w@@.1"])), r#"expected each tensor once, got "w" twice"#),
        (file(two, &|p: Pickle| p.op(b'N')), "expected a dictionary, got None"),
        (file(two, &|p: Pickle| p.dict(|p| p.text("slices").op(b']'))), "got one of them"),
        (file(two, &|p: Pickle| p.dict(|p| p.text("code").text("x"))), r#"got "code""#),
    ];
    for (bytes, wanted) in cases {
        refused(&bytes, InvalidFormat, wanted);
    }
}
