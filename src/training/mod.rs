//! From a model, rows and an adapter to the trained adapter.

mod labels;
mod options;
mod trained;

pub use options::{Train, TrainSettings};
pub use trained::{Evaluation, StepRecord, Trained};

use crate::adapter::{Adapter, Base, BaseWeights};
use crate::calib::{self, Batch, Calibration, DataFiles, Order};
use crate::error::Error as RunError;
use crate::eva::Next;
use crate::init::{DataOptions, Prepared, devices};
use crate::runtime::{self, Device, SessionOptions};
use crate::splicing::read_adapter;
use crate::train::{self, Error, Forward, Parameters, THETA, Targets, Trainer};
use labels::TokenLabels;
use std::time::Instant;

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
    /// Tokens predicted so far.
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
        if prepared.encoder.is_some() {
            return Err(RunError::from(Error::EncoderDecoder).in_file(&self.model));
        }
        let (adapter, base) = self.starting_adapter()?;
        let parameters = Parameters::of(&adapter);
        let mut epochs = Epochs::new(&self, &prepared)?;
        let planned = self.planned(&epochs.data);
        let Loaded { mut trainer, unreached, device } = self.load(&prepared, &adapter, &parameters, &epochs.data)?;
        let ready = started.elapsed();
        let (history, evaluations) = self.steps(planned, &prepared, &mut trainer, &mut epochs, &mut observe)?;
        let theta = trainer.theta().map_err(|error| RunError::from(error).in_file(&self.model))?;
        drop(epochs);
        Ok(Trained {
            adapter: parameters.restore(&theta, &adapter),
            base,
            history,
            evaluations,
            planned,
            unreached,
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
        adapter: &Adapter,
        parameters: &Parameters,
        data: &Calibration,
    ) -> Result<Loaded, RunError> {
        let in_model = |error: Error| RunError::from(error).in_file(&self.model);
        let forward = Forward::new(prepared.model(), prepared.linears(), adapter, parameters).map_err(in_model)?;
        let runtime = runtime::load(&runtime::find(self.runtime.ort_lib.as_deref())?)?;
        let [device] = devices(&self.runtime.devices, &runtime)?[..] else {
            return Err(RunError::usage("a training runs on one device", Some("give --device one device")));
        };
        let options = SessionOptions { device, threads: self.runtime.threads };
        let feeds = prepared.feeds_on(&runtime, options)?;
        let probe = data.batches().find(|batch| Targets::next_tokens(batch).len() > 0).ok_or(Error::NoTargets)?;
        let targets = Targets::next_tokens(&probe);
        let mut values = train::feeds(&feeds, &probe, &targets, 1.0).map_err(in_model)?;
        let theta = parameters.flatten(adapter);
        values.push((THETA.to_owned(), runtime::Value::f32(&[theta.len()], theta.clone())?));
        let step = forward.with_gradient(parameters, &runtime, options, &values).map_err(in_model)?;
        let adamw = self.settings.adamw;
        let mut trainer = Trainer::new(&runtime, options, &step, feeds, adamw, theta).map_err(in_model)?;
        if self.settings.check {
            let tolerance = tolerance(prepared);
            let fused = forward.fused_loss(&runtime, options, &values).map_err(in_model)?;
            trainer.check_loss(&probe, fused, tolerance).map_err(in_model)?;
            trainer.check(&probe, tolerance).map_err(in_model)?;
        }
        Ok(Loaded { trainer, unreached: step.unreached, device })
    }

    /// Takes the steps planned, unless `observe` stops before.
    fn steps(
        &self,
        planned: usize,
        prepared: &Prepared,
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
                evaluations.push(self.evaluation(prepared, trainer, progress.steps)?);
            }
        }
        if history.is_empty() { Err(Error::Interrupted.into()) } else { Ok((history, evaluations)) }
    }

    /// The adapter that the training starts from.
    fn starting_adapter(&self) -> Result<(Adapter, Base), RunError> {
        match &self.adapter {
            Some(path) => {
                let (adapter, base) = read_adapter(path)?;
                if base.weights == BaseWeights::Original {
                    return Ok((adapter, base));
                }
                let what = "weights of its own for the model";
                Err(RunError::from(Error::Adapter { what }).in_file(path))
            }
            None => {
                let run = crate::Init::new(&self.model)
                    .data(&self.data)
                    .naming(self.naming.clone())
                    .selection(self.selection.clone())
                    .data_options(self.data_options.clone())
                    .runtime(self.runtime.clone())
                    .run()?;
                Ok((run.adapter, run.base))
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

    fn evaluation(&self, prepared: &Prepared, trainer: &mut Trainer, step: usize) -> Result<Evaluation, RunError> {
        let options = DataOptions { max_batches: None, order: Order::Grouped, ..self.data_options.clone() };
        let data = calib::load(&mut TokenLabels(DataFiles::new(&self.eval)), &prepared.load_options(&options))?;
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
    device: Device,
}

/// The batches, epoch after epoch; the rows are shuffled anew for each.
struct Epochs<'a> {
    train: &'a Train,
    prepared: &'a Prepared,
    epoch: u64,
    data: Calibration,
    /// The next batch of this epoch.
    at: usize,
}

impl<'a> Epochs<'a> {
    fn new(train: &'a Train, prepared: &'a Prepared) -> Result<Self, RunError> {
        Ok(Self { train, prepared, epoch: 0, data: rows_of_epoch(train, prepared, 0)?, at: 0 })
    }

    /// The next batches, up to `count` of one epoch, with something to predict in at least one of them.
    fn window(&mut self, count: usize) -> Result<Vec<Batch>, RunError> {
        loop {
            if self.at == self.data.len() {
                self.epoch += 1;
                (self.data, self.at) = (rows_of_epoch(self.train, self.prepared, self.epoch)?, 0);
            }
            let end = self.data.len().min(self.at + count);
            let batches: Vec<Batch> = (self.at..end).map(|index| self.data.batch(index)).collect();
            self.at = end;
            if batches.iter().any(|batch| Targets::next_tokens(batch).len() > 0) {
                return Ok(batches);
            }
        }
    }
}

/// The rows of an epoch, in batches.
fn rows_of_epoch(train: &Train, prepared: &Prepared, epoch: u64) -> Result<Calibration, RunError> {
    let options = &train.data_options;
    let seed = options.seed.wrapping_add(epoch);
    let options = prepared.load_options(&DataOptions { seed, ..options.clone() });
    Ok(calib::load(&mut TokenLabels(DataFiles::new(&train.data)), &options)?)
}
