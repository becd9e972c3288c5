//! Principal directions from statistics or from rows; the only owner of faer.
//!
//! [`StreamingPca`] is the host half of the in-graph sketch; [`IncrementalSvd`] is the literal algorithm of the
//! paper on activations; what either knows of different rows comes together in a [`Summary`]. All centre the data, order components by falling variance and make the entry of
//! largest magnitude of every component positive.

mod dense;
mod incremental;
mod statistics;
mod streaming;
mod summary;

pub use incremental::IncrementalSvd;
pub use statistics::{Basis, Before, Factors, RANGE, Rotation, SketchSize, SketchStats};
pub use streaming::StreamingPca;
pub use summary::Summary;

use ndarray::Array2;

/// What a principal component analysis knows so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Spectrum {
    /// Rows seen.
    pub rows: u64,
    /// Sum over features of the squared deviations from the mean.
    pub total_variance: f64,
    /// Singular values of the centred rows, non-increasing.
    pub singular_values: Vec<f64>,
    /// |cosine| of each component with its value one batch earlier; empty before the second batch. Where several batches
    /// were added at once, that of an equal part of the angle.
    pub similarity: Vec<f64>,
}

impl Spectrum {
    /// How many times the deviation of the last of the first `rank` components that of the first is; 1 where there is none.
    pub fn spread(&self, rank: usize) -> f64 {
        let values = &self.singular_values[..rank.min(self.singular_values.len())];
        values.first().zip(values.last()).map_or(1.0, |(first, last)| if *first > 0.0 { first / last } else { 1.0 })
    }

    /// Share of the total variance that each component carries, as scikit-learn's `explained_variance_ratio_`.
    pub fn explained_variance_ratio(&self) -> Vec<f64> {
        let share = |s: &f64| if self.total_variance > 0.0 { (s * s / self.total_variance).min(1.0) } else { 0.0 };
        self.singular_values.iter().map(share).collect()
    }
}

/// Failures of the linear algebra.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The decomposition met a NaN or an infinity, or its iteration did not converge.
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
