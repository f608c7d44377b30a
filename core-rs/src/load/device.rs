//! Where a model runs, by name. Nothing but the CPU is there unless the crate is built with its feature `cuda`
//! (docs/cuda.md).
//!
//! Absent: what is computed on a device, and how weights get there; the model does that.

use std::fmt;

use candle_core::Device;

use crate::error::{Error, Result};

/// Where the arithmetic runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Place {
    /// On the CPU, by the kernels of this crate.
    #[default]
    Cpu,
    /// On the NVIDIA GPU of this number, by candle's.
    Cuda(usize),
}

impl Place {
    /// Reads `cpu`, `cuda` (the first GPU) or `cuda:N`.
    ///
    /// # Errors
    /// `invalid_request` for another name, `unsupported` for a GPU in a build without CUDA.
    pub fn parse(name: &str) -> Result<Self> {
        let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u8>().ok())?;
        let place = match name {
            "cpu" => Some(Self::Cpu),
            "cuda" => Some(Self::Cuda(0)),
            _ => name.strip_prefix("cuda:").and_then(number).map(|n| Self::Cuda(n.into())),
        };
        match place {
            Some(Self::Cuda(_)) if !cfg!(feature = "cuda") => Err(Error::unsupported(format!(
                "choosing a device: {name} needs a core built with CUDA, got one without; \
                 build it with `cargo build --release -p llamero-core --features cuda`"
            ))),
            Some(place) => Ok(place),
            None => Err(Error::invalid_request(format!(
                "choosing a device: expected cpu, cuda or cuda:N with N up to {}, got {name:?}",
                u8::MAX
            ))),
        }
    }

    /// # Errors
    /// `invalid_request` when this machine has no such GPU, or no driver for it.
    pub(super) fn open(self) -> Result<Device> {
        match self {
            Self::Cpu => Ok(Device::Cpu),
            // With a stream of its own: candle's usual one is another for each thread, and nothing would make the threads
            // that run the model wait for the one that loads it.
            Self::Cuda(n) => Device::new_cuda_with_stream(n).map_err(|e| {
                Error::invalid_request(format!("opening device {self}: expected a GPU that CUDA can use, got {e}"))
            }),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(n) => write!(f, "cuda:{n}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn names_are_read_and_others_are_refused() {
        assert_eq!((Place::parse("cpu").unwrap(), Place::default()), (Place::Cpu, Place::Cpu));
        assert!(Place::Cpu.open().unwrap().is_cpu());
        for name in ["", "CPU", "gpu", "cuda:", "cuda:x", "cuda:+1", "cuda:-1", "cuda:256", "cuda0", "cpu:0"] {
            let error = Place::parse(name).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidRequest);
            assert!(error.to_string().ends_with(&format!("got {name:?}")), "{error}");
        }
    }

    #[test]
    fn a_gpu_has_a_number_and_needs_a_build_for_it() {
        for (name, number) in [("cuda", 0), ("cuda:0", 0), ("cuda:7", 7)] {
            let parsed = Place::parse(name);
            assert_eq!(parsed.is_ok(), cfg!(feature = "cuda"));
            match parsed {
                Ok(place) => assert_eq!((place, place.to_string()), (Place::Cuda(number), format!("cuda:{number}"))),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Unsupported);
                    assert!(error.to_string().contains("--features cuda"), "{error}");
                }
            }
        }
        let error = Place::Cuda(255).open().unwrap_err().to_string();
        assert!(error.starts_with("opening device cuda:255: expected a GPU that CUDA can use, got "), "{error}");
    }
}
