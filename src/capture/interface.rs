//! What every way of gathering statistics offers.

use super::error::Error;
use super::matching::Demands;
use crate::calib::Batch;
use crate::pca::{Spectrum, Summary};
use ndarray::Array2;
use std::time::Duration;

/// A model set up to gather the statistics of its groups.
pub trait Capture {
    /// Runs one batch and adds its kept rows to every group. A batch that keeps none changes nothing.
    ///
    /// # Errors
    /// [`Error`]; the statistics of the batch are then lost and the capture must not be used further.
    fn absorb(&mut self, batch: &Batch) -> Result<(), Error>;

    /// Decomposes what is still pending, since the host may be a batch or two late, and says what happened on the way.
    /// No batch may follow.
    ///
    /// # Errors
    /// As [`absorb`](Self::absorb).
    fn finish(&mut self) -> Result<Events, Error>;

    /// What is known of one group so far.
    fn spectrum(&self, group: usize) -> &Spectrum;

    /// Components of every group as orthonormal rows [k, d].
    ///
    /// # Errors
    /// [`Error`] when they cannot be read back.
    fn components(&self) -> Result<Vec<Array2<f64>>, Error>;

    /// All that is known of every group, up to where [`finish`](Self::finish) was called last.
    ///
    /// # Errors
    /// As [`components`](Self::components).
    fn summaries(&self) -> Result<Vec<Summary>, Error>;

    /// The exact state between two batches, from which [`restore`](Self::restore) continues in another process. A batch
    /// that is still running is waited for.
    ///
    /// # Errors
    /// [`Error`], also that of the batch.
    fn save(&mut self) -> Result<Vec<u8>, Error>;

    /// Continues from a state that a capture of the same model, groups, options and devices saved: the batches after it
    /// give the bits that they would have given there.
    ///
    /// # Errors
    /// [`Error::State`] when the state is not of such a capture; this one must not be used further then.
    fn restore(&mut self, state: &[u8]) -> Result<(), Error>;

    /// Time spent so far.
    fn timing(&self) -> Timing;
}

/// A capture of one of the parts of a model that run one after the other.
pub trait PartCapture: Capture {
    /// What the rows of its tensors demand of all batches, as far as that is known.
    fn demands(&self) -> Demands;

    /// Runs a batch for the parts that follow; its rows are not counted.
    ///
    /// # Errors
    /// As [`absorb`](Capture::absorb), but the capture may be used further.
    fn forward(&mut self, batch: &Batch) -> Result<(), Error>;
}

/// What happened while statistics were gathered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Events {
    /// Batches, and halves of batches, that did not fit into the memory of the device and were run in two parts.
    pub split_batches: usize,
    /// Whether the model was loaded a second time, with 32-bit subgraphs, because activations overflowed f16 or padding
    /// was not finite.
    pub reloaded_in_f32: bool,
    /// Whether rows behind a router were counted that may belong to padding or to tokens that do not count.
    pub counted_others: bool,
}

/// Where the time of a capture went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Timing {
    /// Running the model, the sketch included.
    pub forward: Duration,
    /// Decompositions on the host.
    pub decompose: Duration,
}
