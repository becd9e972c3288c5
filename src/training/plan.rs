//! What a training would do, by two of its steps.

use super::checkpoint::Position;
use super::epochs::Epochs;
use super::options::Train;
use super::task::Task;
use crate::adapter::{Adapter, AdapterModule};
use crate::calib::RowCounts;
use crate::error::Error as RunError;
use crate::eva::Settings;
use crate::formats::peft::Contents;
use crate::group::Module;
use crate::init::{MemoryNeed, Plan, Prepared, sample};
use crate::train::{Error, Parameters, Targets};
use ndarray::Array2;
use serde::Serialize;
use std::time::Instant;

/// What a training would do.
///
/// Serialises as the document of `eva-onnx train --dry-run --json`.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct TrainPlan {
    /// The model.
    pub model: String,
    /// The device.
    pub device: String,
    /// What would be minimised.
    pub loss: &'static str,
    /// Modules of the adapter.
    pub modules: usize,
    /// Numbers that would be trained; where EVA initialises the adapter, those of a LoRA with the same rank everywhere.
    pub parameters: usize,
    /// What becomes of the rows.
    pub rows: RowCounts,
    /// Batches of an epoch.
    pub batches_of_epoch: usize,
    /// Tokens of an epoch, padding included.
    pub padded_tokens_of_epoch: usize,
    /// Sequences, and tokens of each, of the largest batch.
    pub largest_batch: [usize; 2],
    /// Steps of the optimizer.
    pub steps: usize,
    /// Batches of a step.
    pub batches_of_step: usize,
    /// Whether activations would be computed again for the backward pass.
    pub recomputed: bool,
    /// Seconds until the first step, without those of the initialisation.
    pub seconds_until_first_step: f64,
    /// Seconds of a step with one batch of middle size.
    pub seconds_of_batch: f64,
    /// Seconds of all steps, without evaluations.
    pub seconds_of_steps: f64,
    /// Memory.
    pub memory: MemoryNeed,
    /// The initialisation by EVA, if there is no adapter to start from.
    pub initialisation: Option<Plan>,
}

impl Train {
    /// Says what the training would do: it opens the model, reads the rows of an epoch, and takes two steps. Nothing is
    /// written.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn plan(self) -> Result<TrainPlan, RunError> {
        let prepared = Prepared::open(&self.model, &self.naming, &self.selection, &self.runtime)?;
        let in_model = |error: Error| RunError::from(error).in_file(&self.model);
        let task = Task::of(self.settings.loss, &prepared).map_err(in_model)?;
        let initialises = self.adapter.is_none();
        let initialisation = initialises.then(|| self.init(&task).plan()).transpose()?;
        let started = Instant::now();
        let epochs = Epochs::new(&self, &prepared, &task, Position::default())?;
        let data = &epochs.data;
        let Contents { adapter, saved, .. } = match &self.adapter {
            Some(path) => self.read_adapter(path)?,
            None => {
                let adapter = uniform(&prepared.chosen.grouping.modules);
                Contents { adapter, base: self.base.clone(), saved: Vec::new() }
            }
        };
        let heads = self.heads(&prepared, &adapter, &saved)?;
        let parameters = Parameters::of(&adapter, heads);
        let ready = self.ready(&prepared, &task, (&adapter, &parameters), data, None)?;
        let device = ready.device;
        let mut trainer = self.load(ready, false)?;
        let until_first = started.elapsed();
        let loss = task.loss();
        let sampled = sample(data, |index| Targets::of(loss, &data.batch(index)).len() > 0).ok_or(Error::NoTargets)?;
        let mut seconds = 0.0;
        for index in sampled {
            let begun = Instant::now();
            trainer.step(&[data.batch(index)], self.settings.rate).map_err(in_model)?;
            seconds = begun.elapsed().as_secs_f64();
        }
        let sizes = data.sizes();
        let (steps, tokens) = (self.planned(data), sizes.iter().sum::<usize>());
        let (of_epoch, of_step) = (data.len(), self.settings.accumulate);
        // The last step of an epoch may have fewer batches.
        let epochs = steps as f64 / of_epoch.div_ceil(of_step) as f64;
        Ok(TrainPlan {
            model: self.model.display().to_string(),
            device: device.to_string(),
            loss: loss.as_str(),
            modules: adapter.modules.len(),
            parameters: parameters.len(),
            rows: data.counts(),
            batches_of_epoch: of_epoch,
            padded_tokens_of_epoch: tokens,
            largest_batch: data.largest_dim(),
            steps,
            batches_of_step: of_step,
            recomputed: trainer.again,
            seconds_until_first_step: until_first.as_secs_f64(),
            seconds_of_batch: seconds,
            seconds_of_steps: seconds / sizes[sampled[1]] as f64 * tokens as f64 * epochs,
            memory: MemoryNeed::now(),
            initialisation,
        })
    }
}

/// An adapter of the size of that which EVA initialises. Its A is not zero, so that B has a gradient.
fn uniform(modules: &[Module]) -> Adapter {
    let rank = Settings::default().rank;
    let adapted = |module: &Module| AdapterModule {
        module: module.name.clone(),
        a: Array2::from_shape_fn((rank, module.in_features), |(i, j)| if j % rank == i { 0.01 } else { 0.0 }),
        out_features: module.out_features,
        b: None,
        alpha: Settings::default().alpha,
        fan_in_fan_out: module.fan_in_fan_out,
        magnitude: None,
    };
    Adapter { modules: modules.iter().map(adapted).collect(), unadapted: Vec::new() }
}
