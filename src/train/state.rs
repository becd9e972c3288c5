//! What changes from step to step, on the device and in host memory.

use super::scale::Scale;
use crate::dtype::DType;
use crate::runtime::{Error, Value};

/// The parameters and moments on the device.
pub(super) struct State {
    pub(super) theta: Value,
    pub(super) mean: Value,
    pub(super) square: Value,
    pub(super) steps: usize,
    pub(super) scale: Scale,
}

/// The parameters and moments in host memory.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Snapshot {
    /// The parameters.
    pub(crate) theta: Vec<f32>,
    /// Mean of the gradients.
    pub(crate) mean: Vec<f32>,
    /// Mean of their squares.
    pub(crate) square: Vec<f32>,
    /// Steps done.
    pub(crate) steps: usize,
    /// What gradients are multiplied by on their way.
    pub(crate) scale: Scale,
}

impl State {
    /// Parameters that no step has changed.
    pub(super) fn new(theta: Vec<f32>) -> Result<Self, Error> {
        let length = [theta.len()];
        let (mean, square) = (Value::zeros(DType::F32, &length)?, Value::zeros(DType::F32, &length)?);
        Ok(Self { theta: Value::f32(&length, theta)?, mean, square, steps: 0, scale: Scale::default() })
    }

    /// The state that was taken before.
    pub(super) fn of(snapshot: &Snapshot) -> Result<Self, Error> {
        let value = |vector: &Vec<f32>| Value::f32(&[vector.len()], vector.clone());
        Ok(Self {
            theta: value(&snapshot.theta)?,
            mean: value(&snapshot.mean)?,
            square: value(&snapshot.square)?,
            steps: snapshot.steps,
            scale: snapshot.scale,
        })
    }

    /// A copy in host memory.
    pub(super) fn snapshot(&self) -> Result<Snapshot, Error> {
        Ok(Snapshot {
            theta: host(&self.theta)?,
            mean: host(&self.mean)?,
            square: host(&self.square)?,
            steps: self.steps,
            scale: self.scale,
        })
    }
}

/// The values of a vector of 32-bit floats.
pub(super) fn host(vector: &Value) -> Result<Vec<f32>, Error> {
    let host = vector.to_host()?;
    Ok(host.as_f32()?.1.to_vec())
}
