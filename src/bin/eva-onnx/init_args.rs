//! The options of `init`.

use super::part_args::Parts;
use super::shared_args::{AdapterOptions, MAX_COUNT, MAX_RANK, MAX_THREADS, Selection, count};
use clap::{Args, ValueEnum};
use eva_onnx::options::{BatchSize, CaptureMethod, Form, OnBadRow, Order, Padding, Ranks, Settings, TextSource};
use std::path::PathBuf;

pub(crate) const INIT_EXAMPLES: &str = "\
Examples:
  eva-onnx init model.onnx --data calibration.jsonl
      all linear layers but the output head, rank 16, written to ./adapter
  eva-onnx init model.onnx --data calibration.jsonl --target-modules q_proj,v_proj --rank 8 --out lora
  eva-onnx init model.onnx --data rows.jsonl --text-template '{title}: {body}' --tokenizer tokenizer.json
  eva-onnx init model.onnx --data tokens.jsonl --json --no-progress > eva.json

Load the result with PEFT:
  PeftModel.from_pretrained(base_model, 'adapter', is_trainable=True)

Exit status: 0 done, 1 the input is at fault, 2 usage or environment, 3 a file changed while it was read,
130 interrupted (an adapter is still written; with --checkpoint-every, the state of the run).";

/// `init`.
#[derive(Args, Debug)]
pub(crate) struct Init {
    /// The ONNX model: its file, or a folder with one
    pub(crate) model: PathBuf,
    /// Calibration data: files or folders of JSON lines, JSON, CSV, TSV or plain text, also with gzip, or
    /// arrays; - is standard input; may be repeated
    #[arg(long, value_name = "PATH", required = true, num_args = 1..)]
    pub(crate) data: Vec<PathBuf>,
    /// Say what would be done, how long it takes and how much memory it needs, by a few batches; write nothing
    #[arg(long, conflicts_with_all = ["resume", "checkpoint_every"])]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) method: Method,
    #[command(flatten)]
    pub(crate) statistics: StatisticsArgs,
    #[command(flatten)]
    pub(crate) selection: Selection,
    #[command(flatten)]
    pub(crate) data_options: DataOptions,
    #[command(flatten)]
    pub(crate) runtime: RuntimeOptions,
    #[command(flatten)]
    pub(crate) adapter: AdapterOptions,
    #[command(flatten)]
    pub(crate) parts: Parts,
    #[command(flatten)]
    pub(crate) output: OutputOptions,
}

/// Which ranks and matrices an adapter gets.
#[derive(Args, Debug)]
#[command(next_help_heading = "Method")]
pub(crate) struct Method {
    /// LoRA rank r; the rank budget is r times the number of modules
    #[arg(long, default_value_t = 16, value_parser = count(1..=MAX_RANK))]
    pub(crate) rank: usize,
    /// LoRA alpha at rank r
    #[arg(long, default_value_t = 16.0, value_parser = positive)]
    pub(crate) alpha: f64,
    /// Largest rank of a module, as a multiple of r
    #[arg(long, default_value_t = 2.0, value_parser = at_least_one)]
    pub(crate) rho: f64,
    /// Smallest rank of a module
    #[arg(long, default_value_t = 0, value_parser = count(0..=MAX_RANK))]
    pub(crate) min_rank: usize,
    /// How ranks are allocated
    #[arg(long, value_enum, default_value_t = RanksArg::Eva)]
    pub(crate) ranks: RanksArg,
    /// Divide every row of A by the square root of its singular value
    #[arg(long)]
    pub(crate) whiten: bool,
}

impl Method {
    pub(crate) fn to_options(&self) -> Settings {
        Settings {
            rank: self.rank,
            alpha: self.alpha,
            rho: self.rho,
            min_rank: self.min_rank,
            ranks: self.ranks.into(),
            whiten: self.whiten,
            ..Settings::default()
        }
    }
}

/// How statistics of the activations are gathered.
#[derive(Args, Debug)]
#[command(next_help_heading = "Method")]
pub(crate) struct StatisticsArgs {
    /// Stop when the |cosine| of every used component with its value one batch earlier is at least this; 1 never stops
    /// early [default: 0.99; with --shard 1]
    #[arg(long, value_parser = unit)]
    pub(crate) tau: Option<f64>,
    /// How statistics of the activations are gathered
    #[arg(long, value_enum, default_value_t = CaptureArg::Sketch)]
    pub(crate) capture: CaptureArg,
}

impl StatisticsArgs {
    /// The tau of a run over all rows, or over a shard of them, which stops early only if asked to.
    pub(crate) fn tau(&self, of_shard: bool) -> f64 {
        self.tau.unwrap_or(if of_shard { 1.0 } else { Settings::default().tau })
    }
}

/// Options of the calibration data.
#[derive(Args, Debug)]
#[command(next_help_heading = "Calibration data")]
pub(crate) struct DataOptions {
    /// tokenizer.json [default: the one beside the model, or above its folder `onnx`]
    #[arg(long, value_name = "PATH")]
    pub(crate) tokenizer: Option<PathBuf>,
    /// Chat template of rows with messages: a .jinja file, or the name of one of the tokenizer's [default: the
    /// tokenizer's]
    #[arg(long, value_name = "FILE|NAME")]
    pub(crate) chat_template: Option<String>,
    /// Field that holds the text of a row
    #[arg(long, value_name = "NAME", conflicts_with = "text_template")]
    pub(crate) text_field: Option<String>,
    /// Field that holds the second text of a pair, beside --text-field
    #[arg(long, value_name = "NAME", requires = "text_field")]
    pub(crate) pair_field: Option<String>,
    /// Text of a row, with field names in braces
    #[arg(long, value_name = "TEMPLATE")]
    pub(crate) text_template: Option<String>,
    /// Use only the tokens of the completion or answer
    #[arg(long)]
    pub(crate) completion_only: bool,
    /// Cut rows to this many tokens; the positions in config.json are a further limit
    #[arg(long, value_name = "N", default_value_t = 512, value_parser = count(1..=MAX_COUNT))]
    pub(crate) max_length: usize,
    /// Rows per batch
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = count(1..=MAX_COUNT))]
    pub(crate) batch_size: usize,
    /// Tokens per batch, padding included, instead of rows; a longer row is a batch by itself
    #[arg(long, value_name = "N", value_parser = count(1..=MAX_COUNT), conflicts_with = "batch_size")]
    pub(crate) batch_tokens: Option<usize>,
    /// Pad every batch to this many tokens, and cut longer rows
    #[arg(long, value_name = "N", value_parser = count(1..=MAX_COUNT), conflicts_with = "pad_multiple")]
    pub(crate) pad_to: Option<usize>,
    /// Pad every batch to a multiple of this many tokens, for models that take no other lengths
    #[arg(long, value_name = "N", value_parser = count(1..=MAX_COUNT))]
    pub(crate) pad_multiple: Option<usize>,
    /// Stop after this many batches [default: one pass over the data]
    #[arg(long, value_name = "N", value_parser = count(1..=MAX_COUNT))]
    pub(crate) max_batches: Option<usize>,
    /// Shuffle all rows with the seed
    #[arg(long, conflicts_with = "keep_order")]
    pub(crate) shuffle: bool,
    /// Keep the rows in order instead of batching rows of similar length
    #[arg(long)]
    pub(crate) keep_order: bool,
    /// What to do about a row that cannot be read or does not fit the model
    #[arg(long, value_enum, value_name = "WHAT", default_value_t = OnBadRowArg::Fail)]
    pub(crate) on_bad_row: OnBadRowArg,
    /// Seed of everything random
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) seed: u64,
}

impl DataOptions {
    pub(crate) fn to_options(&self) -> eva_onnx::options::DataOptions {
        eva_onnx::options::DataOptions {
            tokenizer: self.tokenizer.clone(),
            chat_template: self.chat_template.clone(),
            text: match (&self.text_field, &self.pair_field, &self.text_template) {
                (Some(first), Some(second), _) => TextSource::Pair(first.clone(), second.clone()),
                (Some(field), None, _) => TextSource::Field(field.clone()),
                (None, _, Some(template)) => TextSource::Template(template.clone()),
                (None, _, None) => TextSource::Auto,
            },
            completion_only: self.completion_only,
            max_length: self.max_length,
            batch_size: self.batch_tokens.map_or(BatchSize::Rows(self.batch_size), BatchSize::Tokens),
            padding: match (self.pad_to, self.pad_multiple) {
                (Some(length), _) => Padding::To(length),
                (None, Some(multiple)) => Padding::Multiple(multiple),
                (None, None) => Padding::Longest,
            },
            max_batches: self.max_batches,
            order: match (self.shuffle, self.keep_order) {
                (true, _) => Order::Shuffled,
                (false, true) => Order::Kept,
                (false, false) => Order::Grouped,
            },
            seed: self.seed,
            on_bad_row: match self.on_bad_row {
                OnBadRowArg::Fail => OnBadRow::Fail,
                OnBadRowArg::Skip => OnBadRow::Skip,
            },
        }
    }
}

/// Options of ONNX Runtime.
#[derive(Args, Debug)]
#[command(next_help_heading = "ONNX Runtime")]
pub(crate) struct RuntimeOptions {
    /// auto, cpu, cuda, cuda:N, or for `init` a list such as cuda:0,cuda:1 whose devices share the work; auto uses CUDA
    /// where it is available, and the summary names the device
    #[arg(long, value_name = "DEVICES", default_value = "auto")]
    pub(crate) device: String,
    /// Encoder model that a decoder reads from [default: the one beside the model]
    #[arg(long, value_name = "PATH")]
    pub(crate) encoder: Option<PathBuf>,
    /// Model that embeds tokens, for one that reads inputs_embeds [default: embed_tokens.onnx beside it]
    #[arg(long, value_name = "PATH")]
    pub(crate) embed_tokens: Option<PathBuf>,
    /// Number of threads [default: number of cores]
    #[arg(long, value_name = "N", value_parser = count(1..=MAX_THREADS))]
    pub(crate) threads: Option<usize>,
    /// The ONNX Runtime library, or its folder [default: search the usual places]
    #[arg(long, value_name = "PATH")]
    pub(crate) ort_lib: Option<PathBuf>,
}

impl RuntimeOptions {
    pub(crate) fn to_options(&self) -> eva_onnx::options::RuntimeOptions {
        eva_onnx::options::RuntimeOptions {
            devices: self.device.clone(),
            threads: self.threads.unwrap_or(0),
            ort_lib: self.ort_lib.clone(),
            encoder: self.encoder.clone(),
            embed_tokens: self.embed_tokens.clone(),
        }
    }
}

/// What is written and printed.
#[derive(Args, Debug)]
#[command(next_help_heading = "Output")]
pub(crate) struct OutputOptions {
    /// Folder to write; must not exist or be empty [default: adapter, or none with --summary]
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Replace files of the same names in the output folder
    #[arg(long)]
    pub(crate) force: bool,
    /// What to write besides eva.json; `splice` makes the same models later
    #[arg(long, value_enum, value_name = "FORMS", value_delimiter = ',', default_value = "peft")]
    pub(crate) emit: Vec<Emit>,
    /// Also write a page with the ranks, curves, notes and timings; `report` makes it later
    #[arg(long, value_name = "FILE.html")]
    pub(crate) report: Option<PathBuf>,
    /// Print eva.json instead of tables
    #[arg(long)]
    pub(crate) json: bool,
    /// Print nothing but errors
    #[arg(long, short)]
    pub(crate) quiet: bool,
    /// Show no progress bar
    #[arg(long)]
    pub(crate) no_progress: bool,
}

impl OutputOptions {
    /// The models to write beside the adapter.
    pub(crate) fn forms(&self) -> impl Iterator<Item = Form> {
        self.emit.iter().filter_map(|emit| match emit {
            Emit::Peft => None,
            Emit::Trainable => Some(Form::Trainable),
            Emit::AdapterInputs => Some(Form::AdapterInputs),
        })
    }
}

/// `--emit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Emit {
    /// The adapter as PEFT reads it; always written
    Peft,
    /// A folder `trainable` with the model, A and B as initializers
    Trainable,
    /// A folder `adapter-inputs` with the model and an .onnx_adapter file
    AdapterInputs,
}

/// `--on-bad-row`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnBadRowArg {
    /// End the run
    Fail,
    /// Leave the row out; counted and listed in eva.json
    Skip,
}

/// `--ranks`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum RanksArg {
    /// By explained variance
    Eva,
    /// The same rank for every module
    Uniform,
}

impl From<RanksArg> for Ranks {
    fn from(ranks: RanksArg) -> Self {
        match ranks {
            RanksArg::Eva => Ranks::Eva,
            RanksArg::Uniform => Ranks::Uniform,
        }
    }
}

/// `--capture`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum CaptureArg {
    /// The graph summarises its activations
    Sketch,
    /// Activations are read back and decomposed on the host, as in the paper (slow)
    Outputs,
}

impl From<CaptureArg> for CaptureMethod {
    fn from(capture: CaptureArg) -> Self {
        match capture {
            CaptureArg::Sketch => CaptureMethod::Sketch,
            CaptureArg::Outputs => CaptureMethod::Outputs,
        }
    }
}

fn float(text: &str, fits: impl Fn(f64) -> bool, otherwise: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "must be a number".to_owned())?;
    if value.is_finite() && fits(value) { Ok(value) } else { Err(otherwise.to_owned()) }
}

pub(crate) fn positive(text: &str) -> Result<f64, String> {
    float(text, |v| v > 0.0, "must be above 0")
}

pub(crate) fn at_least_one(text: &str) -> Result<f64, String> {
    float(text, |v| v >= 1.0, "must be at least 1")
}

pub(crate) fn unit(text: &str) -> Result<f64, String> {
    float(text, |v| v > 0.0 && v <= 1.0, "must be above 0 and at most 1")
}
