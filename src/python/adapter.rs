//! Matrices as bytes that NumPy takes.

use crate::Adapter;
use ndarray::Dimension;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

/// A shape, and little-endian 32-bit floats in row-major order.
pub(super) type Matrix = (Vec<usize>, Py<PyBytes>);

/// Name, alpha, A [rank, in_features], output features, and B [out_features, rank] if it is not zero.
pub(super) type Module = (String, f64, Matrix, usize, Option<Matrix>);

/// The modules of an adapter.
pub(super) fn modules(py: Python<'_>, adapter: &Adapter) -> Vec<Module> {
    let modules = adapter.modules.iter().map(|module| {
        let b = module.b.as_ref().map(|b| matrix(py, b));
        (module.module.clone(), module.alpha, matrix(py, &module.a), module.out_features, b)
    });
    modules.collect()
}

/// An array as bytes.
pub(super) fn matrix<D: Dimension>(py: Python<'_>, array: &ndarray::Array<f32, D>) -> Matrix {
    let bytes: Vec<u8> = array.iter().flat_map(|value| value.to_le_bytes()).collect();
    (array.shape().to_vec(), PyBytes::new(py, &bytes).unbind())
}
