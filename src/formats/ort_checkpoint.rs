//! The checkpoint of ONNX Runtime Training 1.19.2: a flatbuffer with the trained tensors by name.
//!
//! Source: onnxruntime/core/flatbuffers/schema/ort_training_checkpoint.fbs, `Tensor` of ort.fbs.

use super::error::Defect;
use super::flatbuffer::{
    self,
    ort_checkpoint::{CHECKPOINT_IDENTIFIER, Checkpoint, Tensor},
};
use super::matrix::{self, NamedMatrix};
use super::{Error, manifest};
use crate::adapter::{Adapter, Base};
use crate::dtype::DType;
use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Whether the file at `path` is such a checkpoint, by its identifier.
pub fn is_checkpoint(path: &Path) -> bool {
    let mut start = [0; 8];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut start));
    read.is_ok() && flatbuffer::is(&start, CHECKPOINT_IDENTIFIER)
}

/// Reads the adapter in the checkpoint at `path`, made by training a graph of `splice --ort-training`.
///
/// Scales and order come from the `manifest.json` that `splice` wrote, beside the checkpoint or in the folder above.
///
/// # Errors
/// [`Error::NoManifest`] without it; [`Error::Malformed`] when a tensor that it names is missing.
pub fn read(path: &Path) -> Result<(Adapter, Base), Error> {
    let record = manifest::record_beside(path)?.ok_or_else(|| Error::NoManifest { path: path.to_owned() })?;
    let bytes = std::fs::read(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
    let file = flatbuffer::root::<Checkpoint<'_>>(&bytes).map_err(Defect::Flatbuffer);
    let file = file.map_err(|source| Error::malformed(path, source))?;
    let tensors = file.module_state().requires_grad_params().iter();
    let tensors: HashMap<&str, Tensor<'_>> = tensors.map(|tensor| (tensor.name(), tensor)).collect();
    matrix::recorded(path, record, |name| {
        let tensor = tensors.get(name).ok_or_else(|| Defect::NoTensor { tensor: name.to_owned() })?;
        let dims: Vec<i64> = tensor.dims().iter().collect();
        let dtype = DType::from_onnx(tensor.data_type());
        NamedMatrix::new(name, &dims, dtype, tensor.raw_data().bytes())
    })
}
