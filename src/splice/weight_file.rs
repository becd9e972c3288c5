//! The file of new weights, written block by block.

use super::error::{Error, Unmergeable};
use super::fit::Site;
use crate::dtype::DType;
use crate::onnx::{Stored, Tensor};
use ndarray::{Array1, Array2, ArrayView2, Axis, s};
use std::io::{self, Write};
use std::ops::Range;

/// Large weights start at a page, so that they can be mapped.
const PAGE: u64 = 4096;
/// Weights below a page are aligned to this.
const SMALL: u64 = 64;
/// Bytes of a block of rows.
const BLOCK: usize = 1 << 24;

/// The file of new weights.
pub(super) struct WeightFile<'w> {
    location: &'w str,
    out: &'w mut dyn Write,
    at: u64,
}

impl<'w> WeightFile<'w> {
    pub(super) fn new(location: &'w str, out: &'w mut dyn Write) -> Self {
        Self { location, out, at: 0 }
    }

    /// Writes what becomes of the matrix `old`, in the type and shape that it is read with.
    ///
    /// # Errors
    /// [`Error::Write`].
    pub(super) fn matrix(&mut self, old: &OldMatrix<'_>, new: &NewMatrix<'_>) -> Result<Stored, Error> {
        let OldMatrix { dtype, rows, columns, .. } = *old;
        let length = old.bytes.len() as u64;
        let block = (BLOCK / (columns * 4)).clamp(1, rows);
        let blocks = || (0..rows).step_by(block).map(|start| start..(start + block).min(rows));
        let gains = new.gains(blocks().map(|range| (range.clone(), new.sum(old, range))));
        let stored = self.begin(dtype, vec![rows as i64, columns as i64], length)?;
        for range in blocks() {
            let mut values = new.sum(old, range.clone());
            if let Some(gains) = &gains {
                new.scale(&mut values, gains, range);
            }
            let encoded = dtype.encode(&values).map(|encoded| encoded.bytes).unwrap_or_default();
            self.out.write_all(&encoded).map_err(|source| Error::Write { source })?;
        }
        Ok(stored)
    }

    /// Writes `values` in this type and shape.
    pub(super) fn values(&mut self, values: &[f32], dtype: DType, shape: Vec<i64>) -> Result<Stored, Error> {
        let encoded = dtype.encode(values).map(|encoded| encoded.bytes).unwrap_or_default();
        let stored = self.begin(dtype, shape, encoded.len() as u64)?;
        self.out.write_all(&encoded).map_err(|source| Error::Write { source })?;
        Ok(stored)
    }

    fn begin(&mut self, dtype: DType, shape: Vec<i64>, length: u64) -> Result<Stored, Error> {
        let offset = self.at.next_multiple_of(if length < PAGE { SMALL } else { PAGE });
        let gap: io::Result<()> = self.out.write_all(&vec![0; (offset - self.at) as usize]);
        gap.map_err(|source| Error::Write { source })?;
        self.at = offset + length;
        Ok(Stored { dtype, shape, location: self.location.to_owned(), offset, length })
    }
}

/// The values of a weight as a matrix [rows, columns].
pub(super) struct OldMatrix<'b> {
    bytes: std::borrow::Cow<'b, [u8]>,
    dtype: DType,
    rows: usize,
    columns: usize,
    /// Whether it is stored as [columns, rows].
    transposed: bool,
}

impl<'b> OldMatrix<'b> {
    /// The matrix of this shape in `tensor`.
    ///
    /// # Errors
    /// [`Unmergeable::Shape`].
    pub(super) fn new(tensor: Tensor<'b>, shape: (usize, usize), transposed: bool) -> Result<Self, Unmergeable> {
        let (dtype, (rows, columns)) = (tensor.dtype(), shape);
        let bytes = tensor.bytes().filter(|bytes| bytes.len() == rows * columns * width(dtype));
        let bytes = bytes.ok_or_else(|| Unmergeable::Shape { shape: tensor.dims().to_vec() })?;
        Ok(Self { bytes, dtype, rows, columns, transposed })
    }

    fn rows(&self, rows: Range<usize>) -> Array2<f32> {
        let shape = (rows.len(), self.columns);
        if !self.transposed {
            let width = self.columns * width(self.dtype);
            let values = self.dtype.decode(&self.bytes[rows.start * width..rows.end * width]).unwrap_or_default();
            return Array2::from_shape_vec(shape, values).unwrap_or_default();
        }
        Array2::from_shape_fn(shape, |(row, column)| {
            self.dtype.read(&self.bytes, column * self.rows + rows.start + row).unwrap_or_default()
        })
    }
}

/// Bytes of an element.
fn width(dtype: DType) -> usize {
    dtype.bits().unwrap_or(32) / 8
}

/// What a matrix becomes: [out, in], or [in, out].
pub(super) enum NewMatrix<'a> {
    /// The sum of the old one and the product of these.
    Sum {
        left: Array2<f32>,
        right: Array2<f32>,
        /// The norms that the weights of DoRA's output features get; the others keep theirs.
        magnitudes: Vec<Option<f32>>,
        out_in: bool,
    },
    /// Other values.
    Values(ArrayView2<'a, f32>),
}

impl<'a> NewMatrix<'a> {
    /// The sum with `scale B A` of all modules of the site.
    pub(super) fn sum_of(site: &Site<'_>, out_in: bool) -> NewMatrix<'a> {
        let linear = site.linear;
        let ranks: usize = site.modules.iter().flatten().map(|module| module.rank()).sum();
        let mut a = Array2::zeros((ranks, linear.in_features));
        let mut b = Array2::zeros((linear.out_features, ranks));
        let mut magnitudes = vec![None; linear.out_features];
        let mut at = 0;
        for (part, module) in linear.modules.iter().zip(&site.modules) {
            let Some(module) = module else { continue };
            let (from, to) = part.columns.unwrap_or((0, linear.out_features));
            let rank = at..at + module.rank();
            a.slice_mut(s![rank.clone(), ..]).assign(&module.a);
            let rows = part.slice.map_or(0..module.out_features, |slice| slice.start..slice.end);
            let product = module.b().slice(s![rows.clone(), ..]).to_owned() * module.scale() as f32;
            b.slice_mut(s![from..to, rank]).assign(&product);
            if let Some(norms) = &module.magnitude {
                magnitudes[from..to].iter_mut().zip(&norms[rows]).for_each(|(to, norm)| *to = Some(*norm));
            }
            at += module.rank();
        }
        let (left, right) = if out_in { (b, a) } else { (a.reversed_axes(), b.reversed_axes()) };
        NewMatrix::Sum { left, right, magnitudes, out_in }
    }

    pub(super) fn shape(&self) -> (usize, usize) {
        match self {
            Self::Sum { left, right, .. } => (left.nrows(), right.ncols()),
            Self::Values(values) => values.dim(),
        }
    }

    fn sum(&self, old: &OldMatrix<'_>, rows: Range<usize>) -> Array2<f32> {
        match self {
            Self::Sum { left, right, .. } => old.rows(rows.clone()) + left.slice(s![rows, ..]).dot(right),
            Self::Values(values) => values.slice(s![rows, ..]).to_owned(),
        }
    }

    /// What the weights of each output feature are multiplied by, if not all by 1: DoRA divides them by their norm and
    /// multiplies them by the trained one. Source: `merge` in `tuners/lora/layer.py` of PEFT 0.21, Liu et al. 2024, eq. 5.
    fn gains(&self, sums: impl Iterator<Item = (Range<usize>, Array2<f32>)>) -> Option<Array1<f32>> {
        let Self::Sum { magnitudes, out_in, .. } = self else { return None };
        if magnitudes.iter().all(Option::is_none) {
            return None;
        }
        let mut squares = vec![0.0; magnitudes.len()];
        for (rows, sum) in sums {
            for ((row, column), value) in sum.indexed_iter() {
                let output = if *out_in { rows.start + row } else { column };
                squares[output] += f64::from(*value).powi(2);
            }
        }
        let gain =
            |(norm, squares): (&Option<f32>, &f64)| norm.map_or(1.0, |norm| (f64::from(norm) / squares.sqrt()) as f32);
        Some(magnitudes.iter().zip(&squares).map(gain).collect())
    }

    fn scale(&self, values: &mut Array2<f32>, gains: &Array1<f32>, rows: Range<usize>) {
        match self {
            Self::Sum { out_in: true, .. } => *values *= &gains.slice(s![rows]).insert_axis(Axis(1)),
            _ => *values *= gains,
        }
    }
}
