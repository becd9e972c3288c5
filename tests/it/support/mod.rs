//! What several test files need: data with a known spectrum, an exact PCA, and measures of agreement.
#![allow(dead_code, missing_docs, unreachable_pub)]

pub mod adapters;
pub mod case;
pub mod docs;
pub mod eva;
pub mod exports;
pub mod graph;
pub mod parts;
pub mod stream;
#[cfg(unix)]
pub mod terminal;
pub mod tolerance;

use nalgebra::DMatrix;
use ndarray::{Array1, Array2, ArrayView2, Axis};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// Rows with a decaying spectrum around a mean that is not zero.
pub fn rows(n: usize, d: usize, decay: f64, seed: u64) -> Array2<f64> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut normal = || (0..12).map(|_| f64::from(rng.next_u32()) / f64::from(u32::MAX)).sum::<f64>() - 6.0;
    let mixing = Array2::from_shape_fn((d, d), |(i, _)| normal() * (-(i as f64) * decay).exp());
    let mean = Array1::from_shape_fn(d, |_| 3.0 * normal());
    Array2::from_shape_fn((n, d), |_| normal()).dot(&mixing) + &mean
}

/// Exact PCA of all rows at once, by nalgebra's symmetric eigendecomposition.
pub struct Exact {
    /// Eigenvalues of the centred scatter matrix, falling.
    pub eigenvalues: Vec<f64>,
    /// Eigenvectors as rows.
    pub components: Array2<f64>,
    pub scatter: Array2<f64>,
    pub mean: Array1<f64>,
}

pub fn exact(rows: ArrayView2<'_, f64>) -> Exact {
    let mean = rows.mean_axis(Axis(0)).expect("rows");
    let centred = &rows - &mean;
    let scatter = centred.t().dot(&centred);
    let d = rows.ncols();
    let eigen = DMatrix::from_fn(d, d, |i, j| scatter[[i, j]]).symmetric_eigen();
    let mut order: Vec<usize> = (0..d).collect();
    order.sort_by(|&a, &b| eigen.eigenvalues[b].total_cmp(&eigen.eigenvalues[a]));
    Exact {
        eigenvalues: order.iter().map(|&i| eigen.eigenvalues[i]).collect(),
        components: Array2::from_shape_fn((d, d), |(i, j)| eigen.eigenvectors[(j, order[i])]),
        scatter,
        mean,
    }
}

impl Exact {
    /// Variance on the span of the orthonormal rows `a`, as a share of the best that as many directions can hold.
    pub fn captured(&self, a: ArrayView2<'_, f64>) -> f64 {
        let best: f64 = self.eigenvalues[..a.nrows()].iter().sum();
        a.dot(&self.scatter).dot(&a.t()).diag().sum() / best
    }

    /// |cosine| of row j with the exact component j.
    pub fn cosines(&self, a: ArrayView2<'_, f64>) -> Vec<f64> {
        a.rows().into_iter().zip(self.components.rows()).map(|(x, y)| x.dot(&y).abs()).collect()
    }
}

/// Largest entry of `|A A^T - I|`.
pub fn orthonormality_error(a: ArrayView2<'_, f64>) -> f64 {
    let gram = a.dot(&a.t()) - Array2::<f64>::eye(a.nrows());
    gram.iter().fold(0.0, |worst, v| v.abs().max(worst))
}
