//! The result of a training, and its files.

use super::TrainSettings;
use super::checkpoint::Newest;
use super::history::{Evaluation, StepRecord};
use crate::adapter::{Adapter, Base};
use crate::dtype::DType;
use crate::error::Error;
use crate::formats::peft;
use crate::output::Destination;
use crate::report;
use crate::splice::SavedParameter;
use crate::train::Loss;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// The checkpoint that a training went on from.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Resumed {
    /// Its folder.
    pub path: PathBuf,
    /// Steps that were done.
    pub steps: usize,
    /// Newer ones, which are damaged.
    pub damaged: Vec<PathBuf>,
}

impl From<Newest> for Resumed {
    fn from(newest: Newest) -> Self {
        Self { steps: newest.checkpoint.state.steps, path: newest.path, damaged: newest.damaged }
    }
}

/// A trained adapter, and how the training went.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Trained {
    /// The adapter.
    pub adapter: Adapter,
    /// Parameters of layers that were trained whole: PEFT's `modules_to_save`.
    pub saved: Vec<SavedParameter>,
    /// What its PEFT config records of the base model.
    pub base: Base,
    /// What each step did.
    pub history: Vec<StepRecord>,
    /// The evaluations.
    pub evaluations: Vec<Evaluation>,
    /// What was minimised.
    pub loss: Loss,
    /// Steps planned.
    pub planned: usize,
    /// Modules that the loss does not depend on; they are as they were.
    pub unreached: Vec<String>,
    /// Operators that round activations, which the gradient passes straight through.
    pub rounded: Vec<String>,
    /// Batches that were split because memory ran out.
    pub split_batches: usize,
    /// Whether activations were computed again for the backward pass, in the end.
    pub recomputed: bool,
    /// The checkpoint that the training went on from.
    pub resumed: Option<Resumed>,
    /// The newest checkpoint that was written.
    pub checkpoint: Option<PathBuf>,
    /// The device.
    pub device: String,
    /// Seconds until the first step.
    pub ready: f64,
    /// Seconds in all.
    pub seconds: f64,
    /// What the training was given.
    pub settings: TrainSettings,
    /// The model.
    pub model: PathBuf,
}

#[derive(Serialize)]
struct Report<'a> {
    version: &'a str,
    model: String,
    device: &'a str,
    loss: &'a str,
    planned: usize,
    rate: f64,
    schedule: &'a str,
    warmup: usize,
    accumulate: usize,
    weight_decay: f32,
    clip: f32,
    split_batches: usize,
    recomputed: bool,
    unreached: &'a [String],
    rounded: &'a [String],
    trained_whole: Vec<&'a str>,
    resumed_after_step: Option<usize>,
    seconds_until_first_step: f64,
    seconds: f64,
    peak_rss_bytes: Option<u64>,
    evaluations: &'a [Evaluation],
    steps: &'a [StepRecord],
}

impl Trained {
    /// The modules that were trained whole.
    pub fn whole(&self) -> Vec<&str> {
        let mut modules: Vec<&str> = self.saved.iter().map(|parameter| parameter.module.as_str()).collect();
        modules.dedup();
        modules
    }

    /// What train.json says.
    pub fn to_json(&self) -> String {
        let report = Report {
            version: env!("CARGO_PKG_VERSION"),
            model: self.model.display().to_string(),
            device: &self.device,
            loss: self.loss.as_str(),
            planned: self.planned,
            rate: self.settings.rate,
            schedule: self.settings.schedule.as_str(),
            warmup: self.settings.warmup,
            accumulate: self.settings.accumulate,
            weight_decay: self.settings.adamw.weight_decay,
            clip: self.settings.adamw.clip,
            split_batches: self.split_batches,
            recomputed: self.recomputed,
            unreached: &self.unreached,
            rounded: &self.rounded,
            trained_whole: self.whole(),
            resumed_after_step: self.resumed.as_ref().map(|resumed| resumed.steps),
            seconds_until_first_step: self.ready,
            seconds: self.seconds,
            peak_rss_bytes: crate::system::peak_rss(),
            evaluations: &self.evaluations,
            steps: &self.history,
        };
        serde_json::to_string_pretty(&report).unwrap_or_default()
    }

    /// Writes a PEFT folder with train.json to the folder `dir`, which must not exist or be empty.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn save(&self, dir: impl AsRef<Path>) -> Result<(), Error> {
        self.save_to(Destination::prepare(dir.as_ref(), false)?, DType::F32)
    }

    /// As [`save`](Self::save), to a folder that was prepared before, with matrices of this element type.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn save_to(&self, destination: Destination, dtype: DType) -> Result<(), Error> {
        destination.commit(&[
            (peft::WEIGHTS, peft::weights_with(&self.adapter, &self.saved, dtype)?),
            (peft::CONFIG, peft::config_with(&self.adapter, &self.base, &self.saved).into_bytes()),
            (report::TRAINING, self.to_json().into_bytes()),
        ])?;
        Ok(())
    }
}
