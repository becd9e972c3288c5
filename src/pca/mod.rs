//! Principal components from statistics or from rows; the only owner of faer.
//!
//! [`StreamingPca`] is the host half of the sketch in the graph; [`IncrementalSvd`] is the paper's algorithm on
//! activations; a [`Summary`] holds what either knows, and merges with those of other rows. All centre the data, order
//! components by falling variance, and make the entry of largest magnitude of every component positive.

mod basis;
mod dense;
mod incremental;
mod pending;
mod precision;
mod statistics;
mod streaming;
mod summary;

pub use basis::{Basis, Rotation};
pub use incremental::IncrementalSvd;
pub use precision::{Precision, RANGE};
pub use statistics::{PreviousProducts, SketchSize, SketchStats};
pub use streaming::StreamingPca;
pub use summary::Summary;

use ndarray::Array2;

/// What a principal component analysis knows so far, but for the components.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Spectrum {
    /// Rows seen.
    pub rows: u64,
    /// Trace of the scatter matrix: the sum of the squared distances of the rows from their mean.
    pub total_variance: f64,
    /// Singular values of the centred rows, non-increasing.
    pub singular_values: Vec<f64>,
    /// |cosine| of each component with its value one batch earlier; empty before the second batch. Where several batches
    /// were decomposed at once, the angle is spread evenly over them.
    pub similarity: Vec<f64>,
}

impl Spectrum {
    /// Ratio between the first singular value and the last of the first `rank`; 1 where there are none.
    pub fn spread(&self, rank: usize) -> f64 {
        let values = &self.singular_values[..rank.min(self.singular_values.len())];
        values.first().zip(values.last()).map_or(1.0, |(first, last)| if *first > 0.0 { first / last } else { 1.0 })
    }

    /// Share of the total variance in each component, as scikit-learn's `explained_variance_ratio_`.
    pub fn explained_variance_ratio(&self) -> Vec<f64> {
        let share = |s: &f64| if self.total_variance > 0.0 { (s * s / self.total_variance).min(1.0) } else { 0.0 };
        self.singular_values.iter().map(share).collect()
    }
}

/// Failures of the linear algebra.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The input of a decomposition is not finite, or its iteration did not converge.
    #[error("the {what} did not converge: its input is not finite or is badly scaled")]
    NoConvergence {
        /// The decomposition, for example `eigenvalue decomposition`.
        what: &'static str,
    },
}

/// Flips the sign of each row so that its entry of largest magnitude is positive (the first one on a tie), as
/// scikit-learn's `svd_flip(u_based_decision=False)`.
fn fix_signs(components: &mut Array2<f64>) {
    for mut row in components.rows_mut() {
        let pivot = row.iter().fold(0.0_f64, |best, &v| if v.abs() > best.abs() { v } else { best });
        if pivot < 0.0 {
            row.mapv_inplace(|v| -v);
        }
    }
}
