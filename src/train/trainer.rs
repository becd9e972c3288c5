//! The state of a training and what changes it: gradients of batches, and steps of the optimizer.

use super::error::Error;
use super::evaluation::LossAlone;
use super::kind::Loss;
use super::loss::{LOSS, ROWS, SCALE, TARGETS, WEIGHT};
use super::optimizer::names::{GRADIENT, MEAN, OUTPUTS, SETTINGS, SQUARE, THETA};
use super::optimizer::{self, AdamW};
use super::state::{Snapshot, State, host};
use super::step::Step;
use super::targets::{Targets, Values};
use crate::calib::Batch;
use crate::feeds::Feeds;
use crate::onnx::Model;
use crate::runtime::{self, Memory, Runtime, Session, SessionOptions, Value};

/// The parameters and moments on the device, and the sessions that compute with them.
pub(crate) struct Trainer {
    step: Session,
    update: Session,
    sum: Session,
    feeds: Feeds,
    pub(super) loss: Loss,
    adamw: AdamW,
    pub(super) state: State,
    /// Batches that were split because memory ran out.
    pub(crate) split_batches: usize,
    /// Whether the model is in `f16`, so that gradients are scaled.
    scaled: bool,
    /// Whether activations are computed again.
    pub(crate) again: bool,
    /// The graph that does so, for when memory runs out.
    spare: Option<Model>,
    loss_alone: LossAlone,
    runtime: Runtime,
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
        step: Step,
        (feeds, loss): (Feeds, Loss),
        adamw: AdamW,
        theta: Vec<f32>,
    ) -> Result<Self, Error> {
        let Step { model, spare, loss: loss_alone, again, .. } = step;
        let step = Session::load(runtime, &model, options)?;
        Ok(Self {
            again,
            spare,
            loss_alone: LossAlone::new(loss_alone),
            runtime: runtime.clone(),
            scaled: step.inputs().iter().any(|name| name == SCALE),
            step,
            update: Session::load(runtime, &adamw.model()?, options)?,
            sum: Session::load(runtime, &optimizer::sum()?, options)?,
            feeds,
            loss,
            adamw,
            state: State::new(theta)?,
            split_batches: 0,
        })
    }

    /// One step over batches that count together. A gradient that overflows in `f16` is computed again, scaled by half.
    ///
    /// # Errors
    /// [`Error::NoTargets`] when there is nothing to predict; [`Error::NotFinite`], which leaves the state as it was;
    /// when ONNX Runtime fails.
    pub(crate) fn step(&mut self, batches: &[Batch], rate: f64) -> Result<Update, Error> {
        let targets: usize = batches.iter().map(|batch| Targets::of(self.loss, batch).len()).sum();
        if targets == 0 {
            return Err(Error::NoTargets);
        }
        loop {
            let (loss, gradient) = self.of_all(batches, 1.0 / targets as f32)?;
            let step = self.state.steps + 1;
            if !loss.is_finite() {
                return Err(Error::NotFinite { what: "loss", step });
            }
            match self.apply(&gradient, rate, step) {
                Err(Error::NotFinite { .. }) if self.halve_scale() => {}
                norm => return Ok(Update { loss, norm: norm?, targets }),
            }
        }
    }

    /// Halves the scale of gradients, if there is one.
    pub(super) fn halve_scale(&mut self) -> bool {
        match self.state.scale.halved().filter(|_| self.scaled) {
            Some(scale) => {
                self.state.scale = scale;
                true
            }
            None => false,
        }
    }

    /// The sum of the losses of all batches times `weight`, and its gradient.
    fn of_all(&mut self, batches: &[Batch], weight: f32) -> Result<(f64, Value), Error> {
        let mut all: Option<(f64, Value)> = None;
        for batch in batches {
            let Some((loss, gradient)) = self.gradient(batch, weight)? else { continue };
            all = Some(match all {
                None => (loss, gradient),
                Some((sum, before)) => (sum + loss, self.added(&before, &gradient)?),
            });
        }
        all.ok_or(Error::NoTargets)
    }

    /// The sum of the losses of a batch times `weight`, and its gradient, on the device; nothing if nothing is
    /// predicted. A batch that does not fit into memory is run in two halves.
    pub(super) fn gradient(&mut self, batch: &Batch, weight: f32) -> Result<Option<(f64, Value)>, Error> {
        let targets = Targets::of(self.loss, batch);
        if targets.len() == 0 {
            return Ok(None);
        }
        match self.run(batch, &targets, weight) {
            Err(Error::Runtime(runtime::Error::OutOfMemory { running: true, reason })) => {
                if self.spare_memory()? {
                    return self.gradient(batch, weight);
                }
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

    /// From now on, computes activations again; whether that is new.
    fn spare_memory(&mut self) -> Result<bool, Error> {
        let Some(model) = self.spare.take() else { return Ok(false) };
        let options = self.step.options();
        // The weights must not be in memory twice.
        self.step = Session::load(&self.runtime, &optimizer::sum()?, options)?;
        self.step = Session::load(&self.runtime, &model, options)?;
        self.again = true;
        Ok(true)
    }

    fn run(&mut self, batch: &Batch, targets: &Targets, weight: f32) -> Result<(f64, Value), Error> {
        let mut feeds = feeds(&self.feeds, batch, targets, weight)?;
        feeds.push((SCALE.to_owned(), Value::f32(&[], vec![self.state.scale.factor])?));
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
        let scale = self.state.scale.stepped();
        self.state = State { theta, mean, square, steps: step, scale };
        Ok(norm)
    }

    /// The mean loss over batches, and how many predictions that is.
    ///
    /// # Errors
    /// When ONNX Runtime fails, or nothing is predicted.
    pub(crate) fn evaluate(&mut self, batches: impl Iterator<Item = Batch>) -> Result<(f64, usize), Error> {
        let (mut loss, mut targets) = (0.0, 0);
        for batch in batches {
            let predicted = Targets::of(self.loss, &batch);
            if predicted.len() > 0 {
                loss += self.loss_of(&batch, &predicted)?;
                targets += predicted.len();
            }
        }
        if targets == 0 { Err(Error::NoTargets) } else { Ok((loss / targets as f64, targets)) }
    }

    /// The sum of the losses of a batch, without their gradient where there is memory for a second session.
    fn loss_of(&mut self, batch: &Batch, targets: &Targets) -> Result<f64, Error> {
        let feeds = feeds(&self.feeds, batch, targets, 1.0)?;
        let named = feeds.iter().map(|(name, value)| (name.as_str(), value)).chain([(THETA, &self.state.theta)]);
        let named: Vec<_> = named.collect();
        match self.loss_alone.of(&self.runtime, self.step.options(), &named)? {
            Some(loss) => Ok(loss),
            None => Ok(self.gradient(batch, 1.0)?.map_or(0.0, |(loss, _)| loss)),
        }
    }

    /// The parameters.
    ///
    /// # Errors
    /// When the device fails.
    pub(crate) fn theta(&self) -> Result<Vec<f32>, Error> {
        Ok(host(&self.state.theta)?)
    }

    /// A copy of the parameters and moments.
    ///
    /// # Errors
    /// When the device fails.
    pub(crate) fn snapshot(&self) -> Result<Snapshot, Error> {
        Ok(self.state.snapshot()?)
    }

    /// Goes on from parameters and moments that were taken before.
    ///
    /// # Errors
    /// When the device fails.
    pub(crate) fn restore(&mut self, snapshot: &Snapshot) -> Result<(), Error> {
        self.state = State::of(snapshot)?;
        Ok(())
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
