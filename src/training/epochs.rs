//! The batches of a training.

use super::checkpoint::{self, Position};
use super::labels::Labelled;
use super::options::Train;
use super::rows::TrainRows;
use super::task::Task;
use crate::calib::{self, Batch, Calibration};
use crate::error::Error as RunError;
use crate::init::{DataOptions, Prepared};
use crate::train::Targets;

/// The batches, epoch after epoch; the rows are shuffled anew for each.
pub(super) struct Epochs<'a> {
    train: &'a Train,
    pub(super) prepared: &'a Prepared,
    task: &'a Task,
    epoch: u64,
    pub(super) data: Calibration,
    /// The next batch of this epoch.
    at: usize,
    /// The hash of this epoch's rows, once it is asked for.
    rows: Option<String>,
}

impl<'a> Epochs<'a> {
    pub(super) fn new(
        train: &'a Train,
        prepared: &'a Prepared,
        task: &'a Task,
        from: Position,
    ) -> Result<Self, RunError> {
        let data = rows_of_epoch(train, prepared, task, from.epoch)?;
        Ok(Self { train, prepared, task, epoch: from.epoch, data, at: from.batch, rows: None })
    }

    pub(super) fn position(&self) -> Position {
        Position { epoch: self.epoch, batch: self.at }
    }

    /// The place before the batches of a window that `position` led to.
    pub(super) fn before(&self, position: Position) -> Position {
        // The rows of the epoch before are gone, and nothing of it was left.
        if position.epoch == self.epoch { position } else { Position { epoch: self.epoch, batch: 0 } }
    }

    /// The hash of this epoch's rows.
    pub(super) fn rows(&mut self) -> String {
        let Self { rows, data, .. } = self;
        rows.get_or_insert_with(|| checkpoint::of_rows(data)).clone()
    }

    /// The next batches, up to `count` of one epoch, with something to predict in at least one of them.
    pub(super) fn window(&mut self, count: usize) -> Result<Vec<Batch>, RunError> {
        loop {
            if self.at >= self.data.len() {
                self.epoch += 1;
                (self.data, self.at) = (rows_of_epoch(self.train, self.prepared, self.task, self.epoch)?, 0);
                self.rows = None;
            }
            let end = self.data.len().min(self.at + count);
            let batches: Vec<Batch> = (self.at..end).map(|index| self.data.batch(index)).collect();
            self.at = end;
            if batches.iter().any(|batch| Targets::of(self.task.loss(), batch).len() > 0) {
                return Ok(batches);
            }
        }
    }

    /// Other rows.
    pub(super) fn load(&self, rows: &TrainRows, options: &DataOptions) -> Result<Calibration, RunError> {
        load(self.prepared, self.task, rows, options)
    }
}

/// The rows of an epoch, in batches.
fn rows_of_epoch(train: &Train, prepared: &Prepared, task: &Task, epoch: u64) -> Result<Calibration, RunError> {
    let options = &train.data_options;
    let seed = options.seed.wrapping_add(epoch);
    load(prepared, task, &train.data, &DataOptions { seed, ..options.clone() })
}

/// Rows with their labels, in batches.
fn load(prepared: &Prepared, task: &Task, rows: &TrainRows, options: &DataOptions) -> Result<Calibration, RunError> {
    let mut options = prepared.load_options(options);
    options.tensors.extend(task.labels.input());
    let mut rows = Labelled { labels: task.labels.clone(), source: rows.open() };
    Ok(calib::load(&mut rows, &options)?)
}
