//! What goes between the graph and the host: statistics of a batch, and what the next directions are made of.

use ndarray::{Array1, Array2};

/// How many times the deviation of another component that of the first may be, for the other not to be lost in what rounding
/// in the graph leaves of the first.
pub const RANGE: f64 = 512.0;

/// How the graph rounds the factors of its products; sums are in 32 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Factors {
    /// Not at all: 24 bits.
    #[default]
    F32,
    /// Those of products with the rows, and the results, are of 16 bits, which hold 11; others are not rounded.
    Half,
}

impl Factors {
    /// Smallest scale of a basis column, as a share of the largest. Less would enlarge what rounding leaves of the leading
    /// directions in the others, beyond the range of 16 bits.
    pub(super) fn min_scale(self) -> f64 {
        match self {
            Self::F32 => 1e-3,
            Self::Half => 1.0 / 64.0,
        }
    }

    /// Smallest pivot of the correlation matrix of the sketch columns that is used: the rounding of their image is
    /// enlarged by its inverse root.
    pub fn min_pivot(self) -> f64 {
        match self {
            Self::F32 => 1e-5,
            Self::Half => 1e-3,
        }
    }

    /// Share of the total variance below which a direction counts as empty; it stays a direction all the same.
    ///
    /// Directions are rounded like all factors, which leaves traces of the leading ones in the others: the square of
    /// 2^-12 is their share of the variance.
    pub(super) fn empty(self) -> f64 {
        match self {
            Self::F32 => 1e-10,
            Self::Half => 6e-8,
        }
    }
}

/// Sizes of the sketch of one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SketchSize {
    /// Features d.
    pub features: usize,
    /// Directions wanted, k.
    pub components: usize,
    /// Directions followed, l: about three times k, at most all, so that what rises later is not lost.
    pub width: usize,
}

impl SketchSize {
    /// The sizes that find `components` directions of `features`.
    ///
    /// With the column of ones that the graph adds, the matrices have 3 k columns, which products like to be a multiple
    /// of 8.
    pub fn new(features: usize, components: usize) -> Self {
        let components = components.min(features);
        Self { features, components, width: (3 * components).saturating_sub(1).min(features) }
    }
}

/// The matrices that the directions after a batch are made of.
#[derive(Clone, Debug, PartialEq)]
pub struct Basis {
    /// The directions that the batch was seen in, `Q` [d, l].
    pub q: Array2<f32>,
    /// Their image under the scatter matrix of the batch, or of all batches since `Q` was made, `Z` [d, l].
    pub z: Array2<f32>,
}

/// How the directions after a batch are made: `Q rotation.q + Z rotation.z`.
#[derive(Clone, Debug, PartialEq)]
pub struct Rotation {
    /// Factor of `Q` [l, l].
    pub q: Array2<f64>,
    /// Factor of `Z` [l, l].
    pub z: Array2<f64>,
}

impl Rotation {
    /// Leaves `Q` as it is.
    pub(super) fn none(width: usize) -> Self {
        Self { q: Array2::eye(width), z: Array2::zeros((width, width)) }
    }
}

/// What one batch of n rows tells about one group, on the [`Basis`] in use.
///
/// With N rows of mean M seen before, `Y = (R - 1 M^T) Q` for the rows `R` [n, d], and `Z = (R - 1 M'^T)^T Y` with the
/// mean M' of all N + n rows. That is `Z = C Q`, where C is what the batch adds to the scatter matrix about the mean:
/// `X^T X - n^2 / (N + n) (m - M) (m - M)^T`, `X = R - 1 M^T` and m the mean of the batch (Chan et al. 1979). So the
/// drift of the mean is a part of the scatter, and M need not be known well as long as N = 0.
#[derive(Clone, Debug, PartialEq)]
pub struct SketchStats {
    /// Rows n.
    pub rows: usize,
    /// `Q^T Q` [l, l]: what directions with less variance than 32-bit rounding really are.
    pub qq: Array2<f64>,
    /// `Y^T Y` [l, l].
    pub yy: Array2<f64>,
    /// `Y^T 1` `[l]`.
    pub drift: Array1<f64>,
    /// `Z^T Z` [l, l], with the images of all batches since `Q` was made in `Z`.
    pub zz: Array2<f64>,
    /// Mean of the rows, m `[d]`.
    pub mean: Array1<f64>,
    /// Sum of the squares of all entries of `R`.
    pub squares: f64,
    /// `Q^T Z` [l, l] where products with the rows are rounded to 16 bits, which makes it another than `Q^T C Q`: of a
    /// direction with hundreds of times the deviation of others, rounding leaves more in their images than they have
    /// themselves. That does no harm as long as it is known.
    pub qz: Option<Array2<f64>>,
    /// Products with the image of the batch before, for [`StreamingPca::catch_up`](super::StreamingPca::catch_up).
    pub before: Option<Before>,
}

impl SketchStats {
    /// Trace of C, `seen` rows of mean `before` in.
    pub(super) fn trace(&self, seen: u64, before: &Array1<f64>) -> f64 {
        let (seen, rows) = (seen as f64, self.rows as f64);
        let within = self.squares - rows * self.mean.dot(&self.mean);
        let moved = &self.mean - before;
        within.max(0.0) + seen * rows / (seen + rows) * moved.dot(&moved)
    }

    /// Makes `Q^T C Q` [l, l] of `Y^T Y`, `seen` rows in.
    pub(super) fn centre(&mut self, seen: u64) {
        let all = (seen + self.rows as u64) as f64;
        for (mut row, &drift) in self.yy.rows_mut().into_iter().zip(&self.drift) {
            row.scaled_add(-drift / all, &self.drift);
        }
    }
}

/// Products with the image of the batch before, `Z_before`.
#[derive(Clone, Debug, PartialEq)]
pub struct Before {
    /// `Q^T Z_before` [l, l].
    pub q: Array2<f64>,
    /// `Z_before^T Z` [l, l].
    pub z: Array2<f64>,
}
