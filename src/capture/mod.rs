//! From batches to principal directions: one trait, two ways.
//!
//! [`Sketch`] summarises inside the graph and brings small matrices back; [`Outputs`] reads the activations back and
//! decomposes them on the host, as the paper does it. [`Sharded`] has several of them share the batches.

mod outputs;
mod probe;
mod rows;
mod sharded;
mod sketch;

pub use outputs::Outputs;
pub use sharded::Sharded;
pub use sketch::{Sketch, Strategy};

use crate::calib::Batch;
use crate::feeds::{self, Feeds};
use crate::group::Group;
use crate::hint::Hint;
use crate::onnx::{self, Model};
use crate::pca::{self, Spectrum, Summary};
use crate::runtime::{self, Runtime, SessionOptions};
use ndarray::Array2;
use std::time::Duration;

/// A model set up to gather the statistics of its groups.
pub trait Capture {
    /// Runs one batch and adds its kept rows to every group. A batch that keeps none changes nothing.
    ///
    /// # Errors
    /// [`Error`]; the statistics of the batch are then lost and the capture must not be used further.
    fn absorb(&mut self, batch: &Batch) -> Result<(), Error>;

    /// Decomposes what is still pending, since the host may be a batch or two late, and says what happened on the way. No
    /// batch may follow.
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

    /// Time spent so far.
    fn timing(&self) -> Timing;
}

/// What happened while statistics were gathered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Events {
    /// Batches, and halves of batches, that did not fit into the memory of the device and were run in two parts.
    pub split_batches: usize,
    /// Whether the model was loaded a second time, with 32-bit subgraphs, because activations overflowed f16 or padding was
    /// not finite.
    pub reloaded_in_f32: bool,
}

/// Where the time of a capture went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timing {
    /// Running the model, the sketch included.
    pub forward: Duration,
    /// Decompositions on the host.
    pub decompose: Duration,
}

/// What a capture is built from.
#[derive(Clone, Copy)]
pub struct Setup<'a> {
    /// ONNX Runtime.
    pub runtime: &'a Runtime,
    /// Device and threads.
    pub options: SessionOptions,
    /// The model as it was opened.
    pub model: &'a Model,
    /// How it is fed.
    pub feeds: &'a Feeds,
    /// The groups wanted.
    pub groups: &'a [Group],
    /// Components wanted of each group, at most its features.
    pub components: usize,
    /// How the sketch is laid out.
    pub strategy: Strategy,
    /// Seed of the first basis.
    pub seed: u64,
}

/// What the user can do where activations are not finite.
pub(crate) const OVERFLOWS: &str = "the model overflows on this data (common in 16-bit): leave the layer out with \
    --exclude-modules, or use a 32-bit export; on a GPU, ONNX Runtime itself fails so when a batch has over 2^31 attention \
    scores: lower --batch-size";

/// Why statistics could not be gathered.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The model could not be edited.
    #[error(transparent)]
    Model(#[from] onnx::Error),
    /// ONNX Runtime refused or failed.
    #[error(transparent)]
    Runtime(#[from] runtime::Error),
    /// An input could not be made.
    #[error(transparent)]
    Feeds(#[from] feeds::Error),
    /// A tensor holds NaN or infinities.
    #[error("the layer input `{tensor}` is not finite in batch {batch}")]
    NotFinite {
        /// Number of the group.
        group: usize,
        /// Tensor name.
        tensor: String,
        /// Batch number, from 1.
        batch: usize,
    },
    /// The rows of a tensor do not belong to tokens or sequences.
    #[error("the rows of `{tensor}` are neither tokens nor sequences: {rows} rows for {batch} sequences of {length}")]
    Rows {
        /// Tensor name.
        tensor: String,
        /// Rows found.
        rows: usize,
        /// Sequences fed.
        batch: usize,
        /// Tokens of each.
        length: usize,
    },
    /// The model could not be loaded again after a run in 16 bits had not been enough.
    #[error("the model is not loaded any more")]
    Unloaded,
    /// A decomposition failed on finite statistics.
    #[error("the statistics of `{tensor}` cannot be decomposed: {source}")]
    Decompose {
        /// Tensor name.
        tensor: String,
        /// Why.
        source: pca::Error,
    },
}

impl Hint for Error {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Model(error) => error.hint(),
            Self::Runtime(error) => error.hint(),
            Self::Feeds(error) => error.hint(),
            Self::NotFinite { .. } => Some(OVERFLOWS.to_owned()),
            Self::Rows { .. } => Some("leave the layers that read it out with --exclude-modules".to_owned()),
            Self::Decompose { .. } | Self::Unloaded => None,
        }
    }
}
