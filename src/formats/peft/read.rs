//! Reads the folder of a LoRA adapter.

use super::config::Config;
use super::names::{self, MAGNITUDE, Matrix, Name};
use super::{CONFIG, PICKLED, SHARD, SHARD_END, WEIGHTS};
use crate::adapter::{Adapter, AdapterModule, Base};
use crate::checkpoint::{self, Checkpoint, CheckpointMatrix};
use crate::dtype::DType;
use crate::formats::error::{Defect, Error, Feature, Mismatch, NotAMatrix};
use crate::formats::matrix;
use crate::regular;
use crate::splice::SavedParameter;
use ndarray::{Array2, ArrayD};
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
    Config::read(&dir.join(CONFIG))?.check_plain()?;
    read_all(&dir).map(|all| (all.adapter, all.base))
}

/// What the folder of an adapter has.
#[derive(Clone, Debug, PartialEq)]
pub struct Contents {
    /// The adapter; its modules may have DoRA.
    pub adapter: Adapter,
    /// What it says of its base model.
    pub base: Base,
    /// The parameters of modules that are saved whole.
    pub saved: Vec<SavedParameter>,
}

/// As [`read`], with what only a model can take.
///
/// # Errors
/// [`Error::Unsupported`] for other kinds of adapters, trained biases, embeddings.
pub fn read_all(dir: &Path) -> Result<Contents, Error> {
    let dir = folder(dir)?;
    let config = Config::read(&dir.join(CONFIG))?;
    let files = files(&dir)?.into_iter().map(|path| match regular::read(&path) {
        Ok(bytes) => Ok((path, bytes)),
        Err(source) => Err(Error::Io { path, source }),
    });
    let files = files.collect::<Result<Vec<_>, _>>()?;
    let parsed = files.iter().map(|(path, bytes)| match SafeTensors::deserialize(bytes) {
        Ok(tensors) => Ok((path.as_path(), tensors)),
        Err(error) => Err(Error::malformed(path, Defect::Safetensors(error))),
    });
    let parsed = parsed.collect::<Result<Vec<_>, _>>()?;
    let path = files.first().map_or_else(|| dir.join(WEIGHTS), |(path, _)| path.clone());
    let Tensors { modules: found, saved } = tensors(&config, &parsed)?;
    let mut modules = Vec::new();
    for (module, matrices) in found {
        let adapter = pair(&config, &module, matrices);
        modules.push(adapter.map_err(|source| Error::matrices(&path, &module, source))?);
    }
    if modules.is_empty() {
        return Err(Error::Empty { path });
    }
    if saved.is_empty() {
        config.check_no_saved()?;
    }
    modules.sort_by_cached_key(|module| (config.position(&module.module), natural(&module.module)));
    Ok(Contents { adapter: Adapter { modules, unadapted: config.excluded() }, base: config.base(), saved })
}

/// The files with the tensors of the adapter in `dir`: one, or several that are numbered.
fn files(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    let path = dir.join(WEIGHTS);
    if path.exists() {
        return Ok(vec![path]);
    }
    let number = |name: &str| {
        let (number, of) = name.strip_prefix(SHARD)?.strip_suffix(SHARD_END)?.split_once("-of-")?;
        Some((number.parse::<usize>().ok()?, of.to_owned()))
    };
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let shards: BTreeMap<usize, String> = entries.filter_map(|entry| number(entry.file_name().to_str()?)).collect();
    if let Some(of) = shards.values().next() {
        let name = |number: usize| format!("{SHARD}{number:0width$}-of-{of}{SHARD_END}", width = of.len());
        return Ok((1..=of.parse().unwrap_or(0)).map(|number| dir.join(name(number))).collect());
    }
    if dir.join(PICKLED).exists() {
        return Err(Error::Pickled { path: dir.join(PICKLED), safetensors: path });
    }
    Ok(vec![path])
}

/// `A`, `B` and DoRA's magnitudes of a module; `None` for one that is missing.
type Matrices<'t> = [Option<TensorView<'t>>; 3];

/// The tensors of an adapter by what they are.
struct Tensors<'t> {
    modules: BTreeMap<String, Matrices<'t>>,
    saved: Vec<SavedParameter>,
}

fn tensors<'t>(config: &Config, files: &'t [(&Path, SafeTensors<'_>)]) -> Result<Tensors<'t>, Error> {
    let mut found: BTreeMap<String, Matrices<'t>> = BTreeMap::new();
    let refused = |path: &Path, tensor: &str| {
        let feature = Feature::Tensor { tensor: tensor.to_owned(), effect: effect(tensor) };
        Error::Unsupported { path: path.to_owned(), feature }
    };
    let (mut adapters, mut weights, mut saved) = (BTreeSet::new(), Vec::new(), Vec::new());
    for (path, (name, view)) in files.iter().flat_map(|(path, tensors)| tensors.iter().map(|tensor| (*path, tensor))) {
        if let Some((module, parameter)) = names::saved(name, &config.saved_modules()) {
            let values = values(&view);
            let values =
                values.map_err(|source| Error::malformed(path, Defect::Tensor { tensor: name.to_owned(), source }))?;
            saved.push(SavedParameter { module, parameter, values });
            continue;
        }
        let Name { module, matrix, adapter } = names::parse(name).ok_or_else(|| refused(path, name))?;
        let index = match matrix {
            Matrix::Base => {
                weights.push((path, module, name));
                continue;
            }
            Matrix::Magnitude if !config.has_dora() => return Err(refused(path, name)),
            Matrix::A => 0,
            Matrix::B => 1,
            Matrix::Magnitude => 2,
        };
        adapters.insert(adapter.unwrap_or_else(|| "default".to_owned()));
        found.entry(module).or_default()[index] = Some(view);
    }
    if adapters.len() > 1 {
        let path = files.first().map_or(Path::new(""), |(path, _)| path);
        return Err(Error::Several { path: path.to_owned(), names: adapters.into_iter().collect() });
    }
    match weights.iter().find(|(_, module, _)| !found.contains_key(module)) {
        Some((path, _, tensor)) => Err(refused(path, tensor)),
        None => Ok(Tensors { modules: found, saved }),
    }
}

/// The values of a tensor of finite floats.
fn values(view: &TensorView<'_>) -> Result<ArrayD<f32>, NotAMatrix> {
    let dtype = DType::from_safetensors(view.dtype()).unwrap_or(DType::Undefined);
    let values = Some(dtype).filter(|dtype| dtype.is_float()).and_then(|dtype| dtype.decode(view.data()));
    let values = values.ok_or(NotAMatrix::DType { dtype })?;
    if !values.iter().all(|value| value.is_finite()) {
        return Err(NotAMatrix::NotFinite);
    }
    ArrayD::from_shape_vec(view.shape(), values).map_err(|_| NotAMatrix::NoValues)
}

/// The weights of the model that the file of the adapter in `dir` holds too: PEFT saves those of output heads that have
/// an adapter.
///
/// # Errors
/// [`checkpoint::Error`] when the file cannot be read.
pub fn saved_weights(dir: &Path) -> Result<SavedWeights, checkpoint::Error> {
    let dir = folder(dir).unwrap_or_else(|_| dir.to_owned());
    let files = files(&dir).unwrap_or_else(|_| vec![dir.join(WEIGHTS)]);
    let files = files.iter().map(Checkpoint::open).collect::<Result<_, _>>()?;
    Ok(SavedWeights { files })
}

/// The element types of the matrices in the file of the adapter in `dir`.
///
/// # Errors
/// [`checkpoint::Error`] when the file cannot be read.
pub fn dtypes(dir: &Path) -> Result<Vec<DType>, checkpoint::Error> {
    let SavedWeights { files } = saved_weights(dir)?;
    let dtypes: BTreeSet<DType> = files.iter().flat_map(Checkpoint::matrices).map(|matrix| matrix.dtype).collect();
    Ok(dtypes.into_iter().collect())
}

/// The weights of the model in the files of an adapter.
pub struct SavedWeights {
    files: Vec<Checkpoint>,
}

impl SavedWeights {
    /// Each with its module.
    pub fn iter(&self) -> impl Iterator<Item = (String, CheckpointMatrix<'_>)> {
        self.files.iter().flat_map(Checkpoint::matrices).filter_map(|matrix| {
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

fn pair(config: &Config, module: &str, matrices: Matrices<'_>) -> Result<AdapterModule, Mismatch> {
    let [a, b, magnitude] = matrices;
    let (a, b) = (decode("A", a)?, decode("B", b)?);
    let rank = a.nrows();
    // A matrix without elements has any rank.
    if a.is_empty() || b.is_empty() || b.ncols() != rank {
        return Err(Mismatch::Shapes { a: a.dim(), b: b.dim() });
    }
    if let Some(expected) = config.rank(module).filter(|expected| *expected != rank as u64) {
        return Err(Mismatch::Rank { found: rank, expected, config: config.path.clone() });
    }
    let alpha = config.alpha(module, rank).ok_or_else(|| Mismatch::NoAlpha { config: config.path.clone() })?;
    let magnitude = config.has_dora().then(|| magnitudes(magnitude, b.nrows())).transpose()?;
    Ok(AdapterModule {
        module: module.to_owned(),
        magnitude,
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

/// DoRA's norms of the output features.
fn magnitudes(view: Option<TensorView<'_>>, out_features: usize) -> Result<Vec<f32>, Mismatch> {
    let matrix = MAGNITUDE;
    let view = view.ok_or_else(|| Mismatch::Missing { matrix: matrix.to_owned() })?;
    let values = values(&view).map_err(|source| Mismatch::NotAMatrix { matrix, source })?;
    if values.len() != out_features {
        let shape = view.shape().iter().map(|size| *size as i64).collect();
        return Err(Mismatch::NotAMatrix { matrix, source: NotAMatrix::Size { bytes: view.data().len(), shape } });
    }
    Ok(values.iter().copied().collect())
}

/// A key that sorts names with their numbers in counting order.
fn natural(name: &str) -> Vec<(u64, String)> {
    name.split('.').map(|part| part.parse().map_or((u64::MAX, part.to_owned()), |n| (n, String::new()))).collect()
}
