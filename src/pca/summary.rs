//! What an analysis knows of its rows, in a form that merges.

use super::dense;
use super::error::Error;
use super::signs::fix_signs;
use super::spectrum::{Spectrum, rounding};
use ndarray::{Array1, Array2, Axis};

/// What an analysis knows of the rows that it saw, in plain numbers. Summaries of different rows [`merge`](Self::merge)
/// without loss.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Summary {
    /// Rows seen.
    pub rows: u64,
    /// Mean of the rows `[d]`.
    pub mean: Array1<f64>,
    /// Trace of the scatter matrix: the sum of the squared distances of the rows from their mean.
    pub total_variance: f64,
    /// `F` [any, d]: `F^T F` is the scatter matrix about the mean, projected on the directions followed.
    pub factor: Array2<f64>,
    /// Squared singular value that rounding may have left in the factor to a direction without variance.
    pub noise: f64,
}

impl Summary {
    /// Of no rows.
    pub fn empty(features: usize) -> Self {
        Self {
            rows: 0,
            mean: Array1::zeros(features),
            total_variance: 0.0,
            factor: Array2::zeros((0, features)),
            noise: 0.0,
        }
    }

    /// Summary of all rows from summaries of disjoint parts of them. The first part says how many features there are.
    ///
    /// About the joint mean m the scatter is the sum of those about the means `m_i`, and `n_i (m_i - m) (m_i - m)^T`
    /// for each part (Chan et al. 1979, for any number of parts). Both are sums of squares, so the factor has the rows
    /// of all factors and those of the scaled means.
    pub fn merge(parts: &[Self]) -> Self {
        let mut merged = Self::empty(parts.first().map_or(0, |part| part.mean.len()));
        let parts: Vec<&Self> = parts.iter().filter(|part| part.rows > 0).collect();
        merged.rows = parts.iter().map(|part| part.rows).sum();
        for part in &parts {
            merged.mean.scaled_add(part.rows as f64 / merged.rows as f64, &part.mean);
        }
        let between = parts.iter().map(|part| (&part.mean - &merged.mean) * (part.rows as f64).sqrt());
        let between: Vec<Array1<f64>> = between.collect();
        merged.noise = parts.iter().map(|part| part.noise).sum();
        let within = parts.iter().map(|part| part.total_variance).sum::<f64>();
        merged.total_variance = within + between.iter().map(|mean| mean.dot(mean)).sum::<f64>();
        let means = between.iter().map(|mean| mean.view().insert_axis(Axis(0)));
        let factors: Vec<_> = parts.iter().map(|part| part.factor.view()).chain(means).collect();
        if let Ok(factor) = ndarray::concatenate(Axis(0), &factors) {
            merged.factor = factor;
        }
        merged
    }

    /// The same with a factor of at most so many directions, the leading ones. The total variance stays.
    ///
    /// # Errors
    /// As [`decompose`](Self::decompose).
    pub fn shortened(&self, directions: usize) -> Result<Self, Error> {
        let (spectrum, components) = self.decompose(directions)?;
        let lengths = Array1::from_vec(spectrum.singular_values).insert_axis(Axis(1));
        let Self { rows, total_variance, noise, ref mean, .. } = *self;
        Ok(Self { rows, mean: mean.clone(), total_variance, factor: components * lengths, noise })
    }

    /// The spectrum and the leading components, at most `components`, as orthonormal rows [k, d].
    ///
    /// # Errors
    /// [`Error::NoConvergence`] when an entry is not finite.
    pub fn decompose(&self, components: usize) -> Result<(Spectrum, Array2<f64>), Error> {
        if self.factor.nrows() == 0 {
            let Self { rows, total_variance, noise, ref factor, .. } = *self;
            return Ok((Spectrum { rows, total_variance, noise, ..Spectrum::default() }, factor.clone()));
        }
        let (mut singular_values, vectors) = dense::right_svd(dense::to_mat(&self.factor).as_ref())?;
        if !singular_values.iter().all(|value| value.is_finite()) {
            return Err(Error::NoConvergence { what: "singular value decomposition" });
        }
        singular_values.truncate(components);
        let mut rows = Array2::from_shape_fn((singular_values.len(), self.mean.len()), |(i, j)| vectors[(j, i)]);
        fix_signs(&mut rows);
        let Self { rows: seen, total_variance, .. } = *self;
        let noise = rounding(total_variance, seen, &self.mean).max(self.noise);
        Ok((Spectrum { rows: seen, total_variance, singular_values, noise, similarity: Vec::new() }, rows))
    }
}
