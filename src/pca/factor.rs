//! Factors of the scatter matrix on a basis.

use super::dense;
use super::error::Error;
use super::pending::Grams;
use faer::Mat;

/// Smallest squared pivot of the unit columns of a complete basis, which are orthogonal but for rounding.
const MIN_PIVOT: f64 = 1e-6;

/// A batch as columns on the basis `W = [Q Z]`: `S` such that `W S S^T W^T` is what it adds to the scatter matrix.
///
/// With a column for each direction of the history, `diag(h)` on `Q`, it makes the whole scatter matrix.
pub(super) struct Factor {
    on_z: bool,
    columns: Mat<f64>,
    /// `(W S)^T W S`.
    gram: Mat<f64>,
}

impl Factor {
    /// The Nystrom approximation `Z (Q^T C Q)^-1 Z^T`: `R` on `Z`, with `R R^T = (Q^T C Q)^-1`. Columns of `Q` of which
    /// `C` knows no more than `noise` are left out.
    pub(super) fn nystrom(grams: &Grams, noise: &[f64], min_pivot: f64) -> Result<Self, Error> {
        let columns = dense::inverse_root(grams.qcq.as_ref(), min_pivot, noise)?;
        Ok(Self { on_z: true, gram: columns.transpose() * &grams.zz * &columns, columns })
    }

    /// With as many directions as features, `C = Q G^-1 Q^T C Q G^-1 Q^T` with `G = Q^T Q`: nothing has to be inverted but
    /// `G`, so that directions of any variance remain.
    pub(super) fn complete(grams: &Grams, noise: &[f64]) -> Result<Self, Error> {
        let root = dense::inverse_root(grams.qq.as_ref(), MIN_PIVOT, &vec![0.0; noise.len()])?;
        let columns = &root * (root.transpose() * dense::root(grams.qcq.as_ref(), noise)?);
        Ok(Self { on_z: false, gram: columns.transpose() * &grams.qq * &columns, columns })
    }

    /// Variance of the batch.
    pub(super) fn variance(&self) -> f64 {
        (0..self.gram.ncols()).map(|j| self.gram[(j, j)]).sum()
    }

    /// `S^T W^T W S` with the history in front, symmetric.
    pub(super) fn gram(&self, h: &[f64], grams: &Grams) -> Mat<f64> {
        let across = if self.on_z { &grams.qz * &self.columns } else { &grams.qq * &self.columns };
        let (l, n) = (h.len(), h.len() + self.gram.ncols());
        let mut gram = Mat::zeros(n, n);
        for j in 0..l {
            (j..l).for_each(|i| gram[(i, j)] = h[i] * grams.qq[(i, j)] * h[j]);
            (l..n).for_each(|i| gram[(i, j)] = h[j] * across[(j, i - l)]);
        }
        (l..n).for_each(|j| (j..n).for_each(|i| gram[(i, j)] = self.gram[(i - l, j - l)]));
        (0..n).for_each(|j| (0..j).for_each(|i| gram[(i, j)] = gram[(j, i)]));
        gram
    }

    /// Coefficients on `W` [2l, l] of the unit vectors along `W S vectors`, whose squared lengths are `eigenvalues`.
    pub(super) fn coefficients(&self, h: &[f64], vectors: &Mat<f64>, eigenvalues: &[f64]) -> Mat<f64> {
        let l = h.len();
        let of_batch = &self.columns * vectors.submatrix(l, 0, self.columns.ncols(), l);
        let from = if self.on_z { l } else { 0 };
        let mut coefficients = Mat::zeros(2 * l, l);
        for (j, value) in eigenvalues.iter().enumerate() {
            let unit = value.sqrt().recip();
            (0..l).for_each(|i| coefficients[(i, j)] = h[i] * vectors[(i, j)] * unit);
            (0..l).for_each(|i| coefficients[(from + i, j)] += of_batch[(i, j)] * unit);
        }
        coefficients
    }
}
