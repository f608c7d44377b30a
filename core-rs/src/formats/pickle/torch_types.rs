//! Types of PyTorch: what a pickle calls them, and how one value is stored.

use super::super::ggml_type::GgmlType;
use super::super::stored::Element;

/// One type of values.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::formats) struct TorchType {
    /// The type in the module `torch`.
    pub name: &'static str,
    /// The class of its storages in the module `torch`; types of later years have none.
    pub storage: Option<&'static str>,
    /// How one value is stored.
    pub element: Element,
    /// Bytes of one value.
    pub size: usize,
}

const fn typed(name: &'static str, storage: Option<&'static str>, element: Element, size: usize) -> TorchType {
    TorchType { name, storage, element, size }
}

pub(super) static TORCH_TYPES: [TorchType; 21] = [
    typed("float16", Some("HalfStorage"), Element::Ggml(GgmlType::F16), 2),
    typed("bfloat16", Some("BFloat16Storage"), Element::Ggml(GgmlType::BF16), 2),
    typed("float32", Some("FloatStorage"), Element::Ggml(GgmlType::F32), 4),
    typed("float64", Some("DoubleStorage"), Element::Other("f64"), 8),
    typed("uint8", Some("ByteStorage"), Element::Other("u8"), 1),
    typed("int8", Some("CharStorage"), Element::Other("i8"), 1),
    typed("int16", Some("ShortStorage"), Element::Other("i16"), 2),
    typed("int32", Some("IntStorage"), Element::Other("i32"), 4),
    typed("int64", Some("LongStorage"), Element::Other("i64"), 8),
    typed("bool", Some("BoolStorage"), Element::Other("bool"), 1),
    typed("complex64", Some("ComplexFloatStorage"), Element::Other("c64"), 8),
    typed("complex128", Some("ComplexDoubleStorage"), Element::Other("c128"), 16),
    typed("uint16", None, Element::Other("u16"), 2),
    typed("uint32", None, Element::Other("u32"), 4),
    typed("uint64", None, Element::Other("u64"), 8),
    typed("float8_e4m3fn", None, Element::Other("f8_e4m3fn"), 1),
    typed("float8_e4m3fnuz", None, Element::Other("f8_e4m3fnuz"), 1),
    typed("float8_e5m2", None, Element::Other("f8_e5m2"), 1),
    typed("float8_e5m2fnuz", None, Element::Other("f8_e5m2fnuz"), 1),
    typed("float8_e8m0fnu", None, Element::Other("f8_e8m0fnu"), 1),
    typed("float4_e2m1fn_x2", None, Element::Other("f4_e2m1fn_x2"), 1),
];
