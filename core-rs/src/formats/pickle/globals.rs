//! The functions and classes that a pickle may name, and what may be done with each.

use super::torch_types::{TORCH_TYPES, TorchType};
use crate::error::{Error, Result};

/// What a pickle may name. A name is all it is: nothing here can be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::formats) enum Global {
    /// `numpy.core.multiarray._reconstruct(ndarray, (0,), b"b")`, filled by a state.
    NumpyReconstruct,
    /// `numpy.core.numeric._frombuffer(bytes, dtype, shape, order)`.
    NumpyFromBuffer,
    /// `numpy.core.multiarray.scalar(dtype, bytes)`.
    NumpyScalar,
    /// The class `numpy.ndarray`.
    NumpyArray,
    /// `numpy.dtype(name, align, copy)`, completed by a state.
    NumpyDtype,
    /// `_codecs.encode(text, "latin1")`: bytes in protocol 2.
    Encode,
    /// `bytes()`: no bytes in protocol 2.
    Bytes,
    /// `tuple(t)`: Paddle's form of a tensor is `tuple((name, array))`.
    Tuple,
    /// `collections.OrderedDict()`, filled by items.
    OrderedDict,
    /// `torch._utils._rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks)`.
    TorchTensor,
    /// `torch._utils._rebuild_tensor_v3`: the same and a type, for types that have no storage class.
    TorchTensorOfType,
    /// `torch._utils._rebuild_parameter(tensor, requires_grad, hooks)`.
    TorchParameter,
    /// `torch.storage.UntypedStorage`, a storage counted in bytes.
    TorchBytes,
    /// A class `torch.*Storage`, a storage counted in values of its type.
    TorchStorage(&'static TorchType),
    /// A type `torch.*`.
    TorchType(&'static TorchType),
}

/// Names of a module, and what it may be asked for.
type Module = (&'static [&'static str], &'static [(&'static str, Global)]);

/// Modules with what they may be asked for. numpy 2 moved `numpy.core` to `numpy._core`, and pickles below protocol 3
/// call `builtins` by its old name. The module `torch` has a table of its own.
const GLOBALS: &[Module] = &[
    (
        &["numpy.core.multiarray", "numpy._core.multiarray"],
        &[("_reconstruct", Global::NumpyReconstruct), ("scalar", Global::NumpyScalar)],
    ),
    (&["numpy.core.numeric", "numpy._core.numeric"], &[("_frombuffer", Global::NumpyFromBuffer)]),
    (&["numpy"], &[("ndarray", Global::NumpyArray), ("dtype", Global::NumpyDtype)]),
    (&["_codecs"], &[("encode", Global::Encode)]),
    (&["builtins", "__builtin__"], &[("tuple", Global::Tuple), ("bytes", Global::Bytes)]),
    (&["collections"], &[("OrderedDict", Global::OrderedDict)]),
    (
        &["torch._utils"],
        &[
            ("_rebuild_tensor_v2", Global::TorchTensor),
            ("_rebuild_tensor_v3", Global::TorchTensorOfType),
            ("_rebuild_parameter", Global::TorchParameter),
        ],
    ),
    (&["torch.storage"], &[("UntypedStorage", Global::TorchBytes)]),
];

impl Global {
    /// What this name stands for.
    ///
    /// # Errors
    /// `unsupported` for every other name, with the name.
    pub fn find(module: &[u8], name: &[u8]) -> Result<Self> {
        let known = || {
            if module == b"torch" {
                return torch(name);
            }
            let named = |names: &[&str]| names.iter().any(|known| known.as_bytes() == module);
            let (_, members) = GLOBALS.iter().find(|(modules, _)| named(modules))?;
            members.iter().find(|(known, _)| known.as_bytes() == name).map(|&(_, global)| global)
        };
        known().ok_or_else(|| {
            Error::unsupported(format!(
                "expected only functions that rebuild arrays, got {}.{} (refused; nothing was run)",
                module.escape_ascii(),
                name.escape_ascii()
            ))
        })
    }

    /// The name, for messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::TorchType(torch) => torch.name,
            Self::TorchStorage(torch) => torch.storage.unwrap_or(torch.name),
            known => {
                let mut members = GLOBALS.iter().flat_map(|(_, members)| members.iter());
                members.find(|&&(_, global)| global == known).map_or("a known name", |&(name, _)| name)
            }
        }
    }

    /// Whether it may be the function of a call.
    pub fn is_function(self) -> bool {
        !matches!(self, Self::NumpyArray | Self::TorchBytes | Self::TorchStorage(_) | Self::TorchType(_))
    }

    /// Whether what it would make is completed by a state.
    pub fn takes_state(self) -> bool {
        matches!(self, Self::NumpyReconstruct | Self::NumpyDtype)
    }
}

/// What the module `torch` has under that name.
fn torch(name: &[u8]) -> Option<Global> {
    TORCH_TYPES.iter().find_map(|torch| {
        let is = |known: &str| known.as_bytes() == name;
        match torch.storage {
            Some(storage) if is(storage) => Some(Global::TorchStorage(torch)),
            _ => is(torch.name).then_some(Global::TorchType(torch)),
        }
    })
}
