//! Variances and singular values.

/// What a principal component analysis knows so far, but for the components.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Spectrum {
    /// Rows seen.
    pub rows: u64,
    /// Trace of the scatter matrix: the sum of the squared distances of the rows from their mean.
    pub total_variance: f64,
    /// Singular values of the centred rows, non-increasing.
    pub singular_values: Vec<f64>,
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

    /// Share of the total variance in each component, as scikit-learn's `explained_variance_ratio_`.
    pub fn explained_variance_ratio(&self) -> Vec<f64> {
        let share = |s: &f64| if self.total_variance > 0.0 { (s * s / self.total_variance).min(1.0) } else { 0.0 };
        self.singular_values.iter().map(share).collect()
    }
}
