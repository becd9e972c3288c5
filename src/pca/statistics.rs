//! What the graph returns of one batch.

use ndarray::{Array1, Array2};
use serde::{Deserialize, Serialize};

/// Sizes of the sketch of one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SketchSize {
    /// Features d.
    pub features: usize,
    /// Components wanted, k.
    pub components: usize,
    /// Directions followed, l: about three times k, at most d, so that components that grow later are not lost.
    pub width: usize,
}

impl SketchSize {
    /// The sizes that find `components` components of `features` features.
    ///
    /// With the column of ones that the graph adds, the matrices have 3 k columns: products are fastest at multiples of
    /// 8.
    pub fn new(features: usize, components: usize) -> Self {
        let components = components.min(features);
        Self { features, components, width: (3 * components).saturating_sub(1).min(features) }
    }
}

/// Statistics of one batch of n rows of one group, on the basis `Q` in use.
///
/// With N rows of mean M before, `Y = (R - 1 M^T) Q` for the rows `R` [n, d], and `Z = (R - 1 M'^T)^T Y` with the mean
/// M' of all N + n rows. That is `Z = C Q`, where C is what the batch adds to the scatter matrix about the mean:
/// `X^T X - n^2 / (N + n) (m - M) (m - M)^T`, `X = R - 1 M^T` and m the mean of the batch (Chan et al. 1979). So the
/// drift of the mean is a part of the scatter, and any M will do as long as N = 0.
#[derive(Clone, Debug, PartialEq)]
pub struct SketchStats {
    /// Rows n.
    pub rows: usize,
    /// `Q^T Q` [l, l], measured because 32-bit rounding changes directions of little variance.
    pub qq: Array2<f64>,
    /// `Y^T Y` [l, l].
    pub yy: Array2<f64>,
    /// `Y^T 1` `[l]`.
    pub drift: Array1<f64>,
    /// `Z^T Z` [l, l], where `Z` is the sum over all batches since `Q` was made.
    pub zz: Array2<f64>,
    /// How far the mean of the rows is from M, m - M `[d]`.
    pub moved: Array1<f64>,
    /// Sum of the squares of all entries of `X = R - 1 M^T`.
    pub squares: f64,
    /// `Q^T Z` [l, l] where products with the rows are rounded to 16 bits, so that it differs from `Q^T C Q`: rounding
    /// errors of a dominant direction in `Z` can exceed the signal of weak ones, and do no harm only if they are known.
    pub qz: Option<Array2<f64>>,
    /// Products with the `Z` of the batch before, where the host is one batch late.
    pub previous: Option<PreviousProducts>,
    /// What was taken from the columns of `Q` and `Z`, so that the products are those of the rest.
    pub deflation: Option<Deflation>,
}

/// What the graph took from the columns of `Q` and `Z` to keep a direction of overwhelming variance, of which `q_1` is
/// the estimate, out of the others: `Q - q_1 c` is in the place of `Q`, and so `Z = C (Q - q_1 c)`, of which `Z - q_1 a`
/// is in the place of `Z`. The host computes with the columns of `Q` that the history belongs to and with all of `Z`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Deflation {
    /// `c` `[l]`, of which the first entry is 0.
    pub from_q: Array1<f64>,
    /// `a` `[l]`.
    pub from_z: Array1<f64>,
}

impl SketchStats {
    /// Trace of C, after `seen` rows.
    pub(super) fn trace(&self, seen: u64) -> f64 {
        let (seen, rows) = (seen as f64, self.rows as f64);
        let moved = self.moved.dot(&self.moved);
        (self.squares - rows * moved).max(0.0) + seen * rows / (seen + rows) * moved
    }

    /// Turns `yy` from `Y^T Y` into `Q^T C Q` [l, l], after `seen` rows.
    pub(super) fn centre(&mut self, seen: u64) {
        let all = (seen + self.rows as u64) as f64;
        for (mut row, &drift) in self.yy.rows_mut().into_iter().zip(&self.drift) {
            row.scaled_add(-drift / all, &self.drift);
        }
    }
}

/// Products with the `Z` of the batch before, `Z_previous`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PreviousProducts {
    /// `Q^T Z_previous` [l, l].
    pub q: Array2<f64>,
    /// `Z_previous^T Z` [l, l].
    pub z: Array2<f64>,
}
