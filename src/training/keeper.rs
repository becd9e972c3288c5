//! Writes the checkpoints of a training, and checks that it goes on as it began.

use super::checkpoint::{self, Checkpoint, Folder, Newest, Position, Record};
use super::history::Done;
use crate::adapter::{Adapter, Base};
use crate::dtype::DType;
use crate::error::Error;
use crate::formats::peft;
use crate::train::{Parameters, Trainer};
use std::path::PathBuf;

/// The name of the rows among what the result depends on.
const ROWS: &str = "the rows";

/// What writes the checkpoints of one training.
pub(super) struct Keeper<'a> {
    folder: &'a Folder,
    /// Steps planned in all.
    planned: usize,
    /// The adapter before the first step, and what its config records.
    adapter: &'a Adapter,
    parameters: &'a Parameters,
    base: &'a Base,
    /// What the result depends on, but for the rows.
    record: Record,
    /// The step and the folder of the last checkpoint.
    pub(super) last: Option<(usize, PathBuf)>,
}

impl<'a> Keeper<'a> {
    /// What writes checkpoints into a folder, each with an adapter like this one.
    pub(super) fn new(
        folder: &'a Folder,
        planned: usize,
        (adapter, parameters, base): (&'a Adapter, &'a Parameters, &'a Base),
        record: Record,
    ) -> Self {
        Self { folder, planned, adapter, parameters, base, record, last: None }
    }

    /// Writes a checkpoint, unless it is there. `rows` is the hash of those of the epoch of `position`.
    ///
    /// # Errors
    /// When it cannot be written, or the device fails.
    pub(super) fn save(
        &mut self,
        trainer: &Trainer,
        position: Position,
        rows: String,
        done: &Done,
    ) -> Result<(), Error> {
        let state = trainer.snapshot()?;
        let steps = state.steps;
        if self.last.as_ref().is_some_and(|(step, _)| *step == steps) {
            return Ok(());
        }
        let (adapter, saved) = self.parameters.restore(&state.theta, self.adapter);
        let files = vec![
            (peft::WEIGHTS, peft::weights_with(&adapter, &saved, DType::F32)?),
            (peft::CONFIG, peft::config_with(&adapter, self.base, &saved).into_bytes()),
        ];
        let mut record = self.record.clone();
        record.add(ROWS, rows);
        let checkpoint = Checkpoint {
            planned: self.planned,
            position,
            state,
            done: done.clone(),
            split_batches: trainer.split_batches,
            again: trainer.again,
            record,
        };
        self.last = Some((steps, self.folder.write(&checkpoint, files)?));
        Ok(())
    }
}

/// Checks that what the result depends on is what it was at the time of a checkpoint.
///
/// # Errors
/// [`checkpoint::Error::Settings`].
pub(super) fn check_same(newest: &Newest, record: &Record, rows: String) -> Result<(), checkpoint::Error> {
    let mut now = record.clone();
    now.add(ROWS, rows);
    let differences = now.differences(&newest.checkpoint.record);
    if differences.is_empty() {
        return Ok(());
    }
    Err(checkpoint::Error::Settings { path: newest.path.clone(), differences })
}
