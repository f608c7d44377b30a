//! What the products and attention ask of an instruction set: one trait, one form of each kernel.
//!
//! A lane stands for a weight row (products), a token or a value of a head (attention): no sum crosses lanes, so a
//! kernel adds the same floats in the same order on every width of vector. Instruction sets that fuse multiply and add
//! agree to the bit with one another, and so do those that do not.
//!
//! Every method is `#[inline(always)]` and without `#[target_feature]`: it is compiled for whatever function it ends up
//! in, and only the functions in the tables of `dispatch` carry features. Nothing here goes through a closure, which
//! would not inherit them.

/// Registers of an instruction set.
///
/// # Safety
/// All methods ask that the CPU has the instructions, and that pointers reach as many elements as the method names.
pub(super) trait Simd: Copy {
    /// Four bytes, or one 32-bit integer, in each lane.
    type Int: Copy;
    /// One float in each lane.
    type Float: Copy;

    /// Lanes of a vector.
    const LANES: usize;
    /// What bytes with a sign are shifted up by before they are multiplied: 128 where [`Simd::dot`] wants weights without.
    const SIGN: i32;
    /// By bits of a weight: how many products [`Simd::dot`] adds before [`Simd::widen`] must follow; 0 where its sums are
    /// wide as they are.
    const CHUNK: [usize; 9] = [0; 9];

    /// Zeros.
    unsafe fn none() -> Self::Int;
    /// Four bytes for each lane.
    unsafe fn load(from: *const u8) -> Self::Int;
    /// The same four bytes in each lane.
    unsafe fn group(from: *const i8) -> Self::Int;
    /// Each byte and `mask`.
    unsafe fn and(a: Self::Int, mask: u8) -> Self::Int;
    /// Bits of either.
    unsafe fn or(a: Self::Int, b: Self::Int) -> Self::Int;
    /// Bits moved down by `n` below 8, across bytes: to be masked.
    unsafe fn down(a: Self::Int, n: u32) -> Self::Int;
    /// Bits moved up by `n` below 8, across bytes: to be masked.
    unsafe fn up(a: Self::Int, n: u32) -> Self::Int;
    /// Bytes below 16 replaced by those of `table`.
    unsafe fn lookup(table: &[i8; 16], a: Self::Int) -> Self::Int;
    /// Bytes with a sign, shifted up by [`Simd::SIGN`].
    unsafe fn unsign(a: Self::Int) -> Self::Int;
    /// `sum` and the products of four bytes each: `w` of at most `BITS` bits (eight: see [`Simd::unsign`]), `x` from
    /// -127 to 127.
    unsafe fn dot<const BITS: u32>(sum: Self::Int, w: Self::Int, x: Self::Int) -> Self::Int;
    /// What [`Simd::dot`] has added up, as one integer per lane.
    #[inline(always)]
    unsafe fn widen<const BITS: u32>(sum: Self::Int) -> Self::Int {
        sum
    }
    /// The sum of integers.
    unsafe fn add_int(a: Self::Int, b: Self::Int) -> Self::Int;
    /// Integers times `2^n`.
    unsafe fn doubled(a: Self::Int, n: u32) -> Self::Int;
    /// Integers as floats.
    unsafe fn float(a: Self::Int) -> Self::Float;

    /// The same in each lane.
    unsafe fn splat(v: f32) -> Self::Float;
    /// Floats as they lie.
    unsafe fn floats(from: *const f32) -> Self::Float;
    /// Floats to where they shall lie.
    unsafe fn store(to: *mut f32, v: Self::Float);
    /// f16 numbers as they lie.
    unsafe fn halves(from: *const u8) -> Self::Float;
    /// Bytes as they lie.
    unsafe fn unsigned(from: *const u8) -> Self::Float;
    /// Bytes with signs as they lie.
    unsafe fn signed(from: *const u8) -> Self::Float;
    /// The lower halves of bytes as they lie.
    unsafe fn low_nibbles(from: *const u8) -> Self::Float;
    /// The upper halves of bytes as they lie.
    unsafe fn high_nibbles(from: *const u8) -> Self::Float;
    /// Products.
    unsafe fn mul(a: Self::Float, b: Self::Float) -> Self::Float;
    /// `a * b + c`, rounded once where the instruction set can.
    unsafe fn mul_add(a: Self::Float, b: Self::Float, c: Self::Float) -> Self::Float;
    /// Asks for the cache line at `at`, which may lie anywhere.
    #[inline(always)]
    unsafe fn prefetch(_at: *const u8) {}
}

/// Any CPU: arrays of eight, for which a compiler finds the vectors it has.
#[derive(Clone, Copy)]
pub(super) struct Portable;

const LANES: usize = 8;

/// Each lane from its number.
#[inline(always)]
fn lanes<T: Copy + Default>(mut f: impl FnMut(usize) -> T) -> [T; LANES] {
    let mut out = [T::default(); LANES];
    for (i, out) in out.iter_mut().enumerate() {
        *out = f(i);
    }
    out
}

// SAFETY of the bodies: reads and writes are those that the trait's pointers promise to reach.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Simd for Portable {
    type Int = [u32; LANES];
    type Float = [f32; LANES];

    const LANES: usize = LANES;
    const SIGN: i32 = 0;

    #[inline(always)]
    unsafe fn none() -> Self::Int {
        [0; LANES]
    }

    #[inline(always)]
    unsafe fn load(from: *const u8) -> Self::Int {
        lanes(|i| u32::from_le_bytes(unsafe { from.add(4 * i).cast::<[u8; 4]>().read() }))
    }

    #[inline(always)]
    unsafe fn group(from: *const i8) -> Self::Int {
        [u32::from_le_bytes(unsafe { from.cast::<[u8; 4]>().read() }); LANES]
    }

    #[inline(always)]
    unsafe fn and(a: Self::Int, mask: u8) -> Self::Int {
        a.map(|a| a & u32::from_ne_bytes([mask; 4]))
    }

    #[inline(always)]
    unsafe fn or(a: Self::Int, b: Self::Int) -> Self::Int {
        lanes(|i| a[i] | b[i])
    }

    #[inline(always)]
    unsafe fn down(a: Self::Int, n: u32) -> Self::Int {
        a.map(|a| a >> n)
    }

    #[inline(always)]
    unsafe fn up(a: Self::Int, n: u32) -> Self::Int {
        a.map(|a| a << n)
    }

    #[inline(always)]
    unsafe fn lookup(table: &[i8; 16], a: Self::Int) -> Self::Int {
        a.map(|a| u32::from_le_bytes(a.to_le_bytes().map(|i| table[usize::from(i & 15)] as u8)))
    }

    #[inline(always)]
    unsafe fn unsign(a: Self::Int) -> Self::Int {
        a
    }

    #[inline(always)]
    unsafe fn dot<const BITS: u32>(sum: Self::Int, w: Self::Int, x: Self::Int) -> Self::Int {
        // Weights of fewer than eight bits have no sign bit.
        lanes(|i| {
            let (w, x) = (w[i].to_le_bytes(), x[i].to_le_bytes());
            let product = |k: usize| i32::from(w[k] as i8) * i32::from(x[k] as i8);
            sum[i].wrapping_add((product(0) + product(1) + product(2) + product(3)) as u32)
        })
    }

    #[inline(always)]
    unsafe fn doubled(a: Self::Int, n: u32) -> Self::Int {
        a.map(|a| a << n)
    }

    #[inline(always)]
    unsafe fn add_int(a: Self::Int, b: Self::Int) -> Self::Int {
        lanes(|i| a[i].wrapping_add(b[i]))
    }

    #[inline(always)]
    unsafe fn float(a: Self::Int) -> Self::Float {
        a.map(|a| a as i32 as f32)
    }

    #[inline(always)]
    unsafe fn splat(v: f32) -> Self::Float {
        [v; LANES]
    }

    #[inline(always)]
    unsafe fn floats(from: *const f32) -> Self::Float {
        unsafe { from.cast::<[f32; LANES]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn store(to: *mut f32, v: Self::Float) {
        unsafe { to.cast::<[f32; LANES]>().write_unaligned(v) }
    }

    #[inline(always)]
    unsafe fn halves(from: *const u8) -> Self::Float {
        lanes(|i| super::blocks::half_to_f32(u16::from_le_bytes(unsafe { from.add(2 * i).cast::<[u8; 2]>().read() })))
    }

    #[inline(always)]
    unsafe fn unsigned(from: *const u8) -> Self::Float {
        lanes(|i| f32::from(unsafe { *from.add(i) }))
    }

    #[inline(always)]
    unsafe fn signed(from: *const u8) -> Self::Float {
        lanes(|i| f32::from(unsafe { *from.add(i) } as i8))
    }

    #[inline(always)]
    unsafe fn low_nibbles(from: *const u8) -> Self::Float {
        lanes(|i| f32::from(unsafe { *from.add(i) } & 15))
    }

    #[inline(always)]
    unsafe fn high_nibbles(from: *const u8) -> Self::Float {
        lanes(|i| f32::from(unsafe { *from.add(i) } >> 4))
    }

    #[inline(always)]
    unsafe fn mul(a: Self::Float, b: Self::Float) -> Self::Float {
        lanes(|i| a[i] * b[i])
    }

    #[inline(always)]
    unsafe fn mul_add(a: Self::Float, b: Self::Float, c: Self::Float) -> Self::Float {
        lanes(|i| a[i] * b[i] + c[i])
    }
}
