//! Matrices of an adapter as files store them, and the modules that pairs of them belong to.
//!
//! Graphs and the files of ONNX Runtime store `A` as [in, rank] and `B` as [rank, out].

use super::Error;
use super::error::{Defect, Feature, Mismatch, NotAMatrix};
use crate::adapter::{Adapter, AdapterModule, Base};
use crate::dtype::DType;
use crate::formats::peft::names::{self, Matrix, Name};
use crate::splice::{PREFIX, Record, RecordModule, a_name, b_name};
use ndarray::Array2;
use safetensors::tensor::{Dtype, TensorView, serialize};
use std::collections::HashMap;
use std::path::Path;

/// A named matrix.
pub(super) struct NamedMatrix {
    pub(super) name: String,
    pub(super) values: Array2<f32>,
}

impl NamedMatrix {
    /// The tensor `name` with this shape and these little-endian bytes.
    pub(super) fn new(name: &str, shape: &[i64], dtype: DType, bytes: &[u8]) -> Result<Self, Defect> {
        let values = decode(shape, dtype, bytes);
        let values = values.map_err(|source| Defect::Tensor { tensor: name.to_owned(), source })?;
        Ok(Self { name: name.to_owned(), values })
    }
}

/// The matrix with this shape and these little-endian bytes, which must be finite floats of 16 or 32 bits.
pub(super) fn decode(shape: &[i64], dtype: DType, bytes: &[u8]) -> Result<Array2<f32>, NotAMatrix> {
    let [rows, columns] = *shape else {
        return Err(NotAMatrix::Shape { shape: shape.to_vec() });
    };
    if dtype != DType::F32 && !dtype.is_half() {
        return Err(NotAMatrix::DType { dtype });
    }
    let values = dtype.decode(bytes).ok_or(NotAMatrix::DType { dtype })?;
    if !values.iter().all(|value| value.is_finite()) {
        return Err(NotAMatrix::NotFinite);
    }
    let size = usize::try_from(rows).ok().zip(usize::try_from(columns).ok());
    let matrix = size.and_then(|size| Array2::from_shape_vec(size, values).ok());
    matrix.ok_or_else(|| NotAMatrix::Size { bytes: bytes.len(), shape: shape.to_vec() })
}

/// The adapter that `record` describes, of matrices that `find` gives by name.
pub(super) fn recorded(
    path: &Path,
    record: Record,
    find: impl Fn(&str) -> Result<NamedMatrix, Defect>,
) -> Result<(Adapter, Base), Error> {
    if let Some(module) = record.saved.first() {
        let feature = Feature::Saved { module: module.clone() };
        return Err(Error::Unsupported { path: path.to_owned(), feature });
    }
    let find = |name: &str| {
        let matrix = find(name).map_err(|source| Error::malformed(path, source))?;
        Ok::<_, Error>(matrix.values)
    };
    let mut modules = Vec::new();
    for RecordModule { module, a, b, alpha, .. } in &record.modules {
        let adapter = pair(module, find(a)?, find(b)?).map_err(|source| Error::matrices(path, module, source))?;
        modules.push(AdapterModule { alpha: *alpha, fan_in_fan_out: record.fan_in_fan_out, ..adapter });
    }
    let base = Base { name: record.base_model, task_type: record.task_type, names: record.names, ..Base::default() };
    Ok((Adapter { modules, unadapted: record.exclude_modules }, base))
}

/// The adapter that consists of these matrices, by their names, with a scale of 1.
pub(super) fn named(path: &Path, matrices: Vec<NamedMatrix>) -> Result<Adapter, Error> {
    let mut order: Vec<String> = Vec::new();
    let mut found: HashMap<String, [Option<Array2<f32>>; 2]> = HashMap::new();
    for NamedMatrix { name, values } in matrices {
        let Some((module, is_b)) = module(&name) else {
            let feature = Feature::Tensor { tensor: name, effect: "is not a matrix of a low-rank product" };
            return Err(Error::Unsupported { path: path.to_owned(), feature });
        };
        if !found.contains_key(&module) {
            order.push(module.clone());
        }
        found.entry(module).or_default()[usize::from(is_b)] = Some(values);
    }
    let mut modules = Vec::new();
    for module in order {
        let (Some(a), Some(b)) = found.remove(&module).map_or((None, None), |[a, b]| (a, b)) else {
            let matrix = format!("`{}` or `{}`", a_name(&module), b_name(&module));
            return Err(Error::matrices(path, &module, Mismatch::Missing { matrix }));
        };
        modules.push(pair(&module, a, b).map_err(|source| Error::matrices(path, &module, source))?);
    }
    if modules.is_empty() {
        return Err(Error::Empty { path: path.to_owned() });
    }
    Ok(Adapter { modules, unadapted: Vec::new() })
}

/// A safetensors file with these named matrices.
///
/// # Errors
/// [`Error::Safetensors`].
pub(crate) fn safetensors(matrices: &[(String, Array2<f32>)]) -> Result<Vec<u8>, Error> {
    let bytes = |values: &Array2<f32>| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    let stored: Vec<_> = matrices.iter().map(|(name, values)| (name, values.dim(), bytes(values))).collect();
    let views = stored
        .iter()
        .map(|(name, (rows, columns), bytes)| Ok((name, TensorView::new(Dtype::F32, vec![*rows, *columns], bytes)?)));
    let file = views.collect::<Result<Vec<_>, _>>().and_then(|views| serialize(views, None));
    file.map_err(|source| Error::Safetensors { source })
}

/// The module that the tensor `name` belongs to, and whether it is `B`. Names are those that `splice` gives, or those
/// of PEFT.
pub(super) fn module(name: &str) -> Option<(String, bool)> {
    if let Some(name) = name.strip_prefix(PREFIX) {
        let matrix = |end: &str| name.strip_suffix(end).map(str::to_owned);
        return matrix("/A").map(|module| (module, false)).or_else(|| Some((matrix("/B")?, true)));
    }
    match names::parse(name)? {
        Name { matrix: Matrix::Base | Matrix::Magnitude, .. } => None,
        Name { module, matrix, .. } => Some((module, matrix == Matrix::B)),
    }
}

/// The adapter of a module with `A` [in, rank] and `B` [rank, out], and a scale of 1.
fn pair(module: &str, a: Array2<f32>, b: Array2<f32>) -> Result<AdapterModule, Mismatch> {
    let rank = a.ncols();
    // A matrix without elements has any rank.
    if a.is_empty() || b.is_empty() || rank != b.nrows() {
        return Err(Mismatch::Shapes { a: a.dim(), b: b.dim() });
    }
    Ok(AdapterModule {
        module: module.to_owned(),
        out_features: b.ncols(),
        b: b.iter().any(|value| *value != 0.0).then(|| b.reversed_axes().as_standard_layout().to_owned()),
        a: a.reversed_axes().as_standard_layout().to_owned(),
        alpha: rank as f64,
        fan_in_fan_out: false,
        magnitude: None,
    })
}
