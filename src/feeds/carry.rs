//! Values that a part of a model is fed by the parts that run before it.

use super::error::Error;
use crate::calib::Batch;
use crate::onnx::ValueInfo;
use crate::runtime::Value;
use std::fmt;

/// What the parts of a model hand on to each other for each batch.
pub trait Carry: fmt::Debug + Send + Sync {
    /// The tensors that the part returns for those after it.
    fn returned(&self) -> Vec<String>;

    /// Takes notice of the outputs of the part as ONNX Runtime infers their types.
    fn loaded(&self, outputs: &[ValueInfo]);

    /// What the parts before have made of a batch, by name.
    ///
    /// # Errors
    /// When a part before fails on the batch, or what it returned cannot be read.
    fn fed(&self, batch: &Batch) -> Result<Vec<(String, Value)>, Error>;

    /// Keeps what the part has made of a batch, in the order of [`returned`](Self::returned).
    ///
    /// # Errors
    /// When it cannot be kept.
    fn keep(&self, batch: &Batch, values: &[&Value]) -> Result<(), Error>;
}
