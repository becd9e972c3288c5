//! Small batches that are run before any row enters the statistics.

use crate::calib::Batch;

/// A small batch in which each layout has another number of rows: two copies of a few tokens of the first sequence; one
/// copy if the batch has one sequence, since some models take no more.
///
/// With an encoder there is a third size, different from the others if the sequence is long enough.
pub(super) fn probe(batch: &Batch) -> Batch {
    const LENGTH: usize = 7;
    let (sequences, longest) = batch.dim();
    let longest = longest.min(LENGTH);
    let encoder = batch.encoder.as_ref().map(|tokens| tokens.attended.ncols().min(LENGTH));
    let length = if encoder == Some(longest) && longest > 1 { longest - 1 } else { longest };
    let mut probe = batch.part(&vec![0; sequences.min(2)], length, encoder.unwrap_or(0));
    probe.tokens.attended.fill(true);
    if let Some(tokens) = &mut probe.encoder {
        tokens.attended.fill(true);
    }
    probe.keep.fill(true);
    probe
}

/// The first sequence of a batch that keeps a token, without its padding.
pub(super) fn first_sequence(batch: &Batch) -> Batch {
    let at = batch.sequences().first().map_or(0, |&i| i as usize);
    let encoder = batch.encoder.as_ref().map_or(0, |tokens| tokens.used(at));
    batch.part(&[at], batch.tokens.used(at), encoder)
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
