//! What is known of the inputs of all layers.

use crate::capture::{Events, Timing};
use crate::parallel::map_each;
use crate::pca::{self, Spectrum, Summary};
use ndarray::Array2;

/// Principal components of the inputs of all groups, and how they were gathered.
#[derive(Clone, Debug, PartialEq)]
pub struct Statistics {
    /// One entry a group.
    pub groups: Vec<GroupStatistics>,
    /// One entry a batch; empty if the statistics were not gathered here.
    pub history: Vec<BatchRecord>,
    /// Why no more batches were run.
    pub stopped_by: Stop,
    /// What happened on the way.
    pub events: Events,
    /// Where the time went.
    pub timing: Timing,
}

/// Principal components of the input of one group.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct GroupStatistics {
    /// Rows seen, variance and singular values.
    pub spectrum: Spectrum,
    /// Components as orthonormal rows [k, d], in the order of the singular values.
    pub components: Array2<f64>,
}

/// What one batch added.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct BatchRecord {
    /// Tokens that are not padding.
    pub tokens_seen: usize,
    /// Tokens that entered the statistics.
    pub tokens_kept: usize,
    /// Modules whose allocated components had converged after it.
    pub converged: usize,
    /// Smallest |cosine| between an allocated component and its value one batch earlier; `None` while there is none.
    pub similarity: Option<f64>,
}

/// Why a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stop {
    /// All allocated components converged.
    Converged,
    /// There were no more batches.
    #[serde(rename = "data")]
    Exhausted,
    /// The limit on batches was reached.
    MaxBatches,
    /// The observer stopped it.
    Interrupted,
}

impl Statistics {
    /// Statistics from a summary a group, of which at most `components` components are taken. Summaries of different
    /// rows of one group, from several machines or files, come together in [`Summary::merge`]. The result does not depend
    /// on the number of `threads`.
    ///
    /// # Errors
    /// [`pca::Error`] when a summary is not finite.
    pub fn from_summaries(summaries: &[Summary], components: usize, threads: usize) -> Result<Self, pca::Error> {
        let groups = map_each(summaries, threads, |summary| {
            let (spectrum, components) = summary.decompose(components)?;
            Ok::<_, pca::Error>(GroupStatistics { spectrum, components })
        })?;
        Ok(Self {
            groups,
            history: Vec::new(),
            stopped_by: Stop::Exhausted,
            events: Events::default(),
            timing: Timing::default(),
        })
    }

    /// Tokens seen and kept in all batches.
    pub fn tokens(&self) -> (usize, usize) {
        let seen = self.history.iter().map(|batch| batch.tokens_seen).sum();
        (seen, self.history.iter().map(|batch| batch.tokens_kept).sum())
    }

    /// The spectrum of every group.
    pub fn spectra(&self) -> Vec<&Spectrum> {
        self.groups.iter().map(|group| &group.spectrum).collect()
    }
}
