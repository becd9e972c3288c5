//! From a model, rows and an adapter to the trained adapter.

mod options;
mod trained;

pub use options::{Train, TrainSettings};
pub use trained::{Evaluation, StepRecord, Trained};

use crate::adapter::{Adapter, Base, BaseWeights};
use crate::calib::{self, Batch, Calibration, DataFiles, Order};
use crate::error::Error as RunError;
use crate::eva::Next;
use crate::init::{DataOptions, Prepared, devices};
use crate::runtime::{self, SessionOptions};
use crate::splicing::read_adapter;
use crate::train::{self, Error, Forward, Parameters, THETA, Targets, Trainer};
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
        let in_model = |error: Error| RunError::from(error).in_file(&self.model);
        if prepared.encoder.is_some() {
            return Err(in_model(Error::EncoderDecoder));
        }
        let (adapter, base) = self.starting_adapter()?;
        let parameters = Parameters::of(&adapter);
        let forward = Forward::new(prepared.model(), prepared.linears(), &adapter, &parameters).map_err(in_model)?;
        let mut epochs = Epochs { train: &self, prepared: &prepared, epoch: 0 };
        let mut data = epochs.next()?;
        let planned = self.planned(&data);

        let runtime = runtime::load(&runtime::find(self.runtime.ort_lib.as_deref())?)?;
        let device = devices(&self.runtime.devices, &runtime)?[0];
        let options = SessionOptions { device, threads: self.runtime.threads };
        let feeds = prepared.feeds_on(&runtime, options)?;
        let probe = data.batches().find(|batch| Targets::next_tokens(batch).len() > 0).ok_or(Error::NoTargets)?;
        let targets = Targets::next_tokens(&probe);
        let mut values = train::feeds(&feeds, &probe, &targets, 1.0).map_err(in_model)?;
        let theta = parameters.flatten(&adapter);
        values.push((THETA.to_owned(), runtime::Value::f32(&[theta.len()], theta.clone())?));
        let step = forward.with_gradient(&parameters, &runtime, options, &values).map_err(in_model)?;
        let mut trainer =
            Trainer::new(&runtime, options, &step, feeds, self.settings.adamw, theta).map_err(in_model)?;
        if self.settings.check {
            let tolerance = self.tolerance(&prepared);
            let fused = forward.fused_loss(&runtime, options, &values).map_err(in_model)?;
            trainer.check_loss(&probe, fused, tolerance).map_err(in_model)?;
            trainer.check(&probe, tolerance).map_err(in_model)?;
        }
        drop(values);
        let ready = started.elapsed();

        let mut progress = TrainProgress { planned, ..TrainProgress::default() };
        let mut history: Vec<StepRecord> = Vec::new();
        let mut evaluations = Vec::new();
        let mut at = 0;
        while history.len() < planned && observe(&progress) == Next::Continue {
            let mut batches: Vec<Batch> = Vec::new();
            while batches.len() < self.settings.accumulate {
                if at == data.len() {
                    if !batches.is_empty() {
                        break;
                    }
                    (data, at) = (epochs.next()?, 0);
                }
                batches.push(data.batch(at));
                at += 1;
            }
            if batches.iter().all(|batch| Targets::next_tokens(batch).len() == 0) {
                continue;
            }
            let index = history.len();
            let rate = self.settings.rate * self.settings.schedule.share(index, self.settings.warmup, planned);
            let begun = Instant::now();
            let update = trainer.step(&batches, rate).map_err(in_model)?;
            history.push(StepRecord {
                step: index + 1,
                loss: update.loss,
                rate,
                norm: update.norm,
                targets: update.targets,
                seconds: begun.elapsed().as_secs_f64(),
            });
            progress.steps = history.len();
            progress.loss = update.loss;
            progress.targets += update.targets;
            if self.evaluates_after(history.len(), planned) {
                evaluations.push(self.evaluation(&prepared, &mut trainer, history.len())?);
            }
        }
        if history.is_empty() {
            return Err(Error::Interrupted.into());
        }
        let adapter = parameters.restore(&trainer.theta().map_err(in_model)?, &adapter);
        Ok(Trained {
            adapter,
            base,
            history,
            evaluations,
            planned,
            unreached: step.unreached,
            split_batches: trainer.split_batches,
            device: device.to_string(),
            ready: ready.as_secs_f64(),
            seconds: started.elapsed().as_secs_f64(),
            settings: self.settings,
            model: self.model,
        })
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

    /// How far the gradient may be from finite differences.
    ///
    /// In 32 bits a difference of 1 % of the loss is known to about 1e-7 / 1e-2; the rest is for what the extrapolation
    /// leaves of the curvature. In 16 bits the difference itself is known to about 5 %.
    fn tolerance(&self, prepared: &Prepared) -> f64 {
        if crate::linear::in_half(prepared.linears()) { 0.2 } else { 0.02 }
    }

    fn evaluates_after(&self, step: usize, planned: usize) -> bool {
        let every = self.settings.eval_every.is_some_and(|every| step.is_multiple_of(every));
        !self.eval.is_empty() && (every || step == planned)
    }

    fn evaluation(&self, prepared: &Prepared, trainer: &mut Trainer, step: usize) -> Result<Evaluation, RunError> {
        let options = DataOptions { max_batches: None, order: Order::Grouped, ..self.data_options.clone() };
        let data = calib::load(&mut DataFiles::new(&self.eval), &prepared.load_options(&options))?;
        let (loss, targets) = trainer.evaluate(data.batches())?;
        Ok(Evaluation { step, loss, targets })
    }
}

/// The data, shuffled anew for every epoch.
struct Epochs<'a> {
    train: &'a Train,
    prepared: &'a Prepared,
    epoch: u64,
}

impl Epochs<'_> {
    fn next(&mut self) -> Result<Calibration, RunError> {
        let options = &self.train.data_options;
        let seed = options.seed.wrapping_add(self.epoch);
        self.epoch += 1;
        let options = self.prepared.load_options(&DataOptions { seed, ..options.clone() });
        Ok(calib::load(&mut DataFiles::new(&self.train.data), &options)?)
    }
}
