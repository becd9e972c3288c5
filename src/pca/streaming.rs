//! The host half of the sketch: batch statistics on a basis in, a rotation of that basis out.

use super::statistics::{Basis, Before, Factors, Rotation, SketchSize, SketchStats};
use super::{Error, Spectrum, Summary, dense, fix_signs};
use faer::Mat;
use ndarray::{Array1, Array2, ArrayView2, Axis, s};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// Smallest eigenvalue, as a share of that of an empty direction.
const EMPTIER: f64 = 1e-4;
/// Standard deviation below which rows count as all equal; its inverse squared still fits 32 bits.
const NOTHING: f64 = 1e-15;

/// Streaming PCA of one group: a rank-l summary of all rows so far, held on a basis that lives elsewhere.
///
/// A batch enters as its Nystrom approximation `C ~ Z (Q^T C Q)^-1 Z^T`, which never exceeds the true scatter `C`
/// (Gittens and Mahoney 2016), together with the summary so far: the stacked matrix of incremental SVD (Ross et al.
/// 2008, eq. 4) with a sketch of the rows in place of the rows.
///
/// After each batch [`rotation`](Self::rotation) says which combinations of the basis columns are the current
/// directions. Columns of `Q` are orthogonal and scaled to the inverse of their standard deviation, which keeps
/// `Q^T C Q` well-conditioned in 32-bit arithmetic.
#[derive(Clone, Debug)]
pub struct StreamingPca {
    size: SketchSize,
    factors: Factors,
    /// Eigenvalues of the centred scatter matrix of all rows, falling [l].
    eigenvalues: Vec<f64>,
    /// Column j of `Q` times `scale[j]` has length 1.
    scale: Vec<f64>,
    mean: Array1<f64>,
    rotation: Rotation,
    /// The batches that were collected or put off, as one.
    pending: Option<Pending>,
    /// `Z^T Z` of the last batch that was put off.
    zz_before: Array2<f64>,
    spectrum: Spectrum,
}

/// Batches that are not decomposed yet, with their scatter `C` about the mean.
#[derive(Clone, Debug)]
struct Pending {
    rows: u64,
    batches: u32,
    /// Trace of `C`.
    squares: f64,
    qq: Array2<f64>,
    /// `Q^T C Q`.
    qcq: Array2<f64>,
    zz: Array2<f64>,
    /// `Q^T Z` if it may not be taken for `Q^T C Q`.
    qz: Option<Array2<f64>>,
    before: Option<Before>,
}

/// Products of the matrices of a basis: its Gram matrix, and `Q^T C Q` of the `Q` that `Z = C Q` came from.
struct Grams {
    qq: Mat<f64>,
    qz: Mat<f64>,
    zz: Mat<f64>,
    qcq: Mat<f64>,
}

/// The l leading eigenvectors on a basis.
struct Leading {
    eigenvalues: Vec<f64>,
    /// Coefficients [2l, l] of unit vectors.
    coefficients: Mat<f64>,
}

impl StreamingPca {
    /// Starts with no rows.
    pub fn new(size: SketchSize, factors: Factors) -> Self {
        Self {
            size,
            factors,
            eigenvalues: vec![0.0; size.width],
            scale: vec![1.0; size.width],
            mean: Array1::zeros(size.features),
            rotation: Rotation::none(size.width),
            pending: None,
            zz_before: Array2::zeros((size.width, size.width)),
            spectrum: Spectrum::default(),
        }
    }

    /// First basis: `Q` is a random orthonormal matrix fixed by the seed, `Z` is nothing.
    pub fn initial_basis(size: SketchSize, seed: u64) -> Basis {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let gaussian = Mat::from_fn(size.features, size.width, |_, _| standard_normal(&mut rng));
        let q = dense::orthonormalise(gaussian.as_ref());
        let shape = (size.features, size.width);
        Basis { q: Array2::from_shape_fn(shape, |(i, j)| q[(i, j)] as f32), z: Array2::zeros(shape) }
    }

    /// Sizes of the sketch.
    pub fn size(&self) -> SketchSize {
        self.size
    }

    /// Running mean M `[d]`, where the next batch is measured from; before the first one, that of the last warm-up.
    pub fn mean(&self) -> &Array1<f64> {
        &self.mean
    }

    /// Rows counted so far.
    pub fn seen(&self) -> u64 {
        self.spectrum.rows + self.pending.as_ref().map_or(0, |pending| pending.rows)
    }

    /// Whether the image of the next batch comes on top of the image so far, because that is not
    /// [`settle`](Self::settle)d yet.
    pub fn is_behind(&self) -> bool {
        self.pending.is_some()
    }

    /// The directions found, on the basis of the last batch.
    pub fn rotation(&self) -> &Rotation {
        &self.rotation
    }

    /// What is known so far, for the wanted components only.
    pub fn spectrum(&self) -> &Spectrum {
        &self.spectrum
    }

    /// Counts one batch and leaves the directions as they are: with the same `Q`, the statistics of batches add up.
    pub fn collect(&mut self, batch: SketchStats) {
        let mean = self.mean_with(&batch);
        self.pending = Some(self.with_pending(batch));
        self.mean = mean;
        self.rotation = Rotation::none(self.size.width);
    }

    /// Finds the directions after the batches that were collected.
    ///
    /// # Errors
    /// [`Error::NoConvergence`] when the statistics are not finite.
    pub fn settle(&mut self) -> Result<(), Error> {
        self.pending.take().map_or(Ok(()), |pending| self.add(&pending, &pending.grams()))
    }

    /// Adds one batch: [`collect`](Self::collect) and [`settle`](Self::settle).
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

    /// Counts one batch and leaves its decomposition for [`catch_up`](Self::catch_up).
    ///
    /// The next batches run on directions that do not know this one yet, while the host decomposes it. Batches that were
    /// seen in the same directions are put off as one: the image of the last has those before it in it.
    pub fn put_off(&mut self, batch: SketchStats) {
        let mean = self.mean_with(&batch);
        self.pending = Some(self.with_pending(batch));
        self.mean = mean;
    }

    /// Adds what was put off to the history on the basis of the batch after it, whose `Q` the rotation in use makes, and
    /// whose products follow from those with the image before.
    ///
    /// If nothing was put off, the directions stay as they are.
    ///
    /// # Errors
    /// As [`absorb`](Self::absorb).
    pub fn catch_up(&mut self) -> Result<(), Error> {
        let Some(batch) = self.pending.take() else {
            self.rotation = Rotation::none(self.size.width);
            return Ok(());
        };
        let grams = self.turned(&batch);
        self.add(&batch, &grams)?;
        self.zz_before = batch.zz;
        Ok(())
    }

    /// Products of the basis of the next batch, `Q` turned by the rotation in use and the image of `batch`.
    fn turned(&self, batch: &Pending) -> Grams {
        let Pending { qq, qcq, zz, before, .. } = batch;
        let Some(Before { q: q_before, z: before_z }) = before else { return batch.grams() };
        let Rotation { q, z } = &self.rotation;
        let turn = dense::stacked(q, z);
        let (by_q, by_z) = (dense::stacked(qq, &q_before.t()), dense::stacked(q_before, &self.zz_before));
        let products = by_q * dense::to_mat(q) + by_z * dense::to_mat(z);
        Grams {
            qq: turn.transpose() * products,
            qz: turn.transpose() * dense::stacked(batch.qz(), before_z),
            zz: dense::to_mat(zz),
            qcq: dense::to_mat(qcq),
        }
    }

    /// Turns the basis towards one batch without counting its rows.
    ///
    /// # Errors
    /// As [`absorb`](Self::absorb).
    pub fn warm_up(&mut self, batch: SketchStats) -> Result<(), Error> {
        let (mean, alone) = (batch.mean.clone(), self.alone(batch));
        let leading = self.leading(alone.squares, &alone.grams())?;
        self.turn(&leading, alone.rows as f64);
        self.mean = mean;
        Ok(())
    }

    /// The components found, as orthonormal rows [k, d], from the basis of the last batch.
    pub fn components(&self, q: ArrayView2<'_, f32>, z: ArrayView2<'_, f32>) -> Array2<f64> {
        self.rows(self.directions(q, z, self.size.components))
    }

    /// The components after [`catch_up`](Self::catch_up) when no batch followed: `Q` was not turned by the rotation
    /// `last` [2l, l] yet, which belongs to `Q` and `Z`; `image` is that of the last batch.
    pub fn components_behind(&self, basis: [ArrayView2<'_, f32>; 3], last: ArrayView2<'_, f32>) -> Array2<f64> {
        self.rows(self.directions_behind(basis, last, self.size.components))
    }

    /// All that is known of the rows, from the basis of the last batch, when no batch is left to
    /// [`settle`](Self::settle).
    pub fn summary(&self, q: ArrayView2<'_, f32>, z: ArrayView2<'_, f32>) -> Summary {
        self.summed_up(self.directions(q, z, self.size.width))
    }

    /// The [`summary`](Self::summary) where [`components_behind`](Self::components_behind) gives the components.
    pub fn summary_behind(&self, basis: [ArrayView2<'_, f32>; 3], last: ArrayView2<'_, f32>) -> Summary {
        self.summed_up(self.directions_behind(basis, last, self.size.width))
    }

    /// The first `count` directions [d, count], scaled as the next basis would have them.
    fn directions(&self, q: ArrayView2<'_, f32>, z: ArrayView2<'_, f32>, count: usize) -> Array2<f64> {
        let wanted = s![.., ..count];
        by(q, self.rotation.q.slice(wanted)) + by(z, self.rotation.z.slice(wanted))
    }

    fn directions_behind(
        &self,
        [q, z, image]: [ArrayView2<'_, f32>; 3],
        last: ArrayView2<'_, f32>,
        count: usize,
    ) -> Array2<f64> {
        let wanted = s![.., ..count];
        let turned = by(last, self.rotation.q.slice(wanted));
        let (by_q, by_z) = turned.view().split_at(Axis(0), self.size.width);
        by(q, by_q) + by(z, by_z) + by(image, self.rotation.z.slice(wanted))
    }

    /// The history `Q diag(lambda) Q^T` of all directions [d, l], in factored form.
    fn summed_up(&self, directions: Array2<f64>) -> Summary {
        let lengths = self.eigenvalues.iter().zip(&self.scale).map(|(value, scale)| value.sqrt() * scale);
        let factor = (directions * &lengths.collect::<Array1<f64>>()).reversed_axes();
        let Spectrum { rows, total_variance, .. } = self.spectrum;
        Summary { rows, mean: self.mean.clone(), total_variance, factor }
    }

    /// Orthonormal rows from directions [d, k].
    fn rows(&self, directions: Array2<f64>) -> Array2<f64> {
        let q = dense::orthonormalise(dense::to_mat(&directions).as_ref());
        let mut rows = Array2::from_shape_fn((self.size.components, self.size.features), |(i, j)| q[(j, i)]);
        fix_signs(&mut rows);
        rows
    }

    /// One batch alone.
    fn alone(&self, mut batch: SketchStats) -> Pending {
        let squares = batch.trace(self.seen(), &self.mean);
        batch.centre(self.seen());
        let SketchStats { rows, qq, yy: qcq, zz, qz, before, .. } = batch;
        Pending { rows: rows as u64, batches: 1, squares, qq, qcq, zz, qz, before }
    }

    /// The batches that were collected and one more, as one: of images that come on top of each other, the last is all.
    fn with_pending(&self, batch: SketchStats) -> Pending {
        let mut all = self.alone(batch);
        if let Some(Pending { rows, batches, squares, qcq, .. }) = &self.pending {
            all.rows += rows;
            all.batches += batches;
            all.squares += squares;
            all.qcq += qcq;
        }
        all
    }

    /// Mean of all rows so far and those of a batch.
    fn mean_with(&self, batch: &SketchStats) -> Array1<f64> {
        let (seen, new) = (self.seen() as f64, batch.rows as f64);
        &self.mean + (&batch.mean - &self.mean) * (new / (seen + new))
    }

    fn add(&mut self, pending: &Pending, grams: &Grams) -> Result<(), Error> {
        let Pending { rows, squares, batches, .. } = pending;
        let leading = self.leading(*squares, grams)?;
        let components = self.size.components;
        self.spectrum.similarity = match self.spectrum.rows {
            0 => Vec::new(),
            // What several batches turned, each turned a part of.
            _ => (0..components)
                .map(|j| (self.similarity(grams, &leading, j).acos() / f64::from(*batches)).cos())
                .collect(),
        };
        self.spectrum.rows += rows;
        self.spectrum.total_variance += squares;
        self.spectrum.singular_values = leading.eigenvalues[..components].iter().map(|v| v.sqrt()).collect();
        self.turn(&leading, self.spectrum.rows as f64);
        self.eigenvalues = leading.eigenvalues;
        Ok(())
    }

    /// Eigenvectors of `Q diag(h^2) Q^T + Z (Q^T C Q)^-1 Z^T` on the basis `W = [Q Z]`.
    ///
    /// With the factor `S = diag(h, R)`, `R R^T = (Q^T C Q)^-1`, these are `S` times the eigenvectors of
    /// `S^T W^T W S`, a sum of squares in which nothing cancels.
    fn leading(&self, squares: f64, grams: &Grams) -> Result<Leading, Error> {
        let l = self.size.width;
        let empty = (self.factors.empty() * (self.spectrum.total_variance + squares)).max(NOTHING * NOTHING);
        let h: Vec<f64> =
            self.eigenvalues.iter().zip(&self.scale).map(|(value, scale)| value.max(empty).sqrt() * scale).collect();
        let r = dense::inverse_root(grams.qcq.as_ref(), self.factors.min_pivot())?;
        let by_batch = &grams.qz * &r;
        let zz = r.transpose() * &grams.zz * &r;
        let n = l + r.ncols();
        let mut gram = Mat::zeros(n, n);
        for j in 0..l {
            (j..l).for_each(|i| gram[(i, j)] = h[i] * grams.qq[(i, j)] * h[j]);
            (l..n).for_each(|i| gram[(i, j)] = h[j] * by_batch[(j, i - l)]);
        }
        (l..n).for_each(|j| (j..n).for_each(|i| gram[(i, j)] = zz[(i - l, j - l)]));
        (0..n).for_each(|j| (0..j).for_each(|i| gram[(i, j)] = gram[(j, i)]));

        let (mut eigenvalues, vectors) = dense::leading_eigh(gram.as_ref(), l)?;
        if !eigenvalues.iter().all(|v| v.is_finite()) {
            return Err(Error::NoConvergence { what: "eigenvalue decomposition" });
        }
        // The history alone gives every direction more; less is rounding.
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

    /// Takes the leading directions, scaled by what `rows` rows make their standard deviation.
    fn turn(&mut self, leading: &Leading, rows: f64) {
        let deviation = |value: &f64| (value / rows).sqrt();
        let largest = leading.eigenvalues.first().map_or(0.0, deviation);
        let scale = |value: &f64| {
            if largest > NOTHING { deviation(value).max(self.factors.min_scale() * largest) } else { 1.0 }
        };
        self.scale = leading.eigenvalues.iter().map(scale).collect();
        let l = self.size.width;
        let coefficient = |i, j| f64::from((leading.coefficients[(i, j)] / self.scale[j]) as f32);
        let part = |from| Array2::from_shape_fn((l, l), |(i, j)| coefficient(from + i, j));
        self.rotation = Rotation { q: part(0), z: part(l) };
    }
}

impl Pending {
    /// Products of the basis that the batch was seen in.
    fn grams(&self) -> Grams {
        let Self { qq, qcq, zz, .. } = self;
        Grams { qq: dense::to_mat(qq), qz: dense::to_mat(self.qz()), zz: dense::to_mat(zz), qcq: dense::to_mat(qcq) }
    }

    /// `Q^T Z` of the basis that the batch was seen in.
    fn qz(&self) -> &Array2<f64> {
        self.qz.as_ref().unwrap_or(&self.qcq)
    }
}

fn by(basis: ArrayView2<'_, f32>, factor: ArrayView2<'_, f64>) -> Array2<f64> {
    basis.mapv(f64::from).dot(&factor)
}

/// One draw from N(0, 1) by the Box-Muller transform.
fn standard_normal(rng: &mut ChaCha8Rng) -> f64 {
    let mut uniform = || (rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
    let (u, v) = (1.0 - uniform(), uniform());
    (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}
