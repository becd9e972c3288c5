//! Which rows of a tensor belong to which tokens, and which of them are kept.

use super::error::Error;
use crate::calib::Batch;

/// How the rows of a tensor relate to a batch of b sequences of s tokens, with an encoder of s' where there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Layout {
    /// b * s rows, one a token.
    Tokens,
    /// b * s' rows, one a token of the encoder.
    Source,
    /// b * n rows, n a sequence: poolers and heads (n = 1), patches of an image.
    PerSequence(usize),
    /// Any number of rows, chosen by a router. Their tokens are unknown, so all are kept.
    Routed,
}

impl Layout {
    /// The layout of a tensor with this many rows; `None` if it is not a multiple of the sequences.
    pub(super) fn infer(rows: usize, batch: &Batch) -> Option<Self> {
        let (batch, length, source) = sizes(batch);
        match rows {
            r if r == batch * length => Some(Self::Tokens),
            r if source.is_some_and(|source| r == batch * source) => Some(Self::Source),
            r if r > 0 && r % batch == 0 => Some(Self::PerSequence(r / batch)),
            _ => None,
        }
    }

    /// Number of rows of a tensor of this layout; `None` if there may be any number.
    pub(super) fn all(self, batch: &Batch) -> Option<usize> {
        let (batch, length, source) = sizes(batch);
        match self {
            Self::Tokens => Some(batch * length),
            Self::Source => Some(batch * source.unwrap_or(0)),
            Self::PerSequence(n) => Some(batch * n),
            Self::Routed => None,
        }
    }

    /// Whether a tensor of this layout may have this many rows.
    pub(super) fn allows(self, rows: usize, batch: &Batch) -> bool {
        self.all(batch).is_none_or(|all| all == rows)
    }

    /// Indices of the kept rows: those of kept tokens, or of sequences that have any. Empty for
    /// [`Routed`](Self::Routed).
    pub(super) fn rows(self, batch: &Batch) -> Vec<i64> {
        match self {
            Self::Tokens => batch.rows(),
            Self::Source => batch.encoder.as_ref().map_or_else(Vec::new, |tokens| tokens.rows(&batch.sequences())),
            Self::PerSequence(n) => {
                let rows = |sequence: i64| (0..n as i64).map(move |i| sequence * n as i64 + i);
                batch.sequences().into_iter().flat_map(rows).collect()
            }
            Self::Routed => Vec::new(),
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
    fn check(rows: usize, source: Option<usize>, layout: Option<Layout>) {
        let batch = batch(2, 7, source);
        assert_eq!(Layout::infer(rows, &batch), layout);
        assert!(layout.is_none_or(|layout| layout.allows(rows, &batch)));
    }

    #[test]
    fn sizes_tell_layouts_apart() {
        check(14, None, Some(Layout::Tokens));
        check(2, None, Some(Layout::PerSequence(1)));
        check(10, None, Some(Layout::PerSequence(5)));
        check(3, None, None);
        check(0, None, None);
        check(10, Some(5), Some(Layout::Source));
        check(14, Some(5), Some(Layout::Tokens));
        check(2, Some(5), Some(Layout::PerSequence(1)));
    }

    #[test]
    fn any_rows_may_be_routed() {
        let batch = batch(2, 7, None);
        assert!(Layout::Routed.allows(0, &batch) && Layout::Routed.allows(5, &batch));
        assert!(!Layout::Tokens.allows(5, &batch) && !Layout::PerSequence(3).allows(7, &batch));
    }

    #[test]
    fn rows_follow_the_kept_tokens() {
        let mut batch = batch(2, 3, Some(2));
        batch.keep = ndarray::array![[true, false, true], [false, false, false]];
        assert_eq!(Layout::Tokens.rows(&batch), [0, 2]);
        assert_eq!(Layout::PerSequence(1).rows(&batch), [0]);
        assert_eq!(Layout::PerSequence(2).rows(&batch), [0, 1]);
        assert_eq!(Layout::Source.rows(&batch), [0, 1]);
        if let Some(tokens) = &mut batch.encoder {
            tokens.attended[[0, 1]] = false;
        }
        assert_eq!(Layout::Source.rows(&batch), [0]);
    }
}
