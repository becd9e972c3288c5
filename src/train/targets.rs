//! What each token of a batch should predict.

use crate::calib::Batch;

/// The rows of the flattened logits that have a target, ascending, and their targets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Targets {
    pub(crate) rows: Vec<i64>,
    pub(crate) tokens: Vec<i64>,
}

impl Targets {
    /// Each token that is no padding predicts the next one, if that enters the loss.
    pub(crate) fn next_tokens(batch: &Batch) -> Self {
        let mut targets = Self::default();
        let ids = batch.tokens.input("input_ids").and_then(|tensor| tensor.view::<i64>());
        let Some(ids) = ids.and_then(|ids| ids.into_dimensionality::<ndarray::Ix2>().ok()) else {
            return targets;
        };
        let length = ids.ncols();
        for (sequence, row) in ids.outer_iter().enumerate() {
            for token in 1..length {
                if batch.keep[[sequence, token]] && batch.tokens.attended[[sequence, token - 1]] {
                    targets.rows.push((sequence * length + token - 1) as i64);
                    targets.tokens.push(row[token]);
                }
            }
        }
        targets
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calib::Tokens;
    use ndarray::array;

    #[test]
    fn kept_tokens_are_predicted_from_the_one_before() {
        let ids = array![[5, 6, 7, 0], [8, 9, 1, 2]];
        let attended = array![[true, true, true, false], [true; 4]];
        let keep = array![[true, true, true, false], [true, false, false, true]];
        let batch = Batch { keep, ..Batch::of_tokens(Tokens::new(ids, attended)) };
        let targets = Targets::next_tokens(&batch);
        assert_eq!((targets.rows, targets.tokens), (vec![0, 1, 6], vec![6, 7, 2]));
    }
}
