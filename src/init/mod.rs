//! From a model and calibration data to an adapter initialised by EVA.

mod block_plan;
mod block_rows;
mod block_states;
mod checkpoint;
mod devices;
mod error;
mod findings;
mod identity;
mod in_blocks;
mod initialised;
mod note;
mod options;
mod plan;
mod prepared;
mod progress;
mod ran;
mod run;
mod scheduler;
mod summarised;

pub(crate) use block_plan::plan as plan_blocks;
pub use block_states::is_state;
pub use checkpoint::CheckpointOptions;
pub use devices::Load;
pub(crate) use devices::devices;
pub use error::Error as InitError;
pub(crate) use identity::hash;
pub(crate) use initialised::Found;
pub use initialised::Initialised;
pub use note::Note;
pub use options::{BlockOptions, DataOptions, Init, RuntimeOptions, Split, SummaryOptions};
pub(crate) use plan::sample;
pub use plan::{MemoryNeed, Plan, PlannedModule};
pub use prepared::{Beside, Prepared};
pub use progress::{BlockProgress, Progress};
pub use scheduler::shard;
pub use summarised::Summarised;

use crate::adapter::Base;
use crate::error::Error;
use crate::eva::Next;
use crate::formats::peft;
use crate::output::Destination;
use crate::output::model::MODEL;
use crate::report::REPORT;
use crate::splice::{self, Form};
use crate::summary::Facts;
use std::path::Path;
use std::time::Instant;
use summarised::Place;

impl Init {
    /// Runs the calibration data through the model and makes the adapter.
    ///
    /// # Errors
    /// When the model, the data or an option is unusable, or ONNX Runtime fails. What can be known from the graph alone
    /// is checked before the first batch.
    pub fn run(self) -> Result<Initialised, Error> {
        self.run_with(|_| Next::Continue)
    }

    /// As [`run`](Self::run); `observe` sees the state before the first batch, after each, and again and again while rows
    /// are waited for, and may stop the run. The adapter is then made of the batches so far; a run with
    /// [`checkpoints`](Self::checkpoints) keeps its state instead, and has no result.
    ///
    /// # Errors
    /// As [`run`](Self::run); also when `observe` stops the run before the first batch is done.
    pub fn run_with(mut self, mut observe: impl FnMut(&Progress) -> Next) -> Result<Initialised, Error> {
        let started = Instant::now();
        let prepared = self.open()?;
        let facts = self.facts(&prepared)?;
        let wanted = self.summary.clone().zip(facts.clone());
        let inputs = self.inputs(&prepared.named);
        let draft =
            wanted.map(|(options, facts)| Place::find(&options, facts.clone(), &inputs)?.again(&options, facts));
        let draft = draft.transpose()?;
        let ran = self.gathered(&prepared, facts.as_ref(), &mut observe, started)?;
        prepared.check_unchanged()?;
        if let (Some(draft), Some(summaries)) = (draft, &ran.summaries) {
            draft.write(&ran, summaries)?;
        }
        let base = Base::from(&identity::base(&self, &prepared));
        Ok(Initialised::new(self, prepared, base, ran))
    }

    /// Writes the [`summary`](Self::summary) of the rows, and makes no adapter. If it is there already, nothing is run. A run
    /// that `observe` stops writes none, as it would lack rows.
    ///
    /// # Errors
    /// As [`run`](Self::run); also when `observe` stops the run, and when no file is named.
    pub fn summarise_with(mut self, mut observe: impl FnMut(&Progress) -> Next) -> Result<Summarised, Error> {
        let started = Instant::now();
        let prepared = self.open()?;
        let Some((options, facts)) = self.summary.clone().zip(self.facts(&prepared)?) else {
            return Err(Error::usage("no file is named for the summary", None));
        };
        let place = Place::find(&options, facts, &self.inputs(&prepared.named))?;
        if matches!(place, Place::Done(_)) {
            self.stale().map_or(Ok(()), block_states::remove)?;
        }
        let mut ran = |facts: &Facts| {
            let ran = self.gathered(&prepared, Some(facts), &mut observe, started)?;
            prepared.check_unchanged()?;
            Ok(ran)
        };
        summarised::write(&options.file, place, &prepared.named, &mut ran)
    }

    /// The state of a run that has ended, which this one would go on with.
    fn stale(&self) -> Option<&Path> {
        let of_batches = self.checkpoint.as_ref().filter(|checkpoint| checkpoint.resume).map(|c| c.file.as_path());
        let of_blocks = self.blocks.as_ref().filter(|blocks| blocks.resume).and_then(|blocks| blocks.spill.as_deref());
        of_batches.or(of_blocks)
    }

    /// Opens the model, and checks what the graph alone decides.
    fn open(&self) -> Result<Prepared, Error> {
        let prepared = Prepared::open(&self.model, &self.naming, &self.selection, &self.runtime)?;
        self.check_forms(&prepared).map_err(|e| Error::from(e).in_file(prepared.named.path()))?;
        Ok(prepared)
    }

    /// The facts of the run, if anything records them.
    fn facts(&self, prepared: &Prepared) -> Result<Option<Facts>, Error> {
        let spills = self.blocks.as_ref().is_some_and(|blocks| blocks.spill.is_some());
        let wanted = self.summary.is_some() || self.checkpoint.is_some() || spills;
        wanted.then(|| identity::facts(self, prepared)).transpose()
    }

    /// Checks that the files of the result can be written to a folder, before the run.
    ///
    /// # Errors
    /// When something in the folder is in the way.
    pub fn check_output(&self, destination: &Destination) -> Result<(), Error> {
        let models: Vec<String> = self.forms.iter().map(|form| format!("{}/{MODEL}", form.as_str())).collect();
        let files = [peft::WEIGHTS, peft::CONFIG, REPORT].into_iter().chain(models.iter().map(String::as_str));
        Ok(destination.check_names(files)?)
    }

    /// Checks that every chosen module can get what the models to write need, which depends on the graph alone.
    fn check_forms(&self, prepared: &Prepared) -> Result<(), splice::Error> {
        if self.forms.iter().all(|form| *form == Form::Merged) {
            return Ok(());
        }
        let modules = prepared.chosen.grouping.modules.iter().map(|module| module.name.as_str());
        splice::check_branches(&prepared.named.model, &prepared.named.layers.linears, modules)
    }
}
