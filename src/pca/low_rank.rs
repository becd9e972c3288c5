//! Approximations of a matrix [m, n] by the product of two thin ones, [m, rank] and [rank, n].
//!
//! Both are projections on a subspace, so the signs and the order of its vectors do not matter.

use super::dense;
use super::error::Error;
use faer::Mat;
use ndarray::{Array2, s};

/// The best approximation of a rank: the leading part of the singular value decomposition.
///
/// # Errors
/// When the matrix is not finite.
pub fn best(matrix: &Array2<f64>, rank: usize) -> Result<(Array2<f64>, Array2<f64>), Error> {
    let wide = matrix.nrows() <= matrix.ncols();
    let gram = if wide { matrix.dot(&matrix.t()) } else { matrix.t().dot(matrix) };
    let (_, vectors) = dense::eigh(dense::to_mat(&gram).as_ref())?;
    let basis = columns(&vectors, rank.min(gram.nrows()));
    let other = if wide { basis.t().dot(matrix) } else { matrix.dot(&basis) };
    Ok(if wide { (basis, other) } else { (other, basis.reversed_axes()) })
}

/// The projection on the span of the first `rank` columns: the leading part of the QR decomposition.
pub fn of_first_columns(matrix: &Array2<f64>, rank: usize) -> (Array2<f64>, Array2<f64>) {
    let rank = rank.min(matrix.nrows()).min(matrix.ncols());
    let first = dense::to_mat(&matrix.slice(s![.., ..rank]));
    let basis = columns(&dense::orthonormalise(first.as_ref()), rank);
    let other = basis.t().dot(matrix);
    (basis, other)
}

fn columns(matrix: &Mat<f64>, count: usize) -> Array2<f64> {
    Array2::from_shape_fn((matrix.nrows(), count), |(i, j)| matrix[(i, j)])
}
