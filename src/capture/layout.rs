//! Which rows of a tensor belong to which tokens.

use crate::calib::Batch;
use ndarray::{Array2, s};

/// How the rows of a tensor relate to a batch of b sequences of s tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Layout {
    /// b * s rows, one a token.
    Tokens,
    /// b * n rows, n a sequence: poolers and heads (n = 1), patches of an image.
    PerSequence(usize),
    /// Any number of rows, chosen by a router: nobody knows which are which, and all count.
    Routed,
}

impl Layout {
    /// The layout of a tensor with this many rows; `None` when they cannot be told apart by sequence.
    pub(super) fn infer(rows: usize, batch: usize, length: usize) -> Option<Self> {
        match rows {
            r if r == batch * length => Some(Self::Tokens),
            r if r > 0 && r % batch == 0 => Some(Self::PerSequence(r / batch)),
            _ => None,
        }
    }

    /// Whether a tensor of this layout may have so many rows.
    pub(super) fn allows(self, rows: usize, batch: usize, length: usize) -> bool {
        match self {
            Self::Tokens => rows == batch * length,
            Self::PerSequence(n) => rows == batch * n,
            Self::Routed => true,
        }
    }

    /// Indices of the rows that enter the statistics: those of kept tokens, or of sequences with any; none if all do.
    pub(super) fn rows(self, batch: &Batch) -> Vec<i64> {
        match self {
            Self::Tokens => batch.rows(),
            Self::PerSequence(n) => {
                let rows = |sequence: i64| (0..n as i64).map(move |i| sequence * n as i64 + i);
                batch.sequences().into_iter().flat_map(rows).collect()
            }
            Self::Routed => Vec::new(),
        }
    }
}

/// A small batch whose two sizes tell the layouts apart: two copies of a few tokens of the first sequence.
pub(super) fn probe(batch: &Batch) -> Batch {
    const LENGTH: usize = 7;
    let length = batch.input_ids.ncols().min(LENGTH);
    let twice = |a: &Array2<i64>| {
        let row = a.slice(s![..1, ..length]);
        ndarray::concatenate![ndarray::Axis(0), row, row]
    };
    Batch {
        input_ids: twice(&batch.input_ids),
        attention_mask: Array2::ones((2, length)),
        token_type_ids: batch.token_type_ids.as_ref().map(twice),
        keep: Array2::from_elem((2, length), true),
    }
}

/// The first sequence of a batch that keeps a token, without its padding.
pub(super) fn first_sequence(batch: &Batch) -> Batch {
    let at = batch.sequences().first().map_or(0, |&i| i as usize);
    let length = batch.attention_mask.row(at).iter().rposition(|&m| m != 0).map_or(1, |last| last + 1);
    let part = s![at..=at, ..length];
    Batch {
        input_ids: batch.input_ids.slice(part).to_owned(),
        attention_mask: batch.attention_mask.slice(part).to_owned(),
        token_type_ids: batch.token_type_ids.as_ref().map(|ids| ids.slice(part).to_owned()),
        keep: batch.keep.slice(part).to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_tell_layouts_apart() {
        assert_eq!(Layout::infer(14, 2, 7), Some(Layout::Tokens));
        assert_eq!(Layout::infer(2, 2, 7), Some(Layout::PerSequence(1)));
        assert_eq!(Layout::infer(10, 2, 7), Some(Layout::PerSequence(5)));
        assert_eq!(Layout::infer(3, 2, 7), None);
        assert_eq!(Layout::infer(0, 2, 7), None);
    }

    #[test]
    fn any_rows_may_be_routed() {
        assert!(Layout::Routed.allows(0, 2, 7) && Layout::Routed.allows(5, 2, 7));
        assert!(Layout::Tokens.allows(14, 2, 7) && !Layout::Tokens.allows(5, 2, 7));
        assert!(Layout::PerSequence(3).allows(6, 2, 7) && !Layout::PerSequence(3).allows(7, 2, 7));
    }

    #[test]
    fn rows_follow_the_kept_tokens() {
        let keep = ndarray::array![[true, false, true], [false, false, false]];
        let zeros = Array2::zeros((2, 3));
        let batch = Batch { input_ids: zeros.clone(), attention_mask: zeros, token_type_ids: None, keep };
        assert_eq!(Layout::Tokens.rows(&batch), [0, 2]);
        assert_eq!(Layout::PerSequence(1).rows(&batch), [0]);
        assert_eq!(Layout::PerSequence(2).rows(&batch), [0, 1]);
    }
}
