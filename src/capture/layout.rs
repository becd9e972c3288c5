//! Which rows of a tensor belong to which tokens.

use crate::calib::{Batch, Source};
use ndarray::{Array2, Axis, s};

/// How the rows of a tensor relate to a batch of b sequences of s tokens, with an encoder of s' where there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Layout {
    /// b * s rows, one a token.
    Tokens,
    /// b * s' rows, one a token of the encoder.
    Source,
    /// b * n rows, n a sequence: poolers and heads (n = 1), patches of an image.
    PerSequence(usize),
    /// Any number of rows, chosen by a router: nobody knows which are which, and all count.
    Routed,
}

impl Layout {
    /// The layout of a tensor with this many rows; `None` when they cannot be told apart by sequence.
    pub(super) fn infer(rows: usize, batch: &Batch) -> Option<Self> {
        let (batch, length, source) = sizes(batch);
        match rows {
            r if r == batch * length => Some(Self::Tokens),
            r if source.is_some_and(|source| r == batch * source) => Some(Self::Source),
            r if r > 0 && r % batch == 0 => Some(Self::PerSequence(r / batch)),
            _ => None,
        }
    }

    /// Rows of a tensor of this layout; `None` when any number will do.
    pub(super) fn all(self, batch: &Batch) -> Option<usize> {
        let (batch, length, source) = sizes(batch);
        match self {
            Self::Tokens => Some(batch * length),
            Self::Source => Some(batch * source.unwrap_or(0)),
            Self::PerSequence(n) => Some(batch * n),
            Self::Routed => None,
        }
    }

    /// Whether a tensor of this layout may have so many rows.
    pub(super) fn allows(self, rows: usize, batch: &Batch) -> bool {
        self.all(batch).is_none_or(|all| all == rows)
    }

    /// Indices of the rows that enter the statistics: those of kept tokens, or of sequences with any; none if all do.
    pub(super) fn rows(self, batch: &Batch) -> Vec<i64> {
        match self {
            Self::Tokens => batch.rows(),
            Self::Source => batch.source.as_ref().map_or_else(Vec::new, |source| source.rows(&batch.sequences())),
            Self::PerSequence(n) => {
                let rows = |sequence: i64| (0..n as i64).map(move |i| sequence * n as i64 + i);
                batch.sequences().into_iter().flat_map(rows).collect()
            }
            Self::Routed => Vec::new(),
        }
    }
}

/// Sequences, tokens of each, and tokens of the encoder.
fn sizes(batch: &Batch) -> (usize, usize, Option<usize>) {
    let (sequences, length) = batch.input_ids.dim();
    (sequences, length, batch.source.as_ref().map(|source| source.input_ids.ncols()))
}

/// A small batch whose two sizes tell the layouts apart: two copies of a few tokens of the first sequence. A batch of one
/// sequence has one copy, since there are models that take no more.
///
/// With an encoder there is a third size, different from the others as far as the sequence is long enough.
pub(super) fn probe(batch: &Batch) -> Batch {
    const LENGTH: usize = 7;
    let source = batch.source.as_ref().map(|source| source.input_ids.ncols().min(LENGTH));
    let longest = batch.input_ids.ncols().min(LENGTH);
    let length = if source == Some(longest) && longest > 1 { longest - 1 } else { longest };
    let copies = vec![0; batch.input_ids.nrows().min(2)];
    let first = |ids: &Array2<i64>, length: usize| ids.slice(s![.., ..length]).select(Axis(0), &copies);
    let source = batch.source.as_ref().zip(source).map(|(source, length)| Source {
        input_ids: first(&source.input_ids, length),
        attention_mask: Array2::ones((copies.len(), length)),
    });
    Batch {
        input_ids: first(&batch.input_ids, length),
        attention_mask: Array2::ones((copies.len(), length)),
        token_type_ids: batch.token_type_ids.as_ref().map(|ids| first(ids, length)),
        keep: Array2::from_elem((copies.len(), length), true),
        source,
        tensors: batch.tensors.iter().map(|(name, tensor)| (name.clone(), tensor.select(Axis(0), &copies))).collect(),
    }
}

/// The first sequence of a batch that keeps a token, without its padding.
pub(super) fn first_sequence(batch: &Batch) -> Batch {
    let at = batch.sequences().first().map_or(0, |&i| i as usize);
    let used = |mask: &Array2<i64>| mask.row(at).iter().rposition(|&m| m != 0).map_or(1, |last| last + 1);
    let length = used(&batch.attention_mask);
    let source = batch.source.as_ref().map(|source| {
        let part = s![at..=at, ..used(&source.attention_mask)];
        Source {
            input_ids: source.input_ids.slice(part).to_owned(),
            attention_mask: source.attention_mask.slice(part).to_owned(),
        }
    });
    let part = s![at..=at, ..length];
    Batch {
        input_ids: batch.input_ids.slice(part).to_owned(),
        attention_mask: batch.attention_mask.slice(part).to_owned(),
        token_type_ids: batch.token_type_ids.as_ref().map(|ids| ids.slice(part).to_owned()),
        keep: batch.keep.slice(part).to_owned(),
        source,
        tensors: batch.tensors.iter().map(|(name, tensor)| (name.clone(), tensor.select(Axis(0), &[at]))).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(sequences: usize, length: usize, source: Option<usize>) -> Batch {
        let (ids, mask) = (Array2::zeros((sequences, length)), Array2::ones((sequences, length)));
        let source = source.map(|length| Source {
            input_ids: Array2::zeros((sequences, length)),
            attention_mask: Array2::ones((sequences, length)),
        });
        Batch {
            keep: mask.mapv(|m: i64| m == 1),
            attention_mask: mask,
            input_ids: ids,
            token_type_ids: None,
            source,
            tensors: Vec::new(),
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
    fn probes_tell_decoders_from_encoders() {
        assert_eq!(sizes(&probe(&batch(1, 9, Some(9)))), (1, 6, Some(7)));
        let sizes = |length, source| sizes(&probe(&batch(3, length, source)));
        assert_eq!(sizes(9, None), (2, 7, None));
        assert_eq!(sizes(9, Some(9)), (2, 6, Some(7)));
        assert_eq!(sizes(4, Some(9)), (2, 4, Some(7)));
        assert_eq!(sizes(1, Some(1)), (2, 1, Some(1)));
    }

    #[test]
    fn rows_follow_the_kept_tokens() {
        let mut batch = batch(2, 3, Some(2));
        batch.keep = ndarray::array![[true, false, true], [false, false, false]];
        assert_eq!(Layout::Tokens.rows(&batch), [0, 2]);
        assert_eq!(Layout::PerSequence(1).rows(&batch), [0]);
        assert_eq!(Layout::PerSequence(2).rows(&batch), [0, 1]);
        assert_eq!(Layout::Source.rows(&batch), [0, 1]);
        if let Some(source) = &mut batch.source {
            source.attention_mask[[0, 1]] = 0;
        }
        assert_eq!(Layout::Source.rows(&batch), [0]);
    }
}
