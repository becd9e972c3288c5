//! The adapter in a spliced graph, before or after training.

use super::Error;
use crate::adapter::{Adapter, AdapterModule, Base};
use crate::dtype::DType;
use crate::onnx::Model;
use crate::splice::{Form, KEY, PREFIX, Record, RecordModule, a_name, b_name, scale_name};
use ndarray::Array2;
use std::collections::HashMap;
use std::path::Path;

/// Reads the adapter in the graph of `model`, by the record in its metadata or in a `manifest.json` beside it; without
/// one, by the names that `splice` gives.
///
/// # Errors
/// [`Error::Empty`] when there is none, [`Error::Unsupported`] when the graph takes it as an input and has no values.
pub fn read(model: &Model) -> Result<(Adapter, Base), Error> {
    let path = model.path();
    let Some(record) = record(model)? else {
        return Ok((unrecorded(model)?, Base::default()));
    };
    if record.form != Form::Trainable {
        let (what, reason) = (format!("the form `{}`", record.form.as_str()), "has no values in the graph");
        return Err(Error::Unsupported { path: path.to_owned(), what, reason });
    }
    assemble(path, record, |name| match model.tensor(name) {
        Some(tensor) => Matrix::of(&tensor),
        None => Err(format!("the graph has no initializer `{name}`")),
    })
}

/// The adapter that `record` describes, of matrices that `find` gives by name.
pub(super) fn assemble(
    path: &Path,
    record: Record,
    find: impl Fn(&str) -> Result<Matrix, String>,
) -> Result<(Adapter, Base), Error> {
    let malformed = |reason: String| Error::Malformed { path: path.to_owned(), reason };
    let mut modules = Vec::new();
    for RecordModule { module, a, b, alpha, .. } in &record.modules {
        let (a, b) = (find(a).map_err(malformed)?.values, find(b).map_err(malformed)?.values);
        modules.push(pair(path, module, a, b, *alpha, record.fan_in_fan_out)?);
    }
    let base = Base { name: record.base_model, task_type: record.task_type };
    Ok((Adapter { modules, untouched: record.exclude_modules }, base))
}

fn record(model: &Model) -> Result<Option<Record>, Error> {
    match model.metadata(KEY) {
        Some(text) => super::parse(model.path(), text).map(Some),
        None => super::recorded(model.path()),
    }
}

fn unrecorded(model: &Model) -> Result<Adapter, Error> {
    let path = model.path();
    let ours = model.tensors().filter(|tensor| split(tensor.name()).is_some() && tensor.dims().len() == 2);
    let matrices = ours.map(|tensor| Matrix::of(&tensor));
    let malformed = |reason: String| Error::Malformed { path: path.to_owned(), reason };
    let mut adapter = adapter(path, matrices.collect::<Result<Vec<_>, _>>().map_err(malformed)?)?;
    for module in &mut adapter.modules {
        let scale = model.tensor(&scale_name(&module.module)).and_then(|scale| {
            let bytes = scale.bytes()?;
            Some(f32::from_le_bytes(*bytes.first_chunk::<4>()?))
        });
        module.alpha = alpha(scale.unwrap_or(1.0), module.rank());
    }
    Ok(adapter)
}

/// The alpha with the fewest digits that gives `scale` with `rank`.
fn alpha(scale: f32, rank: usize) -> f64 {
    let exact = f64::from(scale) * rank as f64;
    let shorter = (0..9).map(|digits| format!("{exact:.digits$}").parse().unwrap_or(exact));
    shorter.into_iter().find(|alpha: &f64| (alpha / rank as f64) as f32 == scale).unwrap_or(exact)
}

/// A named matrix.
pub(super) struct Matrix {
    name: String,
    values: Array2<f32>,
}

impl Matrix {
    pub(super) fn new(name: &str, dims: &[i64], dtype: DType, bytes: &[u8]) -> Result<Self, String> {
        let wrong = |what: String| format!("the tensor `{name}` {what}");
        let [rows, columns] = *dims else {
            return Err(wrong(format!("has shape {dims:?}, and a matrix is needed")));
        };
        let decoded = Some(dtype).filter(|dtype| *dtype == DType::F32 || dtype.is_half());
        let values = decoded.and_then(|dtype| dtype.decode(bytes));
        let values = values.ok_or_else(|| wrong(format!("has type {dtype}")))?;
        if !values.iter().all(|value| value.is_finite()) {
            return Err(wrong("has values that are not finite".to_owned()));
        }
        let shape = usize::try_from(rows).ok().zip(usize::try_from(columns).ok());
        let values = shape.and_then(|shape| Array2::from_shape_vec(shape, values).ok());
        let values = values.ok_or_else(|| wrong(format!("has {} bytes and shape {dims:?}", bytes.len())))?;
        Ok(Self { name: name.to_owned(), values })
    }

    fn of(tensor: &crate::onnx::Tensor<'_>) -> Result<Self, String> {
        let bytes = tensor.bytes().ok_or_else(|| format!("the values of `{}` cannot be read", tensor.name()))?;
        Self::new(tensor.name(), tensor.dims(), tensor.dtype(), &bytes)
    }
}

/// The module that the tensor `name` belongs to, and whether it is `B`.
fn split(name: &str) -> Option<(&str, bool)> {
    let ours = |module: &'static str| name.strip_prefix(PREFIX)?.strip_suffix(module);
    let theirs =
        |part: &'static str| name.strip_suffix(part).map(|module| module.trim_start_matches("base_model.model."));
    let a = ours("/A").or_else(|| theirs(".lora_A.weight")).map(|module| (module, false));
    a.or_else(|| ours("/B").or_else(|| theirs(".lora_B.weight")).map(|module| (module, true)))
}

/// The adapter that consists of these matrices, `A` [in, rank] and `B` [rank, out], with a scale of 1.
pub(super) fn adapter(path: &Path, matrices: Vec<Matrix>) -> Result<Adapter, Error> {
    let mut order: Vec<String> = Vec::new();
    let mut found: HashMap<String, [Option<Array2<f32>>; 2]> = HashMap::new();
    for Matrix { name, values } in matrices {
        let Some((module, b)) = split(&name) else {
            let (what, reason) = (format!("the tensor `{name}`"), "is no matrix of a low-rank product");
            return Err(Error::Unsupported { path: path.to_owned(), what, reason });
        };
        if !found.contains_key(module) {
            order.push(module.to_owned());
        }
        found.entry(module.to_owned()).or_default()[usize::from(b)] = Some(values);
    }
    let mut modules = Vec::new();
    for module in order {
        let (Some(a), Some(b)) = found.remove(&module).map_or((None, None), |[a, b]| (a, b)) else {
            let reason = format!("`{}` or `{}` is missing", a_name(&module), b_name(&module));
            return Err(Error::Matrices { path: path.to_owned(), module, reason });
        };
        let rank = a.ncols() as f64;
        modules.push(pair(path, &module, a, b, rank, false)?);
    }
    if modules.is_empty() {
        return Err(Error::Empty { path: path.to_owned() });
    }
    Ok(Adapter { modules, untouched: Vec::new() })
}

fn pair(
    path: &Path,
    module: &str,
    a: Array2<f32>,
    b: Array2<f32>,
    alpha: f64,
    fan_in_fan_out: bool,
) -> Result<AdapterModule, Error> {
    if a.ncols() == 0 || a.ncols() != b.nrows() {
        let reason = format!("A is {:?} and B is {:?}", a.dim(), b.dim());
        return Err(Error::Matrices { path: path.to_owned(), module: module.to_owned(), reason });
    }
    Ok(AdapterModule {
        module: module.to_owned(),
        out_features: b.ncols(),
        b: b.iter().any(|value| *value != 0.0).then(|| b.reversed_axes().as_standard_layout().to_owned()),
        a: a.reversed_axes().as_standard_layout().to_owned(),
        alpha,
        fan_in_fan_out,
    })
}
