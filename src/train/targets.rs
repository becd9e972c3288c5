//! What the logits of a batch should be.

use super::kind::Loss;
use crate::calib::{Batch, IGNORED, LABEL, LABELS};
use crate::tensor::Tensor;

/// The rows of the flattened logits that have a target, ascending, and their targets.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Targets {
    pub(crate) rows: Vec<i64>,
    pub(crate) values: Values,
}

/// Targets of some rows.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Values {
    /// One class each.
    Classes(Vec<i64>),
    /// As many numbers each as there are logits.
    Numbers(Vec<f32>),
}

impl Targets {
    /// The targets of a batch. A batch without the tensor that holds the labels has none.
    pub(crate) fn of(loss: Loss, batch: &Batch) -> Self {
        match loss {
            Loss::CausalLm => next_tokens(batch),
            Loss::Seq2SeqLm | Loss::MaskedLm | Loss::TokenClassification => labelled_tokens(batch),
            Loss::SingleLabel => classes(batch),
            Loss::MultiLabel | Loss::Regression => numbers(batch),
        }
    }

    /// The number of predictions, over which the loss is a mean.
    pub(crate) fn len(&self) -> usize {
        match &self.values {
            Values::Classes(classes) => classes.len(),
            Values::Numbers(numbers) => numbers.len(),
        }
    }

    fn classes(targets: impl IntoIterator<Item = (usize, i64)>) -> Self {
        let (rows, classes) = targets.into_iter().map(|(row, class)| (row as i64, class)).unzip();
        Self { rows, values: Values::Classes(classes) }
    }
}

/// Each token that is no padding predicts the next one, if that enters the loss.
fn next_tokens(batch: &Batch) -> Targets {
    let ids = batch.tokens.input("input_ids").and_then(Tensor::to_integers).unwrap_or_default();
    let length = batch.dim().1;
    let follows = |(sequence, token): &(usize, usize)| {
        batch.keep[[*sequence, *token]] && batch.tokens.attended[[*sequence, token - 1]]
    };
    let places = (0..ids.len() / length.max(1)).flat_map(|sequence| (1..length).map(move |token| (sequence, token)));
    let target = |(sequence, token): (usize, usize)| {
        let at = sequence * length + token;
        (at - 1, ids[at])
    };
    Targets::classes(places.filter(follows).map(target))
}

/// Each token that enters the loss has its own label.
fn labelled_tokens(batch: &Batch) -> Targets {
    let labels = labels(batch, LABELS).and_then(Tensor::to_integers).unwrap_or_default();
    let kept = batch.keep.iter().zip(labels).enumerate().filter(|(_, (keep, label))| **keep && *label != IGNORED);
    Targets::classes(kept.map(|(at, (_, label))| (at, label)))
}

/// Each sequence has one label.
fn classes(batch: &Batch) -> Targets {
    let labels = labels(batch, LABEL).map(Tensor::to_floats).unwrap_or_default();
    let labelled = sequences(batch).filter_map(|at| Some((at, *labels.get(at)? as i64)));
    Targets::classes(labelled.filter(|(_, label)| *label != IGNORED))
}

/// Each sequence has as many numbers as logits.
fn numbers(batch: &Batch) -> Targets {
    let Some(labels) = labels(batch, LABEL) else {
        return Targets { rows: Vec::new(), values: Values::Numbers(Vec::new()) };
    };
    let width = labels.shape().get(1).copied().unwrap_or(1);
    let labels = labels.to_floats();
    let rows: Vec<usize> = sequences(batch).collect();
    let numbers = rows.iter().flat_map(|at| &labels[at * width..(at + 1) * width]);
    let numbers = numbers.map(|number| *number as f32).collect();
    Targets { rows: rows.iter().map(|row| *row as i64).collect(), values: Values::Numbers(numbers) }
}

fn labels<'b>(batch: &'b Batch, name: &str) -> Option<&'b Tensor> {
    batch.tensors.iter().find(|named| named.name == name).map(|named| &named.tensor)
}

/// The sequences that are rows of the data: where the model fixes the size of a batch, others fill it up.
fn sequences(batch: &Batch) -> impl Iterator<Item = usize> + '_ {
    let is_row = |(at, attended): (usize, ndarray::ArrayView1<'_, bool>)| attended.iter().any(|on| *on).then_some(at);
    batch.tokens.attended.outer_iter().enumerate().filter_map(is_row)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calib::{NamedTensor, Tokens};
    use ndarray::array;

    fn batch(tensors: Vec<NamedTensor>) -> Batch {
        let ids = array![[5, 6, 7, 0], [8, 9, 1, 2]];
        let attended = array![[true, true, true, false], [true; 4]];
        let keep = array![[true, true, true, false], [true, false, false, true]];
        Batch { keep, tensors, ..Batch::of_tokens(Tokens::new(ids, attended)) }
    }

    fn labelled(name: &str, tensor: Tensor) -> Batch {
        batch(vec![NamedTensor { name: name.to_owned(), tensor, token_axes: Vec::new() }])
    }

    #[test]
    fn kept_tokens_are_predicted_from_the_one_before() {
        let targets = Targets::of(Loss::CausalLm, &batch(Vec::new()));
        assert_eq!(targets, Targets::classes([(0, 6), (1, 7), (6, 2)]));
    }

    #[test]
    fn tokens_have_labels_of_their_own() {
        let labels = Tensor::from_vec(&[2, 4], vec![3i64, -100, 1, 0, 2, 5, 5, -100]).unwrap();
        let targets = Targets::of(Loss::TokenClassification, &labelled(LABELS, labels));
        assert_eq!(targets, Targets::classes([(0, 3), (2, 1), (4, 2)]));
        assert_eq!(Targets::of(Loss::MaskedLm, &batch(Vec::new())).len(), 0);
    }

    #[test]
    fn rows_have_classes_or_numbers() {
        let classes = Tensor::from_vec(&[2, 1], vec![-100.0, 2.0]).unwrap();
        let targets = Targets::of(Loss::SingleLabel, &labelled(LABEL, classes));
        assert_eq!(targets, Targets::classes([(1, 2)]));
        let numbers = Tensor::from_vec(&[2, 2], vec![0.5, 1.0, 0.0, 0.25]).unwrap();
        let targets = Targets::of(Loss::MultiLabel, &labelled(LABEL, numbers));
        assert_eq!(targets, Targets { rows: vec![0, 1], values: Values::Numbers(vec![0.5, 1.0, 0.0, 0.25]) });
    }

    #[test]
    fn sequences_that_fill_a_batch_up_have_no_target() {
        let mut padded = labelled(LABEL, Tensor::from_vec(&[2, 1], vec![1.0, 0.0]).unwrap());
        padded.tokens.attended.row_mut(1).fill(false);
        assert_eq!(Targets::of(Loss::SingleLabel, &padded), Targets::classes([(0, 1)]));
        assert_eq!(Targets::of(Loss::Regression, &padded).rows, [0]);
    }
}
