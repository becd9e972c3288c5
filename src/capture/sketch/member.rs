//! One group of a stack.

use super::codec::Seen;
use super::half::REACH;
use crate::capture::Error;
use crate::pca::{self, StreamingPca};

/// Share of the variance below which the components of a group are hard to tell from what lies below them: its
/// directions turn after every batch.
const HARD: f64 = 0.45;

/// One group of a stack.
pub(super) struct Member {
    /// Number of the group.
    pub(super) group: usize,
    pub(super) tensors: Vec<String>,
    pub(super) pca: StreamingPca,
    /// Root of the mean square of the rows seen last.
    pub(super) length: f64,
}

impl Member {
    /// Adds the batch that was put off or the batches that were collected.
    pub(super) fn decompose(
        &mut self,
        step: impl Fn(&mut StreamingPca) -> Result<(), pca::Error>,
    ) -> Result<(), Error> {
        step(&mut self.pca).map_err(|source| self.undone(source))
    }

    pub(super) fn learn_length(&mut self, seen: Seen) {
        if seen.rows > 0 && seen.squares > 0.0 && seen.squares.is_finite() {
            self.length = (seen.squares / seen.rows as f64).sqrt();
        }
    }

    /// The power of two that makes the entries of `R^T Y` about [`REACH`] at most, for so many rows and columns of `Y` of
    /// unit variance.
    pub(super) fn scale(&self, rows: usize) -> f32 {
        let exponent = (REACH / (rows.max(1) as f64 * self.length)).log2().floor();
        // As far as 16 bits go.
        exponent.clamp(-24.0, 15.0).exp2() as f32
    }

    pub(super) fn undone(&self, source: pca::Error) -> Error {
        Error::Decompose { tensor: self.tensors.join("`, `"), source }
    }
}

/// Whether the directions of a group are hard to find.
pub(super) fn is_hard(pca: &StreamingPca) -> bool {
    pca.spectrum().explained_variance_ratio().iter().sum::<f64>() <= HARD
}
