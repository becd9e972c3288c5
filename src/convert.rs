//! An adapter in another form, from file to file.

use crate::adapter::{self, Adapter, Base};
use crate::dtype::DType;
use crate::error::Error;
use crate::formats::{self, onnx_adapter, ort_checkpoint, peft, spliced};
use crate::linear::module::leaf;
use crate::named::{NamedModel, Naming, graph_names};
use crate::onnx::Model;
use crate::output::model::MODEL;
use crate::output::{self, Destination};
use crate::splice;
use crate::splicing::read_adapter;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// How an adapter is converted.
#[derive(Clone, Debug)]
pub struct ConvertOptions {
    /// Ranks and alphas of the result.
    pub scaling: Scaling,
    /// Element type of a PEFT folder's matrices.
    pub dtype: DType,
    /// `base_model_name_or_path`, `task_type` and the kind of names of a PEFT folder; what the input records where they
    /// are `None`.
    pub base: Base,
    /// Whether the modules store their weights as [in, out] (GPT-2's `Conv1D`), which an `.onnx_adapter` file does not
    /// record.
    pub fan_in_fan_out: bool,
    /// Whether to replace what is there.
    pub force: bool,
}

impl Default for ConvertOptions {
    /// The defaults of the command line.
    fn default() -> Self {
        Self {
            scaling: Scaling::default(),
            dtype: DType::F32,
            base: Base::default(),
            fan_in_fan_out: false,
            force: false,
        }
    }
}

/// Ranks and alphas of a converted adapter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Scaling {
    /// Every module keeps its own.
    #[default]
    PerModule,
    /// One alpha for all modules; B takes the rest of the scale. For readers without `alpha_pattern`.
    OneAlpha,
    /// One rank for all modules, padded with zeros, and one alpha. For readers without `rank_pattern`.
    UniformRank {
        /// The model whose modules of the adapter's kinds are added, zero everywhere, where the adapter lacks them, and
        /// how its modules are named.
        complete: Option<(PathBuf, Naming)>,
    },
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Converted {
    /// Modules of the adapter.
    pub modules: usize,
    /// Sum of their ranks.
    pub ranks_total: usize,
    /// What is not in the result, as sentences.
    pub notes: Vec<String>,
}

/// Reads the adapter at `input` and writes it to `output`: an `.onnx_adapter` file by its extension, else a PEFT folder.
///
/// `input` is a PEFT folder, an `.onnx_adapter` file, a model that [`splice`](crate::splice()) made trainable, or a
/// checkpoint of ONNX Runtime Training.
///
/// # Errors
/// When the input cannot be read, a model does not fit it, or the output cannot be written.
pub fn convert(
    input: impl AsRef<Path>,
    output: impl AsRef<Path>,
    options: &ConvertOptions,
) -> Result<Converted, Error> {
    let output = output.as_ref();
    let (adapter, read_base) = read_input(input.as_ref())?;
    if let Some(init) = read_base.weights.init() {
        return Err(formats::Error::OtherWeights { path: input.as_ref().to_owned(), init }.into());
    }
    let named_by = Naming { names: options.base.names, ..Naming::default() }.with_names_of(&read_base)?;
    let mut adapter = match &options.scaling {
        Scaling::PerModule => adapter,
        Scaling::OneAlpha => adapter::one_alpha(&adapter),
        Scaling::UniformRank { complete: None } => adapter::uniform_rank(&adapter, &[]),
        Scaling::UniformRank { complete: Some((model, naming)) } => {
            let naming = naming.with_names_of(&read_base)?;
            adapter::uniform_rank(&adapter, &missing(model, &naming, &adapter)?)
        }
    };
    for module in &mut adapter.modules {
        module.fan_in_fan_out |= options.fan_in_fan_out;
    }
    let base = Base {
        name: options.base.name.clone().or(read_base.name),
        task_type: options.base.task_type.clone().or(read_base.task_type),
        names: named_by.names,
        ..Base::default()
    };
    match output.extension().and_then(|extension| extension.to_str()) {
        Some("onnx_adapter") => {
            output::file(output, &onnx_adapter::bytes(&splice::parameters(&adapter)), options.force)?;
        }
        Some("onnx") => {
            let message = "an adapter is put into a model with `splice`, which also takes the model";
            return Err(Error::usage(message, Some("eva-onnx splice MODEL ADAPTER --out DIR")));
        }
        _ => {
            let destination = Destination::prepare(output, options.force)?;
            let weights = peft::weights(&adapter, options.dtype)?;
            let config = peft::config(&adapter, &base).into_bytes();
            destination.commit(&[(peft::WEIGHTS, weights), (peft::CONFIG, config)])?;
        }
    }
    Ok(Converted {
        modules: adapter.modules.len(),
        ranks_total: adapter.modules.iter().map(|module| module.rank()).sum(),
        notes: left_out(input.as_ref()).into_iter().chain(base.names.map(graph_names)).collect(),
    })
}

/// The weights of the model that are in a PEFT folder, and in no other form of an adapter.
fn left_out(path: &Path) -> Vec<String> {
    let Ok(saved) = peft::saved_weights(path) else { return Vec::new() };
    let sentence = |module| {
        format!(
            "the weight of `{module}` in the adapter's file is left out: the result is for a model that has the same"
        )
    };
    saved.iter().map(|(module, _)| sentence(module)).collect()
}

fn read_input(path: &Path) -> Result<(Adapter, Base), Error> {
    let inside = path.join(MODEL);
    let graph = if path.extension().is_some_and(|extension| extension == "onnx") {
        Some(path)
    } else if path.is_dir() && !path.join(peft::CONFIG).exists() && inside.exists() {
        Some(inside.as_path())
    } else {
        None
    };
    if let Some(path) = graph {
        let model = Model::open(path).map_err(|e| Error::from(e).in_file(path))?;
        return Ok(spliced::read(&model)?);
    }
    if ort_checkpoint::is_checkpoint(path) {
        return Ok(ort_checkpoint::read(path)?);
    }
    read_adapter(path)
}

/// Modules of the model that the adapter lacks though it has others of their kind, with input and output features.
fn missing(path: &Path, naming: &Naming, adapter: &Adapter) -> Result<Vec<(String, usize, usize)>, Error> {
    let linears = NamedModel::open(path, naming)?.layers.linears;
    splice::fit(&linears, adapter).map_err(|e| Error::from(e).in_file(path))?;
    let kinds: HashSet<&str> = adapter.modules.iter().map(|module| leaf(&module.module)).collect();
    let mut known: HashSet<&str> = adapter.modules.iter().map(|module| module.module.as_str()).collect();
    let mut missing = Vec::new();
    for linear in &linears {
        for part in &linear.modules {
            if kinds.contains(leaf(&part.module)) && known.insert(&part.module) {
                missing.push((part.module.clone(), linear.in_features, part.out_features(linear)));
            }
        }
    }
    Ok(missing)
}
