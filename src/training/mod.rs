//! From a model, rows and an adapter to the trained adapter.

mod label;
mod labels;
mod options;
mod task;
mod trained;

pub use options::{Train, TrainSettings};
pub use trained::{Evaluation, StepRecord, Trained};

use crate::adapter::{Adapter, BaseWeights};
use crate::calib::{self, Batch, Calibration, DataFiles, Order};
use crate::error::Error as RunError;
use crate::eva::Next;
use crate::formats::peft::Contents;
use crate::init::{DataOptions, Prepared, devices};
use crate::runtime::{self, Device, SessionOptions};
use crate::splice::SavedParameter;
use crate::splicing::read_contents;
use crate::train::{self, Error, Forward, Heads, Parameters, THETA, Targets, Trainer};
use labels::Labelled;
use std::path::PathBuf;
use std::time::Instant;
use task::Task;

/// The state of a training before the first step and after each.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct TrainProgress {
    /// Steps planned.
    pub planned: usize,
    /// Steps done.
    pub steps: usize,
    /// Loss of the last step.
    pub loss: f64,
    /// Predictions so far: tokens, or numbers of rows.
    pub targets: usize,
}

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
        let encoder = self.runtime.encoder.as_deref();
        let prepared = Prepared::open(&self.model, &self.naming, &self.selection, encoder)?;
        let task =
            Task::of(self.settings.loss, &prepared).map_err(|error| RunError::from(error).in_file(&self.model))?;
        let mut epochs = Epochs::new(&self, &prepared, &task)?;
        let Contents { adapter, base, saved } = self.starting_adapter(&task)?;
        let heads = self.heads(&prepared, &adapter, &saved)?;
        let parameters = Parameters::of(&adapter, heads);
        let planned = self.planned(&epochs.data);
        let Loaded { mut trainer, unreached, rounded, device } =
            self.load(&prepared, &task, &adapter, &parameters, &epochs.data)?;
        let ready = started.elapsed();
        let (history, evaluations) = self.steps(planned, &mut trainer, &mut epochs, &mut observe)?;
        let theta = trainer.theta().map_err(|error| RunError::from(error).in_file(&self.model))?;
        drop(epochs);
        let (adapter, saved) = parameters.restore(&theta, &adapter);
        Ok(Trained {
            adapter,
            saved,
            base,
            history,
            evaluations,
            loss: task.loss(),
            planned,
            unreached,
            rounded,
            split_batches: trainer.split_batches,
            device: device.to_string(),
            ready: ready.as_secs_f64(),
            seconds: started.elapsed().as_secs_f64(),
            settings: self.settings,
            model: self.model,
        })
    }

    /// Loads the graph of a step, and checks it with the first batch that has something to predict.
    fn load(
        &self,
        prepared: &Prepared,
        task: &Task,
        adapter: &Adapter,
        parameters: &Parameters,
        data: &Calibration,
    ) -> Result<Loaded, RunError> {
        let in_model = |error: Error| RunError::from(error).in_file(&self.model);
        let loss = task.loss();
        let forward = Forward::new(prepared.model(), prepared.linears(), (loss, &task.logits), adapter, parameters);
        let forward = forward.map_err(in_model)?;
        let runtime = runtime::load(&runtime::find(self.runtime.ort_lib.as_deref())?)?;
        let [device] = devices(&self.runtime.devices, &runtime)?[..] else {
            return Err(RunError::usage("a training runs on one device", Some("give --device one device")));
        };
        let options = SessionOptions { device, threads: self.runtime.threads };
        let feeds = prepared.feeds_on(&runtime, options)?;
        let probe = data.batches().find(|batch| Targets::of(loss, batch).len() > 0).ok_or(Error::NoTargets)?;
        let targets = Targets::of(loss, &probe);
        let mut values = train::feeds(&feeds, &probe, &targets, 1.0).map_err(in_model)?;
        let theta = parameters.flatten(adapter);
        values.push((THETA.to_owned(), runtime::Value::f32(&[theta.len()], theta.clone())?));
        let step = forward.with_gradient(parameters, &runtime, options, &values).map_err(in_model)?;
        let adamw = self.settings.adamw;
        let mut trainer = Trainer::new(&runtime, options, &step, (feeds, loss), adamw, theta).map_err(in_model)?;
        if self.settings.check {
            let tolerance = tolerance(prepared);
            let fused = forward.fused_loss(&runtime, options, &values).map_err(in_model)?;
            trainer.check_loss(&probe, fused, tolerance).map_err(in_model)?;
            if step.rounded.is_empty() {
                trainer.check(&probe, tolerance).map_err(in_model)?;
            }
        }
        Ok(Loaded { trainer, unreached: step.unreached, rounded: step.rounded, device })
    }

    /// Takes the steps planned, unless `observe` stops before.
    fn steps(
        &self,
        planned: usize,
        trainer: &mut Trainer,
        epochs: &mut Epochs<'_>,
        observe: &mut impl FnMut(&TrainProgress) -> Next,
    ) -> Result<(Vec<StepRecord>, Vec<Evaluation>), RunError> {
        let mut progress = TrainProgress { planned, ..TrainProgress::default() };
        let (mut history, mut evaluations) = (Vec::new(), Vec::new());
        while progress.steps < planned && observe(&progress) == Next::Continue {
            let batches = epochs.window(self.settings.accumulate)?;
            let rate = self.settings.rate * self.settings.schedule.share(progress.steps, self.settings.warmup, planned);
            let begun = Instant::now();
            let update = trainer.step(&batches, rate).map_err(|error| RunError::from(error).in_file(&self.model))?;
            progress.steps += 1;
            progress.loss = update.loss;
            progress.targets += update.targets;
            history.push(StepRecord {
                step: progress.steps,
                loss: update.loss,
                rate,
                norm: update.norm,
                targets: update.targets,
                seconds: begun.elapsed().as_secs_f64(),
            });
            if self.evaluates_after(progress.steps, planned) {
                evaluations.push(self.evaluation(epochs, trainer, progress.steps)?);
            }
        }
        if history.is_empty() { Err(Error::Interrupted.into()) } else { Ok((history, evaluations)) }
    }

    /// The layers that are trained whole: those asked for, and those that the adapter holds.
    fn heads(&self, prepared: &Prepared, adapter: &Adapter, saved: &[SavedParameter]) -> Result<Heads, RunError> {
        let mut names = self.modules.clone();
        for SavedParameter { module, .. } in saved {
            if !names.contains(module) {
                names.push(module.clone());
            }
        }
        let heads = Heads::find(prepared.model(), prepared.linears(), &names, saved)
            .map_err(|error| RunError::from(error).in_file(&self.model))?;
        match heads.modules().into_iter().find(|head| adapter.modules.iter().any(|module| module.module == *head)) {
            None => Ok(heads),
            Some(module) => {
                let reason = "the adapter has matrices for it";
                Err(RunError::from(Error::NoHeadModule { module: module.to_owned(), reason }).in_file(&self.model))
            }
        }
    }

    /// The adapter that the training starts from.
    fn starting_adapter(&self, task: &Task) -> Result<Contents, RunError> {
        match &self.adapter {
            Some(path) => {
                let contents = read_contents(path)?;
                if contents.base.weights == BaseWeights::Original {
                    return Ok(contents);
                }
                let what = "weights of its own for the model";
                Err(RunError::from(Error::Adapter { what }).in_file(path))
            }
            None => {
                let names = self.data.iter().map(|path| path.display().to_string()).collect();
                let rows = Labelled { labels: task.labels.clone(), source: DataFiles::new(&self.data) };
                let run = crate::Init::new(&self.model)
                    .source(names, rows)
                    .naming(self.naming.clone())
                    .selection(self.selection.clone())
                    .data_options(self.data_options.clone())
                    .runtime(self.runtime.clone())
                    .run()?;
                Ok(Contents { adapter: run.adapter, base: run.base, saved: Vec::new() })
            }
        }
    }

    /// Steps in all: those asked for, or those of the epochs.
    fn planned(&self, data: &Calibration) -> usize {
        let of_epoch = data.len().div_ceil(self.settings.accumulate);
        self.settings.steps.unwrap_or(of_epoch * self.settings.epochs)
    }

    fn evaluates_after(&self, step: usize, planned: usize) -> bool {
        let every = self.settings.eval_every.is_some_and(|every| step.is_multiple_of(every));
        !self.eval.is_empty() && (every || step == planned)
    }

    fn evaluation(&self, epochs: &Epochs<'_>, trainer: &mut Trainer, step: usize) -> Result<Evaluation, RunError> {
        let options = DataOptions { max_batches: None, order: Order::Grouped, ..self.data_options.clone() };
        let data = epochs.load(&self.eval, &options)?;
        let (loss, targets) = trainer.evaluate(data.batches())?;
        Ok(Evaluation { step, loss, targets })
    }
}

/// How far the gradient may be from finite differences.
///
/// In 32 bits a difference of 1 % of the loss is known to about 1e-7 / 1e-2; the rest is for what the extrapolation leaves
/// of the curvature. In 16 bits the difference itself is known to about 5 %.
fn tolerance(prepared: &Prepared) -> f64 {
    if crate::linear::in_half(prepared.linears()) { 0.2 } else { 0.02 }
}

/// What is ready to take steps.
struct Loaded {
    trainer: Trainer,
    /// Modules that the loss does not depend on.
    unreached: Vec<String>,
    /// Operators that round activations.
    rounded: Vec<String>,
    device: Device,
}

/// The batches, epoch after epoch; the rows are shuffled anew for each.
struct Epochs<'a> {
    train: &'a Train,
    prepared: &'a Prepared,
    task: &'a Task,
    epoch: u64,
    data: Calibration,
    /// The next batch of this epoch.
    at: usize,
}

impl<'a> Epochs<'a> {
    fn new(train: &'a Train, prepared: &'a Prepared, task: &'a Task) -> Result<Self, RunError> {
        let data = rows_of_epoch(train, prepared, task, 0)?;
        Ok(Self { train, prepared, task, epoch: 0, data, at: 0 })
    }

    /// The next batches, up to `count` of one epoch, with something to predict in at least one of them.
    fn window(&mut self, count: usize) -> Result<Vec<Batch>, RunError> {
        loop {
            if self.at == self.data.len() {
                self.epoch += 1;
                (self.data, self.at) = (rows_of_epoch(self.train, self.prepared, self.task, self.epoch)?, 0);
            }
            let end = self.data.len().min(self.at + count);
            let batches: Vec<Batch> = (self.at..end).map(|index| self.data.batch(index)).collect();
            self.at = end;
            if batches.iter().any(|batch| Targets::of(self.task.loss(), batch).len() > 0) {
                return Ok(batches);
            }
        }
    }

    /// The rows of other files.
    fn load(&self, files: &[PathBuf], options: &DataOptions) -> Result<Calibration, RunError> {
        load(self.prepared, self.task, files, options)
    }
}

/// The rows of an epoch, in batches.
fn rows_of_epoch(train: &Train, prepared: &Prepared, task: &Task, epoch: u64) -> Result<Calibration, RunError> {
    let options = &train.data_options;
    let seed = options.seed.wrapping_add(epoch);
    load(prepared, task, &train.data, &DataOptions { seed, ..options.clone() })
}

/// The rows of files with their labels, in batches.
fn load(prepared: &Prepared, task: &Task, files: &[PathBuf], options: &DataOptions) -> Result<Calibration, RunError> {
    let mut options = prepared.load_options(options);
    options.tensors.extend(task.labels.input());
    let mut rows = Labelled { labels: task.labels.clone(), source: DataFiles::new(files) };
    Ok(calib::load(&mut rows, &options)?)
}
