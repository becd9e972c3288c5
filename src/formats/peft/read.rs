//! Reads the folder of a LoRA adapter.

use super::config::Config;
use super::names::{self, Matrix, Name};
use super::{CONFIG, PICKLED, WEIGHTS};
use crate::adapter::{Adapter, AdapterModule, Base};
use crate::checkpoint::{self, Checkpoint, CheckpointMatrix};
use crate::dtype::DType;
use crate::formats::error::{Defect, Error, Feature, Mismatch};
use crate::formats::matrix;
use ndarray::Array2;
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Reads the adapter in `dir`, and what it says of its base model.
///
/// Scales are those of PEFT: the first pattern that matches the end of a module's name wins, and `use_rslora` divides
/// alpha by the root of the rank. The alpha of the result gives that scale with `alpha / rank`.
///
/// # Errors
/// [`Error::Unsupported`] for everything that is not a plain low-rank product: other kinds of adapters, DoRA, trained
/// biases, modules saved whole, embeddings.
pub fn read(dir: &Path) -> Result<(Adapter, Base), Error> {
    let dir = folder(dir)?;
    let config = Config::read(&dir.join(CONFIG))?;
    let path = dir.join(WEIGHTS);
    if dir.join(PICKLED).exists() && !path.exists() {
        return Err(Error::Pickled { path: dir.join(PICKLED), safetensors: path });
    }
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
    let refused = |tensor: &str| {
        let feature = Feature::Tensor { tensor: tensor.to_owned(), effect: effect(tensor) };
        Error::Unsupported { path: path.to_owned(), feature }
    };
    let (mut adapters, mut weights) = (BTreeSet::new(), Vec::new());
    for (name, view) in tensors.iter() {
        let Name { module, matrix, adapter } = names::parse(name).ok_or_else(|| refused(name))?;
        if matrix == Matrix::Base {
            weights.push((module, name));
            continue;
        }
        adapters.insert(adapter.unwrap_or_else(|| "default".to_owned()));
        found.entry(module).or_default()[usize::from(matrix == Matrix::B)] = Some(view);
    }
    if adapters.len() > 1 {
        return Err(Error::Several { path: path.to_owned(), names: adapters.into_iter().collect() });
    }
    match weights.iter().find(|(module, _)| !found.contains_key(module)) {
        Some((_, tensor)) => Err(refused(tensor)),
        None => Ok(found),
    }
}

/// The weights of the model that the file of the adapter in `dir` holds too: PEFT saves those of output heads that have
/// an adapter.
///
/// # Errors
/// [`checkpoint::Error`] when the file cannot be read.
pub fn saved_weights(dir: &Path) -> Result<SavedWeights, checkpoint::Error> {
    let file = Checkpoint::open(folder(dir).unwrap_or_else(|_| dir.to_owned()).join(WEIGHTS))?;
    Ok(SavedWeights { file })
}

/// The element types of the matrices in the file of the adapter in `dir`.
///
/// # Errors
/// [`checkpoint::Error`] when the file cannot be read.
pub fn dtypes(dir: &Path) -> Result<Vec<DType>, checkpoint::Error> {
    let SavedWeights { file } = saved_weights(dir)?;
    let dtypes: BTreeSet<DType> = file.matrices().map(|matrix| matrix.dtype).collect();
    Ok(dtypes.into_iter().collect())
}

/// The weights of the model in the file of an adapter.
pub struct SavedWeights {
    file: Checkpoint,
}

impl SavedWeights {
    /// Each with its module.
    pub fn iter(&self) -> impl Iterator<Item = (String, CheckpointMatrix<'_>)> {
        self.file.matrices().filter_map(|matrix| {
            let name = names::parse(matrix.name).filter(|name| name.matrix == Matrix::Base)?;
            Some((name.module, matrix))
        })
    }
}

/// The folder with the config: `dir`, or the only one inside it that has one, as PEFT saves adapters with names.
fn folder(dir: &Path) -> Result<PathBuf, Error> {
    if dir.join(CONFIG).exists() {
        return Ok(dir.to_owned());
    }
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut inside: Vec<PathBuf> =
        entries.map(|entry| entry.path()).filter(|path| path.join(CONFIG).exists()).collect();
    inside.sort();
    match &inside[..] {
        [] => Ok(dir.to_owned()),
        [one] => Ok(one.clone()),
        _ => {
            let names = inside.iter().filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
            Err(Error::Several { path: dir.to_owned(), names: names.collect() })
        }
    }
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
