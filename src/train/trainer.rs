//! The state of a training and what changes it: gradients of batches, and steps of the optimizer.

use super::error::Error;
use super::kind::Loss;
use super::loss::{LOSS, ROWS, TARGETS, WEIGHT};
use super::optimizer::names::{GRADIENT, MEAN, OUTPUTS, SETTINGS, SQUARE, THETA};
use super::optimizer::{self, AdamW};
use super::step::Step;
use super::targets::{Targets, Values};
use crate::calib::Batch;
use crate::dtype::DType;
use crate::feeds::Feeds;
use crate::runtime::{self, Memory, Runtime, Session, SessionOptions, Value};

/// The parameters and moments on the device, and the sessions that compute with them.
pub(crate) struct Trainer {
    step: Session,
    update: Session,
    sum: Session,
    feeds: Feeds,
    loss: Loss,
    adamw: AdamW,
    state: State,
    /// Batches that were split because memory ran out.
    pub(crate) split_batches: usize,
}

/// What changes from step to step.
struct State {
    theta: Value,
    mean: Value,
    square: Value,
    steps: usize,
}

/// What one step of the optimizer did.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Update {
    /// The mean loss of the targets, before the step.
    pub(crate) loss: f64,
    /// The norm of the gradient.
    pub(crate) norm: f64,
    /// What was predicted: tokens, or the numbers of rows.
    pub(crate) targets: usize,
}

impl Trainer {
    /// Loads the graphs on a device and starts from the parameters `theta`.
    ///
    /// # Errors
    /// When ONNX Runtime refuses one of them.
    pub(crate) fn new(
        runtime: &Runtime,
        options: SessionOptions,
        step: &Step,
        (feeds, loss): (Feeds, Loss),
        adamw: AdamW,
        theta: Vec<f32>,
    ) -> Result<Self, Error> {
        let length = [theta.len()];
        let state = State {
            theta: Value::f32(&length, theta)?,
            mean: Value::zeros(DType::F32, &length)?,
            square: Value::zeros(DType::F32, &length)?,
            steps: 0,
        };
        Ok(Self {
            step: Session::load(runtime, &step.model, options)?,
            update: Session::load(runtime, &adamw.model()?, options)?,
            sum: Session::load(runtime, &optimizer::sum()?, options)?,
            feeds,
            loss,
            adamw,
            state,
            split_batches: 0,
        })
    }

    /// One step over batches that count together.
    ///
    /// # Errors
    /// [`Error::NoTargets`] when there is nothing to predict; [`Error::NotFinite`], which leaves the state as it was;
    /// when ONNX Runtime fails.
    pub(crate) fn step(&mut self, batches: &[Batch], rate: f64) -> Result<Update, Error> {
        let targets: usize = batches.iter().map(|batch| Targets::of(self.loss, batch).len()).sum();
        if targets == 0 {
            return Err(Error::NoTargets);
        }
        let weight = 1.0 / targets as f32;
        let mut all: Option<(f64, Value)> = None;
        for batch in batches {
            let Some((loss, gradient)) = self.gradient(batch, weight)? else { continue };
            all = Some(match all {
                None => (loss, gradient),
                Some((sum, before)) => (sum + loss, self.added(&before, &gradient)?),
            });
        }
        let (loss, gradient) = all.ok_or(Error::NoTargets)?;
        let step = self.state.steps + 1;
        if !loss.is_finite() {
            return Err(Error::NotFinite { what: "loss", step });
        }
        let norm = self.apply(&gradient, rate, step)?;
        Ok(Update { loss, norm, targets })
    }

    /// The sum of the losses of a batch times `weight`, and its gradient, on the device; nothing if nothing is
    /// predicted. A batch that does not fit into memory is run in two halves.
    fn gradient(&mut self, batch: &Batch, weight: f32) -> Result<Option<(f64, Value)>, Error> {
        let targets = Targets::of(self.loss, batch);
        if targets.len() == 0 {
            return Ok(None);
        }
        match self.run(batch, &targets, weight) {
            Err(Error::Runtime(runtime::Error::OutOfMemory { running: true, reason })) => {
                let out_of_memory = runtime::Error::OutOfMemory { running: true, reason };
                let [first, second] = batch.halves().ok_or(out_of_memory)?;
                self.split_batches += 1;
                match (self.gradient(&first, weight)?, self.gradient(&second, weight)?) {
                    (Some((a, left)), Some((b, right))) => Ok(Some((a + b, self.added(&left, &right)?))),
                    (one, other) => Ok(one.or(other)),
                }
            }
            done => done.map(Some),
        }
    }

    fn run(&mut self, batch: &Batch, targets: &Targets, weight: f32) -> Result<(f64, Value), Error> {
        let mut feeds = feeds(&self.feeds, batch, targets, weight)?;
        let Self { step, state, .. } = self;
        let needed = step.inputs();
        feeds.retain(|(name, _)| needed.contains(name));
        let named = feeds.iter().map(|(name, value)| (name.as_str(), value)).chain([(THETA, &state.theta)]);
        let place = |name: &str| if name == LOSS { Memory::Host } else { Memory::Device };
        let mut outputs = step.run_to(named, place)?.into_iter();
        let (Some(loss), Some(gradient)) = (outputs.next(), outputs.next()) else {
            return Err(runtime::Error::Run { reason: format!("`{LOSS}` and `{GRADIENT}` are missing") }.into());
        };
        let loss = loss.as_f32()?.1.first().copied().map_or(f64::NAN, f64::from);
        Ok((loss, gradient))
    }

    fn added(&mut self, a: &Value, b: &Value) -> Result<Value, Error> {
        let mut outputs = self.sum.run_to([("a", a), ("b", b)], |_| Memory::Device)?;
        Ok(outputs.swap_remove(0))
    }

    /// Takes a step of the optimizer, and returns the norm of the gradient.
    fn apply(&mut self, gradient: &Value, rate: f64, step: usize) -> Result<f64, Error> {
        let bias = |beta: f32| (1.0 - f64::from(beta).powf(step as f64)) as f32;
        let settings = [rate as f32, bias(self.adamw.beta1), bias(self.adamw.beta2)];
        let settings = settings.map(|value| Value::f32(&[], vec![value]));
        let State { theta, mean, square, .. } = &self.state;
        let vectors = [(THETA, theta), (MEAN, mean), (SQUARE, square), (GRADIENT, gradient)];
        let [rate, bias1, bias2] = settings;
        let numbers = [rate?, bias1?, bias2?];
        let feeds = vectors.into_iter().chain(SETTINGS.into_iter().zip(&numbers));
        let place = |name: &str| if name == OUTPUTS[3] { Memory::Host } else { Memory::Device };
        let outputs = self.update.run_to(feeds, place)?;
        let Ok([theta, mean, square, norm]) = <[Value; 4]>::try_from(outputs) else {
            return Err(runtime::Error::Run { reason: "the optimizer has other outputs".to_owned() }.into());
        };
        let norm = norm.as_f32()?.1.first().copied().map_or(f64::NAN, f64::from);
        if !norm.is_finite() {
            return Err(Error::NotFinite { what: "gradient", step });
        }
        self.state = State { theta, mean, square, steps: step };
        Ok(norm)
    }

    /// The mean loss over batches, and how many predictions that is.
    ///
    /// # Errors
    /// When ONNX Runtime fails, or nothing is predicted.
    pub(crate) fn evaluate(&mut self, batches: impl Iterator<Item = Batch>) -> Result<(f64, usize), Error> {
        let (mut loss, mut targets) = (0.0, 0);
        for batch in batches {
            if let Some((sum, _)) = self.gradient(&batch, 1.0)? {
                loss += sum;
                targets += Targets::of(self.loss, &batch).len();
            }
        }
        if targets == 0 { Err(Error::NoTargets) } else { Ok((loss / targets as f64, targets)) }
    }

    /// The parameters.
    ///
    /// # Errors
    /// When the device fails.
    pub(crate) fn theta(&self) -> Result<Vec<f32>, Error> {
        let host = self.state.theta.to_host()?;
        Ok(host.as_f32()?.1.to_vec())
    }

    /// Compares the sum of the losses of a batch with that of the model with its fused operators, if it has any.
    ///
    /// # Errors
    /// [`Error::Outline`] when they differ by more than `tolerance`, relative.
    pub(crate) fn check_loss(&mut self, batch: &Batch, fused: Option<f64>, tolerance: f64) -> Result<(), Error> {
        let Some(fused) = fused else { return Ok(()) };
        let (spelled_out, _) = self.gradient(batch, 1.0)?.ok_or(Error::NoTargets)?;
        let is_close = (spelled_out - fused).abs() <= tolerance * fused.abs();
        if is_close { Ok(()) } else { Err(Error::Outline { spelled_out, fused }) }
    }

    /// Compares the gradient with the loss: along a direction, the loss must change as fast as the gradient says.
    ///
    /// The parameters are moved to where neither matrix of a pair is zero, and back. Where a model chooses, as the router
    /// of a mixture of experts does, the loss may jump on the way; then shorter ways are tried.
    ///
    /// # Errors
    /// [`Error::Check`] when they disagree by more than `tolerance`, relative.
    pub(crate) fn check(&mut self, batch: &Batch, tolerance: f64) -> Result<(), Error> {
        let start = self.theta()?;
        let checked = self.compare(batch, &start, tolerance);
        self.state.theta = Value::f32(&[start.len()], start)?;
        checked
    }

    fn compare(&mut self, batch: &Batch, start: &[f32], tolerance: f64) -> Result<(), Error> {
        /// Scale of the values that the parameters are moved by.
        const MOVED: f32 = 0.02;
        /// The changes of the loss that are aimed at, relative to the loss.
        const CHANGES: [f64; 3] = [0.01, 0.0025, 0.0006];
        // Values between -1 and 1 without a pattern, always the same.
        let noise = (0u32..).map(|i| (i.wrapping_mul(2_654_435_769) >> 8) as f32 / 8_388_608.0 - 1.0);
        let at: Vec<f32> = start.iter().zip(noise).map(|(value, noise)| value + MOVED * noise).collect();
        let (loss, gradient) = self.at(batch, at.clone())?;
        let gradient = gradient.to_host()?;
        let gradient: Vec<f64> = gradient.as_f32()?.1.iter().map(|value| f64::from(*value)).collect();
        let expected = gradient.iter().map(|value| value * value).sum::<f64>().sqrt();
        let mut measured = f64::NAN;
        for change in CHANGES {
            let length = change * loss.abs() / expected;
            let mut slope = |length: f64| -> Result<f64, Error> {
                let moved = |sign: f64| {
                    let along = gradient.iter().map(|value| sign * length * value / expected);
                    at.iter().zip(along).map(|(value, change)| (f64::from(*value) + change) as f32).collect()
                };
                let (above, _) = self.at(batch, moved(1.0))?;
                let (below, _) = self.at(batch, moved(-1.0))?;
                Ok((above - below) / (2.0 * length))
            };
            // The error of a central difference falls with the square of its length.
            measured = (4.0 * slope(length / 2.0)? - slope(length)?) / 3.0;
            if (measured - expected).abs() <= tolerance * expected.abs() {
                return Ok(());
            }
        }
        Err(Error::Check { measured, expected })
    }

    /// The mean loss of a batch and its gradient at the parameters `theta`.
    fn at(&mut self, batch: &Batch, theta: Vec<f32>) -> Result<(f64, Value), Error> {
        let weight = 1.0 / Targets::of(self.loss, batch).len().max(1) as f32;
        self.state.theta = Value::f32(&[theta.len()], theta)?;
        self.gradient(batch, weight)?.ok_or(Error::NoTargets)
    }
}

/// What the graph of a step reads of a batch.
///
/// # Errors
/// When the batch does not fit the model.
pub(crate) fn feeds(
    feeds: &Feeds,
    batch: &Batch,
    targets: &Targets,
    weight: f32,
) -> Result<Vec<(String, Value)>, Error> {
    let mut all = feeds.bind(batch)?;
    let count = [targets.rows.len()];
    all.push((ROWS.to_owned(), Value::i64(&count, targets.rows.clone())?));
    let values = match &targets.values {
        Values::Classes(classes) => Value::i64(&count, classes.clone())?,
        Values::Numbers(numbers) => {
            Value::f32(&[targets.rows.len(), numbers.len() / targets.rows.len().max(1)], numbers.clone())?
        }
    };
    all.push((TARGETS.to_owned(), values));
    all.push((WEIGHT.to_owned(), Value::f32(&[], vec![weight])?));
    Ok(all)
}
