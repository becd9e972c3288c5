//! What a subgraph is asked to do.

use crate::pca::{Precision, SketchSize};

/// Added to the mean of the squares of a piece of a row before the root is taken, so that none is divided by nothing.
pub(super) const EPSILON: f32 = 1e-30;

/// The first so many of [`Ports::statistics`] are symmetric.
pub(super) const SYMMETRIC: usize = 3;

/// How rows that do not count are left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// Every row counts, however many there are; then there is one group.
    All,
    /// Those that count are gathered.
    Gathered,
    /// Those that do not are masked where they are small. They must be finite all the same.
    Masked,
}

/// What one subgraph is built from.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Number of the subgraph, used in the new names.
    pub number: usize,
    /// The groups of the stack; per group the tensors whose rows form `R`. Their last axis has the features of `size`.
    /// All groups of a stack have as many rows.
    pub groups: Vec<Vec<String>>,
    /// For each group, how many groups of all stacks come before it in the model.
    pub order: Vec<usize>,
    /// Which rows count.
    pub rows: Rows,
    /// So many groups share the products with their rows, which are copied side by side for it.
    pub joined: usize,
    /// Precision of the products with the rows.
    pub precision: Precision,
    /// Whether the host is one batch late, and needs products with the `Z` before, see
    /// [`Ports::previous`](super::Ports::previous).
    pub late: bool,
    /// Whether `Z` may be added to that of the batch before, see [`Ports::keep`](super::Ports::keep).
    pub accumulates: bool,
    /// Sums over features are taken in pieces of so many, a divisor of d: a GPU is slow at long ones.
    pub piece: usize,
    /// Sizes d and l.
    pub size: SketchSize,
}

impl Plan {
    /// Whether products with the rows are of 16 bits.
    pub(super) fn in_half(&self) -> bool {
        self.precision == Precision::F16
    }

    /// Pieces of d features.
    pub(super) fn pieces(&self) -> usize {
        self.size.features / self.piece
    }

    /// Products of l + 1 columns with each other in [`Ports::statistics`].
    pub(super) fn products(&self) -> usize {
        SYMMETRIC + if self.late { 2 } else { 0 } + usize::from(self.in_half())
    }

    /// Columns of the matrices: the directions, and one of ones.
    pub fn columns(&self) -> usize {
        columns(self.size)
    }
}

/// Columns of the matrices: the directions, and one of ones.
pub fn columns(size: SketchSize) -> usize {
    size.width + 1
}

/// What the squares of rows that are 0 add up to, for so many pieces of rows.
pub fn squares_of_nothing(pieces: usize) -> f64 {
    pieces as f64 * f64::from(EPSILON)
}

/// Numbers in the lower triangle of a square of so many columns.
pub fn triangle(size: SketchSize) -> usize {
    columns(size) * (columns(size) + 1) / 2
}
