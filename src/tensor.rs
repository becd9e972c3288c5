//! Tensors in host memory.

use half::{bf16, f16};
use ndarray::{ArrayD, ArrayViewD, ArrayViewMutD, Axis, IxDyn, Slice};

use crate::dtype::DType;
use std::borrow::Cow;
use std::io::{self, Read};

/// A tensor in host memory, in row-major order.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Tensor {
    /// Elements of [`DType::F32`].
    F32(ArrayD<f32>),
    /// Elements of [`DType::F16`].
    F16(ArrayD<f16>),
    /// Elements of [`DType::BF16`].
    BF16(ArrayD<bf16>),
    /// Elements of [`DType::F64`].
    F64(ArrayD<f64>),
    /// Elements of [`DType::I64`].
    I64(ArrayD<i64>),
    /// Elements of [`DType::I32`].
    I32(ArrayD<i32>),
    /// Elements of [`DType::I8`].
    I8(ArrayD<i8>),
    /// Elements of [`DType::U8`].
    U8(ArrayD<u8>),
    /// Elements of [`DType::Bool`].
    Bool(ArrayD<bool>),
}

/// Evaluates `$body` with `$array` bound to the elements, whatever their type is.
macro_rules! with_array {
    ($tensor:expr, $array:ident => $body:expr) => {
        match $tensor {
            $crate::tensor::Tensor::F32($array) => $body,
            $crate::tensor::Tensor::F16($array) => $body,
            $crate::tensor::Tensor::BF16($array) => $body,
            $crate::tensor::Tensor::F64($array) => $body,
            $crate::tensor::Tensor::I64($array) => $body,
            $crate::tensor::Tensor::I32($array) => $body,
            $crate::tensor::Tensor::I8($array) => $body,
            $crate::tensor::Tensor::U8($array) => $body,
            $crate::tensor::Tensor::Bool($array) => $body,
        }
    };
}
pub(crate) use with_array;

/// A type of elements that tensors can have.
pub trait Element: Copy + Sized {
    /// A tensor of these elements.
    fn tensor(array: ArrayD<Self>) -> Tensor;

    /// The elements of a tensor of this type; `None` for a tensor of another.
    fn view(tensor: &Tensor) -> Option<ArrayViewD<'_, Self>>;
}

macro_rules! elements {
    ($($variant:ident $element:ty),*) => {$(
        impl Element for $element {
            fn tensor(array: ArrayD<Self>) -> Tensor {
                Tensor::$variant(array)
            }

            fn view(tensor: &Tensor) -> Option<ArrayViewD<'_, Self>> {
                if let Tensor::$variant(array) = tensor { Some(array.view()) } else { None }
            }
        }
    )*};
}
elements!(F32 f32, F16 f16, BF16 bf16, F64 f64, I64 i64, I32 i32, I8 i8, U8 u8, Bool bool);

/// As many elements as `shape` has.
fn elements<T: bytemuck::Pod>(shape: &[usize], from: &mut impl Read) -> io::Result<Vec<T>> {
    let mut elements = vec![T::zeroed(); shape.iter().product()];
    from.read_exact(bytemuck::cast_slice_mut(&mut elements))?;
    Ok(elements)
}

impl Tensor {
    /// A tensor of row-major `data`; `None` when its length does not fill `shape`.
    pub fn from_vec<T: Element>(shape: &[usize], data: Vec<T>) -> Option<Self> {
        ArrayD::from_shape_vec(IxDyn(shape), data).ok().map(T::tensor)
    }

    /// A tensor of row-major integers.
    ///
    /// `None` when they do not fill `shape`, when one is out of the range of `dtype`, and for types that tensors cannot
    /// have. Floats round; for [`DType::Bool`] all but 0 are true.
    pub fn from_i64(dtype: DType, shape: &[usize], data: &[i64]) -> Option<Self> {
        match dtype {
            DType::F32 => Self::from_vec(shape, data.iter().map(|&value| value as f32).collect()),
            DType::F16 => Self::from_vec(shape, data.iter().map(|&value| f16::from_f64(value as f64)).collect()),
            DType::BF16 => Self::from_vec(shape, data.iter().map(|&value| bf16::from_f64(value as f64)).collect()),
            DType::F64 => Self::from_vec(shape, data.iter().map(|&value| value as f64).collect()),
            DType::I64 => Self::from_vec(shape, data.to_vec()),
            DType::I32 => Self::from_vec::<i32>(shape, narrow(data)?),
            DType::I8 => Self::from_vec::<i8>(shape, narrow(data)?),
            DType::U8 => Self::from_vec::<u8>(shape, narrow(data)?),
            DType::Bool => Self::from_vec(shape, data.iter().map(|&value| value != 0).collect()),
            _ => None,
        }
    }

    /// A tensor of row-major floats, rounded to `dtype`; `None` when they do not fill `shape` and for types that are no
    /// floats.
    pub fn from_f64(dtype: DType, shape: &[usize], data: &[f64]) -> Option<Self> {
        match dtype {
            DType::F32 => Self::from_vec(shape, data.iter().map(|&value| value as f32).collect()),
            DType::F16 => Self::from_vec(shape, data.iter().map(|&value| f16::from_f64(value)).collect()),
            DType::BF16 => Self::from_vec(shape, data.iter().map(|&value| bf16::from_f64(value)).collect()),
            DType::F64 => Self::from_vec(shape, data.to_vec()),
            _ => None,
        }
    }

    /// A tensor of zeros; `None` for element types that tensors cannot have.
    pub fn zeros(dtype: DType, shape: &[usize]) -> Option<Self> {
        let shape = IxDyn(shape);
        Some(match dtype {
            DType::F32 => Self::F32(ArrayD::zeros(shape)),
            DType::F16 => Self::F16(ArrayD::from_elem(shape, f16::ZERO)),
            DType::BF16 => Self::BF16(ArrayD::from_elem(shape, bf16::ZERO)),
            DType::F64 => Self::F64(ArrayD::zeros(shape)),
            DType::I64 => Self::I64(ArrayD::zeros(shape)),
            DType::I32 => Self::I32(ArrayD::zeros(shape)),
            DType::I8 => Self::I8(ArrayD::zeros(shape)),
            DType::U8 => Self::U8(ArrayD::zeros(shape)),
            DType::Bool => Self::Bool(ArrayD::from_elem(shape, false)),
            _ => return None,
        })
    }

    /// Whether tensors can have elements of type `dtype`.
    pub fn holds(dtype: DType) -> bool {
        Self::zeros(dtype, &[0]).is_some()
    }

    /// The type of its elements.
    pub fn dtype(&self) -> DType {
        match self {
            Self::F32(_) => DType::F32,
            Self::F16(_) => DType::F16,
            Self::BF16(_) => DType::BF16,
            Self::F64(_) => DType::F64,
            Self::I64(_) => DType::I64,
            Self::I32(_) => DType::I32,
            Self::I8(_) => DType::I8,
            Self::U8(_) => DType::U8,
            Self::Bool(_) => DType::Bool,
        }
    }

    /// Its dimensions.
    pub fn shape(&self) -> &[usize] {
        with_array!(self, array => array.shape())
    }

    /// Bytes of its elements.
    pub(crate) fn bytes(&self) -> usize {
        with_array!(self, array => std::mem::size_of_val(array.as_slice().unwrap_or_default()))
    }

    /// Its elements in row-major order, as they are in the memory of this machine.
    pub(crate) fn raw(&self) -> Cow<'_, [u8]> {
        with_array!(self, array => match array.as_slice() {
            Some(elements) => Cow::Borrowed(bytemuck::cast_slice(elements)),
            None => Cow::Owned(array.iter().flat_map(bytemuck::bytes_of).copied().collect()),
        })
    }

    /// Reads a tensor whose elements are as [`raw`](Self::raw) gives them; nothing for types that tensors cannot have.
    ///
    /// # Errors
    /// When there are not as many bytes.
    pub(crate) fn read_raw(dtype: DType, shape: &[usize], from: &mut impl Read) -> io::Result<Option<Self>> {
        Ok(match dtype {
            DType::F32 => Self::from_vec(shape, elements::<f32>(shape, from)?),
            DType::F16 => Self::from_vec(shape, elements::<f16>(shape, from)?),
            DType::BF16 => Self::from_vec(shape, elements::<bf16>(shape, from)?),
            DType::F64 => Self::from_vec(shape, elements::<f64>(shape, from)?),
            DType::I64 => Self::from_vec(shape, elements::<i64>(shape, from)?),
            DType::I32 => Self::from_vec(shape, elements::<i32>(shape, from)?),
            DType::I8 => Self::from_vec(shape, elements::<i8>(shape, from)?),
            DType::U8 => Self::from_vec(shape, elements::<u8>(shape, from)?),
            DType::Bool => {
                Self::from_vec(shape, elements::<u8>(shape, from)?.into_iter().map(|element| element != 0).collect())
            }
            _ => None,
        })
    }

    /// Its elements, if they are of type `T`.
    pub fn view<T: Element>(&self) -> Option<ArrayViewD<'_, T>> {
        T::view(self)
    }

    /// Its elements in row-major order, widened to 64 bits; `None` for floats.
    pub fn to_integers(&self) -> Option<Vec<i64>> {
        match self {
            Self::I64(array) => Some(array.iter().copied().collect()),
            Self::I32(array) => Some(array.iter().copied().map(i64::from).collect()),
            Self::I8(array) => Some(array.iter().copied().map(i64::from).collect()),
            Self::U8(array) => Some(array.iter().copied().map(i64::from).collect()),
            Self::Bool(array) => Some(array.iter().copied().map(i64::from).collect()),
            Self::F32(_) | Self::F16(_) | Self::BF16(_) | Self::F64(_) => None,
        }
    }

    /// The entries at `indices` of an axis, in that order.
    ///
    /// # Panics
    /// When an index is out of bounds or the axis is missing.
    #[must_use]
    pub fn select(&self, axis: usize, indices: &[usize]) -> Self {
        with_array!(self, array => Element::tensor(array.select(Axis(axis), indices)))
    }

    /// The first `length` entries of an axis.
    ///
    /// # Panics
    /// When the axis is shorter or missing.
    #[must_use]
    pub fn truncate(&self, axis: usize, length: usize) -> Self {
        with_array!(self, array => Element::tensor(array.slice_axis(Axis(axis), Slice::from(..length)).to_owned()))
    }

    /// Tensors of one type as one, along a new first axis of size `count`, with zeros up to the sizes `sizes` of the
    /// others; `None` when one is of another type, number of axes, or larger.
    pub fn stack(tensors: &[&Self], count: usize, sizes: &[usize]) -> Option<Self> {
        let mut all = Self::zeros(tensors.first()?.dtype(), &[&[count], sizes].concat())?;
        let fits = |tensor: &&Self| {
            let shape = tensor.shape();
            shape.len() == sizes.len() && shape.iter().zip(sizes).all(|(size, most)| size <= most)
        };
        if tensors.len() > count || !tensors.iter().all(fits) {
            return None;
        }
        with_array!(&mut all, array => {
            for (mut to, tensor) in array.outer_iter_mut().zip(tensors) {
                let from = view_like(&to, tensor)?;
                to.slice_each_axis_mut(|axis| Slice::from(..from.len_of(axis.axis))).assign(&from);
            }
        });
        Some(all)
    }

    /// The same tensor without its first axis, if that is of size 1.
    #[must_use]
    pub fn squeezed(&self) -> Option<Self> {
        let single = self.shape().first() == Some(&1);
        single.then(|| with_array!(self, array => Element::tensor(array.index_axis(Axis(0), 0).to_owned())))
    }

    /// The same values as another type: any as floats, which round, and integers as integers.
    ///
    /// `None` when a value is no value of the type: fractions as integers, and what is out of its range.
    pub fn cast(&self, dtype: DType) -> Option<Self> {
        if self.dtype() == dtype {
            return Some(self.clone());
        }
        match self.to_integers() {
            Some(integers) => Self::from_i64(dtype, self.shape(), &integers),
            None => {
                let floats = self.to_floats();
                let cast = Self::from_f64(dtype, self.shape(), &floats)?;
                let fits = |(before, after): (&f64, f64)| before.is_finite() == after.is_finite();
                floats.iter().zip(cast.to_floats()).all(fits).then_some(cast)
            }
        }
    }

    /// Its elements in row-major order as 64-bit floats.
    pub fn to_floats(&self) -> Vec<f64> {
        match self {
            Self::F32(array) => array.iter().copied().map(f64::from).collect(),
            Self::F16(array) => array.iter().copied().map(f64::from).collect(),
            Self::BF16(array) => array.iter().copied().map(f64::from).collect(),
            Self::F64(array) => array.iter().copied().collect(),
            _ => self.to_integers().unwrap_or_default().into_iter().map(|value| value as f64).collect(),
        }
    }
}

/// A tensor's elements as the type of another array's.
fn view_like<'a, T: Element>(_: &ArrayViewMutD<'_, T>, tensor: &'a Tensor) -> Option<ArrayViewD<'a, T>> {
    tensor.view::<T>()
}

/// Integers of a narrower type; `None` when one does not fit.
fn narrow<T: TryFrom<i64>>(data: &[i64]) -> Option<Vec<T>> {
    data.iter().map(|&value| T::try_from(value).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_must_fill_the_shape() {
        let tensor = Tensor::from_vec(&[2, 1], vec![1i64, 2]).unwrap();
        assert_eq!((tensor.dtype(), tensor.shape()), (DType::I64, &[2, 1][..]));
        assert_eq!(Tensor::from_vec(&[2, 2], vec![1.0f32]), None);
        assert_eq!(Tensor::zeros(DType::String, &[1]), None);
    }

    #[test]
    fn parts_keep_their_type() {
        let tensor = Tensor::from_vec(&[2, 3], vec![1u8, 2, 3, 4, 5, 6]).unwrap();
        assert_eq!(tensor.select(0, &[1, 1]).to_integers(), Some(vec![4, 5, 6, 4, 5, 6]));
        assert_eq!(tensor.truncate(1, 2), Tensor::from_vec(&[2, 2], vec![1u8, 2, 4, 5]).unwrap());
    }

    #[test]
    fn tensors_of_one_type_stack() {
        let pair = Tensor::from_vec(&[2], vec![1.0f32, 2.0]).unwrap();
        let longer = Tensor::from_vec(&[3], vec![3.0f32, 4.0, 5.0]).unwrap();
        let both = Tensor::stack(&[&pair, &longer], 3, &[3]).unwrap();
        assert_eq!(both, Tensor::from_vec(&[3, 3], vec![1.0f32, 2.0, 0.0, 3.0, 4.0, 5.0, 0.0, 0.0, 0.0]).unwrap());
        assert_eq!(Tensor::stack(&[&pair, &longer], 2, &[2]), None);
        assert_eq!(Tensor::stack(&[&pair, &longer], 1, &[3]), None);
        assert_eq!(Tensor::stack(&[&pair], 1, &[2, 1]), None);
        let wider = Tensor::zeros(DType::F64, &[2]).unwrap();
        assert_eq!(Tensor::stack(&[&pair, &wider], 2, &[2]), None);
        assert_eq!(Tensor::stack(&[], 0, &[]), None);
    }

    #[test]
    fn raw_elements_are_read_back() {
        let tensors = [
            Tensor::from_vec(&[2, 1], vec![1.5f32, -2.0]).unwrap(),
            Tensor::from_vec(&[2], vec![f16::from_f32(0.5), f16::NAN]).unwrap(),
            Tensor::from_vec(&[1], vec![bf16::from_f32(3.0)]).unwrap(),
            Tensor::from_vec(&[3], vec![true, false, true]).unwrap(),
            Tensor::from_vec(&[0, 4], Vec::<i64>::new()).unwrap(),
        ];
        for tensor in tensors {
            let raw = tensor.raw().into_owned();
            let read = |mut bytes: &[u8]| Tensor::read_raw(tensor.dtype(), tensor.shape(), &mut bytes);
            assert_eq!(read(&raw).unwrap().unwrap().raw(), raw);
            assert!(raw.is_empty() || read(&raw[1..]).is_err());
        }
    }

    #[test]
    fn values_keep_their_meaning_in_another_type() {
        let cast = |tensor: &Tensor, dtype| tensor.cast(dtype).map(|cast| cast.to_floats());
        let floats = Tensor::from_vec(&[2], vec![1.5f64, 70_000.0]).unwrap();
        assert_eq!(cast(&floats, DType::F32), Some(vec![1.5, 70_000.0]));
        assert_eq!(cast(&floats, DType::F16), None, "out of range");
        assert_eq!(cast(&floats, DType::I64), None, "a fraction");
        let integers = Tensor::from_vec(&[2], vec![3i32, 300]).unwrap();
        assert_eq!(cast(&integers, DType::I64), Some(vec![3.0, 300.0]));
        assert_eq!(cast(&integers, DType::F32), Some(vec![3.0, 300.0]));
        assert_eq!(cast(&integers, DType::U8), None, "out of range");
        assert_eq!(Tensor::zeros(DType::Bool, &[1, 2]).unwrap().squeezed().unwrap().shape(), [2]);
        assert_eq!(floats.squeezed(), None);
    }
}
