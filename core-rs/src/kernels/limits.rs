//! What a processor can do at most: reading memory, and multiply-adds of int8 in registers. Figures of speed are told as
//! shares of these, so that they mean something on another machine.
//!
//! The loops compute nothing of use and share nothing with the kernels, whose speed they are held against. A table has
//! them by instruction set; which one is best does not hang on [`super::select`], since the limit is the machine's.
//!
//! Absent: threads, clocks, memory to read.

use std::array;
use std::hint::black_box;

/// Sums in registers, enough to hide the latency of a product and an addition at two products a cycle; with a factor and
/// a product under way they fit in sixteen registers.
const SUMS: usize = 12;
/// Parts of a buffer that are read side by side: a core keeps more lines under way for several streams than for one.
const STREAMS: usize = 4;
/// Words of each stream at a time: a cache line.
const LINE: usize = 8;

/// The two loops for one instruction set. All are safe to call: [`Loops::best`] is the only way to them.
pub struct Loops {
    name: &'static str,
    /// Whether this CPU has what the loops need.
    able: fn() -> bool,
    read: fn(&[u64]) -> u64,
    /// Does so many rounds and returns the multiply-adds of one.
    multiply: fn(u64) -> u64,
}

/// The best first. What can be read per second hangs on the width of the loads as well.
static ALL: &[Loops] = &[
    #[cfg(target_arch = "x86_64")]
    x86::AMX,
    #[cfg(target_arch = "x86_64")]
    x86::AVX512_VNNI,
    #[cfg(target_arch = "x86_64")]
    x86::AVX_VNNI,
    #[cfg(target_arch = "x86_64")]
    x86::AVX512,
    #[cfg(target_arch = "x86_64")]
    x86::AVX2,
    Loops { name: "portable", able: || true, read, multiply },
];

impl Loops {
    /// Those of the best instruction set of this CPU.
    pub fn best() -> &'static Self {
        ALL.iter().find(|loops| (loops.able)()).expect("the portable loops run everywhere")
    }

    /// The instruction set.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Reads all of `words` and returns them exclusively or'ed; a rest that is no line in each of four streams is left out.
    pub fn read(&self, words: &[u64]) -> u64 {
        (self.read)(words)
    }

    /// Multiplies and adds int8 for `rounds` rounds; returns how many multiply-adds that were.
    pub fn multiply(&self, rounds: u64) -> u64 {
        rounds * (self.multiply)(rounds)
    }
}

#[inline(always)]
fn read(words: &[u64]) -> u64 {
    let [mut a, mut b, mut c, mut d] = [[0; LINE]; STREAMS];
    let mut streams = words.chunks_exact((words.len() / STREAMS).max(1)).map(|part| part.as_chunks::<LINE>().0.iter());
    let mut next = || streams.next().unwrap_or_default();
    for (((w, x), y), z) in next().zip(next()).zip(next()).zip(next()) {
        for i in 0..LINE {
            a[i] ^= w[i];
            b[i] ^= x[i];
            c[i] ^= y[i];
            d[i] ^= z[i];
        }
    }
    [a, b, c, d].as_flattened().iter().fold(0, |all, word| all ^ word)
}

/// Products of 16 bits: what int8 is widened to where nothing multiplies it as it is. Each product has its own sum as a
/// factor, so that none can be left out or done once for all.
fn multiply(rounds: u64) -> u64 {
    const LANES: usize = 8;
    let mut sums: [[i16; LANES]; SUMS] = array::from_fn(|i| [black_box(i as i16 + 1); LANES]);
    let factor = black_box(3i16);
    for _ in 0..rounds {
        for sum in sums.as_flattened_mut() {
            *sum = sum.wrapping_add(sum.wrapping_mul(factor));
        }
    }
    black_box(sums);
    (SUMS * LANES) as u64
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use std::arch::asm;

    use super::super::amx::{self, Tiles};
    use super::*;

    /// The loops of an instruction set: its name, the question for it, its features, vectors and their product.
    macro_rules! loops {
        ($row:ident, $name:literal, $able:expr, $features:literal, $vector:ty, $splat:ident, $product:expr) => {
            pub(super) const $row: Loops = {
                #[target_feature(enable = $features)]
                fn read_all(words: &[u64]) -> u64 {
                    read(words)
                }

                /// Products of unsigned by signed bytes, added to a sum: what the inner loop of a product of blocks cannot
                /// do without.
                #[target_feature(enable = $features)]
                fn multiply_all(rounds: u64) -> u64 {
                    let mut sums: [$vector; SUMS] = array::from_fn(|i| $splat(black_box(i as i8 + 1)));
                    let factor = $splat(black_box(3));
                    for _ in 0..rounds {
                        for sum in &mut sums {
                            *sum = $product(*sum, factor);
                        }
                    }
                    black_box(sums);
                    (SUMS * size_of::<$vector>()) as u64
                }

                Loops {
                    name: $name,
                    able: $able,
                    // SAFETY: `Loops::best` hands out this row only after asking for its features.
                    read: |words| unsafe { read_all(words) },
                    // SAFETY: as above.
                    multiply: |rounds| unsafe { multiply_all(rounds) },
                }
            };
        };
    }
    loops!(AVX2, "avx2", avx2, "avx2", __m256i, _mm256_set1_epi8, |sum, factor| {
        _mm256_add_epi16(sum, _mm256_maddubs_epi16(sum, factor))
    });
    loops!(AVX512, "avx512", avx512, "avx512f,avx512bw", __m512i, _mm512_set1_epi8, |sum, factor| {
        _mm512_add_epi16(sum, _mm512_maddubs_epi16(sum, factor))
    });
    loops!(AVX_VNNI, "avx-vnni", avx_vnni, "avx2,avxvnni", __m256i, _mm256_set1_epi8, |sum, factor| {
        _mm256_dpbusd_avx_epi32(sum, sum, factor)
    });
    loops!(AVX512_VNNI, "avx512-vnni", avx512_vnni, "avx512f,avx512vnni", __m512i, _mm512_set1_epi8, |sum, factor| {
        _mm512_dpbusd_epi32(sum, sum, factor)
    });

    /// Whole tiles of 64 values, which no format's blocks fill: what the units can do all the same.
    pub(super) const AMX: Loops = Loops {
        name: "amx",
        able: || avx512_vnni() && amx::permitted(),
        read: AVX512_VNNI.read,
        multiply: |rounds| {
            // SAFETY: this row is handed out only when tiles are permitted; they are configured, and hold what they hold.
            unsafe {
                let tiles = Tiles::configure(4 * TILE_ROWS);
                for _ in 0..rounds {
                    asm!(
                        "tdpbssd tmm0, tmm4, tmm6",
                        "tdpbssd tmm1, tmm5, tmm7",
                        "tdpbssd tmm2, tmm4, tmm7",
                        "tdpbssd tmm3, tmm5, tmm6",
                        options(nostack, nomem, preserves_flags)
                    );
                }
                drop(tiles);
            }
            (4 * TILE_ROWS * TILE_ROWS * 4 * TILE_ROWS) as u64
        },
    };
    /// Rows of a tile, and integers of a row.
    const TILE_ROWS: usize = 16;

    fn avx2() -> bool {
        is_x86_feature_detected!("avx2")
    }

    fn avx512() -> bool {
        is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw")
    }

    fn avx_vnni() -> bool {
        avx2() && is_x86_feature_detected!("avxvnni")
    }

    fn avx512_vnni() -> bool {
        avx512() && is_x86_feature_detected!("avx512vnni")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_read_and_every_product_counted() {
        for loops in ALL.iter().filter(|loops| (loops.able)()) {
            for lines in [0, 1, 3, 100] {
                let words: Vec<u64> =
                    (0..lines * LINE * STREAMS).map(|i| (i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect();
                let expected = words.iter().fold(0, |all, word| all ^ word);
                assert_eq!(loops.read(&words), expected, "{} lines, {}", lines, loops.name());
            }
            assert_eq!(loops.read(&[1; 3]), 0);
            let once = loops.multiply(1);
            assert!(once >= 16 && loops.multiply(10) == 10 * once, "{} times {once}", loops.name());
        }
    }
}
