//! The elements of arrays, and what they are in a row.

use half::{bf16, f16};
use serde_json::Value;

use super::super::row::FieldValue;
use crate::dtype::DType;
use crate::tensor::Tensor;

/// An element of an array in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Element {
    /// A number, or true or false; its bytes the highest first if they are `swapped`.
    Number { dtype: DType, swapped: bool },
    /// So many letters in UTF-32; zeros fill up shorter texts.
    Text { letters: usize, swapped: bool },
}

impl Element {
    /// The element that NumPy describes so.
    ///
    /// # Errors
    /// What it is, if that is not read.
    pub(super) fn of_numpy(descr: &str) -> Result<Self, String> {
        let unknown = || format!("its elements are of type `{descr}`");
        let (swapped, kind) = match descr.split_at_checked(1) {
            Some(("<" | "|" | "=", kind)) => (false, kind),
            Some((">", kind)) => (true, kind),
            _ => return Err(unknown()),
        };
        if let Some(letters) = kind.strip_prefix('U') {
            let letters = letters.parse().ok().filter(|letters| *letters < 1 << 26).ok_or_else(unknown)?;
            return Ok(Self::Text { letters, swapped });
        }
        let dtype = match kind {
            "f2" => DType::F16,
            "f4" => DType::F32,
            "f8" => DType::F64,
            "i1" => DType::I8,
            "i2" => DType::I16,
            "i4" => DType::I32,
            "i8" => DType::I64,
            "u1" => DType::U8,
            "u2" => DType::U16,
            "u4" => DType::U32,
            "u8" => DType::U64,
            "b1" => DType::Bool,
            _ if kind.starts_with('O') => return Err("its elements are Python objects, which are pickled".to_owned()),
            _ => return Err(unknown()),
        };
        Ok(Self::Number { dtype, swapped })
    }

    /// Its bytes.
    pub(super) fn bytes(self) -> usize {
        match self {
            Self::Number { dtype, .. } => dtype.bits().unwrap_or(0).div_ceil(8),
            Self::Text { letters, .. } => 4 * letters,
        }
    }

    /// The elements of these bytes in row-major order: a tensor, or a text or list of texts; `None` where they do not
    /// fill `shape`, or a value cannot be.
    pub(super) fn values(self, shape: &[usize], bytes: &[u8]) -> Option<FieldValue> {
        match self {
            Self::Number { dtype, swapped } => {
                tensor(dtype, shape, &ordered(bytes, self.bytes(), swapped)).map(FieldValue::Tensor)
            }
            Self::Text { letters, swapped } => {
                let bytes = ordered(bytes, 4, swapped);
                let texts: Option<Vec<Value>> = match letters {
                    0 => Some(vec![Value::from(""); shape.iter().product()]),
                    _ => bytes.chunks_exact(4 * letters).map(text).collect(),
                };
                match (shape, &texts?[..]) {
                    ([], [text]) => Some(text.clone().into()),
                    ([count], texts) if *count == texts.len() => Some(Value::Array(texts.to_vec()).into()),
                    _ => None,
                }
            }
        }
    }
}

/// Bytes with the lowest of each element first.
fn ordered(bytes: &[u8], of_element: usize, swapped: bool) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    if swapped && of_element > 1 {
        bytes.chunks_exact_mut(of_element).for_each(<[u8]>::reverse);
    }
    bytes
}

/// A text in UTF-32, without the zeros at its end.
fn text(bytes: &[u8]) -> Option<Value> {
    let (letters, _) = bytes.as_chunks::<4>();
    let used = letters.iter().rposition(|letter| *letter != [0; 4]).map_or(0, |last| last + 1);
    let letters = letters[..used].iter().map(|letter| char::from_u32(u32::from_le_bytes(*letter)));
    letters.collect::<Option<String>>().map(Value::String)
}

/// A tensor of little-endian bytes. Integers of types that tensors do not have become 64-bit ones.
fn tensor(dtype: DType, shape: &[usize], bytes: &[u8]) -> Option<Tensor> {
    macro_rules! read {
        ($type:ty) => {
            bytes
                .chunks_exact(size_of::<$type>())
                .filter_map(|chunk| Some(<$type>::from_le_bytes(chunk.try_into().ok()?)))
        };
    }
    match dtype {
        DType::F16 => Tensor::from_vec(shape, read!(f16).collect::<Vec<_>>()),
        DType::BF16 => Tensor::from_vec(shape, read!(bf16).collect::<Vec<_>>()),
        DType::F32 => Tensor::from_vec(shape, read!(f32).collect::<Vec<_>>()),
        DType::F64 => Tensor::from_vec(shape, read!(f64).collect::<Vec<_>>()),
        DType::I8 => Tensor::from_vec(shape, read!(i8).collect::<Vec<_>>()),
        DType::U8 => Tensor::from_vec(shape, bytes.to_vec()),
        DType::Bool => Tensor::from_vec(shape, bytes.iter().map(|byte| *byte != 0).collect::<Vec<_>>()),
        DType::I32 => Tensor::from_vec(shape, read!(i32).collect::<Vec<_>>()),
        DType::I64 => Tensor::from_vec(shape, read!(i64).collect::<Vec<_>>()),
        DType::I16 => Tensor::from_vec(shape, read!(i16).map(i64::from).collect::<Vec<_>>()),
        DType::U16 => Tensor::from_vec(shape, read!(u16).map(i64::from).collect::<Vec<_>>()),
        DType::U32 => Tensor::from_vec(shape, read!(u32).map(i64::from).collect::<Vec<_>>()),
        DType::U64 => {
            Tensor::from_vec(shape, read!(u64).map(|value| i64::try_from(value).ok()).collect::<Option<Vec<_>>>()?)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(descr: &str, shape: &[usize], bytes: &[u8], expected: &str) {
        let element = Element::of_numpy(descr).unwrap();
        assert_eq!(bytes.len(), element.bytes() * shape.iter().product::<usize>());
        let shown = match element.values(shape, bytes) {
            Some(FieldValue::Tensor(tensor)) => format!("{} {:?}", tensor.dtype(), tensor.to_floats()),
            Some(FieldValue::Json(value)) => value.to_string(),
            other => format!("{other:?}"),
        };
        assert_eq!(shown, expected);
    }

    #[test]
    fn numbers() {
        check("<f4", &[2], &[0, 0, 0xc0, 0x3f, 0, 0, 0, 0], "f32 [1.5, 0.0]");
        check(">f4", &[], &[0x3f, 0xc0, 0, 0], "f32 [1.5]");
        check("<f2", &[1], &[0, 0x3e], "f16 [1.5]");
        check(">i2", &[2], &[0xff, 0xfe, 1, 0], "i64 [-2.0, 256.0]");
        check("|u1", &[2], &[255, 1], "u8 [255.0, 1.0]");
        check("|b1", &[2], &[1, 0], "bool [1.0, 0.0]");
        check("<u4", &[1], &[255, 255, 255, 255], "i64 [4294967295.0]");
        check("<u8", &[1], &[255; 8], "None");
    }

    #[test]
    fn texts() {
        check("<U2", &[], &[b'a', 0, 0, 0, 0, 0, 0, 0], r#""a""#);
        check(">U1", &[2], &[0, 0, 0, b'a', 0, 0, 0x4e, 0x2d], r#"["a","中"]"#);
        check("<U0", &[], &[], r#""""#);
        check("<U1", &[], &[0, 0, 0x11, 0], "None");
        assert!(Element::of_numpy("<U99999999999").is_err());
    }
}
