//! The dense decompositions of the crate, between ndarray and faer.

use super::error::Error;
use faer::linalg::triangular_solve::solve_upper_triangular_in_place;
use faer::{Mat, MatRef, Par, Side, unzip, zip};
use ndarray::ArrayRef2;

/// Smallest squared pivot of unit columns that still counts as independent; the Cholesky factorisation then loses half
/// of the digits of 64-bit arithmetic at most.
const MIN_PIVOT: f64 = 1e-8;
/// Smallest Ritz value, as a share of the largest, that cannot be a rounding error; those of 32-bit statistics may even
/// be negative.
const MIN_RITZ: f64 = 1e-12;

/// Eigenvalues, falling, and eigenvectors as columns in the same order.
pub(super) type Eigen = (Vec<f64>, Mat<f64>);

/// Copies an ndarray matrix into a faer matrix.
pub(super) fn to_mat(a: &ArrayRef2<f64>) -> Mat<f64> {
    Mat::from_fn(a.nrows(), a.ncols(), |i, j| a[[i, j]])
}

/// `a` above `b`.
pub(super) fn stacked(a: &ArrayRef2<f64>, b: &ArrayRef2<f64>) -> Mat<f64> {
    let n = a.nrows();
    Mat::from_fn(n + b.nrows(), a.ncols(), |i, j| if i < n { a[[i, j]] } else { b[[i - n, j]] })
}

/// Eigenvalues (falling) and eigenvectors (columns) of a symmetric matrix, of which the lower half is read.
pub(super) fn eigh(a: MatRef<'_, f64>) -> Result<Eigen, Error> {
    let evd =
        a.self_adjoint_eigen(Side::Lower).map_err(|_| Error::NoConvergence { what: "eigenvalue decomposition" })?;
    let n = a.nrows();
    let (values, vectors) = (evd.S().column_vector(), evd.U());
    let falling = (0..n).rev().map(|j| values[j]).collect();
    Ok((falling, Mat::from_fn(n, n, |i, j| vectors[(i, n - 1 - j)])))
}

/// The `count` leading eigenvalues (falling) and eigenvectors (columns) of a positive semi-definite matrix whose
/// leading eigenvectors lie close to the first `count` axes.
///
/// A Chebyshev polynomial of second degree, small up to the least diagonal entry of these axes and steep above, is
/// applied to them (Zhou et al. 2006, chebyshev-filtered subspace iteration); then comes the Rayleigh-Ritz projection.
/// When the axes are a poor guess, the filtered columns are nearly dependent and the whole matrix is decomposed.
pub(super) fn leading_eigh(a: MatRef<'_, f64>, count: usize) -> Result<Eigen, Error> {
    if let Some(found) = filtered_ritz(a, count)? {
        return Ok(found);
    }
    let (mut values, vectors) = eigh(a)?;
    values.truncate(count);
    Ok((values, vectors.subcols(0, count).to_owned()))
}

fn filtered_ritz(a: MatRef<'_, f64>, count: usize) -> Result<Option<Eigen>, Error> {
    let edge = (0..count).map(|j| a[(j, j)]).fold(f64::INFINITY, f64::min);
    if !(edge > 0.0 && edge.is_finite()) {
        return Ok(None);
    }
    // T2(x) = 2 x^2 - 1 of x = 2 a / edge - 1.
    let axis = |i: usize, j: usize| f64::from(u8::from(i == j));
    let once = Mat::from_fn(a.nrows(), count, |i, j| 2.0 / edge * a[(i, j)] - axis(i, j));
    let mut v = a * &once;
    zip!(&mut v, &once).for_each(|unzip!(v, once)| *v = 4.0 / edge * *v - 2.0 * *once);
    (0..count).for_each(|j| v[(j, j)] -= 1.0);
    scale_to_unit_columns(&mut v);
    let Some(root) = inverse_cholesky((v.transpose() * &v).as_ref(), MIN_PIVOT) else { return Ok(None) };
    let projected = root.transpose() * (v.transpose() * (a * &v)) * &root;
    let (values, vectors) = eigh(projected.as_ref())?;
    let sound = values.iter().all(|value| *value > MIN_RITZ * values[0]);
    Ok(sound.then(|| (values, v * (root * vectors))))
}

fn scale_to_unit_columns(a: &mut Mat<f64>) {
    for column in a.col_iter_mut() {
        let norm = column.norm_l2();
        column.iter_mut().for_each(|v| *v /= norm);
    }
}

/// `L^-T` of the Cholesky factorisation `a = L L^T`; `None` when a squared pivot is below `min_pivot`.
fn inverse_cholesky(a: MatRef<'_, f64>, min_pivot: f64) -> Option<Mat<f64>> {
    let factor = a.llt(Side::Lower).ok()?;
    let lower = factor.L();
    let sound = (0..a.nrows()).all(|i| lower[(i, i)] * lower[(i, i)] >= min_pivot);
    if !sound {
        return None;
    }
    let mut inverse = Mat::identity(a.nrows(), a.nrows());
    solve_upper_triangular_in_place(lower.transpose(), inverse.as_mut(), Par::Seq);
    Some(inverse)
}

/// `R` such that `R R^T` is the inverse of `a`, or its pseudo-inverse if some directions of `a` are hardly more than
/// rounding errors. Row and column j are left out if their diagonal entry is at most `least[j]`.
pub(super) fn inverse_root(a: MatRef<'_, f64>, min_pivot: f64, least: &[f64]) -> Result<Mat<f64>, Error> {
    let used: Vec<usize> = (0..a.nrows()).filter(|&j| a[(j, j)] > least[j]).collect();
    let unit: Vec<f64> = used.iter().map(|&j| a[(j, j)].sqrt().recip()).collect();
    let n = used.len();
    let correlation = Mat::from_fn(n, n, |i, j| unit[i] * a[(used[i], used[j])] * unit[j]);
    let root = match inverse_cholesky(correlation.as_ref(), min_pivot) {
        Some(root) => root,
        None => {
            let (values, vectors) = eigh(correlation.as_ref())?;
            let largest = values.first().copied().unwrap_or(0.0);
            let kept = values.iter().take_while(|&&v| v > min_pivot * largest).count();
            Mat::from_fn(n, kept, |i, j| vectors[(i, j)] / values[j].sqrt())
        }
    };
    let mut inverse = Mat::zeros(a.nrows(), root.ncols());
    for (i, &at) in used.iter().enumerate() {
        (0..root.ncols()).for_each(|j| inverse[(at, j)] = unit[i] * root[(i, j)]);
    }
    Ok(inverse)
}

/// `L` such that `L L^T` is `a`, without what rounding took from positive semi-definiteness. Row and column j are left out
/// if their diagonal entry is at most `least[j]`.
pub(super) fn root(a: MatRef<'_, f64>, least: &[f64]) -> Result<Mat<f64>, Error> {
    let n = a.nrows();
    let length: Vec<f64> = (0..n).map(|i| if a[(i, i)] > least[i] { a[(i, i)].sqrt() } else { 0.0 }).collect();
    let unit = |i: usize| if length[i] > 0.0 { length[i].recip() } else { 0.0 };
    let (values, vectors) = eigh(Mat::from_fn(n, n, |i, j| unit(i) * a[(i, j)] * unit(j)).as_ref())?;
    Ok(Mat::from_fn(n, n, |i, j| length[i] * vectors[(i, j)] * values[j].max(0.0).sqrt()))
}

/// Thin singular value decomposition: singular values (falling) and right singular vectors (columns).
pub(super) fn right_svd(a: MatRef<'_, f64>) -> Result<(Vec<f64>, Mat<f64>), Error> {
    let svd = a.thin_svd().map_err(|_| Error::NoConvergence { what: "singular value decomposition" })?;
    Ok((svd.S().column_vector().iter().copied().collect(), svd.V().to_owned()))
}

/// Orthonormal basis of the column space of a tall matrix of full column rank; column j stays within the span of
/// the first j columns and keeps its direction.
pub(super) fn orthonormalise(a: MatRef<'_, f64>) -> Mat<f64> {
    let qr = a.qr();
    let mut q = qr.compute_thin_Q();
    let r = qr.R();
    for j in 0..q.ncols() {
        if r[(j, j)] < 0.0 {
            q.col_mut(j).iter_mut().for_each(|v| *v = -*v);
        }
    }
    q
}
