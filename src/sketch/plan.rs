//! What a subgraph is built from.

use crate::pca::{Precision, SketchSize};

/// Added to the mean of the squares of a piece of a row before the root is taken, so that nothing is divided by 0. Its
/// inverse is a 32-bit float as well.
pub(super) const EPSILON: f32 = 1e-37;

/// Number of symmetric products in [`Ports::statistics`](super::Ports::statistics), which come first.
pub(super) const SYMMETRIC: usize = 3;

/// How rows that are not kept stay out of the statistics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rows {
    /// All rows are kept, however many there are; the stack has one group.
    All,
    /// Kept rows are gathered.
    Gathered,
    /// The others are masked in `Y`. They must be finite.
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
    /// How rows that are not kept stay out.
    pub rows: Rows,
    /// Number of groups that share the products with their rows, which are copied side by side for that.
    pub joined: usize,
    /// Precision of the products with the rows.
    pub precision: Precision,
    /// Whether the mean is taken from the rows themselves, by one more pass over them, so that rows far from the origin
    /// keep their digits. Otherwise it is taken from `Y`.
    pub centred: bool,
    /// Whether the host is one batch late, and needs products with the `Z` before, see
    /// [`Ports::previous`](super::Ports::previous).
    pub late: bool,
    /// Whether `Z` may be added to that of the batch before, see [`Ports::keep`](super::Ports::keep).
    pub accumulates: bool,
    /// Sums over features are taken in pieces of this many, a divisor of d: a GPU is slow at long sums.
    pub piece: usize,
    /// Sizes d and l.
    pub size: SketchSize,
}

impl Plan {
    /// Whether products with the rows are of 16 bits.
    pub(super) fn in_half(&self) -> bool {
        self.precision == Precision::F16
    }

    /// Whether one direction of overwhelming variance can be kept apart from the others: the host has to know what was
    /// taken from the columns before it makes the next rotation.
    pub(super) fn deflates(&self) -> bool {
        self.centred && !self.late
    }

    /// Number of pieces.
    pub(super) fn pieces(&self) -> usize {
        self.size.features / self.piece
    }

    /// Number of products in [`Ports::statistics`](super::Ports::statistics).
    pub(super) fn products(&self) -> usize {
        SYMMETRIC + if self.late { 2 } else { 0 } + usize::from(self.in_half())
    }

    /// Columns of the matrices, l + 1.
    pub fn columns(&self) -> usize {
        columns(self.size)
    }
}

/// Columns of the matrices, l + 1: the directions and a column of ones.
pub fn columns(size: SketchSize) -> usize {
    size.width + 1
}

/// What the mean squares of this many pieces of rows add up to if all rows are 0.
pub fn squares_of_nothing(pieces: usize) -> f64 {
    pieces as f64 * f64::from(EPSILON)
}

/// Entries of the lower triangle of a matrix [l + 1, l + 1].
pub fn triangle(size: SketchSize) -> usize {
    columns(size) * (columns(size) + 1) / 2
}
