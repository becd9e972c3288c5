//! Why an adapter could not be read or written.

use crate::dtype::DType;
use crate::hint::Hint;
use crate::splice::Form;
use std::io;
use std::path::{Path, PathBuf};

/// Why an adapter could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file could not be read.
    #[error("cannot read `{}`: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The vector of a step graph is not that of its adapter.
    #[error("`{}` does not hold {expected} finite 32-bit floats", path.display())]
    Vector {
        /// The file.
        path: PathBuf,
        /// How many the adapter has.
        expected: usize,
    },
    /// A file does not have the format that its name says.
    #[error("`{}` cannot be understood: {source}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<Defect>,
    },
    /// The adapter is of a kind that a low-rank product does not cover.
    #[error("`{}` is an adapter with {feature}", path.display())]
    Unsupported {
        /// The config or weights file.
        path: PathBuf,
        /// The kind, setting or tensor.
        feature: Feature,
    },
    /// The weights are in PyTorch's own format, which may hold programs.
    #[error("`{}` is not read: it is a Python pickle, and safetensors are needed", path.display())]
    Pickled {
        /// The file.
        path: PathBuf,
        /// Where its tensors should be.
        safetensors: PathBuf,
    },
    /// There is more than one adapter.
    #[error("`{}` has several adapters: {}", path.display(), names.join(", "))]
    Several {
        /// The file or folder.
        path: PathBuf,
        /// Their names.
        names: Vec<String>,
    },
    /// The adapter belongs to weights that only a model gives.
    #[error("`{}` is an adapter of weights that `init_lora_weights` {init} has changed", path.display())]
    OtherWeights {
        /// The adapter.
        path: PathBuf,
        /// How it began.
        init: &'static str,
    },
    /// A module has only one of its two matrices, or they do not fit.
    #[error("`{}`: the matrices of module `{module}` do not fit: {source}", path.display())]
    Matrices {
        /// The weights file.
        path: PathBuf,
        /// The module.
        module: String,
        /// Why.
        source: Box<Mismatch>,
    },
    /// A pattern of the config is a regular expression that this program does not understand.
    #[error("`{}`: the pattern `{pattern}` is not understood: {reason}", path.display())]
    Pattern {
        /// The config.
        path: PathBuf,
        /// The pattern.
        pattern: String,
        /// The message of the `regex` crate.
        reason: String,
    },
    /// llama.cpp has no weights for modules.
    #[error("llama.cpp has no weights of their own for these modules in the architecture {architecture}: {}", modules.join(", "))]
    NoPlace {
        /// The architecture.
        architecture: &'static str,
        /// The modules.
        modules: Vec<String>,
    },
    /// The layout of the base model in llama.cpp is not known.
    #[error("`{}` does not describe a model whose layout in llama.cpp is known: {}", path.display(), kind(model_type))]
    NoLayout {
        /// The model.
        path: PathBuf,
        /// Its `model_type`.
        model_type: Option<String>,
    },
    /// The heads in the config do not divide the rows of a weight.
    #[error("config.json gives {heads} heads, which do not divide the {rows} rows of `{module}`")]
    Heads {
        /// The module.
        module: String,
        /// Heads of queries or keys.
        heads: usize,
        /// Rows of its weight.
        rows: usize,
    },
    /// The adapter has no module.
    #[error("`{}` contains no adapter", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// Values are too large for the element type asked for.
    #[error("the adapter of module `{module}` has values that are too large for {dtype}")]
    Overflow {
        /// The module.
        module: String,
        /// The element type.
        dtype: DType,
    },
    /// Adapters are not written in this element type.
    #[error("an adapter cannot be written in {dtype}")]
    DType {
        /// The element type.
        dtype: DType,
    },
    /// The weights file could not be made.
    #[error(transparent)]
    Safetensors {
        /// Why.
        source: safetensors::SafeTensorError,
    },
}

impl Error {
    pub(super) fn malformed(path: &Path, source: Defect) -> Self {
        Self::Malformed { path: path.to_owned(), source: Box::new(source) }
    }

    pub(super) fn matrices(path: &Path, module: &str, source: Mismatch) -> Self {
        Self::Matrices { path: path.to_owned(), module: module.to_owned(), source: Box::new(source) }
    }
}

impl Hint for Error {
    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Pickled { path, safetensors } => return Some(conversion(path, safetensors)),
            Self::Several { .. } => {
                "give the folder of one of them; PEFT's `save_pretrained` writes one with `selected_adapters=[NAME]`"
            }
            Self::Io { .. } => "a PEFT adapter is a folder with `adapter_config.json` and `adapter_model.safetensors`",
            Self::Vector { .. } => "write the first vector of the trained state into it, as `train_step.py` does",
            Self::Malformed { .. } => "the file may be truncated: compare its size with the original, or save it again",
            Self::Unsupported { feature: Feature::Start { .. }, .. } => {
                "merge the adapter into the model with PEFT and export the model again; or, for PiSSA, CorDA and LoRA-GA, \
                 give PEFT's `save_pretrained` the adapter as it was before the training, as \
                 `path_initial_model_for_weight_conversion`: it then saves a plain adapter"
            }
            Self::OtherWeights { .. } => {
                "put it into its model with `splice`, which makes it a plain adapter of twice the rank, and convert the \
                 result"
            }
            Self::Unsupported { feature: Feature::Setting { key: "use_dora", .. }, .. } => {
                "put it into its model with `splice --as merged`; or merge the adapter into the model with PEFT"
            }
            Self::Unsupported { feature: Feature::Setting { key: "modules_to_save", .. }, .. } => {
                "put it into its model with `splice`, if its file has those modules; or merge the adapter into the model \
                 with PEFT and export the model again"
            }
            Self::Unsupported { feature: Feature::Saved { .. }, .. } => {
                "use the graph itself; for its low-rank part alone, `splice` the adapter again with `--modules` that leave \
                 out the module, and convert the result"
            }
            Self::Unsupported { feature: Feature::Part, .. } => {
                "use the two together; for another form, take the PEFT folder that `splice` was given"
            }
            Self::Unsupported { .. } => "merge the adapter into the model with PEFT and export the model again",
            Self::Matrices { .. } => "save the adapter again with PEFT's `save_pretrained`",
            Self::Pattern { .. } => "write the full names of the modules in `rank_pattern` and `alpha_pattern`",
            Self::Overflow { .. } | Self::DType { .. } => "use --dtype f32 or --dtype bf16",
            Self::NoPlace { .. } => {
                "leave them out with --exclude-modules when the adapter is made, or merge the adapter into the model"
            }
            Self::NoLayout { .. } => {
                "give --model the ONNX model, or a folder, with the config.json of the base model beside it; for other \
                 architectures, `convert --one-alpha` to a PEFT folder, and give that to llama.cpp's \
                 convert_lora_to_gguf.py"
            }
            Self::Heads { .. } => "give --model the model that the adapter is for",
            Self::Empty { .. } | Self::Safetensors { .. } => return None,
        };
        Some(hint.to_owned())
    }
}

fn kind(model_type: &Option<String>) -> String {
    model_type.as_ref().map_or_else(|| "no `model_type` is known".to_owned(), |kind| format!("`model_type` is {kind}"))
}

/// A command that writes the tensors of a pickle as safetensors.
fn conversion(pickle: &Path, safetensors: &Path) -> String {
    format!(
        "python -c 'import sys, torch; from safetensors.torch import save_file; \
         save_file({{k: v.clone() for k, v in torch.load(sys.argv[1], \"cpu\", weights_only=True).items()}}, \
         sys.argv[2])' '{}' '{}'",
        pickle.display(),
        safetensors.display()
    )
}

/// What is wrong with the contents of a file.
#[derive(Debug, thiserror::Error)]
pub enum Defect {
    /// It is not the JSON that it should be.
    #[error(transparent)]
    Json(serde_json::Error),
    /// It is not a safetensors file.
    #[error(transparent)]
    Safetensors(safetensors::SafeTensorError),
    /// It is not a flatbuffer with the right tables.
    #[error(transparent)]
    Flatbuffer(flatbuffers::InvalidFlatbuffer),
    /// A key of the config is missing.
    #[error("`{key}` is missing")]
    NoKey {
        /// The key.
        key: &'static str,
    },
    /// It does not have the identifier of its format.
    #[error("it does not begin like an adapter of ONNX Runtime, with `{identifier}`")]
    Identifier {
        /// The identifier expected.
        identifier: &'static str,
    },
    /// It has another version of its format.
    #[error("its format version is {found}, not {expected}")]
    Version {
        /// The version of the file.
        found: i32,
        /// The only version that is read.
        expected: i32,
    },
    /// A tensor of the adapter is missing.
    #[error("it has no tensor `{tensor}`")]
    NoTensor {
        /// The tensor.
        tensor: String,
    },
    /// A tensor of the adapter is not a matrix of finite floats.
    #[error("the tensor `{tensor}` {source}")]
    Tensor {
        /// The tensor.
        tensor: String,
        /// Why.
        source: NotAMatrix,
    },
}

/// Why a tensor is not a matrix of finite floats.
#[derive(Debug, thiserror::Error)]
pub enum NotAMatrix {
    /// It has another number of dimensions.
    #[error("has shape {shape:?}, and a matrix is needed")]
    Shape {
        /// Its shape.
        shape: Vec<i64>,
    },
    /// Its values are not floats of 16 or 32 bits.
    #[error("has type {dtype}")]
    DType {
        /// Its element type.
        dtype: DType,
    },
    /// It has NaN or infinite values.
    #[error("has values that are not finite")]
    NotFinite,
    /// Its bytes do not fill its shape.
    #[error("has {bytes} bytes and shape {shape:?}")]
    Size {
        /// Number of bytes.
        bytes: usize,
        /// Its shape.
        shape: Vec<i64>,
    },
    /// Its values are not stored.
    #[error("has no values")]
    NoValues,
}

/// Why two matrices are not the adapter of a module.
#[derive(Debug, thiserror::Error)]
pub enum Mismatch {
    /// One of them is missing.
    #[error("{matrix} is missing")]
    Missing {
        /// `A`, `B`, or the names that it could have.
        matrix: String,
    },
    /// Their shapes have no rank in common.
    #[error("A is {a:?} and B is {b:?}")]
    Shapes {
        /// The shape of `A`.
        a: (usize, usize),
        /// The shape of `B`.
        b: (usize, usize),
    },
    /// The config gives another rank.
    #[error("their rank is {found}, and `{}` says {expected}", config.display())]
    Rank {
        /// Rank of the matrices.
        found: usize,
        /// Rank in the config.
        expected: u64,
        /// The config.
        config: PathBuf,
    },
    /// The config gives no alpha.
    #[error("`{}` gives no `lora_alpha`", config.display())]
    NoAlpha {
        /// The config.
        config: PathBuf,
    },
    /// One of them is not a matrix of finite floats.
    #[error("`{matrix}` {source}")]
    NotAMatrix {
        /// `A` or `B`.
        matrix: &'static str,
        /// Why.
        source: NotAMatrix,
    },
}

/// What an adapter has beside low-rank products of linear layers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Feature {
    /// Another method than LoRA.
    #[error("`peft_type` {kind}, which is not LoRA")]
    Kind {
        /// The `peft_type`.
        kind: String,
    },
    /// A setting that changes what it computes.
    #[error("`{key}`, which {effect}")]
    Setting {
        /// The key in the config.
        key: &'static str,
        /// What it does.
        effect: &'static str,
    },
    /// Base weights that do not follow from those of the model.
    #[error("`init_lora_weights` {init}, whose base weights are not known to follow from those of the model")]
    Start {
        /// The value of `init_lora_weights`.
        init: String,
    },
    /// A tensor that is not `A` or `B` of a module.
    #[error("the tensor `{tensor}`, which {effect}")]
    Tensor {
        /// The name of the tensor.
        tensor: String,
        /// What it does.
        effect: &'static str,
    },
    /// A module of a graph whose own weights are the adapter's.
    #[error("a trained `{module}` in place of the model's (`modules_to_save`), which no other form has")]
    Saved {
        /// The module.
        module: String,
    },
    /// The low-rank part of an adapter, whose other modules are in a model.
    #[error("trained modules (`modules_to_save`) beside this file, in the model that `splice` wrote with it")]
    Part,
    /// A form in a graph without values to read.
    #[error("the form `{}`, which has no values in the graph", form.as_str())]
    Form {
        /// The form.
        form: Form,
    },
}
