//! What is known of one group.

use crate::pca::{Spectrum, Summary};

/// What is known of one group.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupSummary {
    /// In numbers that merge.
    pub summary: Summary,
    /// |cosine| of each component with its value one batch earlier; empty before the second batch.
    pub similarity: Vec<f64>,
}

impl GroupSummary {
    /// What is known of how far its components have converged.
    pub(super) fn convergence(&self) -> Spectrum {
        Spectrum { rows: self.summary.rows, similarity: self.similarity.clone(), ..Spectrum::default() }
    }
}
