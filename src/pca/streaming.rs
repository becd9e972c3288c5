//! The host half of the sketch: batch statistics on a basis in, a rotation of that basis out.

use super::{Error, Spectrum, dense, fix_signs};
use faer::Mat;
use ndarray::{Array1, Array2, ArrayView2};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Directions of the sketch basis whose Gram eigenvalue is below this share of the largest are dropped: what is
/// left of them after normalisation is rounding.
const MIN_GRAM: f64 = 1e-4;

/// Width l of the sketch that finds `components` directions of `features`: twice as many, at most all.
pub fn sketch_width(components: usize, features: usize) -> usize {
    (2 * components).min(features)
}

/// What one batch of n rows tells about one group, on the basis `W = [Q W2]` [d, 2l] in use.
///
/// Rows are shifted by the running mean before they are summarised, so that 32-bit sums stay accurate.
#[derive(Clone, Debug, PartialEq)]
pub struct SketchStats {
    /// Rows n.
    pub rows: usize,
    /// `(X W)^T (X W)` [2l, 2l].
    pub scatter: Array2<f64>,
    /// `W^T W` [2l, 2l].
    pub gram: Array2<f64>,
    /// Column mean of `X` [d].
    pub mean: Array1<f64>,
    /// `W^T mean` [2l].
    pub projected_mean: Array1<f64>,
    /// Sum of the squares of all entries of `X`.
    pub squares: f64,
}

/// Streaming PCA of one group: a rank-l summary of all rows so far, held on a basis that lives elsewhere.
///
/// After each batch [`rotation`](Self::rotation) `T` [2l, l] says which combinations of the basis columns are the
/// current directions: the next basis is `Q = W T`. Eigenvalues are those of the centred scatter matrix.
#[derive(Clone, Debug)]
pub struct StreamingPca {
    components: usize,
    eigenvalues: Vec<f64>,
    mean: Array1<f64>,
    rotation: Array2<f64>,
    spectrum: Spectrum,
}

impl StreamingPca {
    /// Starts with no rows for `features` d and at most `components` directions wanted.
    pub fn new(features: usize, components: usize) -> Self {
        let components = components.min(features);
        let width = sketch_width(components, features);
        Self {
            components,
            eigenvalues: vec![0.0; width],
            mean: Array1::zeros(features),
            rotation: Array2::from_shape_fn((2 * width, width), |(i, j)| f64::from(u8::from(i == j))),
            spectrum: Spectrum::default(),
        }
    }

    /// First basis `[Q 0]` [d, 2l]: `Q` is a random orthonormal matrix fixed by the seed.
    pub fn initial_basis(features: usize, components: usize, seed: u64) -> Array2<f32> {
        let width = sketch_width(components.min(features), features);
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let gaussian = Mat::from_fn(features, width, |_, _| standard_normal(&mut rng));
        let q = dense::orthonormalise(gaussian.as_ref());
        Array2::from_shape_fn((features, 2 * width), |(i, j)| if j < width { q[(i, j)] as f32 } else { 0.0 })
    }

    /// Width l of the sketch.
    pub fn width(&self) -> usize {
        self.eigenvalues.len()
    }

    /// Running mean [d]: the shift of the next batch.
    pub fn mean(&self) -> &Array1<f64> {
        &self.mean
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
    /// The history enters as `(W^T Q) diag(lambda) (Q^T W)` and the change of the mean as a rank-one term, the
    /// mean correction of Ross et al. 2008 (eq. 4).
    ///
    /// # Errors
    /// [`Error::NoConvergence`] when the statistics are not finite; nothing has changed then.
    pub fn absorb(&mut self, batch: &SketchStats) -> Result<(), Error> {
        let width = self.width();
        let (seen, new) = (self.spectrum.rows as f64, batch.rows as f64);
        let scatter = self.merged_scatter(batch, seen, new);
        let (eigenvalues, rotation) = principal(&scatter, &batch.gram, width)?;

        let similarity = |j: usize| rotation.column(j).dot(&batch.gram.column(j)).abs().min(1.0);
        self.spectrum.similarity =
            if seen > 0.0 { (0..self.components).map(similarity).collect() } else { Vec::new() };
        self.spectrum.rows += batch.rows as u64;
        self.spectrum.total_variance += batch.squares - new * new / (seen + new) * batch.mean.dot(&batch.mean);
        self.spectrum.singular_values = eigenvalues[..self.components].iter().map(|v| v.sqrt()).collect();
        self.mean.scaled_add(new / (seen + new), &batch.mean);
        self.eigenvalues = eigenvalues;
        self.rotation = rotation;
        Ok(())
    }

    /// Turns the basis towards one batch without counting its rows.
    ///
    /// # Errors
    /// As [`absorb`](Self::absorb).
    pub fn warm_up(&mut self, batch: &SketchStats) -> Result<(), Error> {
        let (_, rotation) = principal(&self.merged_scatter(batch, 0.0, batch.rows as f64), &batch.gram, self.width())?;
        self.rotation = rotation;
        Ok(())
    }

    /// The components found, as rows [k, d], from the basis [d, 2l] of the last batch.
    pub fn components(&self, basis: ArrayView2<'_, f32>) -> Array2<f64> {
        let directions = basis.mapv(f64::from).dot(&self.rotation);
        let q = dense::orthonormalise(dense::to_mat(directions.view()).as_ref());
        let mut rows = Array2::from_shape_fn((self.components, basis.nrows()), |(i, j)| q[(j, i)]);
        fix_signs(&mut rows);
        rows
    }

    fn merged_scatter(&self, batch: &SketchStats, seen: f64, new: f64) -> Array2<f64> {
        let mut scatter = batch.scatter.clone();
        if seen > 0.0 {
            let on_basis = batch.gram.slice(ndarray::s![.., ..self.width()]);
            let weighted = &on_basis * &Array1::from(self.eigenvalues.clone());
            scatter += &weighted.dot(&on_basis.t());
        }
        let correction = new * new / (seen + new);
        let w = &batch.projected_mean;
        for (i, mut row) in scatter.rows_mut().into_iter().enumerate() {
            row.scaled_add(-correction * w[i], w);
        }
        scatter
    }
}

/// Largest `width` eigenvalues of a scatter matrix given on a basis with the given Gram matrix, and the
/// coefficients [2l, width] of the orthonormal eigenvectors on that basis.
fn principal(scatter: &Array2<f64>, gram: &Array2<f64>, width: usize) -> Result<(Vec<f64>, Array2<f64>), Error> {
    let whitening = whiten(gram)?;
    let scatter = dense::to_mat(scatter.view());
    let projected = whitening.transpose() * &scatter * &whitening;
    let (mut values, vectors) = dense::eigh(projected.as_ref())?;
    if !values.iter().all(|v| v.is_finite()) {
        return Err(Error::NoConvergence { what: "eigenvalue decomposition" });
    }
    let found = width.min(values.len());
    let rotation = &whitening * vectors.subcols(0, found);
    values.truncate(found);
    values.resize(width, 0.0);
    values.iter_mut().for_each(|v| *v = v.max(0.0));
    let mut coefficients = Array2::zeros((gram.nrows(), width));
    coefficients.slice_mut(ndarray::s![.., ..found]).assign(&dense::to_array(rotation.as_ref()));
    Ok((values, coefficients))
}

/// `R` [2l, p] such that `R^T G R = I` over the p directions that are more than rounding.
fn whiten(gram: &Array2<f64>) -> Result<Mat<f64>, Error> {
    let (values, vectors) = dense::eigh(dense::to_mat(gram.view()).as_ref())?;
    let largest = values.first().copied().unwrap_or(0.0);
    let kept = values.iter().take_while(|&&v| v > MIN_GRAM * largest).count();
    Ok(Mat::from_fn(vectors.nrows(), kept, |i, j| vectors[(i, j)] / values[j].sqrt()))
}

/// One draw from N(0, 1) by the Box-Muller transform.
fn standard_normal(rng: &mut ChaCha8Rng) -> f64 {
    let (u, v): (f64, f64) = (1.0 - rng.random::<f64>(), rng.random());
    (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}
