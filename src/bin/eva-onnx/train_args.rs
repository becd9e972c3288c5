//! The options of `train`.

use super::adapter_args::LinkArg;
use super::init_args::{DataOptions, Method, RuntimeOptions};
use super::shared_args::{AdapterOptions, Selection, count};
use clap::{Args, ValueEnum};
use eva_onnx::options::{AdamW, Loss, Order, Recompute, Schedule, TrainCheckpointOptions, TrainSettings};
use std::path::{Path, PathBuf};

pub(crate) const TRAIN_EXAMPLES: &str = "\
Examples:
  eva-onnx train model.onnx --data rows.jsonl
      initialises an adapter by EVA, trains it for one epoch, and writes it to ./trained
  eva-onnx train model.onnx --data rows.jsonl --adapter adapter --epochs 3 --lr 1e-3 --eval test.jsonl
  eva-onnx train model.onnx --data rows.jsonl --completion-only --batch-tokens 1024 --accumulate 4 --steps 200

Load the result with PEFT:
  PeftModel.from_pretrained(base_model, 'trained')

Exit status: 0 done, 1 the input is at fault, 2 usage or environment, 130 interrupted (the adapter is still
written, and --resume goes on).";

/// Largest number of steps that is accepted.
const MAX_STEPS: u64 = u32::MAX as u64;

/// The folder of checkpoints in the output folder.
pub(crate) const CHECKPOINTS: &str = "checkpoints";

/// `train`.
#[derive(Args, Debug)]
pub(crate) struct Train {
    /// The ONNX model, with its output head: its file, or a folder with one
    pub(crate) model: PathBuf,
    /// Rows to train on: files or folders as `init` reads them; may be repeated
    #[arg(long, value_name = "PATH", required = true, num_args = 1..)]
    pub(crate) data: Vec<PathBuf>,
    /// PEFT folder to start from [default: initialised by EVA on the same rows]
    #[arg(long, value_name = "DIR", conflicts_with_all = ["rank", "alpha", "rho", "min_rank", "ranks", "whiten"])]
    pub(crate) adapter: Option<PathBuf>,
    /// Say what would be done, how long it takes and how much memory it needs, by a few batches; write nothing
    #[arg(long, conflicts_with_all = ["resume", "emit"])]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) method: Method,
    #[command(flatten)]
    pub(crate) training: Training,
    #[command(flatten)]
    pub(crate) selection: Selection,
    #[command(flatten)]
    pub(crate) data_options: DataOptions,
    #[command(flatten)]
    pub(crate) runtime: RuntimeOptions,
    #[command(flatten)]
    pub(crate) adapter_options: AdapterOptions,
    #[command(flatten)]
    pub(crate) output: TrainOutput,
}

/// Parameters of the training.
#[derive(Args, Debug)]
#[command(next_help_heading = "Training")]
pub(crate) struct Training {
    /// Passes over the data
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = count(1..=MAX_STEPS))]
    pub(crate) epochs: usize,
    /// Steps of the optimizer, instead of --epochs
    #[arg(long, value_name = "N", value_parser = count(1..=MAX_STEPS), conflicts_with = "epochs")]
    pub(crate) steps: Option<usize>,
    /// Largest learning rate
    #[arg(long, value_name = "RATE", default_value_t = 2e-4, value_parser = positive)]
    pub(crate) lr: f64,
    /// How the learning rate falls
    #[arg(long, value_enum, default_value_t = ScheduleArg::Cosine)]
    pub(crate) schedule: ScheduleArg,
    /// Steps in which the learning rate rises from 0
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = count(0..=MAX_STEPS))]
    pub(crate) warmup: usize,
    /// Batches per step
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = count(1..=MAX_STEPS))]
    pub(crate) accumulate: usize,
    /// Largest norm of the gradient; 0 for any
    #[arg(long, value_name = "NORM", default_value_t = 1.0, value_parser = not_negative)]
    pub(crate) clip: f32,
    /// Weight decay of AdamW
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = not_negative)]
    pub(crate) weight_decay: f32,
    /// Layers to train whole beside the adapter, by name or name ending, such as `classifier,score`; they become PEFT's
    /// `modules_to_save`
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub(crate) train_modules: Vec<String>,
    /// What is minimised [default: the loss of the class of transformers that config.json names]
    #[arg(long, value_enum, value_name = "LOSS")]
    pub(crate) loss: Option<LossArg>,
    /// Rows to report the loss on
    #[arg(long, value_name = "PATH")]
    pub(crate) eval: Vec<PathBuf>,
    /// Steps between evaluations [default: only at the end]
    #[arg(long, value_name = "N", value_parser = count(1..=MAX_STEPS), requires = "eval")]
    pub(crate) eval_every: Option<usize>,
    /// Do not compare the gradient with the loss before the first step
    #[arg(long)]
    pub(crate) no_check: bool,
    /// Whether activations are computed again for the gradient instead of kept, which saves memory and takes time
    #[arg(long, value_enum, default_value_t = RecomputeArg::Auto)]
    pub(crate) recompute: RecomputeArg,
    #[command(flatten)]
    pub(crate) checkpoints: Checkpoints,
}

/// What is kept while the training runs.
#[derive(Args, Debug)]
#[command(next_help_heading = "Training")]
pub(crate) struct Checkpoints {
    /// Steps between checkpoints, from which --resume goes on [default: only on Ctrl-C]
    #[arg(long, value_name = "N", value_parser = count(1..=MAX_STEPS))]
    pub(crate) save_every: Option<usize>,
    /// Checkpoints to keep: the newest
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = count(1..=MAX_STEPS))]
    pub(crate) keep_checkpoints: usize,
    /// Go on from the newest checkpoint in the output folder, with the same settings
    #[arg(long)]
    pub(crate) resume: bool,
}

impl Checkpoints {
    /// Checkpoints in the output folder `out`.
    pub(crate) fn to_options(&self, out: &Path) -> TrainCheckpointOptions {
        let Self { save_every: every, keep_checkpoints: keep, resume } = *self;
        TrainCheckpointOptions { every, keep, resume, ..TrainCheckpointOptions::new(out.join(CHECKPOINTS)) }
    }
}

impl Training {
    pub(crate) fn to_options(&self) -> TrainSettings {
        TrainSettings {
            epochs: self.epochs,
            steps: self.steps,
            rate: self.lr,
            schedule: self.schedule.into(),
            warmup: self.warmup,
            accumulate: self.accumulate,
            adamw: AdamW { weight_decay: self.weight_decay, clip: self.clip, ..AdamW::default() },
            eval_every: self.eval_every,
            loss: self.loss.map(Into::into),
            check: !self.no_check,
            recompute: self.recompute.into(),
        }
    }
}

impl Train {
    /// The rows of an epoch, shuffled unless they are to be kept in order.
    pub(crate) fn data_options(&self) -> eva_onnx::options::DataOptions {
        let order = if self.data_options.keep_order { Order::Kept } else { Order::Shuffled };
        eva_onnx::options::DataOptions { order, ..self.data_options.to_options() }
    }
}

/// What is written and printed.
#[derive(Args, Debug)]
#[command(next_help_heading = "Output")]
pub(crate) struct TrainOutput {
    /// Folder to write; must not exist or be empty
    #[arg(long, value_name = "DIR", default_value = "trained")]
    pub(crate) out: PathBuf,
    /// Replace files of the same names in the output folder
    #[arg(long)]
    pub(crate) force: bool,
    /// Write the graph of a step instead of training, for programs that train with any ONNX Runtime; the rows are only
    /// those that it is checked with
    #[arg(long, value_name = "WHAT", value_enum, conflicts_with_all = ["resume", "save_every", "json"])]
    pub(crate) emit: Option<EmitArg>,
    /// How the model's weights come to that graph
    #[arg(long, value_name = "HOW", value_enum, default_value_t = LinkArg::Copy, requires = "emit")]
    pub(crate) link: LinkArg,
    /// Also write a page with the loss curve; `report` makes it later
    #[arg(long, value_name = "FILE.html", conflicts_with = "emit")]
    pub(crate) report: Option<PathBuf>,
    /// Print train.json instead of a summary
    #[arg(long)]
    pub(crate) json: bool,
    /// Print nothing but errors
    #[arg(long, short)]
    pub(crate) quiet: bool,
    /// Show no progress bar
    #[arg(long)]
    pub(crate) no_progress: bool,
}

/// `--emit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum EmitArg {
    /// model.onnx with its loss, gradient and optimizer, and manifest.json
    StepGraph,
}

/// `--schedule`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ScheduleArg {
    /// Half a cosine, to 0
    Cosine,
    /// A line, to 0
    Linear,
    /// Not at all
    Constant,
}

impl From<ScheduleArg> for Schedule {
    fn from(schedule: ScheduleArg) -> Self {
        match schedule {
            ScheduleArg::Cosine => Schedule::Cosine,
            ScheduleArg::Linear => Schedule::Linear,
            ScheduleArg::Constant => Schedule::Constant,
        }
    }
}

/// `--loss`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LossArg {
    /// Each token from those before it
    CausalLm,
    /// The tokens of the decoder of an encoder-decoder, each from those before it
    #[value(name = "seq2seq-lm")]
    Seq2SeqLm,
    /// The tokens with a label, at their place
    MaskedLm,
    /// The class of each token with a label
    TokenClassification,
    /// The class of a row
    SingleLabelClassification,
    /// How much each class applies to a row, from 0 to 1
    MultiLabelClassification,
    /// Numbers for a row
    Regression,
}

impl From<LossArg> for Loss {
    fn from(loss: LossArg) -> Self {
        match loss {
            LossArg::CausalLm => Self::CausalLm,
            LossArg::Seq2SeqLm => Self::Seq2SeqLm,
            LossArg::MaskedLm => Self::MaskedLm,
            LossArg::TokenClassification => Self::TokenClassification,
            LossArg::SingleLabelClassification => Self::SingleLabel,
            LossArg::MultiLabelClassification => Self::MultiLabel,
            LossArg::Regression => Self::Regression,
        }
    }
}

/// `--recompute`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum RecomputeArg {
    /// Where they would fill more than half of the memory; on a GPU, once it runs out
    Auto,
    /// Always
    On,
    /// Never
    Off,
}

impl From<RecomputeArg> for Recompute {
    fn from(recompute: RecomputeArg) -> Self {
        match recompute {
            RecomputeArg::Auto => Recompute::Auto,
            RecomputeArg::On => Recompute::On,
            RecomputeArg::Off => Recompute::Off,
        }
    }
}

fn positive(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "must be a number".to_owned())?;
    if value.is_finite() && value > 0.0 { Ok(value) } else { Err("must be above 0".to_owned()) }
}

fn not_negative(text: &str) -> Result<f32, String> {
    let value: f32 = text.parse().map_err(|_| "must be a number".to_owned())?;
    if value.is_finite() && value >= 0.0 { Ok(value) } else { Err("must be at least 0".to_owned()) }
}
