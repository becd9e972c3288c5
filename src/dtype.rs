//! Element types of tensors, and the conversion of their bytes from and to `f32`.

use std::fmt;
use std::str::FromStr;

use half::{bf16, f16};
use serde::{Deserialize, Serialize};

/// The element type of a tensor, as ONNX defines it (`TensorProto.DataType` in `onnx.proto`).
///
/// Its text form (`Display`, `FromStr` and serde) is the lower-case name: `f32`, `bf16`, `i64`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum DType {
    /// No type is given, it is unknown to this version, or the value is not a tensor.
    Undefined,
    /// IEEE binary32.
    F32,
    /// 8-bit unsigned integer.
    U8,
    /// 8-bit signed integer.
    I8,
    /// 16-bit unsigned integer.
    U16,
    /// 16-bit signed integer.
    I16,
    /// 32-bit signed integer.
    I32,
    /// 64-bit signed integer.
    I64,
    /// Text.
    String,
    /// One byte, 0 or 1.
    Bool,
    /// IEEE binary16.
    F16,
    /// IEEE binary64.
    F64,
    /// 32-bit unsigned integer.
    U32,
    /// 64-bit unsigned integer.
    U64,
    /// Two `f32`.
    C64,
    /// Two `f64`.
    C128,
    /// bfloat16.
    BF16,
    /// 8-bit float, 4 exponent and 3 mantissa bits, no infinities.
    F8E4M3FN,
    /// As [`DType::F8E4M3FN`], without negative zero.
    F8E4M3FNUZ,
    /// 8-bit float, 5 exponent and 2 mantissa bits.
    F8E5M2,
    /// As [`DType::F8E5M2`], without infinities and negative zero.
    F8E5M2FNUZ,
    /// 4-bit unsigned integer, two per byte, low bits first.
    U4,
    /// 4-bit signed integer, two per byte, low bits first.
    I4,
    /// 4-bit float, 2 exponent and 1 mantissa bits, two per byte.
    F4E2M1,
    /// A power of two.
    F8E8M0,
    /// 2-bit unsigned integer, four per byte.
    U2,
    /// 2-bit signed integer, four per byte.
    I2,
}

/// Every type with its name and its size in bits, at the index that is its number in ONNX files.
const TABLE: [(DType, &str, usize); 27] = [
    (DType::Undefined, "undefined", 0),
    (DType::F32, "f32", 32),
    (DType::U8, "u8", 8),
    (DType::I8, "i8", 8),
    (DType::U16, "u16", 16),
    (DType::I16, "i16", 16),
    (DType::I32, "i32", 32),
    (DType::I64, "i64", 64),
    (DType::String, "string", 0),
    (DType::Bool, "bool", 8),
    (DType::F16, "f16", 16),
    (DType::F64, "f64", 64),
    (DType::U32, "u32", 32),
    (DType::U64, "u64", 64),
    (DType::C64, "c64", 64),
    (DType::C128, "c128", 128),
    (DType::BF16, "bf16", 16),
    (DType::F8E4M3FN, "f8e4m3fn", 8),
    (DType::F8E4M3FNUZ, "f8e4m3fnuz", 8),
    (DType::F8E5M2, "f8e5m2", 8),
    (DType::F8E5M2FNUZ, "f8e5m2fnuz", 8),
    (DType::U4, "u4", 4),
    (DType::I4, "i4", 4),
    (DType::F4E2M1, "f4e2m1", 4),
    (DType::F8E8M0, "f8e8m0", 8),
    (DType::U2, "u2", 2),
    (DType::I2, "i2", 2),
];

/// A text that names no element type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an element type")]
pub struct UnknownDType {
    /// The text.
    pub text: String,
}

/// Values as bytes of some element type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// Little-endian bytes, in the order of the values.
    pub bytes: Vec<u8>,
    /// How many finite values are too large for the type and became infinite.
    pub overflowed: usize,
}

impl DType {
    /// The type with this number in ONNX files; [`DType::Undefined`] for numbers that this version does not know.
    pub fn from_onnx(code: impl Into<i64>) -> DType {
        let entry = usize::try_from(code.into()).ok().and_then(|code| TABLE.get(code));
        entry.map_or(DType::Undefined, |(dtype, _, _)| *dtype)
    }

    /// Its number in ONNX files.
    pub fn to_onnx(self) -> i32 {
        self as i32
    }

    /// The type of a tensor in a safetensors file; `None` for types that ONNX does not have.
    pub fn from_safetensors(dtype: safetensors::Dtype) -> Option<DType> {
        use safetensors::Dtype;
        Some(match dtype {
            Dtype::BOOL => DType::Bool,
            Dtype::U8 => DType::U8,
            Dtype::I8 => DType::I8,
            Dtype::U16 => DType::U16,
            Dtype::I16 => DType::I16,
            Dtype::U32 => DType::U32,
            Dtype::I32 => DType::I32,
            Dtype::U64 => DType::U64,
            Dtype::I64 => DType::I64,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            Dtype::F32 => DType::F32,
            Dtype::F64 => DType::F64,
            _ => return None,
        })
    }

    /// Its lower-case name, for example `f32`.
    pub fn as_str(self) -> &'static str {
        TABLE[self as usize].1
    }

    /// Bits of one element; `None` for [`DType::Undefined`] and [`DType::String`].
    pub fn bits(self) -> Option<usize> {
        Some(TABLE[self as usize].2).filter(|bits| *bits > 0)
    }

    /// Whether it is one of the float types that models compute in: `f16`, `bf16`, `f32`, `f64`.
    pub fn is_float(self) -> bool {
        matches!(self, DType::F16 | DType::BF16 | DType::F32 | DType::F64)
    }

    /// Whether it is a float type of 16 bits.
    pub fn is_half(self) -> bool {
        matches!(self, DType::F16 | DType::BF16)
    }

    /// Whether [`decode`](DType::decode) and [`read`](DType::read) can convert it.
    pub fn is_decodable(self) -> bool {
        use DType::{BF16, F16, F32, F64, I4, I8, I32, I64, U4, U8};
        matches!(self, F32 | F64 | F16 | BF16 | I64 | I32 | I8 | U8 | I4 | U4)
    }

    /// Element `index` of little-endian `bytes`, rounded to `f32`; `None` past the end and for types that are not
    /// [decodable](DType::is_decodable).
    #[inline]
    pub fn read(self, bytes: &[u8], index: usize) -> Option<f32> {
        #[inline]
        fn array<const N: usize>(bytes: &[u8], index: usize) -> Option<[u8; N]> {
            bytes.get(index * N..)?.first_chunk().copied()
        }
        let nibble = || bytes.get(index / 2).map(|byte| (byte >> (4 * (index % 2))) & 15);
        Some(match self {
            DType::F32 => f32::from_le_bytes(array(bytes, index)?),
            DType::F64 => f64::from_le_bytes(array(bytes, index)?) as f32,
            DType::F16 => f16::from_le_bytes(array(bytes, index)?).to_f32(),
            DType::BF16 => bf16::from_le_bytes(array(bytes, index)?).to_f32(),
            DType::I64 => i64::from_le_bytes(array(bytes, index)?) as f32,
            DType::I32 => i32::from_le_bytes(array(bytes, index)?) as f32,
            DType::I8 => f32::from(i8::from_le_bytes(array(bytes, index)?)),
            DType::U8 => f32::from(*bytes.get(index)?),
            DType::I4 => f32::from(((nibble()? << 4) as i8) >> 4),
            DType::U4 => f32::from(nibble()?),
            _ => return None,
        })
    }

    /// All elements of little-endian `bytes`, rounded to `f32`. Bytes of an incomplete last element are ignored; types
    /// of 4 bits give two elements per byte.
    ///
    /// `None` for types that are not [decodable](DType::is_decodable).
    pub fn decode(self, bytes: &[u8]) -> Option<Vec<f32>> {
        let count = bytes.len() * 8 / self.bits().filter(|_| self.is_decodable())?;
        (0..count).map(|index| self.read(bytes, index)).collect()
    }

    /// `values` in this type, each rounded to the nearest.
    ///
    /// `None` for types other than `f32`, `f16` and `bf16`.
    pub fn encode<'v>(self, values: impl IntoIterator<Item = &'v f32>) -> Option<Encoded> {
        fn all<'v, const N: usize>(
            values: impl Iterator<Item = &'v f32>,
            round: impl Fn(f32) -> ([u8; N], bool),
        ) -> Encoded {
            let mut encoded = Encoded { bytes: Vec::with_capacity(N * values.size_hint().0), overflowed: 0 };
            for value in values {
                let (bytes, is_infinite) = round(*value);
                encoded.bytes.extend_from_slice(&bytes);
                encoded.overflowed += usize::from(is_infinite && value.is_finite());
            }
            encoded
        }
        let half = |value| (f16::from_f32(value).to_le_bytes(), f16::from_f32(value).is_infinite());
        let brain = |value| (bf16::from_f32(value).to_le_bytes(), bf16::from_f32(value).is_infinite());
        let values = values.into_iter();
        match self {
            DType::F32 => Some(all(values, |value| (value.to_le_bytes(), false))),
            DType::F16 => Some(all(values, half)),
            DType::BF16 => Some(all(values, brain)),
            _ => None,
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for DType {
    type Err = UnknownDType;

    fn from_str(text: &str) -> Result<DType, UnknownDType> {
        let found = TABLE.iter().find(|(_, name, _)| *name == text);
        found.map(|(dtype, _, _)| *dtype).ok_or_else(|| UnknownDType { text: text.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_enum() {
        for (code, (dtype, name, _)) in TABLE.iter().enumerate() {
            assert_eq!(dtype.to_onnx(), code as i32);
            assert_eq!(DType::from_onnx(code as i32), *dtype);
            assert_eq!(name.parse(), Ok(*dtype));
            assert_eq!(serde_json::to_string(dtype).unwrap(), format!("\"{name}\""));
        }
        assert_eq!([27, -1].map(|code: i32| DType::from_onnx(code)), [DType::Undefined; 2]);
        assert_eq!("float".parse::<DType>().unwrap_err().to_string(), "`float` is not an element type");
    }

    #[test]
    fn values_survive_their_own_type() {
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            let values = [0.0, -1.5, 0.25, f32::INFINITY];
            let encoded = dtype.encode(&values).unwrap();
            assert_eq!((dtype.decode(&encoded.bytes).unwrap(), encoded.overflowed), (values.to_vec(), 0));
        }
        assert_eq!(DType::I64.encode(&[1.0]), None);
    }

    #[test]
    fn too_large_values_are_counted() {
        let values = [65504.0, -65520.0, 1e6, f32::NAN, f32::INFINITY];
        assert_eq!(DType::F16.encode(&values).unwrap().overflowed, 2);
        assert_eq!(DType::BF16.encode(&[f32::MAX, 3e38]).unwrap().overflowed, 1);
        assert_eq!(DType::F32.encode(&values).unwrap().overflowed, 0);
    }

    #[test]
    fn integers_decode_with_their_sign() {
        assert_eq!(DType::I4.decode(&[0x8f]), Some(vec![-1.0, -8.0]));
        assert_eq!(DType::U4.decode(&[0x8f]), Some(vec![15.0, 8.0]));
        assert_eq!(DType::I8.decode(&[0xff]), Some(vec![-1.0]));
        assert_eq!(DType::I64.decode(&(-3i64).to_le_bytes()), Some(vec![-3.0]));
        assert_eq!(DType::F32.decode(&[0; 7]), Some(vec![0.0]));
        assert_eq!(DType::U8.read(&[1], 1), None);
        assert_eq!(DType::String.decode(&[1]), None);
    }
}
