//! From a model, rows and an adapter to the trained adapter.

mod checkpoint;
mod epochs;
mod history;
mod keeper;
mod label;
mod labels;
mod load;
mod options;
mod plan;
mod progress;
mod rows;
mod start;
mod step_graph;
mod steps;
mod task;
mod trained;

pub use checkpoint::{CheckpointOptions, Difference, Error as CheckpointError};
pub use history::{Evaluation, StepRecord};
pub use options::{Train, TrainSettings};
pub use plan::TrainPlan;
pub use progress::TrainProgress;
pub(crate) use step_graph::read as read_step_graph;
pub use trained::{Resumed, Trained};

use crate::calib::Calibration;
use crate::error::Error as RunError;
use crate::eva::Next;
use crate::init::Prepared;
use crate::train::Parameters;
use checkpoint::{Folder, Newest, Position};
use epochs::Epochs;
use history::Done;
use keeper::Keeper;
use start::Start;
use std::time::Instant;
use steps::Steps;
use task::Task;

impl Train {
    /// Trains the adapter.
    ///
    /// # Errors
    /// When the model, the adapter, the data or an option is unusable, or ONNX Runtime fails.
    pub fn run(self) -> Result<Trained, RunError> {
        self.run_with(|_| Next::Continue)
    }

    /// As [`run`](Self::run); `observe` sees the state before the first step and after each, and may stop the training.
    /// The adapter is then that of the steps so far.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn run_with(self, mut observe: impl FnMut(&TrainProgress) -> Next) -> Result<Trained, RunError> {
        let started = Instant::now();
        let folder = self.checkpoints.as_ref().map(Folder::open).transpose()?;
        let newest = folder.as_ref().filter(|_| self.resumes()).map(Folder::newest).transpose()?;
        let prepared = Prepared::open(&self.model, &self.naming, &self.selection, &self.runtime)?;
        let task =
            Task::of(self.settings.loss, &prepared).map_err(|error| RunError::from(error).in_file(&self.model))?;
        let position = newest.as_ref().map_or_else(Position::default, |newest| newest.checkpoint.position);
        let mut epochs = Epochs::new(&self, &prepared, &task, position)?;
        let Start { adapter, heads, base, record } = self.start(&prepared, &task, newest.as_ref(), &mut observe)?;
        if let Some(newest) = &newest {
            keeper::check_same(newest, &record, epochs.rows())?;
        }
        let planned = newest.as_ref().map_or_else(|| self.planned(&epochs.data), |newest| newest.checkpoint.planned);
        let parameters = Parameters::of(&adapter, heads);
        let ready = self.ready(&prepared, &task, (&adapter, &parameters), &epochs.data, newest.as_ref())?;
        let (unreached, rounded, device) = (ready.step.unreached.clone(), ready.step.rounded.clone(), ready.device);
        let mut trainer = self.load(ready, self.settings.check && newest.is_none())?;
        let until_ready = started.elapsed();
        if let Some(Newest { checkpoint, .. }) = &newest {
            trainer.restore(&checkpoint.state)?;
            trainer.split_batches = checkpoint.split_batches;
        }
        let done = newest.as_ref().map_or_else(Done::default, |newest| newest.checkpoint.done.clone());
        let keeper = folder.as_ref().map(|folder| Keeper::new(folder, planned, (&adapter, &parameters, &base), record));
        let mut steps = Steps { train: &self, planned, trainer, epochs, done, keeper };
        steps.run(&mut observe)?;
        prepared.check_unchanged()?;
        let Steps { trainer, done, keeper, .. } = steps;
        let checkpoint = keeper.and_then(|keeper| keeper.last).map(|(_, path)| path);
        let theta = trainer.theta().map_err(|error| RunError::from(error).in_file(&self.model))?;
        let (adapter, saved) = parameters.restore(&theta, &adapter);
        Ok(Trained {
            adapter,
            saved,
            base,
            history: done.history,
            evaluations: done.evaluations,
            loss: task.loss(),
            planned,
            unreached,
            rounded,
            split_batches: trainer.split_batches,
            recomputed: trainer.again,
            resumed: newest.map(Resumed::from),
            checkpoint,
            device: device.to_string(),
            ready: until_ready.as_secs_f64(),
            seconds: started.elapsed().as_secs_f64(),
            settings: self.settings,
            model: self.model,
        })
    }

    fn resumes(&self) -> bool {
        self.checkpoints.as_ref().is_some_and(|checkpoints| checkpoints.resume)
    }

    /// Checks that a training whose state is kept does not meet another's, before anything is made. What one that was killed
    /// left before its first checkpoint is removed.
    ///
    /// # Errors
    /// When there are checkpoints, and the training does not go on from them; when another run is writing one.
    pub fn check_checkpoints(&self) -> Result<(), RunError> {
        match self.checkpoints.as_ref().map(Folder::open).transpose()? {
            Some(folder) if !self.resumes() => Ok(folder.clear_dead()?),
            _ => Ok(()),
        }
    }

    /// Steps in all: those asked for, or those of the epochs.
    fn planned(&self, data: &Calibration) -> usize {
        let of_epoch = data.len().div_ceil(self.settings.accumulate);
        self.settings.steps.unwrap_or(of_epoch * self.settings.epochs)
    }
}
