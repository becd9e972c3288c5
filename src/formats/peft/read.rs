//! Reads the folder of a LoRA adapter.

use super::config::Config;
use super::{CONFIG, PREFIX, WEIGHTS};
use crate::adapter::{Adapter, AdapterModule, Base};
use crate::dtype::DType;
use crate::formats::error::{Defect, Error, Feature, Mismatch};
use crate::formats::matrix;
use ndarray::Array2;
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use std::collections::BTreeMap;
use std::path::Path;

/// Reads the adapter in `dir`, and what it says of its base model.
///
/// Scales are those of PEFT: the first pattern that matches the end of a module's name wins, and `use_rslora` divides
/// alpha by the root of the rank. The alpha of the result gives that scale with `alpha / rank`.
///
/// # Errors
/// [`Error::Unsupported`] for everything that is not a plain low-rank product: other kinds of adapters, DoRA, trained
/// biases, modules saved whole, embeddings.
pub fn read(dir: &Path) -> Result<(Adapter, Base), Error> {
    let config = Config::read(&dir.join(CONFIG))?;
    let path = dir.join(WEIGHTS);
    let bytes = std::fs::read(&path).map_err(|source| Error::Io { path: path.clone(), source })?;
    let tensors = SafeTensors::deserialize(&bytes).map_err(Defect::Safetensors);
    let tensors = tensors.map_err(|source| Error::malformed(&path, source))?;
    let mut modules = Vec::new();
    for (module, matrices) in matrices(&path, &tensors)? {
        let adapter = pair(&config, &module, matrices);
        modules.push(adapter.map_err(|source| Error::matrices(&path, &module, source))?);
    }
    if modules.is_empty() {
        return Err(Error::Empty { path });
    }
    modules.sort_by_cached_key(|module| (config.position(&module.module), natural(&module.module)));
    Ok((Adapter { modules, unadapted: config.excluded() }, config.base()))
}

/// `A` and `B` of a module; `None` for one that is missing.
type Pair<'t> = [Option<TensorView<'t>>; 2];

/// The matrices of every module.
fn matrices<'t>(path: &Path, tensors: &'t SafeTensors<'_>) -> Result<BTreeMap<String, Pair<'t>>, Error> {
    let mut found: BTreeMap<String, Pair<'t>> = BTreeMap::new();
    for (name, view) in tensors.iter() {
        let Some((module, part)) = split(name) else {
            let feature = Feature::Tensor { tensor: name.to_owned(), effect: effect(name) };
            return Err(Error::Unsupported { path: path.to_owned(), feature });
        };
        found.entry(module.to_owned()).or_default()[part] = Some(view);
    }
    Ok(found)
}

/// The module of `base_model.model.<module>.lora_A.weight`, and 0 for A or 1 for B. Old versions of PEFT wrote the name
/// of the adapter before `weight`.
fn split(name: &str) -> Option<(&str, usize)> {
    let name = name.strip_prefix(PREFIX).unwrap_or(name).strip_suffix(".weight")?;
    let name = name.strip_suffix(".default").unwrap_or(name);
    if let Some(module) = name.strip_suffix(".lora_A") {
        return Some((module, 0));
    }
    name.strip_suffix(".lora_B").map(|module| (module, 1))
}

/// What a tensor does that is not `A` or `B` of a linear layer.
fn effect(name: &str) -> &'static str {
    if name.contains("lora_embedding") {
        "is a product in an embedding, not in a linear layer"
    } else if name.contains("lora_magnitude") {
        "scales the columns of the whole weight, not only a low-rank product"
    } else {
        "is not a matrix of a low-rank product"
    }
}

fn pair(config: &Config, module: &str, matrices: Pair<'_>) -> Result<AdapterModule, Mismatch> {
    let [a, b] = matrices;
    let (a, b) = (decode("A", a)?, decode("B", b)?);
    let rank = a.nrows();
    if rank == 0 || b.ncols() != rank {
        return Err(Mismatch::Shapes { a: a.dim(), b: b.dim() });
    }
    if let Some(expected) = config.rank(module).filter(|expected| *expected != rank as u64) {
        return Err(Mismatch::Rank { found: rank, expected, config: config.path.clone() });
    }
    let alpha = config.alpha(module, rank).ok_or_else(|| Mismatch::NoAlpha { config: config.path.clone() })?;
    Ok(AdapterModule {
        module: module.to_owned(),
        out_features: b.nrows(),
        b: b.iter().any(|value| *value != 0.0).then_some(b),
        a,
        alpha,
        fan_in_fan_out: config.fan_in_fan_out(),
    })
}

fn decode(matrix: &'static str, view: Option<TensorView<'_>>) -> Result<Array2<f32>, Mismatch> {
    let view = view.ok_or_else(|| Mismatch::Missing { matrix: matrix.to_owned() })?;
    let shape: Vec<i64> = view.shape().iter().map(|size| *size as i64).collect();
    let dtype = DType::from_safetensors(view.dtype()).unwrap_or(DType::Undefined);
    matrix::decode(&shape, dtype, view.data()).map_err(|source| Mismatch::NotAMatrix { matrix, source })
}

/// A key that sorts names with their numbers in counting order.
fn natural(name: &str) -> Vec<(u64, String)> {
    name.split('.').map(|part| part.parse().map_or((u64::MAX, part.to_owned()), |n| (n, String::new()))).collect()
}
