//! Incremental SVD of rows, the algorithm of the paper.

use super::dense;
use super::error::Error;
use super::signs::fix_signs;
use super::spectrum::{Spectrum, rounding};
use super::summary::Summary;
use faer::Mat;
use ndarray::{Array1, Array2, ArrayView2, Axis};
use serde::{Deserialize, Serialize};

/// Incremental PCA with an exact SVD per batch: Ross et al. 2008, as scikit-learn's `IncrementalPCA` and PEFT's
/// `IncrementalPCA(lowrank=False)`. Unlike them it takes batches of any length.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct IncrementalSvd {
    wanted: usize,
    components: Array2<f64>,
    mean: Array1<f64>,
    spectrum: Spectrum,
}

impl IncrementalSvd {
    /// Starts with no rows of d `features`; at most `components` components are kept.
    pub fn new(features: usize, components: usize) -> Self {
        Self {
            wanted: components.min(features),
            components: Array2::zeros((0, features)),
            mean: Array1::zeros(features),
            spectrum: Spectrum::default(),
        }
    }

    /// Components so far, as rows [at most k, d], orthonormal.
    pub fn components(&self) -> &Array2<f64> {
        &self.components
    }

    /// Running mean `[d]`.
    pub fn mean(&self) -> &Array1<f64> {
        &self.mean
    }

    /// What is known so far, but for the components.
    pub fn spectrum(&self) -> &Spectrum {
        &self.spectrum
    }

    /// All that is known so far.
    pub fn summary(&self) -> Summary {
        let Spectrum { rows, total_variance, ref singular_values, noise, .. } = self.spectrum;
        let lengths = Array1::from_vec(singular_values.clone()).insert_axis(Axis(1));
        Summary { rows, mean: self.mean.clone(), total_variance, factor: &self.components * &lengths, noise }
    }

    /// Whether its matrices have the sizes of an analysis like `new`.
    pub fn is_sound_for(&self, new: &Self) -> bool {
        let ((found, d), features) = (self.components.dim(), new.mean.len());
        let known = found <= self.wanted && self.spectrum.singular_values.len() == found;
        known && self.wanted == new.wanted && d == features && self.mean.len() == features
    }

    /// Adds the rows [n, d] of one batch; a batch without rows changes nothing.
    ///
    /// # Errors
    /// [`Error::NoConvergence`] when the rows are not finite; nothing has changed then.
    pub fn absorb(&mut self, rows: ArrayView2<'_, f64>) -> Result<(), Error> {
        let Some(batch_mean) = rows.mean_axis(Axis(0)) else { return Ok(()) };
        let (seen, new) = (self.spectrum.rows as f64, rows.nrows() as f64);
        let drift = &batch_mean - &self.mean;
        let correction = seen * new / (seen + new);
        let centred = &rows - &batch_mean;

        let stacked = self.stack(&centred, &(&drift * correction.sqrt()));
        let (mut values, vectors) = dense::right_svd(stacked.as_ref())?;
        if !values.iter().all(|v| v.is_finite()) {
            return Err(Error::NoConvergence { what: "singular value decomposition" });
        }
        values.truncate(self.wanted);
        let mut components = Array2::from_shape_fn((values.len(), rows.ncols()), |(i, j)| vectors[(j, i)]);
        fix_signs(&mut components);

        let before = self.components.nrows().min(components.nrows());
        self.spectrum.similarity =
            (0..before).map(|j| components.row(j).dot(&self.components.row(j)).abs().min(1.0)).collect();
        self.spectrum.total_variance += centred.iter().map(|v| v * v).sum::<f64>() + correction * drift.dot(&drift);
        self.spectrum.rows += rows.nrows() as u64;
        self.spectrum.singular_values = values;
        self.mean.scaled_add(new / (seen + new), &drift);
        self.spectrum.noise = rounding(self.spectrum.total_variance, self.spectrum.rows, &self.mean);
        self.components = components;
        Ok(())
    }

    /// `[diag(s) V; X - batch mean; mean correction]`, the matrix whose right singular vectors are the next
    /// components.
    fn stack(&self, centred: &Array2<f64>, correction: &Array1<f64>) -> Mat<f64> {
        let (old, new) = (self.components.nrows(), centred.nrows());
        let last = usize::from(self.spectrum.rows > 0);
        Mat::from_fn(old + new + last, centred.ncols(), |i, j| match i {
            i if i < old => self.spectrum.singular_values[i] * self.components[[i, j]],
            i if i < old + new => centred[[i - old, j]],
            _ => correction[j],
        })
    }
}
