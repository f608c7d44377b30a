//! How sixteen weight rows lie beside each other in memory, so that a lane can stand for a row.
//!
//! A panel is [`PANEL`] rows. For each stored block (32 values of each row, or 256) it has
//!
//! ```text
//! head    f16 scale of each row; then, where there is one, f16 minimum of each row
//! then for each 32 values:
//!   sides   the 8-bit scales of K types, row by row (and minima); of both halves where halves have their own
//!   planes  words of four values of one row, row by row:
//!           nibbles  4 x 16 words: group g in the low halves of word g, group g + 4 in the high ones
//!           pairs    2 x 16 words: two bits of group g at bits 2 (g % 4) of word g / 4
//!           bits     1 x 16 words: one bit of group g at bit g
//!           bytes    8 x 16 words
//! ```
//!
//! A group is four consecutive values. The bits of a number are its nibble or pair first, then what lies above them. The
//! panel takes what the rows took in the file; Q4_K and Q5_K, whose scales are unpacked from six bits to eight, 3 % more,
//! and Q3_K 4 %. Rows that are not there are zeros.

use super::blocks::{
    BLOCK, Format, IQ4_NL_VALUES, StoredRows, bytes_at, fives, long_sides, nibbles, q2_k, q2_k_sides, q3_k, q3_k_sides,
    q4_k, q5_k, q6_k, q6_k_sides,
};
use super::simd::{Portable, Simd};

/// Rows of a panel.
pub(crate) const PANEL: usize = 16;
/// Values of a row that share a lane.
pub(super) const GROUP: usize = 4;
/// Groups of a block.
pub(super) const GROUPS: usize = BLOCK / GROUP;
/// Bytes of a word of each row.
const WORDS: usize = GROUP * PANEL;

/// The scales of a block.
#[derive(Clone, Copy, PartialEq)]
enum Scales {
    /// `d`
    Half,
    /// `d`, and a minimum `m` that is added.
    HalfAndMin,
    /// `d * i8` for each half.
    Signed,
    /// `d * u8`, and `m * u8` that is subtracted.
    Unsigned,
    /// `d * low nibble`, and `m * high nibble` that is subtracted, for each half.
    Nibbles,
}

/// What a panel of one format looks like.
#[derive(Clone, Copy)]
pub(super) struct Shape {
    /// Blocks of 32 in a stored one.
    pub(super) blocks: usize,
    /// Bits of a number.
    pub(super) bits: u32,
    /// Scales of a block.
    pub(super) scales: usize,
    kind: Scales,
    nibbles: bool,
    pairs: bool,
    bit: bool,
    bytes: bool,
    /// Whether nibbles stand for [`IQ4_NL_VALUES`].
    table: bool,
    /// What stored numbers are shifted up by: none, or a power of two.
    pub(super) zero: i32,
}

impl Shape {
    /// The shape of `format`.
    pub(super) const fn of(format: Format) -> Self {
        use Scales::{Half, HalfAndMin, Nibbles, Signed, Unsigned};
        let plain = Self {
            blocks: format.stored_values() / BLOCK,
            bits: 4,
            scales: 1,
            kind: Half,
            nibbles: true,
            pairs: false,
            bit: false,
            bytes: false,
            table: false,
            zero: 0,
        };
        match format {
            Format::Q4_0 => Self { zero: 8, ..plain },
            Format::Q4_1 => Self { kind: HalfAndMin, ..plain },
            Format::Q5_0 => Self { bits: 5, bit: true, zero: 16, ..plain },
            Format::Q5_1 => Self { bits: 5, bit: true, kind: HalfAndMin, ..plain },
            Format::Q8_0 => Self { bits: 8, nibbles: false, bytes: true, ..plain },
            Format::Iq4Nl => Self { bits: 8, table: true, ..plain },
            Format::Q2K => Self { bits: 2, scales: 2, kind: Nibbles, nibbles: false, pairs: true, ..plain },
            Format::Q3K => {
                Self { bits: 3, scales: 2, kind: Signed, nibbles: false, pairs: true, bit: true, zero: 4, ..plain }
            }
            Format::Q4K => Self { kind: Unsigned, ..plain },
            Format::Q5K => Self { bits: 5, kind: Unsigned, bit: true, ..plain },
            Format::Q6K => Self { bits: 6, scales: 2, kind: Signed, pairs: true, zero: 32, ..plain },
        }
    }

    /// Whether something is added to the numbers of a block, apart from what they are shifted by.
    pub(super) const fn has_sides(self) -> bool {
        matches!(self.kind, Scales::HalfAndMin | Scales::Unsigned | Scales::Nibbles)
    }

    /// Bytes of the scales of a stored block.
    const fn head(self) -> usize {
        match self.kind {
            Scales::Half | Scales::Signed => 2 * PANEL,
            Scales::HalfAndMin | Scales::Unsigned | Scales::Nibbles => 4 * PANEL,
        }
    }

    /// Bytes of the 8-bit scales of a block.
    const fn sides(self) -> usize {
        match self.kind {
            Scales::Half | Scales::HalfAndMin => 0,
            Scales::Signed | Scales::Unsigned | Scales::Nibbles => 2 * PANEL,
        }
    }

    /// Bytes of a block's pairs begin here, behind its nibbles.
    const fn pairs_at(self) -> usize {
        if self.nibbles { 4 * WORDS } else { 0 }
    }

    /// Bytes of a block's single bits begin here, behind its pairs.
    const fn bit_at(self) -> usize {
        self.pairs_at() + if self.pairs { 2 * WORDS } else { 0 }
    }

    /// Bytes of the 32 values of a block.
    const fn block(self) -> usize {
        let planes = if self.bytes { GROUPS * WORDS } else { self.bit_at() + if self.bit { WORDS } else { 0 } };
        self.sides() + planes
    }

    /// Bytes of a stored block of all rows.
    pub(super) const fn stored(self) -> usize {
        self.head() + self.blocks * self.block()
    }

    /// Bytes of a panel of rows of `k` values.
    pub(super) const fn panel(self, k: usize) -> usize {
        k / BLOCK / self.blocks * self.stored()
    }
}

/// A format known to the compiler.
pub(super) trait Layout {
    const SHAPE: Shape;
    const FORMAT: Format;
    /// Where a stored block has the f16 numbers of the head.
    const HALVES: &'static [usize];

    /// The numbers of block `i` of a stored one.
    fn numbers(stored: &[u8], i: usize) -> [u8; BLOCK];
    /// Its 8-bit scales.
    fn sides(stored: &[u8], i: usize) -> [u8; 2];
}

macro_rules! layouts {
    ($($name:ident $halves:expr, $numbers:expr, $sides:expr;)*) => {$(
        pub(super) struct $name;

        impl Layout for $name {
            const SHAPE: Shape = Shape::of(Format::$name);
            const FORMAT: Format = Format::$name;
            const HALVES: &'static [usize] = &$halves;

            #[inline(always)]
            fn numbers(stored: &[u8], i: usize) -> [u8; BLOCK] {
                $numbers(stored, i)
            }

            #[inline(always)]
            fn sides(stored: &[u8], i: usize) -> [u8; 2] {
                $sides(stored, i)
            }
        }
    )*};
}

const NO_SIDES: fn(&[u8], usize) -> [u8; 2] = |_, _| [0; 2];

layouts! {
    Q4_0 [0], |block, _| nibbles(block, 2), NO_SIDES;
    Q4_1 [0, 2], |block, _| nibbles(block, 4), NO_SIDES;
    Q5_0 [0], |block, _| fives(block, 2), NO_SIDES;
    Q5_1 [0, 2], |block, _| fives(block, 4), NO_SIDES;
    Q8_0 [0], |block, _| bytes_at(block, 2), NO_SIDES;
    Iq4Nl [0], |block, _| nibbles(block, 2), NO_SIDES;
    Q2K [80, 82], q2_k, q2_k_sides;
    Q3K [108], q3_k, q3_k_sides;
    Q4K [0, 2], q4_k, long_sides;
    Q5K [0, 2], q5_k, long_sides;
    Q6K [208], q6_k, q6_k_sides;
}

/// Calls a function whose first type is the [`Layout`] of `$format`.
macro_rules! with_layout {
    ($format:expr, $f:ident::<_ $(, $type:ty)*>($($argument:expr),* $(,)?)) => {
        match $format {
            Format::Q4_0 => $f::<Q4_0 $(, $type)*>($($argument),*),
            Format::Q4_1 => $f::<Q4_1 $(, $type)*>($($argument),*),
            Format::Q5_0 => $f::<Q5_0 $(, $type)*>($($argument),*),
            Format::Q5_1 => $f::<Q5_1 $(, $type)*>($($argument),*),
            Format::Q8_0 => $f::<Q8_0 $(, $type)*>($($argument),*),
            Format::Iq4Nl => $f::<Iq4Nl $(, $type)*>($($argument),*),
            Format::Q2K => $f::<Q2K $(, $type)*>($($argument),*),
            Format::Q3K => $f::<Q3K $(, $type)*>($($argument),*),
            Format::Q4K => $f::<Q4K $(, $type)*>($($argument),*),
            Format::Q5K => $f::<Q5K $(, $type)*>($($argument),*),
            Format::Q6K => $f::<Q6K $(, $type)*>($($argument),*),
        }
    };
}

/// Where block `b` of a panel has its head and itself.
#[inline(always)]
fn places<L: Layout>(panel: *const u8, b: usize) -> (*const u8, *const u8) {
    let (stored, i) = (b / L::SHAPE.blocks, b % L::SHAPE.blocks);
    let head = panel.wrapping_add(stored * L::SHAPE.stored());
    (head, head.wrapping_add(L::SHAPE.head() + i * L::SHAPE.block()))
}

/// Group `g` of block `b` of the rows from `first` on: a number in each byte, as [`Simd::dot`] wants it.
///
/// # Safety
/// The panel has the block; `first + S::LANES <= PANEL`; the CPU has the instructions of `S`.
#[inline(always)]
pub(super) unsafe fn group<S: Simd, L: Layout>(panel: *const u8, b: usize, g: usize, first: usize) -> S::Int {
    let shape = L::SHAPE;
    let planes = places::<L>(panel, b).1.wrapping_add(shape.sides() + first * GROUP);
    // SAFETY: words of `S::LANES` rows from `first` on, inside the block.
    unsafe {
        if shape.bytes {
            return S::unsign(S::load(planes.wrapping_add(g * WORDS)));
        }
        // What has been put together, and how many bits it has.
        let (mut q, mut bits) = (S::none(), 0);
        if shape.nibbles {
            let words = S::load(planes.wrapping_add(g % 4 * WORDS));
            q = S::and(if g < 4 { words } else { S::down(words, 4) }, 15);
            bits = 4;
        }
        if shape.table {
            return S::unsign(S::lookup(&IQ4_NL_VALUES, q));
        }
        if shape.pairs {
            let words = S::load(planes.wrapping_add(shape.pairs_at() + g / 4 * WORDS));
            q = S::or(q, moved::<S>(words, 2 * (g as u32 % 4), bits, 3));
            bits += 2;
        }
        if shape.bit {
            let words = S::load(planes.wrapping_add(shape.bit_at()));
            q = S::or(q, moved::<S>(words, g as u32, bits, 1));
        }
        q
    }
}

/// The bits `mask << from` of each byte, moved to `to`.
///
/// # Safety
/// The CPU has the instructions of `S`.
#[inline(always)]
unsafe fn moved<S: Simd>(words: S::Int, from: u32, to: u32, mask: u8) -> S::Int {
    // SAFETY: as this function asks.
    unsafe {
        let words = if from > to { S::down(words, from - to) } else { S::up(words, to - from) };
        S::and(words, mask << to)
    }
}

/// Scale `s` of block `b` of the rows from `first` on, and what belongs to it: `value = scale * (number - zero) + side`.
///
/// # Safety
/// As [`group`].
#[inline(always)]
pub(super) unsafe fn sides<S: Simd, L: Layout>(
    panel: *const u8,
    b: usize,
    s: usize,
    first: usize,
) -> (S::Float, S::Float) {
    let shape = L::SHAPE;
    let (head, block) = places::<L>(panel, b);
    // SAFETY: two bytes and one byte of `S::LANES` rows from `first` on.
    unsafe {
        let d = S::halves(head.wrapping_add(2 * first));
        let m = head.wrapping_add(2 * (PANEL + first));
        match shape.kind {
            Scales::Half => (d, S::splat(0.0)),
            Scales::HalfAndMin => (d, S::halves(m)),
            Scales::Signed => (S::mul(d, S::signed(block.wrapping_add(s * PANEL + first))), S::splat(0.0)),
            Scales::Unsigned => {
                let (scale, min) = (block.wrapping_add(first), block.wrapping_add(PANEL + first));
                let m = S::mul(S::splat(-1.0), S::halves(m));
                (S::mul(d, S::unsigned(scale)), S::mul(m, S::unsigned(min)))
            }
            Scales::Nibbles => {
                let both = block.wrapping_add(s * PANEL + first);
                let m = S::mul(S::splat(-1.0), S::halves(m));
                (S::mul(d, S::low_nibbles(both)), S::mul(m, S::high_nibbles(both)))
            }
        }
    }
}

/// Writes at most [`PANEL`] stored rows into a panel of zeros. Inlined into each instruction set's own form.
#[inline(always)]
pub(super) fn pack(stored: StoredRows<'_>, panel: &mut [u8]) {
    with_layout!(stored.format, pack_as::<_>(stored, panel));
}

#[inline(always)]
fn pack_as<L: Layout>(stored: StoredRows<'_>, panel: &mut [u8]) {
    let (shape, row_bytes) = (L::SHAPE, L::FORMAT.row_bytes(stored.k));
    for (r, row) in stored.bytes.chunks_exact(row_bytes).enumerate() {
        for (to, from) in panel.chunks_exact_mut(shape.stored()).zip(row.chunks_exact(L::FORMAT.stored_bytes())) {
            for (i, &at) in L::HALVES.iter().enumerate() {
                to[2 * (i * PANEL + r)..][..2].copy_from_slice(&from[at..at + 2]);
            }
            for (i, to) in to[shape.head()..].chunks_exact_mut(shape.block()).enumerate() {
                if shape.sides() > 0 {
                    [to[r], to[PANEL + r]] = L::sides(from, i);
                }
                write_numbers::<L>(to, r, &L::numbers(from, i));
            }
        }
    }
}

/// The values of row `r` of a panel.
pub(super) fn unpack_row(format: Format, panel: &[u8], r: usize, out: &mut [f32]) {
    with_layout!(format, unpack_row_as::<_>(panel, r, out));
}

/// By the portable kernels' own reading, eight rows at a time of which one is wanted.
fn unpack_row_as<L: Layout>(panel: &[u8], r: usize, out: &mut [f32]) {
    let shape = L::SHAPE;
    assert!(r < PANEL && panel.len() == shape.panel(out.len()), "row {r} of {} values of a panel", out.len());
    let (first, lane) = (r / Portable::LANES * Portable::LANES, r % Portable::LANES);
    for (b, out) in out.as_chunks_mut::<BLOCK>().0.iter_mut().enumerate() {
        for (g, out) in out.as_chunks_mut::<GROUP>().0.iter_mut().enumerate() {
            // SAFETY: the panel has the block, by its length; the rows are inside, and any CPU will do.
            let (words, (scale, side)) = unsafe {
                let s = g * shape.scales / GROUPS;
                let panel = panel.as_ptr();
                (group::<Portable, L>(panel, b, g, first), sides::<Portable, L>(panel, b, s, first))
            };
            // Numbers of fewer than eight bits have no sign.
            let numbers = words[lane].to_le_bytes().map(|q| (i32::from(q as i8) - shape.zero) as f32);
            *out = numbers.map(|q| scale[lane] * q + side[lane]);
        }
    }
}

/// Writes the numbers of row `r` of a block.
#[inline(always)]
fn write_numbers<L: Layout>(block: &mut [u8], r: usize, q: &[u8; BLOCK]) {
    let shape = L::SHAPE;
    let planes = &mut block[shape.sides()..shape.block()];
    let mut write = |at: usize, word: [u8; GROUP]| planes[at + r * GROUP..][..GROUP].copy_from_slice(&word);
    if shape.bytes {
        for g in 0..GROUPS {
            write(g * WORDS, [q[4 * g], q[4 * g + 1], q[4 * g + 2], q[4 * g + 3]]);
        }
        return;
    }
    let mut bits = 0;
    if shape.nibbles {
        for g in 0..GROUPS / 2 {
            write(g * WORDS, word(|i| q[4 * g + i] & 15 | q[4 * g + i + BLOCK / 2] << 4));
        }
        bits = 4;
    }
    if shape.pairs {
        for p in 0..2 {
            let q = &q[p * BLOCK / 2..];
            let two = |g: usize, i: usize| (q[4 * g + i] >> bits & 3) << (2 * g);
            write(shape.pairs_at() + p * WORDS, word(|i| two(0, i) | two(1, i) | two(2, i) | two(3, i)));
        }
        bits += 2;
    }
    if shape.bit {
        write(shape.bit_at(), word(|i| (0..GROUPS).fold(0, |byte, g| byte | (q[4 * g + i] >> bits & 1) << g)));
    }
}

#[inline(always)]
fn word(byte: impl Fn(usize) -> u8) -> [u8; GROUP] {
    [byte(0), byte(1), byte(2), byte(3)]
}
