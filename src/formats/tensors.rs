//! Named tensors as safetensors files hold them.

use super::Error;
use crate::dtype::DType;
use ndarray::{Array2, ArrayD};
use safetensors::tensor::{Dtype, TensorView, serialize};
use std::collections::HashMap;

/// A tensor in its element type, in row-major order.
pub(super) struct StoredTensor {
    name: String,
    shape: Vec<usize>,
    data: Vec<u8>,
}

impl StoredTensor {
    /// The matrix of `module` that is called `name`.
    pub(super) fn new(module: &str, name: String, values: &Array2<f32>, dtype: DType) -> Result<Self, Error> {
        Ok(Self { name, shape: values.shape().to_vec(), data: encode(module, values, dtype)? })
    }

    /// A tensor of `module` of any rank.
    pub(super) fn of(module: &str, name: String, values: &ArrayD<f32>, dtype: DType) -> Result<Self, Error> {
        let column: Vec<f32> = values.iter().copied().collect();
        let matrix = Array2::from_shape_vec((column.len(), 1), column).unwrap_or_default();
        Ok(Self { name, shape: values.shape().to_vec(), data: encode(module, &matrix, dtype)? })
    }

    /// A matrix of zeros.
    pub(super) fn zeros(name: String, shape: [usize; 2], dtype: DType) -> Self {
        let data = vec![0; shape[0] * shape[1] * dtype.bits().unwrap_or(0) / 8];
        Self { name, shape: shape.to_vec(), data }
    }
}

/// The values in little-endian order, row by row.
pub(super) fn encode(module: &str, values: &Array2<f32>, dtype: DType) -> Result<Vec<u8>, Error> {
    let encoded = dtype.encode(values).ok_or(Error::DType { dtype })?;
    if encoded.overflowed > 0 {
        return Err(Error::Overflow { module: module.to_owned(), dtype });
    }
    Ok(encoded.bytes)
}

/// The file, in `f32`, `f16` or `bf16`; `format` is the framework in its metadata.
pub(super) fn file(tensors: &[StoredTensor], dtype: DType, format: &str) -> Result<Vec<u8>, Error> {
    let stored = match dtype {
        DType::F32 => Dtype::F32,
        DType::F16 => Dtype::F16,
        DType::BF16 => Dtype::BF16,
        _ => return Err(Error::DType { dtype }),
    };
    let views = tensors
        .iter()
        .map(|tensor| Ok((tensor.name.as_str(), TensorView::new(stored, tensor.shape.clone(), &tensor.data)?)));
    let metadata = HashMap::from([("format".to_owned(), format.to_owned())]);
    let file = views.collect::<Result<Vec<_>, _>>().and_then(|views| serialize(views, Some(metadata)));
    file.map_err(|source| Error::Safetensors { source })
}
