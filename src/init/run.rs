//! The run itself: rows through the model, from the beginning or from a checkpoint.

use super::block_plan;
use super::checkpoint::{Checkpoint, Machine};
use super::devices::{self, Load};
use super::error::Error as InitError;
use super::in_blocks::Given;
use super::note::Note;
use super::options::Init;
use super::prepared::Prepared;
use super::progress::Progress;
use super::ran::{Circumstances, Ran, names};
use crate::blocks::{Block, Plan};
use crate::calib::{self, Arrival, Arrivals, Calibration, ShardOf};
use crate::capture::{Capture, CaptureMethod};
use crate::error::Error;
use crate::eva::{self, BatchRecord, Going, Next, Statistics, Stop};
use crate::parallel;
use crate::runtime::{self, Device, Runtime};
use crate::summary::Facts;
use std::cell::Cell;
use std::iter;
use std::time::Instant;

impl Init {
    /// Runs the rows of its source through a model; `facts` are those of a run that has a summary or a checkpoint.
    pub(super) fn gathered(
        &mut self,
        prepared: &Prepared,
        facts: Option<&Facts>,
        observe: &mut dyn FnMut(&Progress) -> Next,
        started: Instant,
    ) -> Result<Ran, Error> {
        let model = prepared.named.path();
        let in_file = |error: Error| error.in_file(model);
        let mut data = self.arrivals(prepared, observe)?;
        let (runtime, devices) = self.devices()?;
        let parts = self.shared(prepared, &devices)?;
        let mut notes = Vec::new();
        if let Some(options) = self.blocks.clone() {
            if self.checkpoint.is_some() {
                let hint = "leave out the checkpoints: `spill` keeps the state of every block";
                return Err(Error::usage("a run in blocks has no checkpoints of batches", Some(hint)));
            }
            if let Plan::Cut(blocks) = block_plan::plan(prepared, options.blocks, &devices).map_err(in_file)? {
                let given = Given { prepared, runtime, devices, options, facts, started };
                return self.gathered_in_blocks(given, blocks, data, observe);
            }
            notes.push(Note::Whole);
        }
        let wanted = self.checkpoint.as_ref().zip(facts);
        let cut = if parts.is_empty() { String::new() } else { block_plan::fingerprint(&parts) };
        let opened = wanted.map(|(options, facts)| Checkpoint::open(options, facts, (self.machine(&devices), cut)));
        let checkpoint = opened.transpose()?;
        notes.extend(self.other_threads(checkpoint.as_ref().and_then(|begun| begun.other_threads)));
        if !parts.is_empty() {
            let weights = devices.iter().zip(&parts).map(|(device, part)| (device.to_string(), part.weights));
            notes.push(Note::Layers { weights: weights.collect() });
        }
        let mut capture = self.load(prepared, &runtime, (&devices, &parts), &mut data)?;
        let loaded = started.elapsed();
        if let Some((checkpoint, state)) = checkpoint.as_ref().and_then(|begun| Some((begun, begun.state.as_ref()?))) {
            capture.restore(state).map_err(|e| Error::from(e).in_file(checkpoint.path()))?;
        }
        let statistics = self.gather(prepared, &mut *capture, &mut data, checkpoint.as_ref(), observe);
        let statistics = statistics.map_err(|error| if error.is_of_model() { in_file(error) } else { error })?;
        let wanted = self.summary.is_some() && statistics.stopped_by != Stop::Interrupted;
        let summaries = wanted.then(|| capture.summaries()).transpose().map_err(|e| in_file(e.into()))?;
        let met = Circumstances {
            onnxruntime: runtime.version.clone(),
            devices,
            rows: data.counts(),
            bad: data.bad().clone(),
            unused: data.unused().map(str::to_owned).collect(),
            loaded,
            started,
            checkpoint: checkpoint.map(|checkpoint| checkpoint.path().to_owned()),
            notes,
        };
        Ok(Ran { statistics, summaries, met })
    }

    /// The threads of ONNX Runtime.
    fn threads(&self) -> usize {
        if self.runtime.threads == 0 { parallel::cores() } else { self.runtime.threads }
    }

    /// What runs the model.
    pub(super) fn machine(&self, devices: &[Device]) -> Machine {
        Machine { devices: names(devices), threads: self.threads() }
    }

    /// The note on a run that began with so many other threads.
    pub(super) fn other_threads(&self, then: Option<usize>) -> Option<Note> {
        let then = then.filter(|_| self.capture == CaptureMethod::Sketch)?;
        Some(Note::OtherThreads { then, now: self.threads() })
    }

    /// Begins to read the rows.
    pub(super) fn arrivals(
        &mut self,
        prepared: &Prepared,
        observe: &mut dyn FnMut(&Progress) -> Next,
    ) -> Result<Arrivals, Error> {
        let mut rows = self.rows.source.take().ok_or(calib::Error::NoFiles)?;
        if let Some(shard) = self.shard {
            rows = Box::new(ShardOf::new(rows, shard));
        }
        let mut go_on = || observe(&Progress::default()) == Next::Continue;
        let data = Arrivals::start(rows, prepared.load_options(&self.data), &mut go_on)?;
        Ok(data.ok_or(eva::Error::Interrupted)?)
    }

    /// ONNX Runtime, and the devices that run the model.
    pub(super) fn devices(&self) -> Result<(Runtime, Vec<Device>), Error> {
        let runtime = runtime::load(&runtime::find(self.runtime.ort_lib.as_deref())?)?;
        let devices = devices::devices(&self.runtime.devices, &runtime)?;
        Ok((runtime, devices))
    }

    /// Loads the model on the devices, or its parts if there are any.
    pub(super) fn load(
        &self,
        prepared: &Prepared,
        runtime: &Runtime,
        (devices, parts): (&[Device], &[Block]),
        data: &mut Arrivals,
    ) -> Result<Box<dyn Capture>, Error> {
        let load = Load {
            prepared,
            runtime,
            method: self.capture,
            threads: self.runtime.threads,
            components: self.settings.components(),
            seed: self.data.seed,
            may_end: self.settings.tau < 1.0,
        };
        let on = |window: &Calibration| match parts {
            [] => load.on(devices, window),
            parts => load.in_parts(devices, parts, window),
        };
        match on(data.window()) {
            // Some models take only some lengths: those that the rows came with, if these were padded.
            Err(error) if error.is_of_run() && data.pad_as_given() => on(data.window()),
            loaded => loaded,
        }
    }

    /// Runs the batches that the checkpoint has not seen.
    fn gather(
        &self,
        prepared: &Prepared,
        capture: &mut dyn Capture,
        data: &mut Arrivals,
        checkpoint: Option<&Checkpoint>,
        observe: &mut dyn FnMut(&Progress) -> Next,
    ) -> Result<Statistics, Error> {
        let most = self.data.max_batches;
        let planned = Cell::new(data.planned().or(most));
        let mut seen = |progress: &eva::Progress| {
            let eva::Progress { batches, tokens_seen, tokens_kept, converged, modules } = *progress;
            observe(&Progress {
                planned: planned.get(),
                batches,
                tokens_seen,
                tokens_kept,
                converged,
                modules,
                block: None,
            })
        };
        let history = checkpoint.map_or_else(Vec::new, |checkpoint| checkpoint.history.clone());
        let before = history.len();
        let mut passed = 0;
        let arrivals = iter::from_fn(|| {
            let arrival = data.next();
            planned.set(data.planned().or(most));
            match arrival {
                Some(Ok(Arrival::Batch(_))) if passed < before => {
                    passed += 1;
                    Some(Ok(Arrival::Waiting))
                }
                other => other,
            }
        });
        let mut keep = |capture: &mut dyn Capture, history: &[BatchRecord], next: Next| -> Result<(), Error> {
            prepared.check_unchanged()?;
            let Some(checkpoint) = checkpoint else { return Ok(()) };
            let batches = history.len();
            if (next == Next::Stop || checkpoint.is_due(batches)) && batches > before {
                checkpoint.write(history, &capture.save()?)?;
            }
            match next {
                Next::Stop => Err(InitError::Stopped { path: checkpoint.path().to_owned(), batches }.into()),
                Next::Continue => Ok(()),
            }
        };
        let due = |batches: usize| checkpoint.is_some_and(|checkpoint| checkpoint.is_due(batches));
        let going = Going { history, observe: &mut seen, due: &due, keep: &mut keep };
        let statistics = eva::gather_on(capture, &prepared.chosen.grouping, arrivals, &self.settings, going);
        if let Some(checkpoint) = checkpoint.filter(|_| statistics.is_ok() && passed < before) {
            return Err(InitError::Shorter { path: checkpoint.path().to_owned(), batches: before }.into());
        }
        let mut statistics = statistics?;
        let limited = most.is_some_and(|most| statistics.history.len() >= most);
        if limited && statistics.stopped_by == Stop::Exhausted {
            statistics.stopped_by = Stop::MaxBatches;
        }
        Ok(statistics)
    }
}
