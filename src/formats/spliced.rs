//! The adapter in a graph that `splice` made trainable, before or after training.

use super::Error;
use super::error::{Defect, Feature, NotAMatrix};
use super::matrix::{self, NamedMatrix};
use crate::adapter::{Adapter, Base};
use crate::dtype::DType;
use crate::onnx::{Model, Tensor};
use crate::splice::{Form, KEY, Record, scale_name};

/// Reads the adapter in the graph of `model`, by the record in its metadata; without
/// one, by the names that `splice` gives.
///
/// # Errors
/// [`Error::Empty`] when there is none, [`Error::Unsupported`] when the graph takes it as an input and has no values.
pub fn read(model: &Model) -> Result<(Adapter, Base), Error> {
    let Some(record) = record(model)? else {
        return Ok((unrecorded(model)?, Base::default()));
    };
    let path = model.path();
    if record.form != Form::Trainable {
        let feature = Feature::Form { form: record.form };
        return Err(Error::Unsupported { path: path.to_owned(), feature });
    }
    matrix::recorded(path, record, |name| match model.tensor(name) {
        Some(tensor) => values(&tensor),
        None => Err(Defect::NoTensor { tensor: name.to_owned() }),
    })
}

fn record(model: &Model) -> Result<Option<Record>, Error> {
    let record = model.metadata(KEY).map(serde_json::from_str).transpose();
    record.map_err(|error| Error::malformed(model.path(), Defect::Json(error)))
}

/// The adapter of a graph without a record: its scales are tensors of the graph.
fn unrecorded(model: &Model) -> Result<Adapter, Error> {
    let path = model.path();
    let is_ours = |tensor: &Tensor<'_>| matrix::module(tensor.name()).is_some() && tensor.dims().len() == 2;
    let matrices: Result<Vec<_>, _> = model.tensors().filter(is_ours).map(|tensor| values(&tensor)).collect();
    let matrices = matrices.map_err(|source| Error::malformed(path, source))?;
    let mut adapter = matrix::named(path, matrices)?;
    for module in &mut adapter.modules {
        let scale = model.tensor(&scale_name(&module.module));
        let scale = scale.and_then(|scale| DType::F32.read(&scale.bytes()?, 0));
        module.alpha = alpha(scale.unwrap_or(1.0), module.rank());
    }
    Ok(adapter)
}

/// The alpha with the fewest digits that gives `scale` with `rank`.
fn alpha(scale: f32, rank: usize) -> f64 {
    let exact = f64::from(scale) * rank as f64;
    let mut shorter = (0..9).map(|digits| format!("{exact:.digits$}").parse().unwrap_or(exact));
    shorter.find(|alpha: &f64| (alpha / rank as f64) as f32 == scale).unwrap_or(exact)
}

fn values(tensor: &Tensor<'_>) -> Result<NamedMatrix, Defect> {
    let bytes = tensor.bytes();
    let bytes = bytes.ok_or(NotAMatrix::NoValues);
    let bytes = bytes.map_err(|source| Defect::Tensor { tensor: tensor.name().to_owned(), source })?;
    NamedMatrix::new(tensor.name(), tensor.dims(), tensor.dtype(), &bytes)
}
