//! The host half of the sketch: statistics of batches in, a rotation of the basis out.

use super::basis::{Basis, Rotation};
use super::dense;
use super::error::Error;
use super::factor::Factor;
use super::pending::{Grams, Pending};
use super::precision::Precision;
use super::signs::fix_signs;
use super::spectrum::{Spectrum, rounding};
use super::statistics::{Deflation, SketchSize, SketchStats};
use super::summary::Summary;
use faer::Mat;
use ndarray::{Array1, Array2};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use rand_distr::{Distribution, StandardNormal};
use serde::{Deserialize, Serialize};

/// Smallest eigenvalue, as a share of that of an empty direction.
const EMPTIER: f64 = 1e-4;
/// Ratio of singular values from which the leading direction is kept apart: its share in a batch's `Z` is the square of
/// it, and loses half of the digits of 32-bit floats.
const DOMINANT: f64 = 64.0;
/// Squared distance of the mean, over the variance, from which 32-bit products with the random first basis lose digits.
const FAR: f64 = 100.0;
/// Largest standard deviation, and inverse of the smallest one, for which squares of products with the first basis are
/// 32-bit floats.
const SIZE: f64 = 1e4;
/// Standard deviation below which all rows count as equal; its inverse squared still fits 32 bits.
const NOTHING: f64 = 1e-18;

/// Streaming PCA of one group: a rank-l approximation of the scatter matrix of all rows so far, on a basis that stays
/// in the graph.
///
/// A batch enters as its Nystrom approximation `C ~ Z (Q^T C Q)^-1 Z^T`, which never exceeds the true scatter `C`
/// (Gittens and Mahoney 2016), together with what is known so far: the stacked matrix of incremental SVD (Ross et al.
/// 2008, eq. 4) with a sketch instead of the rows.
///
/// After each batch, [`rotation`](Self::rotation) makes the current directions from the basis `[Q Z]`. Columns of `Q`
/// are orthogonal and scaled to the inverse of their standard deviation, which keeps `Q^T C Q` well-conditioned in
/// 32-bit arithmetic.
///
/// A batch need not be decomposed at once. Either the basis stays as it is and batches are summed up in the graph
/// ([`accumulate`](Self::accumulate), [`flush`](Self::flush)), or the host is one batch late
/// ([`defer`](Self::defer), [`apply_deferred`](Self::apply_deferred)).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StreamingPca {
    size: SketchSize,
    precision: Precision,
    /// Eigenvalues of the scatter matrix about the mean of all rows, falling [l].
    eigenvalues: Vec<f64>,
    /// Column j of `Q` times `scale[j]` has length 1.
    scale: Vec<f64>,
    mean: Array1<f64>,
    rotation: Rotation,
    displaced: bool,
    /// Batches that are counted and not decomposed, as one.
    pending: Option<Pending>,
    /// `Z^T Z` of the batch that was applied last.
    zz_previous: Array2<f64>,
    spectrum: Spectrum,
}

/// The l leading eigenvectors on a basis.
struct Leading {
    eigenvalues: Vec<f64>,
    /// Coefficients [2l, l] of unit vectors.
    coefficients: Mat<f64>,
}

impl StreamingPca {
    /// Starts with no rows.
    pub fn new(size: SketchSize, precision: Precision) -> Self {
        Self {
            size,
            precision,
            eigenvalues: vec![0.0; size.width],
            scale: vec![1.0; size.width],
            mean: Array1::zeros(size.features),
            rotation: Rotation::identity(size.width),
            displaced: false,
            pending: None,
            zz_previous: Array2::zeros((size.width, size.width)),
            spectrum: Spectrum::default(),
        }
    }

    /// The first `Q` [d, l]: a random orthonormal matrix that depends on the seed alone. The first `Z` is zero.
    pub fn initial_basis(size: SketchSize, seed: u64) -> Array2<f32> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let gaussian = Mat::from_fn(size.features, size.width, |_, _| StandardNormal.sample(&mut rng));
        let q = dense::orthonormalise(gaussian.as_ref());
        Array2::from_shape_fn((size.features, size.width), |(i, j)| q[(i, j)] as f32)
    }

    /// Whether its matrices have the sizes of a sketch like `new`.
    pub fn is_sound_for(&self, new: &Self) -> bool {
        let SketchSize { features, components, width: l } = self.size;
        let (values, square) = (&self.spectrum, |a: &Array2<f64>| a.dim() == (l, l));
        let found = [0, components].contains(&values.singular_values.len()) && values.similarity.len() <= components;
        let alike = self.size == new.size && self.precision == new.precision;
        let sized = self.eigenvalues.len() == l && self.scale.len() == l && self.mean.len() == features;
        let squares = square(&self.rotation.q) && square(&self.rotation.z) && square(&self.zz_previous);
        alike && sized && squares && found && self.pending.as_ref().is_none_or(|pending| pending.is_sound(l))
    }

    /// Sizes of the sketch.
    pub fn size(&self) -> SketchSize {
        self.size
    }

    /// Running mean M `[d]`, about which the next batch is measured; before the first one, the mean of the last
    /// warm-up.
    pub fn mean(&self) -> &Array1<f64> {
        &self.mean
    }

    /// Rows counted so far.
    pub fn seen(&self) -> u64 {
        self.spectrum.rows + self.pending.as_ref().map_or(0, |pending| pending.rows)
    }

    /// Whether batches are counted that are not decomposed yet.
    pub fn has_pending(&self) -> bool {
        self.pending.is_some()
    }

    /// The rotation that makes the current directions from the basis.
    pub fn rotation(&self) -> &Rotation {
        &self.rotation
    }

    /// Whether one direction may hide the others, so that the graph should keep it apart: always before the first batch.
    /// In a complete basis nothing is hidden.
    pub fn is_dominated(&self) -> bool {
        !self.is_complete() && (self.spectrum.rows == 0 || self.spectrum.spread(self.size.components) > DOMINANT)
    }

    /// What is known so far of the k wanted components, without pending batches.
    pub fn spectrum(&self) -> &Spectrum {
        &self.spectrum
    }

    /// Rotates the basis towards one batch without counting its rows. If these are far from the mean that they were
    /// measured about, or of a size for which 32-bit products have no room, their mean and size are learnt first, once:
    /// [`was_displaced`](Self::was_displaced).
    ///
    /// # Errors
    /// As [`absorb`](Self::absorb).
    pub fn warm_up(&mut self, batch: SketchStats) -> Result<(), Error> {
        let (mean, rows) = (&self.mean + &batch.moved, batch.rows as f64);
        let moved = rows * batch.moved.dot(&batch.moved);
        let alone = Pending::of(batch, 0);
        let deviation = (alone.squares / rows).sqrt();
        let sized = deviation <= NOTHING || (1.0 / SIZE..=SIZE).contains(&deviation);
        let leading = if self.displaced || (sized && moved <= FAR * alone.squares) {
            self.leading(&alone, &alone.grams())?
        } else {
            self.displaced = true;
            let l = self.size.width;
            Leading { eigenvalues: vec![alone.squares; l], coefficients: Mat::identity(2 * l, l) }
        };
        self.rotate(&leading, rows, alone.deflation.as_ref());
        self.mean = mean;
        Ok(())
    }

    /// Whether a warm-up has learnt where the rows are instead of their directions.
    pub fn was_displaced(&self) -> bool {
        self.displaced
    }

    /// Adds one batch, and those that were accumulated on the same basis, and decomposes them.
    ///
    /// # Errors
    /// [`Error::NoConvergence`] when the statistics are not finite; nothing has changed then.
    pub fn absorb(&mut self, batch: SketchStats) -> Result<(), Error> {
        let (mean, all) = (self.mean_with(&batch), self.with_pending(batch));
        self.add(&all, &all.grams())?;
        self.pending = None;
        self.mean = mean;
        Ok(())
    }

    /// Counts one batch and keeps the basis as it is: on the same `Q`, the statistics of batches add up.
    pub fn accumulate(&mut self, batch: SketchStats) {
        self.count(batch);
        self.rotation = Rotation::identity(self.size.width);
    }

    /// Decomposes the batches that were accumulated.
    ///
    /// # Errors
    /// [`Error::NoConvergence`] when the statistics are not finite.
    pub fn flush(&mut self) -> Result<(), Error> {
        let Some(pending) = self.pending.take() else { return Ok(()) };
        self.add(&pending, &pending.grams())
    }

    /// Counts one batch, to be decomposed by [`apply_deferred`](Self::apply_deferred) while the next one runs on a
    /// basis that does not know this one yet. Batches seen on the same basis are deferred as one.
    pub fn defer(&mut self, batch: SketchStats) {
        self.count(batch);
    }

    /// Decomposes the deferred batches on the basis of the batch after them: the rotation in use makes its `Q`, and
    /// their own `Z` is its `Z`. The products of that basis follow from the
    /// [`PreviousProducts`](super::PreviousProducts).
    ///
    /// If nothing was deferred, the basis stays as it is.
    ///
    /// # Errors
    /// As [`flush`](Self::flush).
    pub fn apply_deferred(&mut self) -> Result<(), Error> {
        let Some(pending) = self.pending.take() else {
            self.rotation = Rotation::identity(self.size.width);
            return Ok(());
        };
        let grams = if self.is_complete() {
            pending.grams_turned(&self.rotation)
        } else {
            pending.grams_after(&self.rotation, &self.zz_previous)
        };
        self.add(&pending, &grams)?;
        self.zz_previous = pending.zz;
        Ok(())
    }

    /// The components found, as orthonormal rows [k, d].
    pub fn components(&self, basis: &Basis<'_>) -> Array2<f64> {
        let directions = self.rotation.leading(basis, self.size.components);
        let q = dense::orthonormalise(dense::to_mat(&directions).as_ref());
        let mut rows = Array2::from_shape_fn((self.size.components, self.size.features), |(i, j)| q[(j, i)]);
        fix_signs(&mut rows);
        rows
    }

    /// All that is known of the rows, without pending batches: the factor has all l directions.
    pub fn summary(&self, basis: &Basis<'_>) -> Summary {
        let directions = self.rotation.leading(basis, self.size.width);
        let lengths = self.eigenvalues.iter().zip(&self.scale).map(|(value, scale)| value.sqrt() * scale);
        let factor = (directions * &lengths.collect::<Array1<f64>>()).reversed_axes();
        let Spectrum { rows, total_variance, noise, .. } = self.spectrum;
        Summary { rows, mean: self.mean.clone(), total_variance, factor, noise }
    }

    /// A batch and the pending ones, as one.
    fn with_pending(&self, batch: SketchStats) -> Pending {
        let mut all = Pending::of(batch, self.seen());
        if let Some(pending) = &self.pending {
            all.add(pending);
        }
        all
    }

    /// Mean of all rows so far and those of a batch.
    fn mean_with(&self, batch: &SketchStats) -> Array1<f64> {
        let (seen, new) = (self.seen() as f64, batch.rows as f64);
        &self.mean + &batch.moved * (new / (seen + new))
    }

    fn count(&mut self, batch: SketchStats) {
        let mean = self.mean_with(&batch);
        self.pending = Some(self.with_pending(batch));
        self.mean = mean;
    }

    /// Decomposes batches on a basis of these products.
    fn add(&mut self, pending: &Pending, grams: &Grams) -> Result<(), Error> {
        let leading = self.leading(pending, grams)?;
        let components = self.size.components;
        self.spectrum.similarity = match self.spectrum.rows {
            0 => Vec::new(),
            _ => {
                let batches = f64::from(pending.batches);
                let cosine = |j| (self.similarity(grams, &leading, j).acos() / batches).cos();
                (0..components).map(cosine).collect()
            }
        };
        self.spectrum.rows += pending.rows;
        self.spectrum.total_variance += pending.squares;
        self.spectrum.singular_values = leading.eigenvalues[..components].iter().map(|v| v.sqrt()).collect();
        // The first direction is computed and not measured where it is kept apart.
        let measured = leading.eigenvalues.get(usize::from(pending.deflation.is_some() && self.is_dominated()));
        let invented = if self.is_complete() { 0.0 } else { self.precision.invented() * measured.unwrap_or(&0.0) };
        let Spectrum { rows, total_variance, .. } = self.spectrum;
        let least = invented.max(2.0 * self.empty(total_variance));
        self.spectrum.noise = rounding(total_variance, rows, &self.mean).max(least);
        self.rotate(&leading, self.spectrum.rows as f64, pending.deflation.as_ref());
        self.eigenvalues = leading.eigenvalues;
        Ok(())
    }

    /// Eigenvalue that an empty direction is given.
    fn empty(&self, total_variance: f64) -> f64 {
        (self.precision.empty_share() * total_variance).max(NOTHING * NOTHING)
    }

    /// Eigenvectors of `Q diag(h^2) Q^T + C~` on the basis `W = [Q Z]`, where `h^2` are the eigenvalues so far and `C~`
    /// is what the batch adds.
    ///
    /// With the [`Factor`] `S` this is `W S S^T W^T`. Its eigenvectors are `W S` times those of `S^T W^T W S`, a sum of
    /// squares in which nothing cancels.
    fn leading(&self, batch: &Pending, grams: &Grams) -> Result<Leading, Error> {
        let l = self.size.width;
        let noise = grams.noise(self.precision);
        let factor = if self.is_complete() {
            Factor::complete(grams, &noise)?
        } else {
            Factor::nystrom(grams, &noise, self.precision.min_pivot())?
        };
        let total = (self.spectrum.total_variance + batch.squares).max(factor.variance());
        let empty = self.empty(total);
        let scaled = self.eigenvalues.iter().zip(&self.scale);
        let h: Vec<f64> = scaled.map(|(value, scale)| value.max(empty).sqrt() * scale).collect();
        let (mut eigenvalues, vectors) = dense::leading_eigh(factor.gram(&h, grams).as_ref(), l)?;
        if !eigenvalues.iter().all(|v| v.is_finite()) {
            return Err(Error::NoConvergence { what: "eigenvalue decomposition" });
        }
        // What is known already gives every direction more; less is rounding.
        eigenvalues.iter_mut().for_each(|v| *v = v.max(EMPTIER * empty));
        Ok(Leading { coefficients: factor.coefficients(&h, &vectors, &eigenvalues), eigenvalues })
    }

    /// Whether the basis spans all features, so that `C` follows from `Q^T C Q` and nothing is approximate. Products of
    /// 16 bits round `Q`, which only `Z` knows.
    fn is_complete(&self) -> bool {
        self.size.width == self.size.features && self.precision == Precision::F32
    }

    /// |cosine| of component j with column j of the basis in use.
    fn similarity(&self, grams: &Grams, leading: &Leading, j: usize) -> f64 {
        let l = self.size.width;
        let c = &leading.coefficients;
        let on_basis = |i: usize| c[(i, j)] * grams.qq[(i, j)] + c[(l + i, j)] * grams.qz[(j, i)];
        ((0..l).map(on_basis).sum::<f64>() * self.scale[j]).abs().min(1.0)
    }

    /// Makes the leading directions the next basis, scaled by their standard deviation over so many rows.
    fn rotate(&mut self, leading: &Leading, rows: f64, deflation: Option<&Deflation>) {
        let deviation = |value: &f64| (value / rows).sqrt();
        let largest = leading.eigenvalues.first().map_or(0.0, deviation);
        let scale = |value: &f64| {
            let least = (self.precision.min_scale() * largest).max(NOTHING);
            // That of empty directions is `NOTHING` itself.
            if largest > 2.0 * NOTHING { deviation(value).max(least) } else { 1.0 }
        };
        self.scale = leading.eigenvalues.iter().map(scale).collect();
        let l = self.size.width;
        let coefficient = |i, j| {
            let coefficients = leading.coefficients.col(j);
            // Q = Q' + q_1 c and Z = Z' + q_1 a, of what was left of them.
            let taken = deflation.filter(|_| i == 0).map_or(0.0, |Deflation { from_q, from_z }| {
                (0..l).map(|i| from_q[i] * coefficients[i] + from_z[i] * coefficients[l + i]).sum::<f64>()
            });
            f64::from(((coefficients[i] + taken) / self.scale[j]) as f32)
        };
        let part = |from| Array2::from_shape_fn((l, l), |(i, j)| coefficient(from + i, j));
        self.rotation = Rotation { q: part(0), z: part(l) };
    }
}
