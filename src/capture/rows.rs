//! Which rows of a tensor belong to which tokens, and which of them are kept.

use super::error::Error;
use crate::calib::Batch;
use serde::{Deserialize, Serialize};

/// How the rows of a tensor relate to a batch of b sequences of s tokens, with an encoder of s' where there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Layout {
    /// b * s rows, one a token.
    Tokens(Order),
    /// b * s' rows, one a token of the encoder.
    Source(Order),
    /// b * n rows, n a sequence: poolers and heads (n = 1), patches of an image.
    PerSequence(usize, Order),
    /// Any number of rows a sequence, as the frames of sounds of different lengths. All sequences count.
    All,
    /// Any number of rows, as those that a router chose. Their tokens are unknown, so all are kept.
    Unmatched,
}

/// How the rows of several sequences follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Order {
    /// All rows of a sequence, then those of the next: [batch, sequence, features].
    Sequences,
    /// The first row of every sequence, then the second of every one: [sequence, batch, features].
    Positions,
}

impl Order {
    /// Index of row `row` of sequence `sequence`, of `sequences` with `rows` each.
    fn index(self, (sequence, row): (i64, i64), (sequences, rows): (usize, usize)) -> i64 {
        match self {
            Self::Sequences => sequence * rows as i64 + row,
            Self::Positions => row * sequences as i64 + sequence,
        }
    }
}

impl Layout {
    /// The layout of a tensor with so many rows in each of some batches of different sizes; the first of those that fit
    /// all of them, with the rows of a sequence together.
    pub(super) fn infer(counts: &[(usize, &Batch)]) -> Self {
        let Some((rows, batch)) = counts.first() else { return Self::Unmatched };
        let (sequences, ..) = sizes(batch);
        let order = Order::Sequences;
        let mut known = vec![Self::Tokens(order)];
        known.extend(batch.encoder.as_ref().map(|_| Self::Source(order)));
        known.extend((*rows > 0).then(|| Self::PerSequence(rows / sequences, order)));
        let fits = |layout: &Self| counts.iter().all(|(rows, batch)| layout.allows(*rows, batch));
        known.into_iter().find(fits).unwrap_or(Self::Unmatched)
    }

    /// The same layout with the rows of several sequences in another order.
    pub(super) fn in_order(self, order: Order) -> Self {
        match self {
            Self::Tokens(_) => Self::Tokens(order),
            Self::Source(_) => Self::Source(order),
            Self::PerSequence(n, _) => Self::PerSequence(n, order),
            Self::All | Self::Unmatched => self,
        }
    }

    /// Whether a tensor may have any number of rows, which are all kept.
    pub(super) fn is_open(self) -> bool {
        matches!(self, Self::All | Self::Unmatched)
    }

    /// Number of rows of a tensor of this layout; `None` if there may be any number.
    pub(super) fn all(self, batch: &Batch) -> Option<usize> {
        let (batch, length, source) = sizes(batch);
        match self {
            Self::Tokens(_) => Some(batch * length),
            Self::Source(_) => Some(batch * source.unwrap_or(0)),
            Self::PerSequence(n, _) => Some(batch * n),
            Self::All | Self::Unmatched => None,
        }
    }

    /// Whether a tensor of this layout may have this many rows.
    pub(super) fn allows(self, rows: usize, batch: &Batch) -> bool {
        self.all(batch).is_none_or(|all| all == rows)
    }

    /// Indices of the kept rows: those of kept tokens, or of sequences that have any. Empty where all are kept, see
    /// [`is_open`](Self::is_open).
    pub(super) fn rows(self, batch: &Batch) -> Vec<i64> {
        let (sequences, length, source) = sizes(batch);
        let by_tokens = |rows: Vec<i64>, length: usize, order: Order| {
            let place = |row: i64| (row / length as i64, row % length as i64);
            rows.into_iter().map(|row| order.index(place(row), (sequences, length))).collect()
        };
        match self {
            Self::Tokens(order) => by_tokens(batch.rows(), length, order),
            Self::Source(order) => {
                let kept = batch.encoder.as_ref().map_or_else(Vec::new, |tokens| tokens.rows(&batch.sequences()));
                by_tokens(kept, source.unwrap_or(0), order)
            }
            Self::PerSequence(n, order) => {
                let rows = |sequence: i64| (0..n as i64).map(move |row| order.index((sequence, row), (sequences, n)));
                batch.sequences().into_iter().flat_map(rows).collect()
            }
            Self::All | Self::Unmatched => Vec::new(),
        }
    }
}

/// Sequences, tokens of each, and tokens of the encoder.
pub(super) fn sizes(batch: &Batch) -> (usize, usize, Option<usize>) {
    let (sequences, length) = batch.dim();
    (sequences, length, batch.encoder.as_ref().map(|tokens| tokens.attended.ncols()))
}

/// Which rows of the groups of a stack are kept in one run.
#[derive(Clone, Debug)]
pub(super) struct Choice {
    /// Indices of the kept rows of each tensor.
    pub(super) kept: Vec<Vec<i64>>,
    /// Number of rows of each tensor; `None` if the graph decides.
    pub(super) all: Vec<Option<usize>>,
}

impl Choice {
    /// One row of each tensor, or all where rows are masked.
    pub(super) fn probe(tensors: usize) -> Self {
        Self { kept: vec![vec![0]; tensors], all: vec![None; tensors] }
    }

    /// The rows of kept tokens or sequences.
    pub(super) fn of(layouts: &[Layout], batch: &Batch) -> Self {
        let kept = layouts.iter().map(|layout| layout.rows(batch)).collect();
        Self { kept, all: layouts.iter().map(|layout| layout.all(batch)).collect() }
    }

    /// Number of kept rows; `None` if the graph decides.
    pub(super) fn count(&self) -> Option<usize> {
        self.all.iter().all(Option::is_some).then(|| self.kept.iter().map(Vec::len).sum())
    }

    /// Whether each row of all tensors, one tensor after the other, is kept; one value for all if the graph decides.
    pub(super) fn mask(&self) -> Vec<bool> {
        let Some(_) = self.count() else { return vec![true] };
        let mut mask = Vec::new();
        for (kept, all) in self.kept.iter().zip(&self.all) {
            let from = mask.len();
            mask.resize(from + all.unwrap_or(0), false);
            kept.iter().for_each(|&row| mask[from + row as usize] = true);
        }
        mask
    }
}

/// Number of rows of a tensor of this shape.
pub(super) fn row_count(shape: &[i64]) -> usize {
    shape.split_last().map_or(0, |(_, outer)| outer.iter().product::<i64>().max(0) as usize)
}

/// The error of a tensor whose number of rows does not fit the batch.
pub(super) fn wrong_rows(tensor: &str, rows: usize, batch: &Batch) -> Error {
    let (batch, length) = batch.dim();
    Error::Rows { tensor: tensor.to_owned(), rows, batch, length }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::calib::Tokens;
    use ndarray::Array2;

    pub(crate) fn batch(sequences: usize, length: usize, source: Option<usize>) -> Batch {
        let tokens =
            |length| Tokens::new(Array2::zeros((sequences, length)), Array2::from_elem((sequences, length), true));
        Batch {
            encoder: source.map(tokens),
            keep: Array2::from_elem((sequences, length), true),
            ..Batch::of_tokens(tokens(length))
        }
    }

    #[track_caller]
    fn check(rows: usize, source: Option<usize>, layout: Layout) {
        let batch = batch(2, 7, source);
        assert_eq!(Layout::infer(&[(rows, &batch)]), layout);
        assert!(layout.allows(rows, &batch));
    }

    const TOGETHER: Order = Order::Sequences;

    #[test]
    fn sizes_tell_layouts_apart() {
        check(14, None, Layout::Tokens(TOGETHER));
        check(2, None, Layout::PerSequence(1, TOGETHER));
        check(10, None, Layout::PerSequence(5, TOGETHER));
        check(3, None, Layout::Unmatched);
        check(0, None, Layout::Unmatched);
        check(10, Some(5), Layout::Source(TOGETHER));
        check(14, Some(5), Layout::Tokens(TOGETHER));
        check(2, Some(5), Layout::PerSequence(1, TOGETHER));
    }

    #[test]
    fn a_second_size_tells_tokens_from_what_is_as_long() {
        let (batch, shorter) = (batch(2, 8, Some(8)), batch(2, 4, Some(3)));
        let infer = |rows: usize| Layout::infer(&[(16, &batch), (rows, &shorter)]);
        assert_eq!(infer(8), Layout::Tokens(TOGETHER));
        assert_eq!(infer(6), Layout::Source(TOGETHER));
        assert_eq!(infer(16), Layout::PerSequence(8, TOGETHER));
        assert_eq!(infer(10), Layout::Unmatched);
    }

    #[test]
    fn any_rows_may_be_unmatched() {
        let batch = batch(2, 7, None);
        assert!(Layout::Unmatched.allows(0, &batch) && Layout::Unmatched.allows(5, &batch));
        assert!(!Layout::Tokens(TOGETHER).allows(5, &batch) && !Layout::PerSequence(3, TOGETHER).allows(7, &batch));
    }

    #[test]
    fn rows_follow_the_kept_tokens() {
        let mut batch = batch(2, 3, Some(2));
        batch.keep = ndarray::array![[true, false, true], [false, false, false]];
        let rows = |layout: Layout, batch: &Batch| [TOGETHER, Order::Positions].map(|o| layout.in_order(o).rows(batch));
        assert_eq!(rows(Layout::Tokens(TOGETHER), &batch), [[0, 2], [0, 4]]);
        assert_eq!(rows(Layout::PerSequence(1, TOGETHER), &batch), [[0], [0]]);
        assert_eq!(rows(Layout::PerSequence(2, TOGETHER), &batch), [[0, 1], [0, 2]]);
        assert_eq!(rows(Layout::Source(TOGETHER), &batch), [[0, 1], [0, 2]]);
        if let Some(tokens) = &mut batch.encoder {
            tokens.attended[[0, 1]] = false;
        }
        assert_eq!(Layout::Source(TOGETHER).rows(&batch), [0]);
    }
}
