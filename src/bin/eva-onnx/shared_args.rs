//! Options that several commands share.

use clap::builder::{RangedU64ValueParser, TypedValueParser};
use clap::{Args, ValueEnum};
use eva_onnx::DType;
use eva_onnx::options::{GraphNames, TASK_TYPES};
use eva_onnx::results::Base;
use std::ops::RangeInclusive;
use std::path::PathBuf;

/// Largest rank that is accepted.
pub(crate) const MAX_RANK: u64 = 65_536;
/// Most threads that are accepted.
pub(crate) const MAX_THREADS: u64 = 1_024;
/// Largest number of rows, tokens or batches that is accepted.
pub(crate) const MAX_COUNT: u64 = u32::MAX as u64;

/// How module names are found and adjusted.
#[derive(Args, Debug, Default)]
#[command(next_help_heading = "Layers and names")]
pub(crate) struct Naming {
    /// PyTorch checkpoint used to recover module names by matching weights: a folder with safetensors files, or one such
    /// file
    #[arg(long, value_name = "PATH")]
    pub(crate) checkpoint: Option<PathBuf>,
    /// Accept module names that only the node names of a TorchScript export suggest; they may lack the name of an
    /// nn.ModuleDict
    #[arg(long)]
    pub(crate) trust_node_names: bool,
    /// Call modules by the names of the graph, for models that are not of PyTorch; `splice` puts such an adapter into
    /// its model, and PEFT cannot load it
    #[arg(long, value_name = "OF", value_enum, conflicts_with_all = ["checkpoint", "trust_node_names"])]
    pub(crate) names: Option<NamesArg>,
    /// Rewrite module names, for example 'vit\.layers=vit.encoder.layer'; may be repeated
    #[arg(long, value_name = "REGEX=REPL")]
    pub(crate) rename: Vec<String>,
    /// Remove this prefix from module names
    #[arg(long, value_name = "PREFIX")]
    pub(crate) strip_prefix: Option<String>,
    /// Add this prefix to every module name
    #[arg(long, value_name = "PREFIX")]
    pub(crate) add_prefix: Option<String>,
}

impl Naming {
    pub(crate) fn to_options(&self) -> eva_onnx::options::Naming {
        eva_onnx::options::Naming {
            checkpoint: self.checkpoint.clone(),
            trust_node_names: self.trust_node_names,
            names: self.names.map(GraphNames::from),
            rename: self.rename.clone(),
            strip_prefix: self.strip_prefix.clone(),
            add_prefix: self.add_prefix.clone(),
        }
    }
}

/// `--names`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum NamesArg {
    /// Those of the weights
    Weights,
    /// Those of the nodes
    Nodes,
}

impl From<NamesArg> for GraphNames {
    fn from(names: NamesArg) -> Self {
        match names {
            NamesArg::Weights => GraphNames::Weights,
            NamesArg::Nodes => GraphNames::Nodes,
        }
    }
}

/// Which modules get an adapter, and how they are named.
#[derive(Args, Debug)]
#[command(next_help_heading = "Layers and names")]
pub(crate) struct Selection {
    /// `all-linear` (every linear layer but the output head), a list of name endings, or one regular expression for
    /// whole names
    #[arg(long, value_name = "NAMES", default_value = "all-linear")]
    pub(crate) target_modules: String,
    /// Modules to leave out: a list of name endings, or one regular expression for whole names
    #[arg(long, value_name = "NAMES")]
    pub(crate) exclude_modules: Option<String>,
    #[command(flatten)]
    pub(crate) naming: Naming,
}

impl Selection {
    pub(crate) fn to_options(&self) -> eva_onnx::options::Selection {
        eva_onnx::options::Selection {
            target_modules: self.target_modules.clone(),
            exclude_modules: self.exclude_modules.clone(),
        }
    }
}

/// Options of a written PEFT folder.
#[derive(Args, Debug)]
#[command(next_help_heading = "Adapter")]
pub(crate) struct AdapterOptions {
    /// Element type of the saved matrices
    #[arg(long, value_enum, default_value_t = Dtype::F32)]
    pub(crate) dtype: Dtype,
    /// `base_model_name_or_path` in the adapter config
    #[arg(long, value_name = "NAME")]
    pub(crate) base_model: Option<String>,
    /// PEFT task type [default: by config.json for language models, else none; with the type of a classifier, PEFT
    /// expects the weights of its head in the adapter]
    #[arg(long, value_name = "TYPE", value_parser = TASK_TYPES)]
    pub(crate) task_type: Option<String>,
}

impl AdapterOptions {
    pub(crate) fn base(&self) -> Base {
        Base { name: self.base_model.clone(), task_type: self.task_type.clone(), ..Base::default() }
    }
}

/// `--dtype`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Dtype {
    /// 32-bit floats
    F32,
    /// 16-bit floats
    F16,
    /// bfloat16
    Bf16,
}

impl From<Dtype> for DType {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::Bf16 => DType::BF16,
        }
    }
}

/// Parses a number in `range`.
pub(crate) fn count(range: RangeInclusive<u64>) -> impl TypedValueParser<Value = usize> {
    RangedU64ValueParser::<usize>::new().range(range)
}
