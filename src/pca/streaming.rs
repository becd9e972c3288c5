//! The host half of the sketch: statistics of batches in, a rotation of the basis out.

use super::basis::{Basis, Rotation};
use super::dense;
use super::error::Error;
use super::pending::{Grams, Pending};
use super::precision::Precision;
use super::signs::fix_signs;
use super::spectrum::Spectrum;
use super::statistics::{SketchSize, SketchStats};
use super::summary::Summary;
use faer::Mat;
use ndarray::{Array1, Array2};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// Smallest eigenvalue, as a share of that of an empty direction.
const EMPTIER: f64 = 1e-4;
/// Standard deviation below which all rows count as equal; its inverse squared still fits 32 bits.
const NOTHING: f64 = 1e-15;

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
#[derive(Clone, Debug)]
pub struct StreamingPca {
    size: SketchSize,
    precision: Precision,
    /// Eigenvalues of the scatter matrix about the mean of all rows, falling [l].
    eigenvalues: Vec<f64>,
    /// Column j of `Q` times `scale[j]` has length 1.
    scale: Vec<f64>,
    mean: Array1<f64>,
    rotation: Rotation,
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
            pending: None,
            zz_previous: Array2::zeros((size.width, size.width)),
            spectrum: Spectrum::default(),
        }
    }

    /// The first `Q` [d, l]: a random orthonormal matrix that depends on the seed alone. The first `Z` is zero.
    pub fn initial_basis(size: SketchSize, seed: u64) -> Array2<f32> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let gaussian = Mat::from_fn(size.features, size.width, |_, _| standard_normal(&mut rng));
        let q = dense::orthonormalise(gaussian.as_ref());
        Array2::from_shape_fn((size.features, size.width), |(i, j)| q[(i, j)] as f32)
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

    /// What is known so far of the k wanted components, without pending batches.
    pub fn spectrum(&self) -> &Spectrum {
        &self.spectrum
    }

    /// Rotates the basis towards one batch without counting its rows.
    ///
    /// # Errors
    /// As [`absorb`](Self::absorb).
    pub fn warm_up(&mut self, batch: SketchStats) -> Result<(), Error> {
        let (mean, alone) = (batch.mean.clone(), self.alone(batch));
        let leading = self.leading(alone.squares, &alone.grams())?;
        self.rotate(&leading, alone.rows as f64);
        self.mean = mean;
        Ok(())
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
        let grams = pending.grams_after(&self.rotation, &self.zz_previous);
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
        let Spectrum { rows, total_variance, .. } = self.spectrum;
        Summary { rows, mean: self.mean.clone(), total_variance, factor }
    }

    fn alone(&self, batch: SketchStats) -> Pending {
        Pending::of(batch, self.seen(), &self.mean)
    }

    /// A batch and the pending ones, as one.
    fn with_pending(&self, batch: SketchStats) -> Pending {
        let mut all = self.alone(batch);
        if let Some(pending) = &self.pending {
            all.add(pending);
        }
        all
    }

    /// Mean of all rows so far and those of a batch.
    fn mean_with(&self, batch: &SketchStats) -> Array1<f64> {
        let (seen, new) = (self.seen() as f64, batch.rows as f64);
        &self.mean + (&batch.mean - &self.mean) * (new / (seen + new))
    }

    fn count(&mut self, batch: SketchStats) {
        let mean = self.mean_with(&batch);
        self.pending = Some(self.with_pending(batch));
        self.mean = mean;
    }

    /// Decomposes batches on a basis of these products.
    fn add(&mut self, pending: &Pending, grams: &Grams) -> Result<(), Error> {
        let leading = self.leading(pending.squares, grams)?;
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
        self.rotate(&leading, self.spectrum.rows as f64);
        self.eigenvalues = leading.eigenvalues;
        Ok(())
    }

    /// Eigenvectors of `Q diag(h^2) Q^T + Z (Q^T C Q)^-1 Z^T` on the basis `W = [Q Z]`, where `h^2` are the eigenvalues
    /// so far.
    ///
    /// With the factor `S = diag(h, R)`, `R R^T = (Q^T C Q)^-1`, these are `S` times the eigenvectors of
    /// `S^T W^T W S`, a sum of squares in which nothing cancels.
    fn leading(&self, squares: f64, grams: &Grams) -> Result<Leading, Error> {
        let l = self.size.width;
        let total = self.spectrum.total_variance + squares;
        let empty = (self.precision.empty_share() * total).max(NOTHING * NOTHING);
        let scaled = self.eigenvalues.iter().zip(&self.scale);
        let h: Vec<f64> = scaled.map(|(value, scale)| value.max(empty).sqrt() * scale).collect();
        let r = dense::inverse_root(grams.qcq.as_ref(), self.precision.min_pivot())?;
        let gram = gram_of_factors(&h, &r, grams);
        let n = l + r.ncols();

        let (mut eigenvalues, vectors) = dense::leading_eigh(gram.as_ref(), l)?;
        if !eigenvalues.iter().all(|v| v.is_finite()) {
            return Err(Error::NoConvergence { what: "eigenvalue decomposition" });
        }
        // What is known already gives every direction more; less is rounding.
        eigenvalues.iter_mut().for_each(|v| *v = v.max(EMPTIER * empty));
        let by_r = &r * vectors.submatrix(l, 0, n - l, l);
        let mut coefficients = Mat::zeros(2 * l, l);
        for (j, value) in eigenvalues.iter().enumerate() {
            let unit = value.sqrt().recip();
            (0..l).for_each(|i| coefficients[(i, j)] = h[i] * vectors[(i, j)] * unit);
            (0..l).for_each(|i| coefficients[(l + i, j)] = by_r[(i, j)] * unit);
        }
        Ok(Leading { eigenvalues, coefficients })
    }

    /// |cosine| of component j with column j of the basis in use.
    fn similarity(&self, grams: &Grams, leading: &Leading, j: usize) -> f64 {
        let l = self.size.width;
        let c = &leading.coefficients;
        let on_basis = |i: usize| c[(i, j)] * grams.qq[(i, j)] + c[(l + i, j)] * grams.qz[(j, i)];
        ((0..l).map(on_basis).sum::<f64>() * self.scale[j]).abs().min(1.0)
    }

    /// Makes the leading directions the next basis, scaled by their standard deviation over so many rows.
    fn rotate(&mut self, leading: &Leading, rows: f64) {
        let deviation = |value: &f64| (value / rows).sqrt();
        let largest = leading.eigenvalues.first().map_or(0.0, deviation);
        let scale = |value: &f64| {
            if largest > NOTHING { deviation(value).max(self.precision.min_scale() * largest) } else { 1.0 }
        };
        self.scale = leading.eigenvalues.iter().map(scale).collect();
        let l = self.size.width;
        let coefficient = |i, j| f64::from((leading.coefficients[(i, j)] / self.scale[j]) as f32);
        let part = |from| Array2::from_shape_fn((l, l), |(i, j)| coefficient(from + i, j));
        self.rotation = Rotation { q: part(0), z: part(l) };
    }
}

/// `S^T W^T W S` for `S = diag(h, R)` and `W = [Q Z]`, [l + columns of R] squared.
fn gram_of_factors(h: &[f64], r: &Mat<f64>, grams: &Grams) -> Mat<f64> {
    let by_batch = &grams.qz * r;
    let zz = r.transpose() * &grams.zz * r;
    let (l, n) = (h.len(), h.len() + r.ncols());
    let mut gram = Mat::zeros(n, n);
    for j in 0..l {
        (j..l).for_each(|i| gram[(i, j)] = h[i] * grams.qq[(i, j)] * h[j]);
        (l..n).for_each(|i| gram[(i, j)] = h[j] * by_batch[(j, i - l)]);
    }
    (l..n).for_each(|j| (j..n).for_each(|i| gram[(i, j)] = zz[(i - l, j - l)]));
    (0..n).for_each(|j| (0..j).for_each(|i| gram[(i, j)] = gram[(j, i)]));
    gram
}

/// One draw from N(0, 1) by the Box-Muller transform.
fn standard_normal(rng: &mut ChaCha8Rng) -> f64 {
    let mut uniform = || (rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
    let (u, v) = (1.0 - uniform(), uniform());
    (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}
