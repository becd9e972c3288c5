//! Batches that are not decomposed yet.

use super::basis::Rotation;
use super::dense;
use super::statistics::{PreviousProducts, SketchStats};
use faer::Mat;
use ndarray::{Array1, Array2};

/// One or several batches seen on the same basis, with their scatter `C` about the mean.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    pub(super) rows: u64,
    pub(super) batches: u32,
    /// Trace of `C`.
    pub(super) squares: f64,
    qq: Array2<f64>,
    /// `Q^T C Q`.
    qcq: Array2<f64>,
    pub(super) zz: Array2<f64>,
    /// `Q^T Z` where that is not `Q^T C Q`.
    qz: Option<Array2<f64>>,
    previous: Option<PreviousProducts>,
}

/// Products of the matrices of a basis `[Q Z]`, and `Q^T C Q` of the `Q` that `Z = C Q` was made with, all [l, l].
pub(super) struct Grams {
    pub(super) qq: Mat<f64>,
    pub(super) qz: Mat<f64>,
    pub(super) zz: Mat<f64>,
    pub(super) qcq: Mat<f64>,
}

impl Pending {
    /// One batch after `seen` rows of mean `before`.
    pub(super) fn of(mut batch: SketchStats, seen: u64, before: &Array1<f64>) -> Self {
        let squares = batch.trace(seen, before);
        batch.centre(seen);
        let SketchStats { rows, qq, yy: qcq, zz, qz, previous, .. } = batch;
        Self { rows: rows as u64, batches: 1, squares, qq, qcq, zz, qz, previous }
    }

    /// Adds the batches before this one on the same basis. `Z` is the sum over all of them already.
    pub(super) fn add(&mut self, earlier: &Self) {
        self.rows += earlier.rows;
        self.batches += earlier.batches;
        self.squares += earlier.squares;
        self.qcq += &earlier.qcq;
    }

    /// Products of the basis that the batches were seen on.
    pub(super) fn grams(&self) -> Grams {
        let to_mat = dense::to_mat;
        Grams { qq: to_mat(&self.qq), qz: to_mat(self.qz()), zz: to_mat(&self.zz), qcq: to_mat(&self.qcq) }
    }

    /// Products of the basis `[Q T, Z]` that the next batch is seen on, where `T` is the rotation of `[Q Z_previous]`
    /// that is in use, and `Z_previous^T Z_previous` is given.
    pub(super) fn grams_after(&self, rotation: &Rotation, zz_previous: &Array2<f64>) -> Grams {
        let Some(PreviousProducts { q: q_previous, z: previous_z }) = &self.previous else { return self.grams() };
        let Rotation { q, z } = rotation;
        let rotation = dense::stacked(q, z);
        let by_q = dense::stacked(&self.qq, &q_previous.t());
        let by_z = dense::stacked(q_previous, zz_previous);
        let products = by_q * dense::to_mat(q) + by_z * dense::to_mat(z);
        Grams {
            qq: rotation.transpose() * products,
            qz: rotation.transpose() * dense::stacked(self.qz(), previous_z),
            zz: dense::to_mat(&self.zz),
            qcq: dense::to_mat(&self.qcq),
        }
    }

    fn qz(&self) -> &Array2<f64> {
        self.qz.as_ref().unwrap_or(&self.qcq)
    }
}
