//! The opcodes that make plain data and calls of array builders, and the names of all others for refusals.

macro_rules! opcodes {
    ($($name:ident = $code:literal;)*) => { $(pub(super) const $name: u8 = $code;)* };
}

opcodes! {
    PROTO = 0x80;
    FRAME = 0x95;
    STOP = b'.';
    MARK = b'(';
    NONE = b'N';
    NEWTRUE = 0x88;
    NEWFALSE = 0x89;
    BININT = b'J';
    BININT1 = b'K';
    BININT2 = b'M';
    LONG1 = 0x8A;
    LONG4 = 0x8B;
    BINFLOAT = b'G';
    SHORT_BINSTRING = b'U';
    BINSTRING = b'T';
    SHORT_BINUNICODE = 0x8C;
    BINUNICODE = b'X';
    BINUNICODE8 = 0x8D;
    SHORT_BINBYTES = b'C';
    BINBYTES = b'B';
    BINBYTES8 = 0x8E;
    BYTEARRAY8 = 0x96;
    EMPTY_TUPLE = b')';
    TUPLE1 = 0x85;
    TUPLE2 = 0x86;
    TUPLE3 = 0x87;
    TUPLE = b't';
    EMPTY_LIST = b']';
    APPEND = b'a';
    APPENDS = b'e';
    EMPTY_DICT = b'}';
    SETITEM = b's';
    SETITEMS = b'u';
    BINPUT = b'q';
    LONG_BINPUT = b'r';
    MEMOIZE = 0x94;
    BINGET = b'h';
    LONG_BINGET = b'j';
    GLOBAL = b'c';
    STACK_GLOBAL = 0x93;
    REDUCE = b'R';
    BUILD = b'b';
    BINPERSID = b'Q';
}

/// The name of an opcode that Python has and this machine refuses.
pub(super) fn refused_name(code: u8) -> Option<&'static str> {
    Some(match code {
        PROTO => "PROTO",
        b'I' => "INT",
        b'L' => "LONG",
        b'F' => "FLOAT",
        b'S' => "STRING",
        b'V' => "UNICODE",
        b'd' => "DICT",
        b'l' => "LIST",
        b'g' => "GET",
        b'p' => "PUT",
        b'0' => "POP",
        b'1' => "POP_MARK",
        b'2' => "DUP",
        b'P' => "PERSID",
        b'i' => "INST",
        b'o' => "OBJ",
        0x81 => "NEWOBJ",
        0x92 => "NEWOBJ_EX",
        0x82 => "EXT1",
        0x83 => "EXT2",
        0x84 => "EXT4",
        0x8F => "EMPTY_SET",
        0x90 => "ADDITEMS",
        0x91 => "FROZENSET",
        0x97 => "NEXT_BUFFER",
        0x98 => "READONLY_BUFFER",
        _ => return None,
    })
}
