//! What a training is given.

use super::checkpoint::CheckpointOptions;
use super::rows::TrainRows;
use crate::adapter::Base;
use crate::calib::{Fields, Order};
use crate::eva::Settings;
use crate::init::{DataOptions, RuntimeOptions};
use crate::named::{Naming, Selection};
use crate::train::{AdamW, Loss, Recompute, Schedule};
use std::path::PathBuf;

/// The parameters of a training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TrainSettings {
    /// Passes over the data, unless `steps` is given.
    pub epochs: usize,
    /// Steps of the optimizer.
    pub steps: Option<usize>,
    /// Largest learning rate.
    pub rate: f64,
    /// How the learning rate falls.
    pub schedule: Schedule,
    /// Steps in which the learning rate rises.
    pub warmup: usize,
    /// Batches that count together in a step.
    pub accumulate: usize,
    /// The optimizer.
    pub adamw: AdamW,
    /// Steps between evaluations; by default, only after the last.
    pub eval_every: Option<usize>,
    /// What is minimised; by default, the loss of the class of transformers that config.json names.
    pub loss: Option<Loss>,
    /// Whether the gradient is compared with the loss before the first step.
    pub check: bool,
    /// Whether activations are kept for the backward pass.
    pub recompute: Recompute,
}

impl Default for TrainSettings {
    /// The defaults of the command line.
    fn default() -> Self {
        Self {
            epochs: 1,
            steps: None,
            rate: 2e-4,
            schedule: Schedule::Cosine,
            warmup: 0,
            accumulate: 1,
            adamw: AdamW::default(),
            eval_every: None,
            loss: None,
            check: true,
            recompute: Recompute::Auto,
        }
    }
}

/// A training that is being set up: [`new`](Self::new), then the options, then [`run`](Self::run).
#[must_use = "nothing happens before `run`"]
#[derive(Clone, Debug)]
pub struct Train {
    pub(super) model: PathBuf,
    pub(super) data: TrainRows,
    pub(super) eval: TrainRows,
    pub(super) adapter: Option<PathBuf>,
    pub(super) modules: Vec<String>,
    pub(super) settings: TrainSettings,
    pub(super) method: Settings,
    pub(super) naming: Naming,
    pub(super) selection: Selection,
    pub(super) data_options: DataOptions,
    pub(super) runtime: RuntimeOptions,
    pub(super) checkpoints: Option<CheckpointOptions>,
    pub(super) base: Base,
}

impl Train {
    /// A training of the ONNX model at `model`, with the defaults of the command line and without data.
    pub fn new(model: impl Into<PathBuf>) -> Self {
        Self {
            model: model.into(),
            data: TrainRows::Files(Vec::new()),
            eval: TrainRows::Files(Vec::new()),
            adapter: None,
            modules: Vec::new(),
            settings: TrainSettings::default(),
            method: Settings::default(),
            naming: Naming::default(),
            selection: Selection::default(),
            data_options: DataOptions { order: Order::Shuffled, ..DataOptions::default() },
            runtime: RuntimeOptions::default(),
            checkpoints: None,
            base: Base::default(),
        }
    }

    /// Trains on the rows of these files, as [`Init::data`](crate::Init::data) reads them.
    pub fn data(self, files: impl IntoIterator<Item = impl Into<PathBuf>>) -> Self {
        Self { data: TrainRows::Files(files.into_iter().map(Into::into).collect()), ..self }
    }

    /// Trains on rows of fields: text, token ids, or tensors for the inputs of the model. `rows` is called again for each
    /// epoch, and `name` stands for it in messages.
    pub fn rows<I>(self, name: &str, rows: impl Fn() -> I + Send + Sync + 'static) -> Self
    where
        I: IntoIterator<Item: Into<Fields>, IntoIter: Send + 'static>,
    {
        Self { data: TrainRows::of(name, rows), ..self }
    }

    /// Trains on the rows of a source that is opened again for each epoch.
    #[cfg(feature = "python")]
    pub(crate) fn source(self, name: &str, open: std::sync::Arc<super::rows::Open>) -> Self {
        Self { data: TrainRows::Source(name.to_owned(), open), ..self }
    }

    /// Reports the loss on the rows of a source.
    #[cfg(feature = "python")]
    pub(crate) fn eval_source(self, name: &str, open: std::sync::Arc<super::rows::Open>) -> Self {
        Self { eval: TrainRows::Source(name.to_owned(), open), ..self }
    }

    /// Reports the loss on the rows of these files.
    pub fn eval(self, files: impl IntoIterator<Item = impl Into<PathBuf>>) -> Self {
        Self { eval: TrainRows::Files(files.into_iter().map(Into::into).collect()), ..self }
    }

    /// Starts from the adapter in this PEFT folder; without it, EVA initialises one on the same rows.
    pub fn adapter(self, folder: impl Into<PathBuf>) -> Self {
        Self { adapter: Some(folder.into()), ..self }
    }

    /// Trains layers whole, with their biases, beside the adapter: modules of these names or name endings, and those
    /// inside them. They become PEFT's `modules_to_save`.
    pub fn train_modules(self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { modules: names.into_iter().map(Into::into).collect(), ..self }
    }

    /// The parameters of the training.
    pub fn settings(self, settings: TrainSettings) -> Self {
        Self { settings, ..self }
    }

    /// The parameters by which EVA initialises the adapter, if none is given.
    pub fn method(self, method: Settings) -> Self {
        Self { method, ..self }
    }

    /// How module names are found and adjusted.
    pub fn naming(self, naming: Naming) -> Self {
        Self { naming, ..self }
    }

    /// Which modules get an adapter, where EVA initialises it.
    pub fn selection(self, selection: Selection) -> Self {
        Self { selection, ..self }
    }

    /// How rows become batches.
    pub fn data_options(self, data_options: DataOptions) -> Self {
        Self { data_options, ..self }
    }

    /// Where the model runs.
    pub fn runtime(self, runtime: RuntimeOptions) -> Self {
        Self { runtime, ..self }
    }

    /// Where the state is kept while the training runs; without it, nowhere.
    pub fn checkpoints(self, checkpoints: CheckpointOptions) -> Self {
        Self { checkpoints: Some(checkpoints), ..self }
    }

    /// What the PEFT config records of the base model; where it is `None`, what the adapter to start from says.
    pub fn base(self, base: Base) -> Self {
        Self { base, ..self }
    }
}
