//! Reads an `.onnx_adapter` file.

use super::{FORMAT_VERSION, OF_PART};
use crate::adapter::Adapter;
use crate::dtype::DType;
use crate::formats::Error;
use crate::formats::error::{Defect, Feature};
use crate::formats::flatbuffer::{self, onnx_adapter as schema};
use crate::formats::matrix::{self, NamedMatrix};
use crate::regular;
use std::path::Path;

/// Reads the adapter in the file `path`.
///
/// The names of the tensors are those that `splice` gives to graph inputs, or `<module>.lora_A.weight` and
/// `<module>.lora_B.weight`. The scale is in `B`, so alpha is the rank.
///
/// # Errors
/// [`Error::Malformed`] when it has another format, [`Error::Unsupported`] for other tensors, and for the part of an
/// adapter that goes with a model of `splice`.
pub fn read(path: &Path) -> Result<Adapter, Error> {
    let bytes = regular::read(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
    let malformed = |source| Error::malformed(path, source);
    let file = parsed(&bytes).map_err(malformed)?;
    if file.model_version() == OF_PART {
        return Err(Error::Unsupported { path: path.to_owned(), feature: Feature::Part });
    }
    let matrices: Result<Vec<_>, _> = file.parameters().iter().map(|parameter| matrix(&parameter)).collect();
    matrix::named(path, matrices.map_err(malformed)?)
}

fn parsed(bytes: &[u8]) -> Result<schema::Adapter<'_>, Defect> {
    if !flatbuffer::is(bytes, schema::ADAPTER_IDENTIFIER) {
        return Err(Defect::Identifier { identifier: schema::ADAPTER_IDENTIFIER });
    }
    let file = flatbuffer::root::<schema::Adapter<'_>>(bytes).map_err(Defect::Flatbuffer)?;
    if file.format_version() != FORMAT_VERSION {
        return Err(Defect::Version { found: file.format_version(), expected: FORMAT_VERSION });
    }
    Ok(file)
}

fn matrix(parameter: &schema::Parameter<'_>) -> Result<NamedMatrix, Defect> {
    let dims: Vec<i64> = parameter.dims().iter().collect();
    let dtype = DType::from_onnx(parameter.data_type());
    NamedMatrix::new(parameter.name(), &dims, dtype, parameter.raw_data().bytes())
}
