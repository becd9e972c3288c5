//! The command line.

use super::adapter_args::{CONVERT_EXAMPLES, SPLICE_EXAMPLES};
pub(crate) use super::adapter_args::{Convert, FormArg, LinkArg, LossArg, Splice};
use clap::{Args, Parser, Subcommand, ValueEnum};
use eva_onnx::hub::config::TASK_TYPES;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  eva-onnx inspect model.onnx
  eva-onnx init model.onnx --data calibration.jsonl
  eva-onnx init model.onnx --data a.jsonl --data b.jsonl --rank 32 --max-batches 50 --out adapter";

const INIT_EXAMPLES: &str = "\
Examples:
  eva-onnx init model.onnx --data calibration.jsonl
      all linear layers but the output head, rank 16, written to ./adapter
  eva-onnx init model.onnx --data calibration.jsonl --target-modules q_proj,v_proj --rank 8 --out lora
  eva-onnx init model.onnx --data rows.jsonl --text-template '{title}: {body}' --tokenizer tokenizer.json
  eva-onnx init model.onnx --data tokens.jsonl --json --no-progress > eva.json

Load the result with PEFT:
  PeftModel.from_pretrained(base_model, 'adapter', is_trainable=True)

Exit status: 0 done, 1 the input is at fault, 2 usage or environment, 130 interrupted (an adapter is still written).";

/// LoRA adapters initialised by EVA, from an exported ONNX model and calibration data.
#[derive(Debug, Parser)]
#[command(name = "eva-onnx", version, after_help = EXAMPLES, max_term_width = 110)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the linear layers of a model and their PyTorch names, without running it
    Inspect(Inspect),
    /// Run calibration data through a model and write an EVA-initialised LoRA adapter
    #[command(after_help = INIT_EXAMPLES)]
    Init(Box<Init>),
    /// Put a LoRA adapter into a model: to train it there, to feed it at run time, or merged into the weights
    #[command(after_help = SPLICE_EXAMPLES)]
    Splice(Splice),
    /// Turn an adapter into another form: PEFT folder, .onnx_adapter file, spliced model
    #[command(after_help = CONVERT_EXAMPLES)]
    Convert(Convert),
}

/// How the modules of a model are called.
#[derive(Args, Debug, Default)]
pub(crate) struct Naming {
    /// PyTorch checkpoint to compare the weights with, which tells names that the graph has lost [a folder with
    /// safetensors, or one such file]
    #[arg(long, value_name = "DIR")]
    pub checkpoint: Option<PathBuf>,
    /// Take names from the paths that TorchScript writes into the names of nodes, where nothing confirms them: they lack
    /// the name of an nn.ModuleDict
    #[arg(long)]
    pub trust_node_names: bool,
    /// Rewrite module names, for example 'vit\.layers=vit.encoder.layer'; may be repeated
    #[arg(long, value_name = "REGEX=REPL")]
    pub rename: Vec<String>,
    /// Remove this from the start of every module name
    #[arg(long, value_name = "PREFIX")]
    pub strip_prefix: Option<String>,
    /// Put this before every module name
    #[arg(long, value_name = "PREFIX")]
    pub add_prefix: Option<String>,
}

impl Naming {
    pub(crate) fn to_options(&self) -> eva_onnx::Naming {
        eva_onnx::Naming {
            checkpoint: self.checkpoint.clone(),
            trust_node_names: self.trust_node_names,
            rename: self.rename.clone(),
            strip_prefix: self.strip_prefix.clone(),
            add_prefix: self.add_prefix.clone(),
        }
    }
}

/// Which layers are meant, and how they are called.
#[derive(Args, Debug)]
pub(crate) struct Selection {
    /// `all-linear` (without the output head), a list of name endings, or one regular expression for whole names
    #[arg(long, value_name = "NAMES", default_value = "all-linear")]
    pub target_modules: String,
    /// Modules to leave out: a list of name endings, or one regular expression for whole names
    #[arg(long, value_name = "NAMES")]
    pub exclude_modules: Option<String>,
    #[command(flatten)]
    /// How they are called.
    pub naming: Naming,
}

impl Selection {
    pub(crate) fn to_options(&self) -> eva_onnx::Selection {
        eva_onnx::Selection {
            target_modules: self.target_modules.clone(),
            exclude_modules: self.exclude_modules.clone(),
        }
    }
}

/// `inspect`.
#[derive(Args, Debug)]
pub(crate) struct Inspect {
    /// The ONNX model
    pub model: PathBuf,
    #[command(flatten)]
    /// Which layers.
    pub selection: Selection,
    /// Print one JSON document instead of a table
    #[arg(long)]
    pub json: bool,
}

/// `init`.
#[derive(Args, Debug)]
pub(crate) struct Init {
    /// The ONNX model
    pub model: PathBuf,
    /// Calibration data, jsonl; may be repeated
    #[arg(long, value_name = "FILE", required = true, num_args = 1..)]
    pub data: Vec<PathBuf>,
    /// Folder to write; must not exist or be empty
    #[arg(long, value_name = "DIR", default_value = "adapter")]
    pub out: PathBuf,
    /// Replace files of the same names in the output folder
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    /// The method.
    pub method: Method,
    #[command(flatten)]
    /// Which layers.
    pub selection: Selection,
    #[command(flatten)]
    /// The data.
    pub data_options: DataOptions,
    #[command(flatten)]
    /// The runtime.
    pub runtime: RuntimeOptions,
    #[command(flatten)]
    /// The files.
    pub adapter: AdapterOptions,
    /// What to write, beside eva.json; see `splice` for models
    #[arg(long, value_enum, value_name = "FORMS", value_delimiter = ',', default_value = "peft")]
    pub emit: Vec<Emit>,
    /// Print eva.json instead of a table
    #[arg(long)]
    pub json: bool,
    /// Print nothing but errors
    #[arg(long, short)]
    pub quiet: bool,
    /// Show no progress bar
    #[arg(long)]
    pub no_progress: bool,
}

/// Parameters of the method.
#[derive(Args, Debug)]
#[command(next_help_heading = "Method")]
pub(crate) struct Method {
    /// LoRA rank r; the budget is r times the number of modules
    #[arg(long, default_value_t = 16, value_parser = positive)]
    pub rank: usize,
    /// LoRA alpha at rank r
    #[arg(long, default_value_t = 16.0, value_parser = positive_float)]
    pub alpha: f64,
    /// Largest rank of a module, as a multiple of r
    #[arg(long, default_value_t = 2.0, value_parser = at_least_one)]
    pub rho: f64,
    /// Stop when every assigned component turns by less than this cosine in a batch; 1 never stops early
    #[arg(long, default_value_t = 0.99, value_parser = unit)]
    pub tau: f64,
    /// Smallest rank of a module
    #[arg(long, default_value_t = 0)]
    pub min_rank: usize,
    /// How ranks are given out
    #[arg(long, value_enum, default_value_t = RanksArg::Eva)]
    pub ranks: RanksArg,
    /// Divide every row of A by the square root of its singular value
    #[arg(long)]
    pub whiten: bool,
    /// Summarise inside the graph, or read activations back and decompose them as in the paper (slow)
    #[arg(long, value_enum, default_value_t = CaptureArg::Sketch)]
    pub capture: CaptureArg,
}

/// Options of the calibration data.
#[derive(Args, Debug)]
#[command(next_help_heading = "Calibration data")]
pub(crate) struct DataOptions {
    /// tokenizer.json [default: beside the model]
    #[arg(long, value_name = "PATH")]
    pub tokenizer: Option<PathBuf>,
    /// Field of a row that holds the text
    #[arg(long, value_name = "NAME", conflicts_with = "text_template")]
    pub text_field: Option<String>,
    /// Text of a row, with its fields in braces
    #[arg(long, value_name = "TEMPLATE")]
    pub text_template: Option<String>,
    /// Only tokens of the completion or answer enter the statistics
    #[arg(long)]
    pub completion_only: bool,
    /// Tokens of a row beyond this, or beyond the positions in config.json, are cut off
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = positive)]
    pub max_length: usize,
    /// Rows of a batch
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = positive)]
    pub batch_size: usize,
    /// Tokens of a batch, padding included, in place of its rows; a longer row is a batch of its own
    #[arg(long, value_name = "N", value_parser = positive, conflicts_with = "batch_size")]
    pub batch_tokens: Option<usize>,
    /// Stop after this many batches [default: one pass over the data]
    #[arg(long, value_name = "N", value_parser = positive)]
    pub max_batches: Option<usize>,
    /// Shuffle all rows with the seed
    #[arg(long, conflicts_with = "keep_order")]
    pub shuffle: bool,
    /// Batch the rows as they come, without grouping similar lengths
    #[arg(long)]
    pub keep_order: bool,
    /// Seed of everything random
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
}

/// Options of ONNX Runtime.
#[derive(Args, Debug)]
#[command(next_help_heading = "ONNX Runtime")]
pub(crate) struct RuntimeOptions {
    /// auto, cpu, cuda, cuda:N, or a list such as cuda:0,cuda:1 whose devices share the batches, each with the whole
    /// model in its memory; auto takes CUDA when it loads and says which it took
    #[arg(long, value_name = "DEVICES", default_value = "auto")]
    pub device: String,
    /// The encoder of a decoder that reads its states [default: encoder_model.onnx beside the model]
    #[arg(long, value_name = "PATH")]
    pub encoder: Option<PathBuf>,
    /// Threads [default: as many as cores]
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub threads: usize,
    /// The ONNX Runtime library, or the folder that holds it
    #[arg(long, value_name = "PATH")]
    pub ort_lib: Option<PathBuf>,
}

/// Options of the written adapter.
#[derive(Args, Debug)]
#[command(next_help_heading = "Adapter")]
pub(crate) struct AdapterOptions {
    /// Element type of the saved adapter
    #[arg(long, value_enum, default_value_t = Dtype::F32)]
    pub dtype: Dtype,
    /// `base_model_name_or_path` of the config
    #[arg(long, value_name = "NAME")]
    pub base_model: Option<String>,
    /// PEFT task type [default: that of a language model whose config.json is beside the model, else none, which is
    /// also right for classifiers: PEFT would expect their head in the adapter]
    #[arg(long, value_name = "TYPE", value_parser = TASK_TYPES)]
    pub task_type: Option<String>,
}

impl AdapterOptions {
    pub(crate) fn base(&self) -> eva_onnx::Base {
        eva_onnx::Base { name: self.base_model.clone(), task_type: self.task_type.clone() }
    }
}

/// `--emit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Emit {
    /// The adapter as PEFT reads it, always written
    Peft,
    /// A folder `trainable` with the model, A and B as initializers
    Trainable,
    /// A folder `adapter-inputs` with the model and an .onnx_adapter file
    AdapterInputs,
}

/// `--ranks`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum RanksArg {
    /// By explained variance
    Eva,
    /// The same everywhere
    Uniform,
}

/// `--capture`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum CaptureArg {
    /// Summarised inside the graph
    Sketch,
    /// Activations read back
    Outputs,
}

/// `--dtype`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Dtype {
    /// 32-bit float
    F32,
    /// 16-bit IEEE float
    F16,
    /// bfloat16
    Bf16,
}

fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("must be at least 1".to_owned()),
        Ok(n) => Ok(n),
        Err(_) => Err("must be a whole number".to_owned()),
    }
}

fn float(text: &str, fits: impl Fn(f64) -> bool, otherwise: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "must be a number".to_owned())?;
    if value.is_finite() && fits(value) { Ok(value) } else { Err(otherwise.to_owned()) }
}

fn positive_float(text: &str) -> Result<f64, String> {
    float(text, |v| v > 0.0, "must be above 0")
}

fn at_least_one(text: &str) -> Result<f64, String> {
    float(text, |v| v >= 1.0, "must be at least 1")
}

fn unit(text: &str) -> Result<f64, String> {
    float(text, |v| v > 0.0 && v <= 1.0, "must be above 0 and at most 1")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        for (flag, value) in [("--rank", "0"), ("--rho", "0.5"), ("--tau", "0"), ("--tau", "1.5"), ("--alpha", "nan")] {
            let parsed = Cli::try_parse_from(["eva-onnx", "init", "m.onnx", "--data", "d.jsonl", flag, value]);
            assert!(parsed.is_err(), "{flag} {value}");
        }
    }
}
