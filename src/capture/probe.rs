//! Batches that are run before any row enters the statistics, made of the rows of a batch of the data.

use crate::calib::{Batch, NamedTensor, Tokens};
use crate::tensor::Tensor;
use ndarray::{Array2, ArrayView1};

/// Tokens of a sequence in the batches that are run first, where the model takes any number.
const LENGTH: usize = 32;

/// Two batches of equal sizes to compare. Rows of the tokens that both keep may not differ.
pub(super) struct Pair {
    pub(super) one: Batch,
    pub(super) other: Batch,
}

/// The batches that a capture runs beside those of the data, as far as these tell.
pub(crate) fn foreseen(batches: impl IntoIterator<Item = Batch>, fixed: bool) -> Vec<Batch> {
    let (mut found, mut order, mut padding) = (Vec::new(), false, false);
    for batch in batches {
        if found.is_empty() {
            let few = few(&batch, fixed);
            let few = cut(&few).filter(|_| !fixed && !batch.varied).unwrap_or(few);
            found.extend(shorter(&few).filter(|_| !fixed));
            found.extend([few, first_sequence(&batch)]);
        }
        if !order {
            let pair = cut(&batch).and_then(|short| other_sequences(&short, fixed));
            let pair = pair.or_else(|| other_sequences(&batch, fixed));
            order = pair.is_some();
            found.extend(pair.into_iter().flat_map(|pair| [pair.one, pair.other]));
        }
        if !padding {
            let pair = cut_with_padding(&batch)
                .map_or_else(|| other_padding(&batch, fixed), |short| other_padding(&short, fixed));
            padding = pair.is_some();
            found.extend(pair.into_iter().flat_map(|pair| [pair.one, pair.other]));
        }
        if order && padding {
            break;
        }
    }
    found
}

/// The first tokens of all sequences, as many as probes need; `None` if there are no more.
pub(super) fn cut(batch: &Batch) -> Option<Batch> {
    let first = |tokens: &Tokens| LENGTH.next_multiple_of(tokens.step.max(1)).min(tokens.attended.ncols());
    let (length, encoder) = (first(&batch.tokens), batch.encoder.as_ref().map_or(0, first));
    let sequences: Vec<usize> = (0..batch.dim().0).collect();
    let is_cut = length < batch.dim().1 || batch.encoder.as_ref().is_some_and(|all| encoder < all.attended.ncols());
    is_cut.then(|| batch.part(&sequences, length, encoder))
}

/// The same as [`cut`], where sequences with padding have it in the last quarter at least.
pub(super) fn cut_with_padding(batch: &Batch) -> Option<Batch> {
    let mut cut = cut(batch)?;
    pad_last_quarter(&batch.tokens, &mut cut.tokens);
    if let Some((all, cut)) = batch.encoder.as_ref().zip(cut.encoder.as_mut()) {
        pad_last_quarter(all, cut);
    }
    Some(cut)
}

fn pad_last_quarter(all: &Tokens, cut: &mut Tokens) {
    let from = cut.attended.ncols() * 3 / 4;
    for (all, mut cut) in all.attended.outer_iter().zip(cut.attended.outer_iter_mut()) {
        if all.iter().any(|attended| !attended) {
            cut.iter_mut().skip(from).for_each(|attended| *attended = false);
        }
    }
}

/// Two sequences of a batch that differ, or all of its sequences where the model fixes their number.
pub(super) fn few(batch: &Batch, fixed: bool) -> Batch {
    let other = another(batch, 0).unwrap_or(1);
    if fixed || batch.dim().0 < 3 { batch.clone() } else { whole(batch, &[0, other]) }
}

/// The first tokens of the sequences of a batch, not as many for the encoder as for the decoder; `None` if they have one
/// token.
pub(super) fn shorter(batch: &Batch) -> Option<Batch> {
    let length = batch.dim().1.div_ceil(2);
    let encoder = batch.encoder.as_ref().map_or(0, |tokens| tokens.attended.ncols().div_ceil(2));
    let encoder = if encoder == length { encoder.saturating_sub(1).max(1) } else { encoder };
    let sequences: Vec<usize> = (0..batch.dim().0).collect();
    let mut shorter = batch.part(&sequences, length, encoder);
    shorter.tokens.attended.fill(true);
    if let Some(tokens) = &mut shorter.encoder {
        tokens.attended.fill(true);
    }
    (length < batch.dim().1).then_some(shorter)
}

/// Batches with the same first sequence, one with least padding, whose tokens they keep, and other sequences; `None` if
/// the sequences of the batch do not differ. Both have all its sequences if the model fixes their number.
pub(super) fn other_sequences(batch: &Batch, fixed: bool) -> Option<Pair> {
    let padding = |i: &usize| batch.tokens.attended.row(*i).iter().filter(|attended| !**attended).count();
    let fullest = (0..batch.dim().0).min_by_key(padding)?;
    let other = another(batch, fullest)?;
    let count = if fixed { batch.dim().0 } else { 2 };
    let mut sequences = vec![fullest; count];
    let first = |mut batch: Batch| {
        batch.keep.fill(false);
        batch.keep.row_mut(0).assign(&batch.tokens.attended.row(0));
        batch
    };
    let same = first(whole(batch, &sequences));
    sequences[1] = other;
    Some(Pair { one: first(whole(batch, &sequences)), other: same })
}

/// The first sequence of a batch with other tokens before the last, which alone is kept, and the same with another sequence
/// behind it. `None` if its tokens do not differ.
pub(super) fn of_one_sequence(batch: &Batch) -> Option<(Pair, Batch)> {
    let one = start(batch);
    let length = one.dim().1;
    let mut last = one.clone();
    last.keep.fill(false);
    last.keep[[0, length - 1]] = true;
    let tokens = Pair { other: with_ids(&last, |ids| ids.fill(ids.last().copied().unwrap_or(0)))?, one: last };
    let sequences = with_ids(&whole(&one, &[0, 0]), |ids| {
        let first = ids[0];
        ids[length..].fill(first);
    });
    Some((tokens, sequences?))
}

/// The first sequence of a batch, and the same with another last token. `None` if its tokens do not differ.
pub(super) fn other_end(batch: &Batch) -> Option<Pair> {
    let one = start(batch);
    let other = with_ids(&one, |ids| {
        if let Some((last, before)) = ids.split_last_mut() {
            *last = before.iter().copied().find(|id| id != last).unwrap_or(*last);
        }
    });
    Some(Pair { other: other?, one })
}

/// The first tokens of the first sequence of a batch that keeps one.
fn start(batch: &Batch) -> Batch {
    let first = first_sequence(batch);
    let tokens = |tokens: &Tokens| LENGTH.next_multiple_of(tokens.step.max(1)).min(tokens.attended.ncols());
    first.part(&[0], tokens(&first.tokens), first.encoder.as_ref().map_or(0, tokens))
}

/// The batch with other token ids; `None` if they are not others.
fn with_ids(batch: &Batch, change: impl Fn(&mut [i64])) -> Option<Batch> {
    let mut changed = batch.clone();
    let (_, tensor) = changed.tokens.inputs.iter_mut().find(|(name, _)| name == "input_ids")?;
    let before = tensor.to_integers()?;
    let mut ids = before.clone();
    change(&mut ids);
    *tensor = Tensor::from_vec(tensor.shape(), ids.clone())?;
    (ids != before).then_some(changed)
}

/// Batches that differ in the ids of padding alone, and keep all tokens; `None` if the batch has no padding. They have
/// the sequences with most padding and one with least, or all if the model fixes their number.
pub(super) fn other_padding(batch: &Batch, fixed: bool) -> Option<Pair> {
    if !is_padded(batch) {
        return None;
    }
    let few = |tokens: &Tokens| {
        let padding = |i: &usize| tokens.attended.row(*i).iter().filter(|attended| !**attended).count();
        [(0..batch.dim().0).max_by_key(padding), (0..batch.dim().0).min_by_key(padding)]
    };
    let mut sequences: Vec<usize> = (0..batch.dim().0).collect();
    if !fixed {
        let wanted: Vec<_> =
            [Some(&batch.tokens), batch.encoder.as_ref()].into_iter().flatten().flat_map(few).collect();
        sequences.retain(|i| wanted.contains(&Some(*i)));
    }
    let mut one = whole(batch, &sequences);
    one.keep.assign(&one.tokens.attended);
    let mut other = one.clone();
    [Some(&mut other.tokens), other.encoder.as_mut()].into_iter().flatten().for_each(refill);
    let attended = &other.tokens.attended;
    other.tensors.iter_mut().for_each(|named| refill_entries(named, attended));
    Some(Pair { one, other })
}

/// The same batch with the tokens kept that `batch` does not keep, padding included.
pub(super) fn of_others(batch: &Batch) -> Batch {
    let mut others = batch.clone();
    others.keep.mapv_inplace(|keep| !keep);
    others
}

/// Whether some sequence that has tokens has padding as well. Sequences without any only fill a batch up.
pub(super) fn is_padded(batch: &Batch) -> bool {
    let padded = |tokens: &Tokens| {
        let mut sequences = tokens.attended.outer_iter();
        sequences.any(|row| row.iter().any(|attended| *attended) && row.iter().any(|attended| !attended))
    };
    padded(&batch.tokens) || batch.encoder.as_ref().is_some_and(padded)
}

/// The first sequence of a batch that keeps a token, without its padding.
pub(super) fn first_sequence(batch: &Batch) -> Batch {
    let at = batch.sequences().first().map_or(0, |&i| i as usize);
    let encoder = batch.encoder.as_ref().map_or(0, |tokens| tokens.used(at));
    batch.part(&[at], batch.tokens.used(at), encoder)
}

/// The sequences at `indices` in their full length.
fn whole(batch: &Batch, indices: &[usize]) -> Batch {
    batch.part(indices, batch.dim().1, batch.encoder.as_ref().map_or(0, |tokens| tokens.attended.ncols()))
}

/// A sequence that is not the same as the one at `index`.
fn another(batch: &Batch, index: usize) -> Option<usize> {
    let one = whole(batch, &[index]);
    (0..batch.dim().0).find(|i| {
        let other = whole(batch, &[*i]);
        (&other.tokens, &other.encoder, &other.tensors) != (&one.tokens, &one.encoder, &one.tensors)
    })
}

/// Gives padding the id of some token.
fn refill(tokens: &mut Tokens) {
    let Tokens { inputs, attended, .. } = tokens;
    for (_, tensor) in inputs.iter_mut().filter(|(name, _)| name == "input_ids") {
        let Some(ids) = tensor.view::<i64>().filter(|ids| ids.len() == attended.len()) else { continue };
        let padding = ids.iter().zip(attended.iter()).find(|(_, attended)| !**attended).map(|(id, _)| *id);
        let some = ids.iter().zip(attended.iter()).find(|(id, attended)| **attended && Some(**id) != padding);
        let Some(some) = some.map(|(id, _)| *id) else { continue };
        let all = ids.iter().zip(attended.iter()).map(|(id, attended)| if *attended { *id } else { some });
        *tensor = Tensor::from_vec(tensor.shape(), all.collect()).unwrap_or_else(|| tensor.clone());
    }
}

/// Gives padding the entries of the first token of its sequence, along all axes of tokens.
fn refill_entries(named: &mut NamedTensor, attended: &Array2<bool>) {
    let refilled = |(at, row): (usize, ArrayView1<'_, bool>)| {
        let first = row.iter().position(|attended| *attended).unwrap_or(0);
        let places: Vec<usize> =
            row.iter().enumerate().map(|(at, attended)| if *attended { at } else { first }).collect();
        let alone = named.tensor.select(0, &[at]);
        named.token_axes.iter().fold(alone, |tensor, axis| tensor.select(*axis, &places)).squeezed()
    };
    let Some(rows) = attended.outer_iter().enumerate().map(refilled).collect::<Option<Vec<_>>>() else { return };
    let sizes = named.tensor.shape().get(1..).unwrap_or_default();
    if let Some(tensor) = Tensor::stack(&rows.iter().collect::<Vec<_>>(), rows.len(), sizes) {
        named.tensor = tensor;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::rows::sizes;
    use crate::capture::rows::tests::batch;
    use ndarray::{Array2, array};

    /// Three sequences of four tokens; the second is the first, the third has one token of padding.
    fn three() -> Batch {
        let ids = array![[5, 6, 7, 8], [5, 6, 7, 8], [9, 6, 5, 0]];
        let mut attended = Array2::from_elem((3, 4), true);
        attended[[2, 3]] = false;
        Batch { keep: attended.clone(), ..Batch::of_tokens(Tokens::new(ids, attended)) }
    }

    fn ids(batch: &Batch) -> Vec<i64> {
        batch.tokens.input("input_ids").and_then(Tensor::to_integers).unwrap_or_default()
    }

    #[test]
    fn probes_have_other_sizes() {
        let sizes = |length, source| shorter(&batch(2, length, source)).as_ref().map(sizes);
        assert_eq!(sizes(9, None), Some((2, 5, None)));
        assert_eq!(sizes(8, Some(8)), Some((2, 4, Some(3))));
        assert_eq!(sizes(1, Some(4)), None);
        assert!(other_sequences(&batch(3, 4, None), false).is_none());
        assert_eq!(few(&batch(5, 4, None), false).dim().0, 2);
        assert_eq!(few(&batch(5, 4, None), true).dim().0, 5);
    }

    #[test]
    fn other_sequences_follow_the_same_first_one() {
        for (fixed, one, other) in [(false, 2, 2), (true, 3, 3)] {
            let pair = other_sequences(&three(), fixed).unwrap();
            assert_eq!((pair.one.dim().0, pair.other.dim().0), (one, other));
            assert_eq!(ids(&pair.one)[..8], [5, 6, 7, 8, 9, 6, 5, 0]);
            assert_eq!(ids(&pair.other)[..8], [5, 6, 7, 8, 5, 6, 7, 8]);
            assert_eq!((pair.one.rows(), pair.other.rows()), (vec![0, 1, 2, 3], vec![0, 1, 2, 3]));
            assert_eq!(of_others(&pair.one).kept(), 4 * one - 4);
        }
    }

    #[test]
    fn cut_batches_keep_what_is_padded() {
        assert!(cut(&batch(2, LENGTH, None)).is_none());
        let mut long = batch(2, 3 * LENGTH, Some(2 * LENGTH));
        long.tokens.attended[[1, 3 * LENGTH - 1]] = false;
        assert_eq!(cut(&long).as_ref().map(sizes), Some((2, LENGTH, Some(LENGTH))));
        let padded = cut_with_padding(&long).unwrap();
        let attended = |tokens: &Tokens| [0, 1].map(|i| tokens.attended.row(i).iter().filter(|a| **a).count());
        assert_eq!(attended(&padded.tokens), [LENGTH, LENGTH * 3 / 4]);
        assert_eq!(padded.encoder.as_ref().map(attended), Some([LENGTH; 2]));
    }

    #[test]
    fn padding_of_tensors_is_changed_as_well() {
        let mut batch = three();
        let tensor = Tensor::from_vec(&[3, 4, 1], (1..13).map(|i| i as f32).collect()).unwrap();
        batch.tensors = vec![NamedTensor { name: "x".to_owned(), tensor, token_axes: vec![1] }];
        let pair = other_padding(&batch, true).unwrap();
        assert_eq!(pair.other.tensors[0].tensor.to_floats()[8..], [9.0, 10.0, 11.0, 9.0]);
        assert_eq!(pair.other.tensors[0].tensor.to_floats()[..8], pair.one.tensors[0].tensor.to_floats()[..8]);
    }

    #[test]
    fn other_padding_keeps_the_tokens() {
        let pair = other_padding(&three(), false).unwrap();
        assert_eq!(ids(&pair.one), [5, 6, 7, 8, 9, 6, 5, 0]);
        assert_eq!(ids(&pair.other), [5, 6, 7, 8, 9, 6, 5, 5]);
        assert_eq!((pair.one.kept(), of_others(&pair.one).rows()), (7, vec![7]));
        assert!(other_padding(&batch(2, 4, None), true).is_none());
    }
}
