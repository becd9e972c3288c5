//! The steps of a training, one after the other.

use super::checkpoint::Position;
use super::epochs::Epochs;
use super::history::{Done, Evaluation, StepRecord};
use super::keeper::Keeper;
use super::options::Train;
use super::progress::TrainProgress;
use crate::calib::{Batch, Order};
use crate::error::Error as RunError;
use crate::eva::Next;
use crate::init::DataOptions;
use crate::train::{Error, Trainer};
use std::time::Instant;

/// A training that is ready to take steps.
pub(super) struct Steps<'a> {
    pub(super) train: &'a Train,
    /// Steps in all.
    pub(super) planned: usize,
    pub(super) trainer: Trainer,
    pub(super) epochs: Epochs<'a>,
    pub(super) done: Done,
    /// What writes checkpoints, if they are wanted.
    pub(super) keeper: Option<Keeper<'a>>,
}

impl Steps<'_> {
    /// Takes the steps planned, unless `observe` stops before, and writes checkpoints.
    ///
    /// # Errors
    /// When a step or a checkpoint fails, or `observe` stops the training before the first step.
    pub(super) fn run(&mut self, observe: &mut impl FnMut(&TrainProgress) -> Next) -> Result<(), RunError> {
        let every = self.train.checkpoints.as_ref().and_then(|checkpoints| checkpoints.every);
        while self.steps() < self.planned {
            let position = self.epochs.position();
            if observe(&TrainProgress::of(self.planned, &self.done)) == Next::Stop {
                if self.steps() == 0 {
                    return Err(Error::Interrupted.into());
                }
                return self.save(position);
            }
            let batches = self.epochs.window(self.train.settings.accumulate)?;
            if let Err(error) = self.step(&batches) {
                if every.is_some() && self.steps() > 0 && matches!(error, Error::NotFinite { .. }) {
                    // The parameters are those before the step.
                    self.save(self.epochs.before(position))?;
                }
                return Err(RunError::from(error).in_file(&self.train.model));
            }
            let steps = self.steps();
            if self.evaluates_after(steps) {
                let evaluation = self.evaluation(steps)?;
                self.done.evaluations.push(evaluation);
            }
            if steps < self.planned && every.is_some_and(|every| steps.is_multiple_of(every)) {
                self.save(self.epochs.position())?;
            }
        }
        Ok(())
    }

    /// Steps done.
    fn steps(&self) -> usize {
        self.done.history.len()
    }

    fn step(&mut self, batches: &[Batch]) -> Result<(), Error> {
        let settings = &self.train.settings;
        let rate = settings.rate * settings.schedule.share(self.steps(), settings.warmup, self.planned);
        let begun = Instant::now();
        let update = self.trainer.step(batches, rate)?;
        self.done.history.push(StepRecord {
            step: self.steps() + 1,
            loss: update.loss,
            rate,
            norm: update.norm,
            targets: update.targets,
            seconds: begun.elapsed().as_secs_f64(),
        });
        Ok(())
    }

    /// Writes a checkpoint, if they are wanted.
    fn save(&mut self, position: Position) -> Result<(), RunError> {
        self.epochs.prepared.check_unchanged()?;
        let rows = self.keeper.is_some().then(|| self.epochs.rows());
        if let (Some(keeper), Some(rows)) = (&mut self.keeper, rows) {
            keeper.save(&self.trainer, position, rows, &self.done)?;
        }
        Ok(())
    }

    fn evaluates_after(&self, step: usize) -> bool {
        let every = self.train.settings.eval_every.is_some_and(|every| step.is_multiple_of(every));
        !self.train.eval.is_empty() && (every || step == self.planned)
    }

    fn evaluation(&mut self, step: usize) -> Result<Evaluation, RunError> {
        let options = DataOptions { max_batches: None, order: Order::Grouped, ..self.train.data_options.clone() };
        let data = self.epochs.load(&self.train.eval, &options)?;
        let (loss, targets) = self.trainer.evaluate(data.batches())?;
        Ok(Evaluation { step, loss, targets })
    }
}
