//! The forward pass of the Llama family, in the steps that a device offers: RMSNorm, rotary attention with grouped heads,
//! SwiGLU, tied or separate output.

use crate::error::Result;

/// What a model of matrices `M` and vectors `V` consists of. Immutable: conversations live in caches.
#[derive(Debug)]
pub(super) struct Net<M, V> {
    /// `[n_vocab, n_embd]`; only the rows asked for are read.
    pub(super) embedding: M,
    pub(super) layers: Vec<Layer<M, V>>,
    pub(super) output_norm: V,
    /// `[n_vocab, n_embd]`; the embedding if there is none.
    pub(super) output: Option<M>,
}

/// The weights of one layer.
#[derive(Debug)]
pub(super) struct Layer<M, V> {
    pub(super) attn_norm: V,
    pub(super) q: M,
    pub(super) k: M,
    pub(super) v: M,
    pub(super) attn_output: M,
    pub(super) ffn_norm: V,
    pub(super) gate: M,
    pub(super) up: M,
    pub(super) down: M,
}

/// A pass on some device. It keeps two things between steps: the residual stream, a row for each token, and the input of
/// the next product.
pub(super) trait Pass {
    type Matrix;
    type Vector;

    /// stream = rows of the embedding
    fn embed(&mut self, embedding: &Self::Matrix) -> Result<()>;
    /// input = stream / √(mean(stream²) + eps) * weight
    fn norm(&mut self, weight: &Self::Vector) -> Result<()>;
    /// input = what the tokens gather with rotated queries from the keys and values of layer `i`, theirs among them
    fn attend(&mut self, i: usize, q: &Self::Matrix, k: &Self::Matrix, v: &Self::Matrix) -> Result<()>;
    /// stream = stream + weight · input
    fn add_product(&mut self, weight: &Self::Matrix) -> Result<()>;
    /// input = silu(gate · input) * (up · input)
    fn gate(&mut self, gate: &Self::Matrix, up: &Self::Matrix) -> Result<()>;
    /// Leaves of the stream the rows that somebody wants something of.
    fn keep_wanted(&mut self) -> Result<()>;
    /// output = weight · input, or input where hidden states are wanted
    fn output(&mut self, weight: &Self::Matrix) -> Result<()>;
}

/// Runs `net` on the tokens of `pass`.
pub(super) fn run<P: Pass>(net: &Net<P::Matrix, P::Vector>, pass: &mut P) -> Result<()> {
    pass.embed(&net.embedding)?;
    for (i, layer) in net.layers.iter().enumerate() {
        pass.norm(&layer.attn_norm)?;
        pass.attend(i, &layer.q, &layer.k, &layer.v)?;
        pass.add_product(&layer.attn_output)?;
        pass.norm(&layer.ffn_norm)?;
        pass.gate(&layer.gate, &layer.up)?;
        pass.add_product(&layer.down)?;
    }
    pass.keep_wanted()?;
    pass.norm(&net.output_norm)?;
    pass.output(net.output.as_ref().unwrap_or(&net.embedding))
}
