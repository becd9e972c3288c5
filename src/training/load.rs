//! From a model, an adapter and rows to the graph of a step on a device.

use super::checkpoint::Newest;
use super::options::Train;
use super::task::Task;
use crate::adapter::Adapter;
use crate::calib::{Batch, Calibration};
use crate::error::Error as RunError;
use crate::feeds::Feeds;
use crate::gradient::Growth;
use crate::init::{Prepared, devices};
use crate::runtime::{self, Device, Runtime, SessionOptions, Value};
use crate::train::{self, Error, Forward, Loss, Memory, Parameters, Recompute, SCALE, Step, THETA, Targets, Trainer};

/// The graph of a step, and what it takes to run it.
pub(super) struct Ready<'a> {
    prepared: &'a Prepared,
    pub(super) step: Step,
    pub(super) feeds: Feeds,
    pub(super) theta: Vec<f32>,
    pub(super) device: Device,
    forward: Forward,
    loss: Loss,
    runtime: Runtime,
    options: SessionOptions,
    /// A batch with something to predict, and what the graph reads of it.
    probe: Batch,
    values: Vec<(String, Value)>,
}

impl Train {
    /// Makes the graph of a step. `newest` is the checkpoint that the training goes on from.
    ///
    /// # Errors
    /// When the adapter does not fit the model, a gradient is missing, nothing is predicted, or ONNX Runtime refuses the
    /// model.
    pub(super) fn ready<'a>(
        &self,
        prepared: &'a Prepared,
        task: &Task,
        (adapter, parameters): (&Adapter, &Parameters),
        data: &Calibration,
        newest: Option<&Newest>,
    ) -> Result<Ready<'a>, RunError> {
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
        let can_be_cut = loss == Loss::CausalLm && probe.encoder.is_none() && !feeds.shape().is_fixed();
        let probe = if can_be_cut { cut(probe) } else { probe };
        let targets = Targets::of(loss, &probe);
        let mut values = train::feeds(&feeds, &probe, &targets, 1.0).map_err(in_model)?;
        let theta = parameters.flatten(adapter);
        values.push((THETA.to_owned(), Value::f32(&[theta.len()], theta.clone())?));
        values.push((SCALE.to_owned(), Value::f32(&[], vec![1.0])?));
        let recompute = match newest {
            Some(newest) if newest.checkpoint.again => Recompute::On,
            // The memory may be another by now.
            Some(_) if device == Device::Cpu => Recompute::Off,
            _ => self.settings.recompute,
        };
        let growth = Growth { from: probe.dim().into(), to: data.largest_dim() };
        let memory = Memory { recompute, growth };
        let step = forward.with_gradient(parameters, &runtime, options, &values, memory).map_err(in_model)?;
        Ok(Ready { prepared, step, feeds, theta, device, forward, loss, runtime, options, probe, values })
    }

    /// Loads the graph of a step, and checks its gradient and its loss if `check` says so.
    ///
    /// # Errors
    /// When ONNX Runtime refuses a graph, or a check fails.
    pub(super) fn load(&self, ready: Ready<'_>, check: bool) -> Result<Trainer, RunError> {
        let in_model = |error: Error| RunError::from(error).in_file(&self.model);
        let Ready { prepared, step, feeds, theta, forward, loss, runtime, options, probe, values, .. } = ready;
        // Rounded values change in steps.
        let is_smooth = step.rounded.is_empty();
        let mut trainer =
            Trainer::new(&runtime, options, step, (feeds, loss), self.settings.adamw, theta).map_err(in_model)?;
        if check {
            let tolerance = tolerance(prepared);
            let fused = forward.fused_loss(&runtime, options, &values).map_err(in_model)?;
            trainer.check_loss(&probe, fused, tolerance).map_err(in_model)?;
            if is_smooth {
                trainer.check(&probe, tolerance).map_err(in_model)?;
            }
        }
        Ok(trainer)
    }
}

/// How far the gradient may be from finite differences.
///
/// In 32 bits a difference of 1 % of the loss is known to about 1e-7 / 1e-2; the rest is for what the extrapolation leaves
/// of the curvature. In 16 bits the difference itself is known to about 5 %.
fn tolerance(prepared: &Prepared) -> f64 {
    if crate::linear::in_half(prepared.linears()) { 0.2 } else { 0.02 }
}

/// Tokens of a sequence in the batch that a step is checked with, if one of them is predicted.
const PROBED: usize = 64;

/// The first two sequences of a batch, cut to the first tokens: all tensors of the probe are in memory at once.
fn cut(batch: Batch) -> Batch {
    let (sequences, length) = batch.dim();
    let all: Vec<usize> = (0..sequences).collect();
    let step = batch.tokens.step.max(1);
    let mut probed = PROBED.next_multiple_of(step);
    while probed < length {
        for sequences in all.chunks(2) {
            let cut = batch.part(sequences, probed, 0);
            if Targets::of(Loss::CausalLm, &cut).len() > 0 {
                return cut;
            }
        }
        probed *= 2;
    }
    batch
}
