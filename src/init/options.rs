//! What a run is given.

use super::checkpoint::CheckpointOptions;
use crate::adapter::Base;
use crate::blocks::Blocks;
use crate::calib::{BatchSize, DataFiles, Fields, IterSource, OnBadRow, Order, Padding, RowSource, Shard, TextSource};
use crate::capture::CaptureMethod;
use crate::dtype::DType;
use crate::eva::Settings;
use crate::named::{Naming, Selection};
use crate::splice::Form;
use std::path::PathBuf;

/// A run of EVA that is being set up: [`new`](Self::new), then the options, then [`run`](Self::run).
#[must_use = "nothing happens before `run`"]
pub struct Init {
    pub(super) model: PathBuf,
    pub(super) rows: Rows,
    pub(super) settings: Settings,
    pub(super) capture: CaptureMethod,
    pub(super) naming: Naming,
    pub(super) selection: Selection,
    pub(super) data: DataOptions,
    pub(super) runtime: RuntimeOptions,
    pub(super) base: Base,
    pub(super) dtype: DType,
    pub(super) forms: Vec<Form>,
    pub(super) command: Vec<String>,
    pub(super) shard: Option<Shard>,
    pub(super) summary: Option<SummaryOptions>,
    pub(super) checkpoint: Option<CheckpointOptions>,
    pub(super) blocks: Option<BlockOptions>,
    pub(super) split: Split,
}

/// What several devices share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Split {
    /// The batches: each device has the whole model.
    #[default]
    Rows,
    /// The layers: each device has a part of the model, and batches run through all of them.
    Layers,
}

/// How a model runs in blocks, one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockOptions {
    /// How large they are.
    pub blocks: Blocks,
    /// The folder for what blocks hand on, and for the state after each block; in memory, and without a state, if there is
    /// none.
    pub spill: Option<PathBuf>,
    /// Whether to go on from the state that is there.
    pub resume: bool,
}

/// Where the summary of a run is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SummaryOptions {
    /// The file.
    pub file: PathBuf,
    /// Whether a file of another run may be replaced.
    pub force: bool,
}

/// Where the calibration rows come from.
#[derive(Default)]
pub(super) struct Rows {
    /// The files, or the name of the source.
    pub(super) names: Vec<String>,
    /// `None` before it is given, and once it is read.
    pub(super) source: Option<Box<dyn RowSource + Send>>,
}

/// How rows become batches.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct DataOptions {
    /// `tokenizer.json` or its folder; by default, the one beside the model.
    #[serde(skip)]
    pub tokenizer: Option<PathBuf>,
    /// The chat template of rows that are conversations, by its name or its file; by default, the tokenizer's.
    pub chat_template: Option<String>,
    /// Where the text of a row comes from.
    pub text: TextSource,
    /// Whether only tokens of the completion or answer enter the statistics.
    pub completion_only: bool,
    /// Longest row in tokens; longer rows are cut. The positions in config.json are a further limit.
    pub max_length: usize,
    /// What a batch holds.
    pub batch_size: BatchSize,
    /// To which length sequences are padded; a length that the model fixes wins over it.
    pub padding: Padding,
    /// Most batches to run; by default, one pass over the data.
    pub max_batches: Option<usize>,
    /// The order in which rows become batches.
    pub order: Order,
    /// Seed of everything random.
    pub seed: u64,
    /// What is done about rows that cannot be read or do not fit the model.
    pub on_bad_row: OnBadRow,
}

impl Default for DataOptions {
    /// The defaults of the command line.
    fn default() -> Self {
        Self {
            tokenizer: None,
            chat_template: None,
            text: TextSource::Auto,
            completion_only: false,
            max_length: 512,
            batch_size: BatchSize::Rows(4),
            padding: Padding::default(),
            max_batches: None,
            order: Order::Grouped,
            seed: 0,
            on_bad_row: OnBadRow::Fail,
        }
    }
}

/// Where the model runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeOptions {
    /// `auto`, `cpu`, `cuda`, `cuda:N`, or a comma-separated list of devices that share the batches or the layers.
    pub devices: String,
    /// Threads; 0 for as many as cores.
    pub threads: usize,
    /// The ONNX Runtime library or its folder; by default, the usual places are searched.
    pub ort_lib: Option<PathBuf>,
    /// The encoder that a decoder reads from; by default, `encoder_model.onnx` beside the model.
    pub encoder: Option<PathBuf>,
    /// The model that makes the embeddings of tokens which the model reads; by default, `embed_tokens.onnx` beside it.
    pub embed_tokens: Option<PathBuf>,
}

impl Default for RuntimeOptions {
    /// The defaults of the command line.
    fn default() -> Self {
        Self { devices: "auto".to_owned(), threads: 0, ort_lib: None, encoder: None, embed_tokens: None }
    }
}

impl Init {
    /// A run on the ONNX model at `model`, with the defaults of the command line and without data.
    pub fn new(model: impl Into<PathBuf>) -> Self {
        Self {
            model: model.into(),
            rows: Rows::default(),
            settings: Settings::default(),
            capture: CaptureMethod::default(),
            naming: Naming::default(),
            selection: Selection::default(),
            data: DataOptions::default(),
            runtime: RuntimeOptions::default(),
            base: Base::default(),
            dtype: DType::F32,
            forms: Vec::new(),
            command: Vec::new(),
            shard: None,
            summary: None,
            checkpoint: None,
            blocks: None,
            split: Split::default(),
        }
    }

    /// Takes the calibration rows from files: JSON lines, JSON, CSV, TSV or plain text, also compressed. A
    /// folder stands for the data files in it, `-` for standard input.
    pub fn data(self, files: impl IntoIterator<Item = impl Into<PathBuf>>) -> Self {
        let files: Vec<PathBuf> = files.into_iter().map(Into::into).collect();
        let names = files.iter().map(|path| path.display().to_string()).collect();
        Self { rows: Rows { names, source: Some(Box::new(DataFiles::new(files))) }, ..self }
    }

    /// Takes the calibration rows from an iterator of fields: text, token ids, or tensors for the inputs of the model.
    /// `name` stands for it in messages and in eva.json. The rows are read on a thread of its own.
    pub fn rows<I>(self, name: &str, rows: I) -> Self
    where
        I: IntoIterator<Item: Into<Fields>, IntoIter: Send + 'static>,
    {
        let rows = Rows { names: vec![name.to_owned()], source: Some(Box::new(IterSource::new(name, rows))) };
        Self { rows, ..self }
    }

    /// Takes the calibration rows from a source, which messages and eva.json call `names`.
    pub(crate) fn source(self, names: Vec<String>, source: impl RowSource + Send + 'static) -> Self {
        Self { rows: Rows { names, source: Some(Box::new(source)) }, ..self }
    }

    /// Takes only one of several parts of the rows.
    pub fn shard(self, shard: Shard) -> Self {
        Self { shard: Some(shard), ..self }
    }

    /// Writes a summary of what the run knows of its rows, from which [`merge()`](crate::merge()) makes an adapter.
    pub fn summary(self, summary: SummaryOptions) -> Self {
        Self { summary: Some(summary), ..self }
    }

    /// Keeps the state of the run in a file, from which it can go on.
    pub fn checkpoints(self, checkpoint: CheckpointOptions) -> Self {
        Self { checkpoint: Some(checkpoint), ..self }
    }

    /// Runs the model in blocks, one after the other, so that one at a time is in memory. All batches are run: the run does
    /// not stop when components have converged.
    pub fn blocks(self, blocks: BlockOptions) -> Self {
        Self { blocks: Some(blocks), ..self }
    }

    /// What several devices share.
    pub fn split(self, split: Split) -> Self {
        Self { split, ..self }
    }

    /// LoRA rank r and, at the same value, alpha: the scale alpha / r is then 1. The budget is r times the number of
    /// modules.
    pub fn rank(mut self, rank: usize) -> Self {
        (self.settings.rank, self.settings.alpha) = (rank, rank as f64);
        self
    }

    /// The parameters of the method.
    pub fn settings(self, settings: Settings) -> Self {
        Self { settings, ..self }
    }

    /// How statistics are gathered.
    pub fn capture(self, capture: CaptureMethod) -> Self {
        Self { capture, ..self }
    }

    /// How module names are found and adjusted.
    pub fn naming(self, naming: Naming) -> Self {
        Self { naming, ..self }
    }

    /// PyTorch checkpoint used to recover module names by matching weights.
    pub fn checkpoint(mut self, path: impl Into<PathBuf>) -> Self {
        self.naming.checkpoint = Some(path.into());
        self
    }

    /// Which modules get an adapter.
    pub fn selection(self, selection: Selection) -> Self {
        Self { selection, ..self }
    }

    /// How rows become batches.
    pub fn data_options(self, data: DataOptions) -> Self {
        Self { data, ..self }
    }

    /// Most batches to run.
    pub fn max_batches(mut self, batches: usize) -> Self {
        self.data.max_batches = Some(batches);
        self
    }

    /// Where the model runs.
    pub fn runtime(self, runtime: RuntimeOptions) -> Self {
        Self { runtime, ..self }
    }

    /// `auto`, `cpu`, `cuda`, `cuda:N`, or a comma-separated list of devices that share the batches or the layers.
    pub fn device(mut self, devices: impl Into<String>) -> Self {
        self.runtime.devices = devices.into();
        self
    }

    /// What the PEFT config records of the base model; where it is `None`, what config.json beside the model says.
    pub fn base(self, base: Base) -> Self {
        Self { base, ..self }
    }

    /// Element type of the saved matrices: f32, f16 or bf16.
    pub fn dtype(self, dtype: DType) -> Self {
        Self { dtype, ..self }
    }

    /// The command that started the run and its arguments, which eva.json records.
    pub fn command(mut self, words: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.command = words.into_iter().map(Into::into).collect();
        self
    }

    /// Models with the adapter in them that [`Initialised::save`](super::Initialised::save) writes beside it, each into
    /// a folder called like its form. Whether they can be made is checked before the first batch.
    pub fn emit(mut self, forms: impl IntoIterator<Item = Form>) -> Self {
        for form in forms {
            if !self.forms.contains(&form) {
                self.forms.push(form);
            }
        }
        self
    }
}
