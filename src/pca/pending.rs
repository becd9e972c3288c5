//! Batches that are not decomposed yet.

use super::basis::Rotation;
use super::dense;
use super::precision::Precision;
use super::statistics::{Deflation, PreviousProducts, SketchStats};
use faer::Mat;
use ndarray::Array2;
use serde::{Deserialize, Serialize};

/// One or several batches seen on the same basis, with their scatter `C` about the mean.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Pending {
    pub(super) rows: u64,
    pub(super) batches: u32,
    /// Trace of `C`.
    pub(super) squares: f64,
    /// Sum of the squared lengths of the rows that were projected.
    lengths: f64,
    /// `Y^T Y`, from which the mean is not taken.
    yy: Array2<f64>,
    qq: Array2<f64>,
    /// `Q^T C Q`.
    qcq: Array2<f64>,
    pub(super) zz: Array2<f64>,
    /// `Q^T Z` where that is not `Q^T C Q`.
    qz: Option<Array2<f64>>,
    previous: Option<PreviousProducts>,
    pub(super) deflation: Option<Deflation>,
}

/// Products of the matrices of a basis `[Q Z]`, and `Q^T C Q` of the `Q` that `Z = C Q` was made with, all [l, l].
pub(super) struct Grams {
    pub(super) qq: Mat<f64>,
    pub(super) qz: Mat<f64>,
    pub(super) zz: Mat<f64>,
    pub(super) qcq: Mat<f64>,
    /// For each column of that `Q`: its squared length times those of all rows, and the squared length of its column of
    /// `Y`. What is small beside them may be rounding alone.
    pub(super) beside: Vec<(f64, f64)>,
}

impl Grams {
    /// What may be rounding alone in each entry of the diagonal of `Q^T C Q`: of the products `X q_j`, and of `y_j` when
    /// the mean is taken from it.
    pub(super) fn noise(&self, precision: Precision) -> Vec<f64> {
        let noise = precision.noise();
        self.beside.iter().map(|(rows, column)| noise.powi(2) * rows + noise * column).collect()
    }

    /// The products of `Q` and `Z`, from those of what was left of their columns. That `Z` was made with what was left of
    /// `Q`, `C` is still measured on.
    fn whole(mut self, Deflation { from_q, from_z }: &Deflation) -> Self {
        let first = |a: &Mat<f64>| (0..a.ncols()).map(|j| a[(0, j)]).collect::<Vec<f64>>();
        let (qq, qz) = (first(&self.qq), first(&self.qz));
        let along = |j: usize| qz[j] - qq[0] * from_z[j];
        for j in 0..qq.len() {
            for i in 0..qq.len() {
                self.qq[(i, j)] += from_q[i] * qq[j] + qq[i] * from_q[j] + from_q[i] * from_q[j] * qq[0];
                self.zz[(i, j)] += from_z[i] * along(j) + along(i) * from_z[j] + from_z[i] * from_z[j] * qq[0];
                self.qz[(i, j)] += from_q[i] * qz[j];
            }
        }
        self
    }
}

impl Pending {
    /// One batch after `seen` rows.
    pub(super) fn of(mut batch: SketchStats, seen: u64) -> Self {
        let (squares, lengths, yy) = (batch.trace(seen), batch.squares, batch.yy.clone());
        batch.centre(seen);
        let SketchStats { rows, qq, yy: qcq, zz, qz, previous, deflation, .. } = batch;
        Self { rows: rows as u64, batches: 1, squares, lengths, yy, qq, qcq, zz, qz, previous, deflation }
    }

    /// Whether all matrices have this size.
    pub(super) fn is_sound(&self, l: usize) -> bool {
        let square = |a: &Array2<f64>| a.dim() == (l, l);
        let always = [&self.yy, &self.qq, &self.qcq, &self.zz].into_iter().all(square);
        let deflated = |Deflation { from_q, from_z }: &Deflation| from_q.len() == l && from_z.len() == l;
        always
            && self.qz.as_ref().is_none_or(square)
            && self.previous.as_ref().is_none_or(|previous| square(&previous.q) && square(&previous.z))
            && self.deflation.as_ref().is_none_or(deflated)
    }

    /// Adds the batches before this one on the same basis. `Z` is the sum over all of them already.
    pub(super) fn add(&mut self, earlier: &Self) {
        self.rows += earlier.rows;
        self.batches += earlier.batches;
        self.squares += earlier.squares;
        self.lengths += earlier.lengths;
        self.yy += &earlier.yy;
        self.qcq += &earlier.qcq;
        // Nothing is taken from a basis that is kept.
        self.deflation = earlier.deflation.clone();
    }

    /// Products of the basis that the batches were seen on.
    pub(super) fn grams(&self) -> Grams {
        let to_mat = dense::to_mat;
        let grams = Grams {
            qq: to_mat(&self.qq),
            qz: to_mat(self.qz()),
            zz: to_mat(&self.zz),
            qcq: to_mat(&self.qcq),
            beside: self.beside(),
        };
        match &self.deflation {
            Some(deflation) => grams.whole(deflation),
            None => grams,
        }
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
            beside: self.beside(),
        }
    }

    /// Products of the complete basis `Q T` that the next batch is seen on, where `T` is the rotation in use, and `C` on
    /// it: there `Z` is not needed.
    pub(super) fn grams_turned(&self, rotation: &Rotation) -> Grams {
        let turn = dense::to_mat(&rotation.q);
        let turned = |a: Mat<f64>| turn.transpose() * a * &turn;
        let Grams { qq, qcq, zz, .. } = self.grams();
        let (qq, qcq, yy) = (turned(qq), turned(qcq), turned(dense::to_mat(&self.yy)));
        let beside = (0..qq.ncols()).map(|j| (self.lengths * qq[(j, j)], yy[(j, j)])).collect();
        Grams { qq, qz: qcq.clone(), zz, qcq, beside }
    }

    fn beside(&self) -> Vec<(f64, f64)> {
        let (qq, yy) = (self.qq.diag(), self.yy.diag());
        qq.iter().zip(&yy).map(|(q, y)| (self.lengths * q, *y)).collect()
    }

    fn qz(&self) -> &Array2<f64> {
        self.qz.as_ref().unwrap_or(&self.qcq)
    }
}
