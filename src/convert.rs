//! An adapter in another form, from file to file.

use crate::adapter::{self, Adapter, Base};
use crate::dtype::DType;
use crate::error::Error;
use crate::formats::{self, gguf, mlx, onnx_adapter, peft, spliced};
use crate::linear::module::leaf;
use crate::named::{NamedModel, Naming, graph_names};
use crate::onnx::Model;
use crate::output::model::MODEL;
use crate::output::{self, Destination};
use crate::readers::{self, Reader};
use crate::splice;
use crate::splicing::read_adapter;
use crate::training::read_step_graph;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// How an adapter is converted.
#[derive(Clone, Debug)]
pub struct ConvertOptions {
    /// Ranks and alphas of the result, where `reader` does not decide them.
    pub scaling: Scaling,
    /// The program that reads the result, if it is not PEFT or ONNX Runtime.
    pub reader: Option<Reader>,
    /// The model that the adapter is for, and how its modules are named, which some readers need.
    pub model: Option<(PathBuf, Naming)>,
    /// Element type of the matrices of all files but `.onnx_adapter`.
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
            reader: None,
            model: None,
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

/// Reads the adapter at `input` and writes it to `output`: an `.onnx_adapter` or `.gguf` file by its extension, else a
/// folder, for PEFT or the reader of the options.
///
/// `input` is a PEFT folder, an `.onnx_adapter` file, a model that [`splice`](crate::splice()) made trainable, or the
/// folder of a [step graph](crate::Train::emit_step_graph).
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
    let reader = reader(options, output)?;
    let named_by = Naming { names: options.base.names, ..Naming::default() }.with_names_of(&read_base)?;
    let mut adapter = scaled(adapter, reader.as_ref(), options, &read_base)?;
    for module in &mut adapter.modules {
        module.fan_in_fan_out |= options.fan_in_fan_out;
    }
    let base = Base {
        name: options.base.name.clone().or(read_base.name),
        task_type: options.base.task_type.clone().or(read_base.task_type),
        names: named_by.names,
        ..Base::default()
    };
    let advice = reader.as_ref().map(|reader| reader.advice(&adapter, output)).transpose()?;
    write(&adapter, &base, reader.as_ref(), output, options)?;
    Ok(Converted {
        modules: adapter.modules.len(),
        ranks_total: adapter.modules.iter().map(|module| module.rank()).sum(),
        notes: left_out(input.as_ref()).into_iter().chain(base.names.map(graph_names)).chain(advice).collect(),
    })
}

/// Who reads `output`, by the options or its extension.
fn reader(options: &ConvertOptions, output: &Path) -> Result<Option<Reader>, Error> {
    let is_gguf = extension(output) == "gguf";
    match &options.reader {
        None => Ok(is_gguf.then_some(Reader::LlamaCpp)),
        Some(Reader::LlamaCpp) if is_gguf => Ok(Some(Reader::LlamaCpp)),
        Some(Reader::LlamaCpp) => Err(Error::usage("llama.cpp reads a .gguf file", Some("end the output in .gguf"))),
        Some(other) if ["gguf", "onnx", "onnx_adapter"].contains(&extension(output)) => {
            let message =
                format!("{} reads a folder, and `{}` is the name of a file", other.as_str(), output.display());
            Err(Error::usage(message, Some("give the output a name without an extension")))
        }
        Some(other) => Ok(Some(other.clone())),
    }
}

fn extension(path: &Path) -> &str {
    path.extension().and_then(|extension| extension.to_str()).unwrap_or_default()
}

/// The adapter with the ranks and alphas that the reader needs or the options say.
fn scaled(adapter: Adapter, reader: Option<&Reader>, options: &ConvertOptions, base: &Base) -> Result<Adapter, Error> {
    let missing = |(model, naming): &(PathBuf, Naming)| missing(model, &naming.with_names_of(base)?, &adapter);
    Ok(match (reader, &options.scaling) {
        (Some(reader), _) if base.names.is_some() => {
            let message = format!("the adapter has names of an ONNX graph, which {} does not know", reader.as_str());
            return Err(Error::usage(message, Some("`splice` puts it into its model")));
        }
        (Some(Reader::Tgi), _) => {
            let hint = "--model MODEL, the ONNX model that the adapter is for";
            let without = || Error::usage("TGI needs every module of a kind, which the model lists", Some(hint));
            Reader::Tgi.adapted(&adapter, &missing(options.model.as_ref().ok_or_else(without)?)?)
        }
        (Some(reader), _) => reader.adapted(&adapter, &[]),
        (None, Scaling::PerModule) => adapter,
        (None, Scaling::OneAlpha) => adapter::one_alpha(&adapter),
        (None, Scaling::UniformRank { complete: None }) => adapter::uniform_rank(&adapter, &[]),
        (None, Scaling::UniformRank { complete: Some(model) }) => adapter::uniform_rank(&adapter, &missing(model)?),
    })
}

/// Writes the adapter to a file by the extension, or to a folder for the reader.
fn write(
    adapter: &Adapter,
    base: &Base,
    reader: Option<&Reader>,
    output: &Path,
    options: &ConvertOptions,
) -> Result<(), Error> {
    let dtype = options.dtype;
    let files = match (extension(output), reader) {
        ("onnx_adapter", _) => {
            let bytes = onnx_adapter::bytes(&splice::parameters(adapter));
            return Ok(output::file(output, &bytes, options.force)?);
        }
        ("onnx", _) => {
            let message = "an adapter is put into a model with `splice`, which also takes the model";
            return Err(Error::usage(message, Some("eva-onnx splice MODEL ADAPTER --out DIR")));
        }
        (_, Some(Reader::LlamaCpp)) => {
            let hint = "--model MODEL, the ONNX model or a folder with the config.json of the base model";
            let without = || Error::usage("the names of llama.cpp depend on the architecture", Some(hint));
            let (model, _) = options.model.as_ref().ok_or_else(without)?;
            let bytes = gguf::bytes(adapter, &readers::llama_cpp(model)?, dtype)?;
            return Ok(output::file(output, &bytes, options.force)?);
        }
        (_, Some(Reader::Mlx)) => {
            vec![(mlx::WEIGHTS, mlx::weights(adapter, dtype)?), (mlx::CONFIG, mlx::config(adapter).into_bytes())]
        }
        (_, Some(Reader::Diffusers { component })) => {
            vec![(peft::DIFFUSERS, peft::diffusers(adapter, component, dtype)?)]
        }
        (_, None | Some(Reader::Vllm | Reader::Tgi)) => {
            let config = peft::config(adapter, base).into_bytes();
            vec![(peft::WEIGHTS, peft::weights(adapter, dtype)?), (peft::CONFIG, config)]
        }
    };
    Destination::prepare(output, options.force)?.commit(&files)?;
    Ok(())
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
    if let Some(read) = read_step_graph(path)? {
        return Ok(read);
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
