//! One group of a stack.

use super::codec::{Seen, decode_statistics, encode_rotation};
use super::half;
use super::schedule::Due;
use crate::capture::error::Error;
use crate::pca::{self, SketchStats, StreamingPca};
use serde::{Deserialize, Serialize};

/// Share of the variance in the wanted components at and below which they are hard to tell from what lies below them.
const HARD: f64 = 0.45;

/// One group of a stack.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Member {
    /// Number of the group.
    pub(super) group: usize,
    pub(super) tensors: Vec<String>,
    pub(super) pca: StreamingPca,
    /// Root mean square length of the rows seen last.
    length: f64,
}

/// Statistics that a run returned of a member, still encoded.
pub(super) type Encoded<'a> = (Seen, &'a [f32]);

impl Member {
    /// A group without rows.
    pub(super) fn new(group: usize, tensors: Vec<String>, pca: StreamingPca) -> Self {
        let length = (pca.size().features as f64).sqrt();
        Self { group, tensors, pca, length }
    }

    /// Whether it is a state of the same group as another.
    pub(super) fn is_of(&self, other: &Self) -> bool {
        let alike = self.group == other.group && self.tensors == other.tensors;
        alike && self.length.is_finite() && self.pca.is_sound_for(&other.pca)
    }

    /// Counts statistics by `step`, unless the run had no rows of this group, and encodes the rotation for the next
    /// run.
    pub(super) fn absorb(
        &mut self,
        (seen, values): Encoded<'_>,
        rotation: &mut [f32],
        step: impl Fn(&mut StreamingPca, SketchStats) -> Result<(), pca::Error>,
    ) -> Result<(), Error> {
        if seen.rows > 0 {
            let statistics = decode_statistics(seen, values, &self.pca);
            step(&mut self.pca, statistics).map_err(|source| self.failed(source))?;
        }
        encode_rotation(&self.pca, rotation);
        Ok(())
    }

    /// Defers the statistics of the run before, if there are any, and decomposes what is due during this one.
    pub(super) fn read(&mut self, waiting: Option<Encoded<'_>>, rotation: &mut [f32], due: Due) -> Result<(), Error> {
        if due == Due::BeforeReading {
            self.apply_deferred()?;
            encode_rotation(&self.pca, rotation);
        }
        if let Some((seen, values)) = waiting {
            let statistics = decode_statistics(seen, values, &self.pca);
            self.pca.defer(statistics);
        }
        if due == Due::AfterReading {
            self.apply_deferred()?;
            encode_rotation(&self.pca, rotation);
        }
        Ok(())
    }

    /// Decomposes what was deferred.
    pub(super) fn apply_deferred(&mut self) -> Result<(), Error> {
        self.pca.apply_deferred().map_err(|source| self.failed(source))
    }

    /// Decomposes what was accumulated.
    pub(super) fn flush(&mut self) -> Result<(), Error> {
        self.pca.flush().map_err(|source| self.failed(source))
    }

    /// Notes how long the rows of a run were.
    pub(super) fn learn_length(&mut self, seen: Seen) {
        if seen.rows > 0 && seen.squares > 0.0 && seen.squares.is_finite() {
            self.length = (seen.squares / seen.rows as f64).sqrt();
        }
    }

    /// What `Y` is multiplied by in a run of so many rows, to stay in the range of 16 bits.
    pub(super) fn scale(&self, rows: usize) -> f32 {
        half::scale(rows, self.length)
    }

    fn failed(&self, source: pca::Error) -> Error {
        Error::Decompose { tensor: self.tensors.join("`, `"), source }
    }
}

/// Whether the wanted components are hard to tell from what lies below them.
pub(super) fn is_hard(pca: &StreamingPca) -> bool {
    pca.spectrum().explained_variance_ratio().iter().sum::<f64>() <= HARD
}
