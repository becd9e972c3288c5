//! The host half of the sketch: batch statistics on a basis in, a rotation of that basis out.

use super::{Error, Spectrum, dense, fix_signs};
use faer::Mat;
use ndarray::{Array1, Array2, ArrayView2, s};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// Share of the total variance below which a direction counts as empty; it stays a direction all the same.
const EMPTY: f64 = 1e-10;
/// Smallest pivot of the correlation matrix of the sketch columns that still is more than 32-bit rounding.
const MIN_PIVOT: f64 = 1e-5;
/// Smallest scale of a basis column, as a share of the largest.
const MIN_SCALE: f64 = 1e-3;
/// Standard deviation below which rows count as all equal; its inverse squared still fits 32 bits.
const NOTHING: f64 = 1e-15;

/// Sizes of the sketch of one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SketchSize {
    /// Features d.
    pub features: usize,
    /// Directions wanted, k.
    pub components: usize,
    /// Directions followed, l: three times k, at most all, so that what rises later is not lost.
    pub width: usize,
}

impl SketchSize {
    /// The sizes that find `components` directions of `features`.
    pub fn new(features: usize, components: usize) -> Self {
        let components = components.min(features);
        Self { features, components, width: (3 * components).min(features) }
    }

    /// Columns of the basis `W = [Q Z]`, 2l.
    pub fn basis(self) -> usize {
        2 * self.width
    }
}

/// What one batch of n rows tells about one group, on the basis `W = [Q Z]` [d, 2l] in use.
///
/// `X` [n, d] are the rows less the [`Centre`] of this batch, `Y = X Q` and `Z = X^T Y`.
#[derive(Clone, Debug, PartialEq)]
pub struct SketchStats {
    /// Rows n.
    pub rows: usize,
    /// `Q^T Q` [l, l].
    pub qq: Array2<f64>,
    /// `Y^T Y` [l, l], which is `Q^T Z` as well.
    pub yy: Array2<f64>,
    /// `Z^T Z` [l, l].
    pub zz: Array2<f64>,
    /// Mean of the rows [d].
    pub mean: Array1<f64>,
    /// Sum of the squares of all entries of `X`.
    pub squares: f64,
}

/// The point `share * m + rest` that the rows of a batch are measured from; m is their own mean.
///
/// With N rows of mean M seen before and n rows now, the scatter matrix about the joint mean grows by the scatter about
/// m plus `N n / (N + n) (m - M) (m - M)^T`. Both are `X^T X` when the rows are measured from `m + a (M - m)`,
/// `a^2 = N / (N + n)`, since rows less their own mean add up to nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct Centre {
    /// `1 - a`.
    pub share: f64,
    /// `a M` [d].
    pub rest: Array1<f64>,
}

/// Streaming PCA of one group: a rank-l summary of all rows so far, held on a basis that lives elsewhere.
///
/// A batch enters as its Nystrom approximation `C ~ Z (Y^T Y)^-1 Z^T`, which never exceeds the true scatter `C`
/// (Gittens and Mahoney 2016), together with the summary so far: the stacked matrix of incremental SVD (Ross et al.
/// 2008, eq. 4) with a sketch of the rows in place of the rows.
///
/// After each batch [`rotation`](Self::rotation) `T` [2l, l] says which combinations of the basis columns are the
/// current directions: the next basis starts with `Q = W T`. Columns of `Q` are orthogonal and scaled to the inverse
/// of their standard deviation, which keeps `Y^T Y` well-conditioned in 32-bit arithmetic.
#[derive(Clone, Debug)]
pub struct StreamingPca {
    size: SketchSize,
    /// Eigenvalues of the centred scatter matrix of all rows, falling [l].
    eigenvalues: Vec<f64>,
    /// Column j of `Q` times `scale[j]` has length 1.
    scale: Vec<f64>,
    mean: Array1<f64>,
    rotation: Array2<f64>,
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
    pub fn new(size: SketchSize) -> Self {
        Self {
            size,
            eigenvalues: vec![0.0; size.width],
            scale: vec![1.0; size.width],
            mean: Array1::zeros(size.features),
            rotation: Array2::from_shape_fn((size.basis(), size.width), |(i, j)| f64::from(u8::from(i == j))),
            spectrum: Spectrum::default(),
        }
    }

    /// First basis `[Q 0]` [d, 2l]: `Q` is a random orthonormal matrix fixed by the seed.
    pub fn initial_basis(size: SketchSize, seed: u64) -> Array2<f32> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let gaussian = Mat::from_fn(size.features, size.width, |_, _| standard_normal(&mut rng));
        let q = dense::orthonormalise(gaussian.as_ref());
        let entry = |(i, j)| if j < size.width { q[(i, j)] as f32 } else { 0.0 };
        Array2::from_shape_fn((size.features, size.basis()), entry)
    }

    /// Sizes of the sketch.
    pub fn size(&self) -> SketchSize {
        self.size
    }

    /// Running mean M [d].
    pub fn mean(&self) -> &Array1<f64> {
        &self.mean
    }

    /// Where the next batch is measured from when it has `rows` rows.
    pub fn centre(&self, rows: usize) -> Centre {
        let seen = self.spectrum.rows as f64;
        let a = if seen > 0.0 { (seen / (seen + rows as f64)).sqrt() } else { 0.0 };
        Centre { share: 1.0 - a, rest: a * &self.mean }
    }

    /// `T` [2l, l]: the directions found, on the basis of the last batch.
    pub fn rotation(&self) -> &Array2<f64> {
        &self.rotation
    }

    /// What is known so far, for the wanted components only.
    pub fn spectrum(&self) -> &Spectrum {
        &self.spectrum
    }

    /// Adds one batch.
    ///
    /// # Errors
    /// [`Error::NoConvergence`] when the statistics are not finite; nothing has changed then.
    pub fn absorb(&mut self, batch: &SketchStats) -> Result<(), Error> {
        let (seen, new) = (self.spectrum.rows as f64, batch.rows as f64);
        let leading = self.leading(batch)?;
        let components = self.size.components;
        self.spectrum.similarity = match self.spectrum.rows {
            0 => Vec::new(),
            _ => (0..components).map(|j| self.similarity(batch, &leading, j)).collect(),
        };
        self.spectrum.rows += batch.rows as u64;
        self.spectrum.total_variance += batch.squares;
        self.spectrum.singular_values = leading.eigenvalues[..components].iter().map(|v| v.sqrt()).collect();
        self.mean += &((&batch.mean - &self.mean) * (new / (seen + new)));
        self.turn(&leading, seen + new);
        self.eigenvalues = leading.eigenvalues;
        Ok(())
    }

    /// Turns the basis towards one batch without counting its rows.
    ///
    /// # Errors
    /// As [`absorb`](Self::absorb).
    pub fn warm_up(&mut self, batch: &SketchStats) -> Result<(), Error> {
        let leading = self.leading(batch)?;
        self.turn(&leading, batch.rows as f64);
        Ok(())
    }

    /// The components found, as orthonormal rows [k, d], from the basis [d, 2l] of the last batch.
    pub fn components(&self, basis: ArrayView2<'_, f32>) -> Array2<f64> {
        let leading = self.rotation.slice(s![.., ..self.size.components]);
        let directions = basis.mapv(f64::from).dot(&leading);
        let q = dense::orthonormalise(dense::to_mat(directions.view()).as_ref());
        let mut rows = Array2::from_shape_fn((self.size.components, basis.nrows()), |(i, j)| q[(j, i)]);
        fix_signs(&mut rows);
        rows
    }

    /// Eigenvectors of `Q diag(h) Q^T + Z (Y^T Y)^-1 Z^T` on the basis.
    ///
    /// With the factor `S = diag(sqrt(h), R)`, `R R^T = (Y^T Y)^-1`, these are `S` times the eigenvectors of
    /// `S^T W^T W S`, a sum of squares in which nothing cancels.
    fn leading(&self, batch: &SketchStats) -> Result<Leading, Error> {
        let l = self.size.width;
        let empty = (EMPTY * (self.spectrum.total_variance + batch.squares)).max(NOTHING * NOTHING);
        let h: Vec<f64> =
            self.eigenvalues.iter().zip(&self.scale).map(|(value, scale)| value.max(empty).sqrt() * scale).collect();
        let yy = dense::to_mat(batch.yy.view());
        let r = inverse_root(&yy)?;
        let by_batch = &yy * &r;
        let zz = r.transpose() * dense::to_mat(batch.zz.view()) * &r;
        let n = l + r.ncols();
        let mut gram = Mat::zeros(n, n);
        for j in 0..l {
            (j..l).for_each(|i| gram[(i, j)] = h[i] * batch.qq[[i, j]] * h[j]);
            (l..n).for_each(|i| gram[(i, j)] = h[j] * by_batch[(j, i - l)]);
        }
        (l..n).for_each(|j| (j..n).for_each(|i| gram[(i, j)] = zz[(i - l, j - l)]));
        (0..n).for_each(|j| (0..j).for_each(|i| gram[(i, j)] = gram[(j, i)]));

        let (mut eigenvalues, vectors) = dense::leading_eigh(gram.as_ref(), l)?;
        if !eigenvalues.iter().all(|v| v.is_finite()) {
            return Err(Error::NoConvergence { what: "eigenvalue decomposition" });
        }
        eigenvalues.iter_mut().for_each(|v| *v = v.max(f64::MIN_POSITIVE));
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
    fn similarity(&self, batch: &SketchStats, leading: &Leading, j: usize) -> f64 {
        let l = self.size.width;
        let c = &leading.coefficients;
        let on_basis = |i: usize| c[(i, j)] * batch.qq[[i, j]] + c[(l + i, j)] * batch.yy[[i, j]];
        ((0..l).map(on_basis).sum::<f64>() * self.scale[j]).abs().min(1.0)
    }

    /// Takes the leading directions, scaled by what `rows` rows make their standard deviation.
    fn turn(&mut self, leading: &Leading, rows: f64) {
        let deviation = |value: &f64| (value / rows).sqrt();
        let largest = leading.eigenvalues.first().map_or(0.0, deviation);
        let scale = |value: &f64| if largest > NOTHING { deviation(value).max(MIN_SCALE * largest) } else { 1.0 };
        self.scale = leading.eigenvalues.iter().map(scale).collect();
        self.rotation = dense::to_array(leading.coefficients.as_ref());
        for (mut column, scale) in self.rotation.columns_mut().into_iter().zip(&self.scale) {
            column /= *scale;
        }
    }
}

/// `R` such that `R R^T` is the inverse of `a`, or its pseudo-inverse when directions of `a` are little more than
/// rounding.
fn inverse_root(a: &Mat<f64>) -> Result<Mat<f64>, Error> {
    let n = a.nrows();
    let unit: Vec<f64> = (0..n).map(|i| if a[(i, i)] > 0.0 { a[(i, i)].sqrt().recip() } else { 0.0 }).collect();
    let correlation = Mat::from_fn(n, n, |i, j| unit[i] * a[(i, j)] * unit[j]);
    let root = match dense::inverse_cholesky(correlation.as_ref(), MIN_PIVOT) {
        Some(root) => root,
        None => {
            let (values, vectors) = dense::eigh(correlation.as_ref())?;
            let largest = values.first().copied().unwrap_or(0.0);
            let kept = values.iter().take_while(|&&v| v > MIN_PIVOT * largest).count();
            Mat::from_fn(n, kept, |i, j| vectors[(i, j)] / values[j].sqrt())
        }
    };
    Ok(Mat::from_fn(n, root.ncols(), |i, j| unit[i] * root[(i, j)]))
}

/// One draw from N(0, 1) by the Box-Muller transform.
fn standard_normal(rng: &mut ChaCha8Rng) -> f64 {
    let mut uniform = || (rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64;
    let (u, v) = (1.0 - uniform(), uniform());
    (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}
