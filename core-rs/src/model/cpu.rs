//! The steps of a pass on the CPU: on slices of buffers that are kept from pass to pass, so that a token allocates
//! nothing.

use super::attention::Attention;
use super::batch::{Segment, Wanted, Workspace};
use super::config::Config;
use super::pass::Pass;
use super::rope::Rope;
use crate::error::Result;
use crate::kernels::{Input, Lines, Product, Shared, Weight, for_each_piece, multiply, multiply_gated};

/// Buffers of a pass.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    stream: Lines<f32>,
    input: Input,
    next: Input,
    query: Lines<f32>,
    key: Lines<f32>,
    value: Lines<f32>,
    logits: Lines<f32>,
    attention: Attention,
}

/// A pass over the tokens of a batch.
pub(super) struct CpuPass<'a, 'b> {
    pub(super) config: &'a Config,
    pub(super) rope: &'a Rope,
    pub(super) batch: &'a mut [Segment<'b>],
    pub(super) workspace: &'a mut Workspace,
}

impl CpuPass<'_, '_> {
    fn rows(&self) -> usize {
        self.batch.iter().map(|segment| segment.tokens.len()).sum()
    }
}

impl Pass for CpuPass<'_, '_> {
    type Matrix = Weight;
    type Vector = Vec<f32>;

    fn embed(&mut self, embedding: &Weight) -> Result<()> {
        let width = self.config.n_embd;
        let rows = self.rows();
        let stream = self.workspace.buffers.stream.sized(rows * width);
        let tokens = self.batch.iter().flat_map(|segment| segment.tokens);
        stream.chunks_exact_mut(width).zip(tokens).for_each(|(row, &id)| embedding.row(id as usize, row));
        self.workspace.buffers.attention.angles(self.rope, self.batch);
        self.workspace.rows = rows;
        Ok(())
    }

    fn norm(&mut self, weight: &Vec<f32>) -> Result<()> {
        let (width, rows) = (weight.len(), self.workspace.rows);
        let Buffers { stream, input, .. } = &mut self.workspace.buffers;
        let out = Shared::new(input.reshape(rows, width));
        let eps = self.config.rms_eps;
        for_each_piece(rows, 4 * width, |i| {
            // SAFETY: each row is one piece's alone.
            let out = unsafe { out.slice(i * width..(i + 1) * width) };
            rms_norm(&stream[i * width..][..width], weight, eps, out);
        });
        Ok(())
    }

    fn attend(&mut self, i: usize, q: &Weight, k: &Weight, v: &Weight) -> Result<()> {
        let rows = self.workspace.rows;
        let Buffers { input, query, key, value, attention, .. } = &mut self.workspace.buffers;
        let query = query.sized(rows * q.n_out());
        let (key, value) = (key.sized(rows * k.n_out()), value.sized(rows * v.n_out()));
        let product = |weight, out| Product { weight, out, add: false };
        multiply(&mut [product(q, &mut *query), product(k, &mut *key), product(v, &mut *value)], input);
        attention.write(self.config, self.batch, i, key, value);
        attention.attend(self.config, self.batch, i, query, input.reshape(rows, q.n_out()));
        Ok(())
    }

    fn add_product(&mut self, weight: &Weight) -> Result<()> {
        let Buffers { stream, input, .. } = &mut self.workspace.buffers;
        let out = &mut stream[..input.len() * weight.n_out()];
        multiply(&mut [Product { weight, out, add: true }], input);
        Ok(())
    }

    fn gate(&mut self, gate: &Weight, up: &Weight) -> Result<()> {
        let Buffers { input, next, .. } = &mut self.workspace.buffers;
        let out = next.reshape(input.len(), gate.n_out());
        multiply_gated(gate, up, input, out);
        std::mem::swap(input, next);
        Ok(())
    }

    fn keep_wanted(&mut self) -> Result<()> {
        let width = self.config.n_embd;
        let stream = &mut self.workspace.buffers.stream;
        let (mut from, mut kept) = (0, 0);
        for segment in self.batch.iter() {
            let (n, wanted) = (segment.tokens.len(), segment.wanted.rows(segment.tokens.len()));
            stream.copy_within((from + n - wanted) * width..(from + n) * width, kept * width);
            (from, kept) = (from + n, kept + wanted);
        }
        self.workspace.rows = kept;
        Ok(())
    }

    fn output(&mut self, weight: &Weight) -> Result<()> {
        let (width, n_vocab) = (self.config.n_embd, weight.n_out());
        let Workspace { buffers, output, output_len, .. } = &mut *self.workspace;
        let Buffers { input, next, logits, .. } = buffers;
        let rows = |segment: &Segment<'_>| segment.wanted.rows(segment.tokens.len());
        let hidden: usize = self.batch.iter().filter(|s| s.wanted == Wanted::Hidden).map(rows).sum();
        let scored = input.len() - hidden;
        *output_len = scored * n_vocab + hidden * width;
        if output.len() < *output_len {
            output.resize(*output_len, 0.0);
        }
        let output = &mut output[..*output_len];
        if hidden == 0 {
            multiply(&mut [Product { weight, out: output, add: false }], input);
            return Ok(());
        }
        // States leave as they are; the others are brought together, and their logits back to where they belong.
        let wants = || self.batch.iter().flat_map(|s| std::iter::repeat_n(s.wanted, rows(s)));
        let states = || input.values().chunks_exact(width).zip(wants());
        let to_score = next.reshape(scored, width);
        let mut places = to_score.chunks_exact_mut(width);
        for (row, _) in states().filter(|(_, wanted)| *wanted != Wanted::Hidden) {
            places.next().into_iter().for_each(|place| place.copy_from_slice(row));
        }
        let logits = logits.sized(scored * n_vocab);
        multiply(&mut [Product { weight, out: &mut *logits, add: false }], next);
        let mut logits = logits.chunks_exact(n_vocab);
        let mut rest = output;
        for (row, wanted) in states() {
            let row = if wanted == Wanted::Hidden { row } else { logits.next().unwrap_or_default() };
            let place;
            (place, rest) = rest.split_at_mut(row.len());
            place.copy_from_slice(row);
        }
        Ok(())
    }
}

/// `out = x / √(mean(x²) + eps) * weight`
fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let scale = (mean_square(x) as f32 + eps).sqrt().recip();
    out.iter_mut().zip(x.iter().zip(weight)).for_each(|(out, (v, w))| *out = *v * scale * w);
}

/// In f64 like ggml's, in sums that need not wait for each other.
fn mean_square(row: &[f32]) -> f64 {
    let (eights, tail) = row.as_chunks::<8>();
    let mut sums = [0.0; 8];
    for eight in eights {
        sums.iter_mut().zip(eight).for_each(|(sum, &v)| *sum += f64::from(v) * f64::from(v));
    }
    let tail: f64 = tail.iter().map(|&v| f64::from(v) * f64::from(v)).sum();
    (sums.iter().sum::<f64>() + tail) / row.len() as f64
}
