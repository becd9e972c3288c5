//! The few dense decompositions the crate needs, between ndarray and faer.

use super::Error;
use faer::linalg::triangular_solve::solve_upper_triangular_in_place;
use faer::{Mat, MatRef, Par, Side};
use ndarray::{Array2, ArrayView2};

/// Copies an ndarray matrix into a faer matrix.
pub(super) fn to_mat(a: ArrayView2<'_, f64>) -> Mat<f64> {
    Mat::from_fn(a.nrows(), a.ncols(), |i, j| a[[i, j]])
}

/// Copies a faer matrix into an ndarray matrix.
pub(super) fn to_array(a: MatRef<'_, f64>) -> Array2<f64> {
    Array2::from_shape_fn((a.nrows(), a.ncols()), |(i, j)| a[(i, j)])
}

/// Eigenvalues (falling) and eigenvectors (columns) of a symmetric matrix, of which the lower half is read.
pub(super) fn eigh(a: MatRef<'_, f64>) -> Result<(Vec<f64>, Mat<f64>), Error> {
    let evd =
        a.self_adjoint_eigen(Side::Lower).map_err(|_| Error::NoConvergence { what: "eigenvalue decomposition" })?;
    let n = a.nrows();
    let (values, vectors) = (evd.S().column_vector(), evd.U());
    let falling = (0..n).rev().map(|j| values[j]).collect();
    Ok((falling, Mat::from_fn(n, n, |i, j| vectors[(i, n - 1 - j)])))
}

/// `L^-T` of the Cholesky factorisation `a = L L^T`; `None` when a squared pivot is below `min_pivot`.
pub(super) fn inverse_cholesky(a: MatRef<'_, f64>, min_pivot: f64) -> Option<Mat<f64>> {
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
