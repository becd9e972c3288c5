//! Tensors that go into and come out of a session.

use super::{Error, Result};
use crate::dtype::DType;
use crate::tensor::{Element, Tensor as HostTensor, with_array};
use ort::memory::{AllocationDevice, Allocator};
use ort::value::{DynTensor, DynTensorValueType, DynValue, Tensor, TensorElementType};

/// A tensor of ONNX Runtime, in host or device memory.
pub struct Value(pub(super) DynValue);

impl std::fmt::Debug for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Value").field(&self.0.dtype()).finish()
    }
}

impl Value {
    /// A copy of a tensor.
    ///
    /// # Errors
    /// [`Error::Tensor`] when ONNX Runtime cannot hold it.
    pub fn from_tensor(tensor: &HostTensor) -> Result<Self> {
        let shape = tensor.shape();
        if shape.contains(&0) {
            return Self::zeros(tensor.dtype(), shape);
        }
        let value = with_array!(tensor, array => {
            let data = array.as_slice().map_or_else(|| array.iter().copied().collect::<Vec<_>>(), <[_]>::to_vec);
            Tensor::from_array((shape, data)).map_err(tensor_error)?.into_dyn()
        });
        Ok(Self(value))
    }

    /// A 32-bit float tensor from row-major data.
    ///
    /// # Errors
    /// [`Error::Tensor`] when the data does not fill the shape.
    pub fn f32(shape: &[usize], data: Vec<f32>) -> Result<Self> {
        Ok(Self(Tensor::from_array((shape, data)).map_err(tensor_error)?.into_dyn()))
    }

    /// A 64-bit integer tensor from row-major data.
    ///
    /// # Errors
    /// [`Error::Tensor`] when the data does not fill the shape.
    pub fn i64(shape: &[usize], data: Vec<i64>) -> Result<Self> {
        if data.is_empty() {
            return Self::zeros(DType::I64, shape);
        }
        Ok(Self(Tensor::from_array((shape, data)).map_err(tensor_error)?.into_dyn()))
    }

    /// A tensor of zeros; any dimension may be 0. `dtype` is one that [`HostTensor`] has.
    ///
    /// # Errors
    /// [`Error::Tensor`] for other element types.
    pub fn zeros(dtype: DType, shape: &[usize]) -> Result<Self> {
        let kind = match dtype {
            DType::F32 => TensorElementType::Float32,
            DType::F16 => TensorElementType::Float16,
            DType::BF16 => TensorElementType::Bfloat16,
            DType::F64 => TensorElementType::Float64,
            DType::I32 => TensorElementType::Int32,
            DType::I64 => TensorElementType::Int64,
            DType::I8 => TensorElementType::Int8,
            DType::U8 => TensorElementType::Uint8,
            DType::Bool => TensorElementType::Bool,
            other => return Err(Error::Tensor { reason: format!("cannot make a tensor of element type `{other}`") }),
        };
        let tensor = DynTensor::new(&Allocator::default(), kind, shape.to_vec()).map_err(tensor_error)?;
        Ok(Self(tensor.into_dyn()))
    }

    /// Its dimensions.
    pub fn shape(&self) -> Vec<usize> {
        self.0.shape().iter().map(|&n| n as usize).collect()
    }

    /// Type of its elements; [`DType::Undefined`] for one that tensors do not have.
    pub fn dtype(&self) -> DType {
        dtype(*self.0.data_type())
    }

    /// A copy of a tensor in host memory; pinned if it comes from a GPU, which is faster.
    ///
    /// # Errors
    /// [`Error::Tensor`] when it is no tensor or the device fails.
    pub fn to_host(&self) -> Result<Self> {
        let tensor = self.0.view().downcast::<DynTensorValueType>().map_err(tensor_error)?;
        let memory = tensor.memory_info();
        let (place, number) = if memory.allocation_device() == AllocationDevice::CUDA {
            (AllocationDevice::CUDA_PINNED, memory.device_id())
        } else {
            (AllocationDevice::CPU, 0)
        };
        Ok(Self(tensor.to(place, number).map_err(tensor_error)?.into_dyn()))
    }

    /// A copy of a tensor in host memory that belongs to nothing of ONNX Runtime.
    ///
    /// # Errors
    /// [`Error::Tensor`] when it is no tensor, of a type that [`HostTensor`] has not, or on a device.
    pub fn to_tensor(&self) -> Result<HostTensor> {
        let shape = self.shape();
        let tensor = match self.dtype() {
            DType::F32 => self.copied::<f32>(&shape)?,
            DType::F16 => self.copied::<half::f16>(&shape)?,
            DType::BF16 => self.copied::<half::bf16>(&shape)?,
            DType::F64 => self.copied::<f64>(&shape)?,
            DType::I64 => self.copied::<i64>(&shape)?,
            DType::I32 => self.copied::<i32>(&shape)?,
            DType::I8 => self.copied::<i8>(&shape)?,
            DType::U8 => self.copied::<u8>(&shape)?,
            DType::Bool => self.copied::<bool>(&shape)?,
            other => return Err(Error::Tensor { reason: format!("cannot copy a tensor of element type `{other}`") }),
        };
        tensor.ok_or_else(|| Error::Tensor { reason: "its elements do not fill its shape".to_owned() })
    }

    fn copied<T: Element + ort::value::PrimitiveTensorElementType>(
        &self,
        shape: &[usize],
    ) -> Result<Option<HostTensor>> {
        let data = self.0.try_extract_tensor::<T>().map_err(tensor_error)?.1;
        Ok(HostTensor::from_vec(shape, data.to_vec()))
    }

    /// A copy of a 32-bit float tensor in host memory that belongs to no session.
    ///
    /// # Errors
    /// [`Error::Tensor`] when it is of another type or on a device.
    pub fn unpinned(&self) -> Result<Self> {
        let (shape, data) = self.as_f32()?;
        Self::f32(&shape, data.to_vec())
    }

    /// Shape and data of a 32-bit float tensor in host memory.
    ///
    /// # Errors
    /// [`Error::Tensor`] when it is of another type or on a device.
    pub fn as_f32(&self) -> Result<(Vec<usize>, &[f32])> {
        let (shape, data) = self.0.try_extract_tensor::<f32>().map_err(tensor_error)?;
        Ok((shape.iter().map(|&n| n as usize).collect(), data))
    }

    /// Data of a 32-bit float tensor in host memory, to be changed.
    ///
    /// # Errors
    /// [`Error::Tensor`] when it is of another type or on a device.
    pub fn as_f32_mut(&mut self) -> Result<&mut [f32]> {
        Ok(self.0.try_extract_tensor_mut::<f32>().map_err(tensor_error)?.1)
    }

    /// Shape and data of a float tensor in host memory, widened to 64 bits from 16, 32 or 64.
    ///
    /// # Errors
    /// [`Error::Tensor`] when it is of another type or on a device.
    pub fn to_f64(&self) -> Result<(Vec<usize>, Vec<f64>)> {
        let shape = self.0.shape().iter().map(|&n| n as usize).collect();
        let data = match self.0.data_type() {
            TensorElementType::Float16 => self.extract(half::f16::to_f64)?,
            TensorElementType::Bfloat16 => self.extract(half::bf16::to_f64)?,
            TensorElementType::Float64 => self.extract(|v: f64| v)?,
            _ => self.extract(f64::from as fn(f32) -> f64)?,
        };
        Ok((shape, data))
    }

    /// Data of a 64-bit integer tensor in host memory.
    ///
    /// # Errors
    /// [`Error::Tensor`] when it is of another type or on a device.
    pub fn as_i64(&self) -> Result<&[i64]> {
        Ok(self.0.try_extract_tensor::<i64>().map_err(tensor_error)?.1)
    }

    fn extract<T: ort::value::PrimitiveTensorElementType + Copy>(&self, widen: impl Fn(T) -> f64) -> Result<Vec<f64>> {
        Ok(self.0.try_extract_tensor::<T>().map_err(tensor_error)?.1.iter().map(|&v| widen(v)).collect())
    }
}

/// The element type that ONNX Runtime calls `kind`.
pub(super) fn dtype(kind: TensorElementType) -> DType {
    let numbered = [
        (TensorElementType::Float32, DType::F32),
        (TensorElementType::Float16, DType::F16),
        (TensorElementType::Bfloat16, DType::BF16),
        (TensorElementType::Float64, DType::F64),
        (TensorElementType::Int64, DType::I64),
        (TensorElementType::Int32, DType::I32),
        (TensorElementType::Int8, DType::I8),
        (TensorElementType::Uint8, DType::U8),
        (TensorElementType::Bool, DType::Bool),
    ];
    numbered.into_iter().find(|(known, _)| *known == kind).map_or(DType::Undefined, |(_, dtype)| dtype)
}

fn tensor_error(error: ort::Error) -> Error {
    Error::Tensor { reason: error.message().to_owned() }
}
