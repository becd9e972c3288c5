//! From a model and calibration data to an adapter initialised by EVA.

mod devices;
mod initialised;
mod note;
mod options;
mod prepared;

pub use devices::Load;
pub(crate) use devices::devices;
pub use initialised::Initialised;
pub use note::Note;
pub use options::{CaptureMethod, DataOptions, Init, RuntimeOptions};
pub use prepared::Prepared;

use crate::calib::{self, Arrivals};
use crate::error::Error;
use crate::eva::{self, Next, Stop};
use crate::formats::peft;
use crate::output::Destination;
use crate::output::model::MODEL;
use crate::report::REPORT;
use crate::runtime;
use crate::splice::{self, Form};
use initialised::Circumstances;
use std::cell::Cell;
use std::iter;
use std::time::Instant;

/// The state of a run; before the first batch, all counts are 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// Batches that the data has or the options allow, as soon as the rows are read that far; the run may converge before.
    pub planned: Option<usize>,
    /// Batches run.
    pub batches: usize,
    /// Attended tokens seen.
    pub tokens_seen: usize,
    /// Tokens that entered the statistics.
    pub tokens_kept: usize,
    /// Modules whose assigned components converged.
    pub converged: usize,
    /// Modules in all; 0 before the model is loaded.
    pub modules: usize,
}

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
    /// are waited for, and may stop the run. The adapter is then made of the batches so far.
    ///
    /// # Errors
    /// As [`run`](Self::run); also when `observe` stops the run before the first batch is done.
    pub fn run_with(mut self, mut observe: impl FnMut(&Progress) -> Next) -> Result<Initialised, Error> {
        let started = Instant::now();
        let encoder = self.runtime.encoder.as_deref();
        let prepared = Prepared::open(&self.model, &self.naming, &self.selection, encoder)?;
        let model = prepared.named.path().to_owned();
        let in_file = |error: Error| error.in_file(&model);
        self.check_forms(&prepared).map_err(|e| in_file(e.into()))?;
        let rows = self.rows.source.take().ok_or(calib::Error::NoFiles)?;
        let mut go_on = || observe(&Progress::default()) == Next::Continue;
        let data = Arrivals::start(rows, prepared.load_options(&self.data), &mut go_on)?;
        let mut data = data.ok_or(eva::Error::Interrupted)?;
        let runtime = runtime::load(&runtime::find(self.runtime.ort_lib.as_deref())?)?;
        let devices = devices::devices(&self.runtime.devices, &runtime)?;
        let load = Load {
            prepared: &prepared,
            runtime: &runtime,
            method: self.capture,
            threads: self.runtime.threads,
            components: self.settings.components(),
            seed: self.data.seed,
        };
        let mut capture = match load.on(&devices, data.window()) {
            // Some models take only some lengths: those that the rows came with, if these were padded.
            Err(error) if error.is_of_run() && data.pad_as_given() => load.on(&devices, data.window())?,
            loaded => loaded?,
        };
        let loaded = started.elapsed();

        let most = self.data.max_batches;
        let planned = Cell::new(data.planned().or(most));
        let mut seen = |progress: &eva::Progress| {
            let eva::Progress { batches, tokens_seen, tokens_kept, converged, modules } = *progress;
            observe(&Progress { planned: planned.get(), batches, tokens_seen, tokens_kept, converged, modules })
        };
        let arrivals = iter::from_fn(|| {
            let arrival = data.next();
            planned.set(data.planned().or(most));
            arrival
        });
        let grouping = &prepared.chosen.grouping;
        let mut statistics = match eva::gather(&mut *capture, grouping, arrivals, &self.settings, &mut seen) {
            Ok(statistics) => statistics,
            Err(eva::Error::Data(error)) => return Err((*error).into()),
            Err(error) => return Err(in_file(error.into())),
        };
        let limited = most.is_some_and(|most| statistics.history.len() >= most);
        if limited && statistics.stopped_by == Stop::Exhausted {
            statistics.stopped_by = Stop::MaxBatches;
        }
        let circumstances = Circumstances {
            onnxruntime: runtime.version.clone(),
            devices: &devices,
            rows: data.counts(),
            bad: data.bad().clone(),
            unused: data.unused().map(str::to_owned).collect(),
            loaded,
            started,
        };
        Ok(Initialised::new(self, prepared, statistics, circumstances))
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
