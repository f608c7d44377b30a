//! Which type each tensor of a quantised file gets: llama.cpp's mixes, as `llama_tensor_get_type` of its
//! `llama-quant.cpp` chooses them without an importance matrix.
//!
//! A mix spends bits where errors hurt most: the output matrix, values and down projections of the first, the last and
//! every third layer between. Rows that do not fill blocks of 256 fall back to types with blocks of 32.
//!
//! Absent: mixes of file types we do not write, and architectures other than Llama's (dense or mixture of experts).

use crate::error::{Error, Result};
use crate::formats::gguf::GgmlType;

/// `general.quantization_version` of files with the blocks this room writes.
pub const QUANTIZATION_VERSION: u32 = 2;

macro_rules! file_types {
    ($($(#[$doc:meta])* $variant:ident = $id:literal, $name:literal, $base:ident;)*) => {
        /// What a whole file is converted to.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum FileType { $($(#[$doc])* $variant,)* }

        impl FileType {
            /// Every file type, from the most bits to the fewest.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// `general.file_type`: llama.cpp's `LLAMA_FTYPE` number.
            pub const fn id(self) -> u32 {
                match self { $(Self::$variant => $id,)* }
            }

            /// The name as users type it, such as `q4_k_m`.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// The type of most tensors.
            pub const fn base(self) -> GgmlType {
                match self { $(Self::$variant => GgmlType::$base,)* }
            }
        }
    };
}

file_types! {
    /// Single precision.
    F32 = 0, "f32", F32;
    /// Half precision.
    F16 = 1, "f16", F16;
    /// The upper half of single precision.
    Bf16 = 32, "bf16", BF16;
    /// 8 bits, a scale per 32 values.
    Q8_0 = 7, "q8_0", Q8_0;
    /// 6-bit K-quants.
    Q6K = 18, "q6_k", Q6K;
    /// 5-bit K-quants, 6 bits where it matters.
    Q5KM = 17, "q5_k_m", Q5K;
    /// 5 bits, a scale and a minimum per 32 values.
    Q5_1 = 9, "q5_1", Q5_1;
    /// 5 bits, a scale per 32 values.
    Q5_0 = 8, "q5_0", Q5_0;
    /// 4-bit K-quants, 6 bits where it matters.
    Q4KM = 15, "q4_k_m", Q4K;
    /// 4 bits, a scale and a minimum per 32 values.
    Q4_1 = 3, "q4_1", Q4_1;
    /// 4 bits, a scale per 32 values.
    Q4_0 = 2, "q4_0", Q4_0;
}

impl FileType {
    /// The file type with this name, in upper or lower case.
    ///
    /// # Errors
    /// `invalid_request` for any other name; the sentence lists the known ones.
    pub fn parse(name: &str) -> Result<Self> {
        Self::ALL.iter().copied().find(|t| t.name().eq_ignore_ascii_case(name)).ok_or_else(|| {
            let known: Vec<_> = Self::ALL.iter().map(|t| t.name()).collect();
            Error::invalid_request(format!("choosing a file type: expected one of {}, got {name:?}", known.join(" ")))
        })
    }

    /// The file type with this `general.file_type` number, if it is one that we write.
    pub fn from_id(id: u32) -> Option<Self> {
        Self::ALL.iter().copied().find(|t| t.id() == id)
    }
}

/// What the mixes ask of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ModelShape {
    /// Transformer layers.
    pub n_layer: usize,
    /// Query heads.
    pub n_head: usize,
    /// Key and value heads.
    pub n_head_kv: usize,
    /// Experts of a mixture; 0 for a dense model.
    pub n_expert: usize,
    /// Whether there is no `output.weight`, so that the token embedding is the output matrix too.
    pub tied: bool,
}

/// Parts of a model that a mix treats differently, found by a piece of the GGUF name; the first match counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Output,
    Value,
    Key,
    AttentionOutput,
    Down,
    Other,
}

const PARTS: [(&str, Part); 4] = [
    ("attn_v.weight", Part::Value),
    ("attn_k.weight", Part::Key),
    ("attn_output.weight", Part::AttentionOutput),
    ("ffn_down", Part::Down),
];

/// Names of matrices that stay f32: small, and every value counts.
const PRECISE: [&str; 2] = ["_norm.weight", "ffn_gate_inp.weight"];

/// Llama-2 70B and its kin: eight query heads share each value matrix, so that more bits cost little.
const LAYERS_OF_70B: usize = 80;
/// Mixtures of as many experts are tuned for (Mixtral); others take the dense rules.
const TUNED_EXPERTS: usize = 8;

/// The type of the tensor with GGUF name `name` and `shape` (outermost first) in a file of `file_type`.
///
/// Vectors, norms and the router of a mixture stay f32 whatever the file type.
pub fn tensor_type(file_type: FileType, name: &str, shape: &[usize], model: &ModelShape) -> GgmlType {
    if n_dims(shape) < 2 || !name.ends_with("weight") || PRECISE.iter().any(|part| name.contains(part)) {
        return GgmlType::F32;
    }
    let base = file_type.base();
    if base.block_size() == 1 {
        return base;
    }
    let row_len = shape.last().copied().unwrap_or(0);
    let fills = |dtype: GgmlType| row_len.is_multiple_of(dtype.block_size());
    fallback(mixed(file_type, name, fills(base), model), fills)
}

/// Dimensions as ggml counts them: outermost ones of length 1 are none.
fn n_dims(shape: &[usize]) -> usize {
    shape.iter().position(|&d| d != 1).map_or(1, |first| shape.len() - first)
}

/// The type that the mix wants for a matrix, whether its rows fill blocks or not.
fn mixed(file_type: FileType, name: &str, fills_base: bool, model: &ModelShape) -> GgmlType {
    use GgmlType::{Q4K, Q5K, Q6K, Q8_0};
    let base = file_type.base();
    let is_mix = matches!(file_type, FileType::Q4KM | FileType::Q5KM);
    let tuned = model.n_expert == TUNED_EXPERTS;
    let more_bits = || is_mix && layer(name).is_some_and(|i| use_more_bits(i, model.n_layer));
    match part(name, model.tied) {
        Part::Output if base == Q8_0 || !fills_base => Q8_0,
        Part::Output => Q6K,
        Part::Value | Part::Key if tuned => Q8_0,
        Part::Value | Part::Down if more_bits() => Q6K,
        Part::Value if base == Q4K && model.n_layer == LAYERS_OF_70B && model.n_head != model.n_head_kv => Q5K,
        Part::AttentionOutput if tuned && base == Q4K => Q5K,
        _ => base,
    }
}

fn part(name: &str, tied: bool) -> Part {
    match name {
        "output.weight" => Part::Output,
        "token_embd.weight" if tied => Part::Output,
        _ => PARTS.iter().find(|(piece, _)| name.contains(piece)).map_or(Part::Other, |&(_, part)| part),
    }
}

/// The layer in a name such as `blk.12.attn_v.weight`.
fn layer(name: &str) -> Option<usize> {
    name.strip_prefix("blk.")?.split('.').next()?.parse().ok()
}

/// The first and the last eighth of the layers, and every third one between.
fn use_more_bits(layer: usize, n_layer: usize) -> bool {
    let eighth = n_layer / 8;
    layer < eighth || layer >= 7 * n_layer / 8 || (layer - eighth) % 3 == 2
}

/// What stands in for a type whose blocks the rows do not fill; f16 when nothing with blocks fits.
fn fallback(wanted: GgmlType, fills: impl Fn(GgmlType) -> bool) -> GgmlType {
    let smaller = match wanted {
        _ if fills(wanted) => return wanted,
        GgmlType::Q4K => GgmlType::Q5_0,
        GgmlType::Q5K => GgmlType::Q5_1,
        GgmlType::Q6K => GgmlType::Q8_0,
        other => other,
    };
    if fills(smaller) { smaller } else { GgmlType::F16 }
}
