//! Variances and singular values.

use ndarray::Array1;
use serde::{Deserialize, Serialize};

/// Share of the total variance that 32-bit rows and their sums leave to directions that have none: the square of some
/// thirty roundings.
const ROUNDING: f64 = 1e-11;
/// Half the distance of neighbouring 32-bit floats around 1.
const HALF_ULP: f64 = f32::EPSILON as f64 / 2.0;

/// What a principal component analysis knows so far, but for the components.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Spectrum {
    /// Rows seen.
    pub rows: u64,
    /// Trace of the scatter matrix: the sum of the squared distances of the rows from their mean.
    pub total_variance: f64,
    /// Singular values of the centred rows, non-increasing.
    pub singular_values: Vec<f64>,
    /// Squared singular value up to which a component may be rounding alone.
    pub noise: f64,
    /// |cosine| of each component with its value one batch earlier; empty before the second batch. Where several
    /// batches were decomposed at once, the angle is spread evenly over them.
    pub similarity: Vec<f64>,
}

impl Spectrum {
    /// Ratio between the first singular value and the last of the first `rank`; 1 where there are none.
    pub fn spread(&self, rank: usize) -> f64 {
        let values = &self.singular_values[..rank.min(self.singular_values.len())];
        values.first().zip(values.last()).map_or(1.0, |(first, last)| if *first > 0.0 { first / last } else { 1.0 })
    }

    /// How many of the components are directions of the data: those with more variance than rounding leaves.
    pub fn directions(&self) -> usize {
        self.singular_values.iter().take_while(|&s| s * s > self.noise).count()
    }

    /// Share of the total variance in each component, as scikit-learn's `explained_variance_ratio_`; 0 for those that
    /// are no [`directions`](Self::directions) of the data.
    pub fn explained_variance_ratio(&self) -> Vec<f64> {
        let directions = self.directions();
        let share = |(j, s): (usize, &f64)| if j < directions { (s * s / self.total_variance).min(1.0) } else { 0.0 };
        self.singular_values.iter().enumerate().map(share).collect()
    }
}

/// |cosine| of each component of all rows with its value before the last batch of one of several parts of the rows, from
/// those of the parts.
///
/// A batch that rotates the component of a part by an angle rotates that of all rows by the same share of the angle as the
/// part has of the rows, since the gaps between eigenvalues are larger by that; the largest such angle is taken.
pub fn joint_similarity<'a>(parts: impl Iterator<Item = &'a Spectrum> + Clone) -> Vec<f64> {
    let shortest = parts.clone().map(|part| part.similarity.len()).min().unwrap_or(0);
    let rows: u64 = parts.clone().map(|part| part.rows).sum();
    let rotated = |part: &Spectrum, j: usize| (part.similarity[j].acos() * part.rows as f64 / rows as f64).cos();
    (0..shortest).map(|j| parts.clone().map(|part| rotated(part, j)).fold(1.0, f64::min)).collect()
}

/// Squared singular value that rounding leaves to a direction without variance: of the rows, whose entries are as exact
/// as their mean allows, and of sums over them.
pub(super) fn rounding(total_variance: f64, rows: u64, mean: &Array1<f64>) -> f64 {
    ROUNDING * total_variance + HALF_ULP.powi(2) * rows as f64 * mean.dot(mean)
}
