//! What every way of gathering statistics offers.

use super::error::Error;
use super::matching::{Demands, Unlearnt};
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

    /// How many batches may be under way while the next one is taken: the spectra are those before these. None if every
    /// batch is done when [`absorb`](Self::absorb) returns.
    fn depth(&self) -> usize {
        0
    }

    /// Waits for the batch that has been under way longest: the spectra are those after it then.
    ///
    /// # Errors
    /// That of the batch, as [`absorb`](Self::absorb).
    fn settle(&mut self) -> Result<(), Error> {
        Ok(())
    }

    /// Gives up the batches under way: the state is the one after the last batch that has settled, whatever became of them.
    ///
    /// # Errors
    /// [`Error`] when that state is not known any more.
    fn abandon(&mut self) -> Result<(), Error> {
        Ok(())
    }

    /// Waits until nothing is running.
    ///
    /// # Errors
    /// That of a batch that was under way.
    fn wait(&mut self) -> Result<(), Error> {
        Ok(())
    }
}

/// A capture of one of the parts of a model that run one after the other.
pub trait PartCapture: Capture {
    /// What the rows of its tensors demand of all batches, as far as that is known.
    fn demands(&self) -> Demands;

    /// Splits batches from here on as other parts demand too.
    fn obey(&mut self, demands: Demands);

    /// What a batch may still tell.
    fn unlearnt(&self) -> Unlearnt;

    /// Learns from a batch in which order rows are, before any part counts it.
    ///
    /// # Errors
    /// When the part does not run.
    fn learn_order(&mut self, batch: &Batch) -> Result<(), Error>;

    /// Learns from a batch what padding does, once all parts know the order of their rows.
    ///
    /// # Errors
    /// When the part does not run.
    fn learn_padding(&mut self, batch: &Batch) -> Result<(), Error>;

    /// Remembers the state under a number, and forgets all but the last `most` that it remembers.
    ///
    /// # Errors
    /// [`Error`] when the state cannot be copied.
    fn mark(&mut self, number: usize, most: usize) -> Result<(), Error>;

    /// Goes back to the state that was remembered under a number.
    ///
    /// # Errors
    /// [`Error::State`] when there is none.
    fn return_to(&mut self, number: usize) -> Result<(), Error>;

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

impl Events {
    /// What happened in two parts of a model, through which the same batches ran.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            split_batches: self.split_batches.max(other.split_batches),
            reloaded_in_f32: self.reloaded_in_f32 || other.reloaded_in_f32,
            counted_others: self.counted_others || other.counted_others,
        }
    }
}

/// Where the time of a capture went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Timing {
    /// Running the model, the sketch included.
    pub forward: Duration,
    /// Decompositions on the host.
    pub decompose: Duration,
}

impl Timing {
    /// The longest of both, of two captures that run at the same time.
    #[must_use]
    pub fn longest(self, other: Self) -> Self {
        Self { forward: self.forward.max(other.forward), decompose: self.decompose.max(other.decompose) }
    }
}
