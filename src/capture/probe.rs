//! Small batches that are run before any row counts.

use crate::calib::{Batch, EncoderTokens};
use ndarray::{Array2, Axis, s};

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
    let source = batch.source.as_ref().zip(source).map(|(source, length)| EncoderTokens {
        input_ids: first(&source.input_ids, length),
        attention_mask: Array2::ones((copies.len(), length)),
    });
    Batch {
        input_ids: first(&batch.input_ids, length),
        attention_mask: Array2::ones((copies.len(), length)),
        token_type_ids: batch.token_type_ids.as_ref().map(|ids| first(ids, length)),
        keep: Array2::from_elem((copies.len(), length), true),
        source,
        tensors: batch.tensors.iter().map(|(name, tensor)| (name.clone(), tensor.select(&copies))).collect(),
    }
}

/// The first sequence of a batch that keeps a token, without its padding.
pub(super) fn first_sequence(batch: &Batch) -> Batch {
    let at = batch.sequences().first().map_or(0, |&i| i as usize);
    let used = |mask: &Array2<i64>| mask.row(at).iter().rposition(|&m| m != 0).map_or(1, |last| last + 1);
    let length = used(&batch.attention_mask);
    let source = batch.source.as_ref().map(|source| {
        let part = s![at..=at, ..used(&source.attention_mask)];
        EncoderTokens {
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
        tensors: batch.tensors.iter().map(|(name, tensor)| (name.clone(), tensor.select(&[at]))).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::rows::sizes;
    use crate::capture::rows::tests::batch;

    #[test]
    fn probes_tell_decoders_from_encoders() {
        assert_eq!(sizes(&probe(&batch(1, 9, Some(9)))), (1, 6, Some(7)));
        let sizes = |length, source| sizes(&probe(&batch(3, length, source)));
        assert_eq!(sizes(9, None), (2, 7, None));
        assert_eq!(sizes(9, Some(9)), (2, 6, Some(7)));
        assert_eq!(sizes(4, Some(9)), (2, 4, Some(7)));
        assert_eq!(sizes(1, Some(1)), (2, 1, Some(1)));
    }
}
