//! Weights by name, checked before use and brought to where a model computes with them.

use super::config::Config;
use super::pass::{Layer, Net};
#[cfg(any(test, feature = "cuda"))]
use super::stored::Stored;
use crate::error::{Error, Result};
use crate::kernels::Weight;

/// Where weights come from, by GGUF name (`blk.0.attn_q.weight`).
pub trait TensorSource {
    /// The tensor of that name as the CPU multiplies it, or nothing if there is none.
    fn tensor(&mut self, name: &str) -> Result<Option<Weight>>;

    /// The tensor of that name as it is stored, for a device that brings it to a form of its own.
    ///
    /// # Errors
    /// `unsupported` from a source that has tensors for the CPU alone.
    #[cfg(any(test, feature = "cuda"))]
    fn stored(&mut self, name: &str) -> Result<Option<Stored>> {
        Err(Error::unsupported(format!("reading tensor {name}: expected one as it is stored, got one for the CPU")))
    }
}

/// A source as a device sees it: tensors of checked shapes, in the device's forms.
pub(super) trait Weights {
    type Matrix;
    type Vector;

    /// The matrix of that name, or nothing if there is none.
    fn matrix(&mut self, name: &str, shape: [usize; 2]) -> Result<Option<Self::Matrix>>;
    /// The values of a vector, or nothing if there is none.
    fn floats(&mut self, name: &str, len: usize) -> Result<Option<Vec<f32>>>;
    /// A vector of such values.
    fn vector(&self, values: Vec<f32>) -> Result<Self::Vector>;
}

/// The factors of rope frequencies, for models that have some.
pub(super) fn rope_factors(config: &Config, weights: &mut impl Weights) -> Result<Option<Vec<f32>>> {
    weights.floats("rope_freqs.weight", config.rope_dim / 2)
}

/// All weights that `config` calls for, one after another.
pub(super) fn net<W: Weights>(config: &Config, weights: &mut W) -> Result<Net<W::Matrix, W::Vector>> {
    let vocab = [config.n_vocab, config.n_embd];
    Ok(Net {
        embedding: matrix(weights, "token_embd.weight", vocab)?,
        layers: (0..config.n_layer).map(|i| layer(config, i, weights)).collect::<Result<_>>()?,
        output_norm: vector(weights, "output_norm.weight", config.n_embd)?,
        output: weights.matrix("output.weight", vocab)?,
    })
}

fn layer<W: Weights>(config: &Config, i: usize, weights: &mut W) -> Result<Layer<W::Matrix, W::Vector>> {
    let Config { n_embd, n_ff, .. } = *config;
    let (n_q, n_kv) = (config.n_embd_q(), config.n_embd_kv());
    let name = |part: &str| format!("blk.{i}.{part}.weight");
    Ok(Layer {
        attn_norm: vector(weights, &name("attn_norm"), n_embd)?,
        q: matrix(weights, &name("attn_q"), [n_q, n_embd])?,
        k: matrix(weights, &name("attn_k"), [n_kv, n_embd])?,
        v: matrix(weights, &name("attn_v"), [n_kv, n_embd])?,
        attn_output: matrix(weights, &name("attn_output"), [n_embd, n_q])?,
        ffn_norm: vector(weights, &name("ffn_norm"), n_embd)?,
        gate: matrix(weights, &name("ffn_gate"), [n_ff, n_embd])?,
        up: matrix(weights, &name("ffn_up"), [n_ff, n_embd])?,
        down: matrix(weights, &name("ffn_down"), [n_embd, n_ff])?,
    })
}

fn matrix<W: Weights>(weights: &mut W, name: &str, shape: [usize; 2]) -> Result<W::Matrix> {
    weights.matrix(name, shape)?.ok_or_else(|| missing(name, &shape))
}

fn vector<W: Weights>(weights: &mut W, name: &str, len: usize) -> Result<W::Vector> {
    let values = weights.floats(name, len)?.ok_or_else(|| missing(name, &[len]))?;
    weights.vector(values)
}

fn missing(name: &str, shape: &[usize]) -> Error {
    Error::invalid_format(format!("reading tensor {name}: expected shape {shape:?}, got no such tensor"))
}

/// Fails if tensor `name` has another shape than expected.
pub(super) fn check_shape(name: &str, expected: &[usize], got: &[usize]) -> Result<()> {
    if got == expected {
        return Ok(());
    }
    Err(Error::invalid_format(format!("reading tensor {name}: expected shape {expected:?}, got {got:?}")))
}

/// Weights for the CPU.
pub(super) struct OnCpu<'a>(pub(super) &'a mut dyn TensorSource);

impl OnCpu<'_> {
    fn tensor(&mut self, name: &str, shape: &[usize]) -> Result<Option<Weight>> {
        let tensor = self.0.tensor(name)?;
        tensor.iter().try_for_each(|tensor| check_shape(name, shape, tensor.shape()))?;
        Ok(tensor)
    }
}

impl Weights for OnCpu<'_> {
    type Matrix = Weight;
    type Vector = Vec<f32>;

    fn matrix(&mut self, name: &str, shape: [usize; 2]) -> Result<Option<Weight>> {
        self.tensor(name, &shape)
    }

    fn floats(&mut self, name: &str, len: usize) -> Result<Option<Vec<f32>>> {
        Ok(self.tensor(name, &[len])?.map(|tensor| tensor.values()))
    }

    fn vector(&self, values: Vec<f32>) -> Result<Vec<f32>> {
        Ok(values)
    }
}
