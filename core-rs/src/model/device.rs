//! The steps of a pass on candle's tensors, wherever they are. Products take all rows at once; attention goes from
//! conversation to conversation.

use candle_core::{DType, Device, Tensor};

use super::batch::{Segment, Wanted, Workspace};
use super::config::Config;
use super::kv_rows::{KvRows, element_type};
use super::on_device::Matrix;
use super::pass::{Net, Pass, run};
use super::rope::Rope;
use super::stored::OnDevice;
use super::tensors::{Angles, Sight, attention, rms_norm, rotate, swiglu};
use super::weights::{TensorSource, net, rope_factors};
use crate::error::Result;
use crate::kernels::CacheType;

/// A model's weights on a device.
#[derive(Debug)]
pub(super) struct DeviceNet {
    net: Net<Matrix, Tensor>,
    device: Device,
    /// Of keys and values in caches.
    dtype: DType,
}

impl DeviceNet {
    /// Brings weights from `source` to `device`, and reads the factors of rope frequencies.
    ///
    /// # Errors
    /// `unsupported` for types that devices do not have, else as `weights::net`.
    pub(super) fn new(
        config: &Config,
        source: &mut dyn TensorSource,
        cache_type: CacheType,
        device: &Device,
    ) -> Result<(Self, Option<Vec<f32>>)> {
        let dtype = element_type(cache_type)?;
        let mut weights = OnDevice { source, device };
        let factors = rope_factors(config, &mut weights)?;
        Ok((Self { net: net(config, &mut weights)?, device: device.clone(), dtype }, factors))
    }

    /// The keys and values of a new conversation.
    pub(super) fn new_rows(&self, config: &Config) -> KvRows {
        KvRows::new(config, self.dtype, &self.device)
    }

    /// Runs the model on a batch whose caches have room.
    pub(super) fn run(
        &self,
        config: &Config,
        rope: &Rope,
        batch: &mut [Segment<'_>],
        workspace: &mut Workspace,
    ) -> Result<()> {
        let device = &self.device;
        run(&self.net, &mut DevicePass { config, rope, device, batch, workspace, state: None })
    }
}

/// A pass over the tokens of a batch.
struct DevicePass<'a, 'b> {
    config: &'a Config,
    rope: &'a Rope,
    device: &'a Device,
    batch: &'a mut [Segment<'b>],
    workspace: &'a mut Workspace,
    /// None before the first step and where no row is left: devices have no tensors without values.
    state: Option<State>,
}

/// What is between two steps.
struct State {
    /// `[n, n_embd]`
    stream: Tensor,
    /// `[n, n_in]` of the next product.
    input: Tensor,
    angles: Angles,
    /// Segment by segment.
    sights: Vec<Sight>,
}

impl DevicePass<'_, '_> {
    fn angles(&self) -> Result<Angles> {
        let half = self.rope.pairs();
        let positions = self.batch.iter().flat_map(|s| s.cache.len()..s.cache.len() + s.tokens.len());
        let rows = positions.clone().count();
        let (mut cos, mut sin) = (vec![0.0; rows * half], vec![0.0; rows * half]);
        let places = cos.chunks_exact_mut(half).zip(sin.chunks_exact_mut(half));
        places.zip(positions).for_each(|((cos, sin), position)| self.rope.angles_at(position, cos, sin));
        let tensor = |values: Vec<f32>| Tensor::from_vec(values, (rows, half), self.device);
        Ok(Angles { cos: tensor(cos)?, sin: tensor(sin)? })
    }

    fn sights(&self) -> Result<Vec<Sight>> {
        let sight = |s: &Segment<'_>| Sight::new(self.config, s.cache.len(), s.tokens.len(), self.device);
        self.batch.iter().map(sight).collect()
    }
}

impl Pass for DevicePass<'_, '_> {
    type Matrix = Matrix;
    type Vector = Tensor;

    fn embed(&mut self, embedding: &Matrix) -> Result<()> {
        let tokens: Vec<u32> = self.batch.iter().flat_map(|segment| segment.tokens).copied().collect();
        if !tokens.is_empty() {
            let stream = embedding.rows(&Tensor::new(tokens, self.device)?)?;
            let (angles, sights) = (self.angles()?, self.sights()?);
            self.state = Some(State { input: stream.clone(), stream, angles, sights });
        }
        Ok(())
    }

    fn norm(&mut self, weight: &Tensor) -> Result<()> {
        let Some(State { stream, input, .. }) = &mut self.state else { return Ok(()) };
        *input = rms_norm(stream, weight, self.config.rms_eps)?;
        Ok(())
    }

    fn attend(&mut self, i: usize, q: &Matrix, k: &Matrix, v: &Matrix) -> Result<()> {
        let Some(State { input, angles, sights, .. }) = &mut self.state else { return Ok(()) };
        let queries = rotate(self.config, &q.forward(input)?, angles)?;
        let keys = rotate(self.config, &k.forward(input)?, angles)?;
        let values = v.forward(input)?;
        let (mut row, mut attended) = (0, Vec::with_capacity(self.batch.len()));
        for (segment, sight) in self.batch.iter().zip(sights) {
            let (n, len) = (segment.tokens.len(), segment.cache.len());
            let part = |rows: &Tensor| rows.narrow(0, row, n);
            let kept = segment.cache.rows()?.write(i, len, &part(&keys)?, &part(&values)?)?;
            attended.push(attention(self.config, &part(&queries)?, kept, sight)?);
            row += n;
        }
        *input = Tensor::cat(&attended, 0)?;
        Ok(())
    }

    fn add_product(&mut self, weight: &Matrix) -> Result<()> {
        let Some(State { stream, input, .. }) = &mut self.state else { return Ok(()) };
        *stream = (&*stream + weight.forward(input)?)?;
        Ok(())
    }

    fn gate(&mut self, gate: &Matrix, up: &Matrix) -> Result<()> {
        let Some(State { input, .. }) = &mut self.state else { return Ok(()) };
        *input = swiglu(&gate.forward(input)?, &up.forward(input)?)?;
        Ok(())
    }

    fn keep_wanted(&mut self) -> Result<()> {
        let Some(mut state) = self.state.take() else { return Ok(()) };
        let (mut row, mut kept) = (0, Vec::new());
        for segment in self.batch.iter() {
            row += segment.tokens.len();
            let wanted = segment.wanted.rows(segment.tokens.len());
            if wanted > 0 {
                kept.push(state.stream.narrow(0, row - wanted, wanted)?);
            }
        }
        if !kept.is_empty() {
            state.stream = Tensor::cat(&kept, 0)?;
            self.state = Some(state);
        }
        Ok(())
    }

    fn output(&mut self, weight: &Matrix) -> Result<()> {
        let Workspace { output, output_len, .. } = &mut *self.workspace;
        output.clear();
        if let Some(State { input, .. }) = &self.state {
            let (mut row, mut parts) = (0, Vec::new());
            for segment in self.batch.iter() {
                let n = segment.wanted.rows(segment.tokens.len());
                if n > 0 {
                    parts.push((segment.wanted == Wanted::Hidden, input.narrow(0, row, n)?));
                }
                row += n;
            }
            // States leave as they are; the others are brought together, and their logits to where they belong.
            let scored: Vec<_> = parts.iter().filter(|(hidden, _)| !hidden).map(|(_, states)| states).collect();
            let logits =
                if scored.is_empty() { Vec::new() } else { values(&weight.forward(&Tensor::cat(&scored, 0)?)?)? };
            let mut logits = logits.chunks_exact(weight.n_out()?);
            for (hidden, states) in &parts {
                match hidden {
                    true => output.extend(values(states)?),
                    false => logits.by_ref().take(states.dim(0)?).for_each(|row| output.extend(row)),
                }
            }
        }
        *output_len = output.len();
        Ok(())
    }
}

/// All values, on the CPU.
fn values(rows: &Tensor) -> Result<Vec<f32>> {
    Ok(rows.flatten_all()?.to_vec1()?)
}
