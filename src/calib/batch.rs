//! A padded batch and its masks.

use ndarray::{Array2, s};
use std::ops::Range;

use super::example::Example;
use super::tensors::stacked;
use crate::tensor::Tensor;

/// Dimensions that the model fixes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FixedDims {
    /// Sequences in a batch; `None` when the model takes any number.
    pub batch: Option<usize>,
    /// Tokens in a sequence; `None` when the model takes any number.
    pub length: Option<usize>,
}

impl FixedDims {
    /// Whether the model takes no batch but of one size.
    pub fn is_fixed(self) -> bool {
        self.batch.is_some() || self.length.is_some()
    }
}

/// Sequences padded on the right to one length; every array is `[batch, length]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// Token ids.
    pub input_ids: Array2<i64>,
    /// 1 for tokens, 0 for padding.
    pub attention_mask: Array2<i64>,
    /// Segment ids; `None` when no calibration row distinguishes any, which means zeros.
    pub token_type_ids: Option<Array2<i64>>,
    /// Tokens that enter the statistics, a subset of the attended ones.
    pub keep: Array2<bool>,
    /// What the encoder reads, for a model that has one beside a decoder; all else is then the decoder's.
    pub source: Option<EncoderTokens>,
    /// Other inputs of the model by name, [batch, ...]. Where it reads no tokens, each sequence counts as one.
    pub tensors: Vec<(String, Tensor)>,
}

/// The encoder's share of a batch: sequences padded on the right, `[batch, length of the longest]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncoderTokens {
    /// Token ids.
    pub input_ids: Array2<i64>,
    /// 1 for tokens, 0 for padding.
    pub attention_mask: Array2<i64>,
}

impl EncoderTokens {
    /// Attended tokens of the sequences `wanted`, as row indices of activations flattened to `[batch * length, features]`.
    pub fn rows(&self, wanted: &[i64]) -> Vec<i64> {
        let length = self.input_ids.ncols() as i64;
        let attended = |sequence: i64| {
            let row = self.attention_mask.row(sequence as usize);
            let tokens = row.into_iter().zip(0..).filter(|(mask, _)| **mask != 0);
            tokens.map(move |(_, token)| sequence * length + token).collect::<Vec<i64>>()
        };
        wanted.iter().flat_map(|sequence| attended(*sequence)).collect()
    }
}

impl Batch {
    /// Kept tokens as ascending row indices of the activations flattened to `[batch * length, features]`.
    pub fn rows(&self) -> Vec<i64> {
        let kept = self.keep.iter().zip(0..).filter(|(keep, _)| **keep);
        kept.map(|(_, row)| row).collect()
    }

    /// Number of tokens that enter the statistics.
    pub fn kept(&self) -> usize {
        self.keep.iter().filter(|keep| **keep).count()
    }

    /// Number of tokens that are no padding.
    pub fn tokens(&self) -> usize {
        self.attention_mask.iter().filter(|mask| **mask != 0).count()
    }

    /// The first and the last half of the sequences; `None` when there is but one.
    pub fn halves(&self) -> Option<[Batch; 2]> {
        let half = self.input_ids.nrows() / 2;
        (half > 0).then(|| [self.part(0..half), self.part(half..self.input_ids.nrows())])
    }

    /// Some of the sequences.
    fn part(&self, sequences: Range<usize>) -> Batch {
        let rows = s![sequences.clone(), ..];
        let part = |a: &Array2<i64>| a.slice(rows).to_owned();
        Batch {
            input_ids: part(&self.input_ids),
            attention_mask: part(&self.attention_mask),
            token_type_ids: self.token_type_ids.as_ref().map(part),
            keep: self.keep.slice(rows).to_owned(),
            source: self.source.as_ref().map(|source| EncoderTokens {
                input_ids: part(&source.input_ids),
                attention_mask: part(&source.attention_mask),
            }),
            tensors: self
                .tensors
                .iter()
                .map(|(name, a)| (name.clone(), a.select(&sequences.clone().collect::<Vec<_>>())))
                .collect(),
        }
    }

    /// Indices of the sequences with at least one kept token, ascending.
    pub fn sequences(&self) -> Vec<i64> {
        let kept = self.keep.outer_iter().zip(0..).filter(|(row, _)| row.iter().any(|keep| *keep));
        kept.map(|(_, sequence)| sequence).collect()
    }
}

/// Pads examples to the longest or to the model's dimensions; missing sequences are fully masked.
///
/// With `typed` the batch has `token_type_ids`, zeros where an example has none.
pub(crate) fn pad(examples: &[&Example], shape: FixedDims, pad_id: u32, typed: bool) -> Batch {
    let longest = examples.iter().map(|example| example.ids.len()).max().unwrap_or(0);
    let dims = (shape.batch.unwrap_or(0).max(examples.len()), shape.length.unwrap_or(0).max(longest));
    let mut batch = Batch {
        input_ids: Array2::from_elem(dims, i64::from(pad_id)),
        attention_mask: Array2::zeros(dims),
        token_type_ids: typed.then(|| Array2::zeros(dims)),
        keep: Array2::from_elem(dims, false),
        source: source(examples, dims.0, pad_id),
        tensors: stacked(examples, dims.0).unwrap_or_default(),
    };
    for (row, example) in examples.iter().enumerate() {
        let at = s![row, ..example.ids.len()];
        batch.input_ids.slice_mut(at).zip_mut_with(&view(&example.ids), |to, &id| *to = id.into());
        batch
            .attention_mask
            .slice_mut(at)
            .zip_mut_with(&view(&example.attended), |to, &attended| *to = attended.into());
        batch.keep.slice_mut(at).assign(&view(&example.keep));
        if let (Some(all), Some(types)) = (&mut batch.token_type_ids, &example.types) {
            all.slice_mut(at).zip_mut_with(&view(types), |to, &id| *to = id.into());
        }
    }
    batch
}

fn source(examples: &[&Example], sequences: usize, pad_id: u32) -> Option<EncoderTokens> {
    let sources: Vec<_> = examples.iter().filter_map(|example| example.source.as_ref()).collect();
    let dims = (sequences, sources.iter().map(|(ids, _)| ids.len()).max()?);
    let mut source =
        EncoderTokens { input_ids: Array2::from_elem(dims, i64::from(pad_id)), attention_mask: Array2::zeros(dims) };
    for (row, (ids, attended)) in sources.into_iter().enumerate() {
        let at = s![row, ..ids.len()];
        source.input_ids.slice_mut(at).zip_mut_with(&view(ids), |to, &id| *to = id.into());
        source.attention_mask.slice_mut(at).zip_mut_with(&view(attended), |to, &attended| *to = attended.into());
    }
    Some(source)
}

fn view<T>(values: &[T]) -> ndarray::ArrayView1<'_, T> {
    ndarray::ArrayView1::from(values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calib::row::testing::origin;
    use ndarray::array;
    use proptest::prelude::*;

    fn example(ids: &[u32], attended: &[bool], keep: &[bool]) -> Example {
        Example {
            origin: origin(),
            ids: ids.to_vec(),
            types: None,
            attended: attended.to_vec(),
            keep: keep.to_vec(),
            source: None,
            tensors: Vec::new(),
            truncated: false,
        }
    }

    #[test]
    fn padding_is_on_the_right_and_masked() {
        let short = example(&[5], &[true], &[true]);
        let long = example(&[6, 7, 8], &[true; 3], &[false, true, true]);
        let batch = pad(&[&short, &long], FixedDims::default(), 9, false);
        assert_eq!(batch.input_ids, array![[5, 9, 9], [6, 7, 8]]);
        assert_eq!(batch.attention_mask, array![[1, 0, 0], [1, 1, 1]]);
        assert_eq!(batch.rows(), [0, 4, 5]);
        assert_eq!((batch.kept(), batch.tokens()), (3, 4));
        assert_eq!(batch.token_type_ids, None);
    }

    #[test]
    fn static_dimensions_are_filled() {
        let masked = example(&[5, 6], &[true; 2], &[false; 2]);
        let kept = example(&[7], &[true], &[true]);
        let shape = FixedDims { batch: Some(3), length: Some(4) };
        let batch = pad(&[&masked, &kept], shape, 0, true);
        assert_eq!(batch.input_ids, array![[5, 6, 0, 0], [7, 0, 0, 0], [0, 0, 0, 0]]);
        assert_eq!(batch.sequences(), [1]);
        assert_eq!(batch.rows(), [4]);
        assert_eq!(batch.token_type_ids, Some(Array2::zeros((3, 4))));
    }

    fn examples() -> impl Strategy<Value = Vec<Example>> {
        let token = (0u32..100, any::<bool>(), any::<bool>());
        let row = prop::collection::vec(token, 1..9).prop_map(|tokens| {
            let ids: Vec<_> = tokens.iter().map(|t| t.0).collect();
            let attended: Vec<_> = tokens.iter().map(|t| t.1).collect();
            let keep: Vec<_> = tokens.iter().map(|t| t.1 && t.2).collect();
            example(&ids, &attended, &keep)
        });
        prop::collection::vec(row, 1..6)
    }

    proptest! {
        #[test]
        fn masks_agree_with_a_naive_walk(
            examples in examples(),
            filler in 0usize..3,
            extra in 0usize..3,
        ) {
            let longest = examples.iter().map(|e| e.ids.len()).max().unwrap();
            let shape = FixedDims { batch: Some(examples.len() + filler), length: Some(longest + extra) };
            let batch = pad(&examples.iter().collect::<Vec<_>>(), shape, 0, false);
            prop_assert_eq!(batch.input_ids.dim(), (examples.len() + filler, longest + extra));
            let (mut rows, mut sequences, mut tokens) = (vec![], vec![], 0);
            for (b, example) in examples.iter().enumerate() {
                for t in 0..example.ids.len() {
                    prop_assert_eq!(batch.input_ids[[b, t]], i64::from(example.ids[t]));
                    tokens += usize::from(example.attended[t]);
                    if example.keep[t] {
                        rows.push((b * (longest + extra) + t) as i64);
                    }
                }
                if example.keep.contains(&true) {
                    sequences.push(b as i64);
                }
            }
            prop_assert_eq!(batch.kept(), rows.len());
            prop_assert_eq!(batch.rows(), rows);
            prop_assert_eq!(batch.sequences(), sequences);
            prop_assert_eq!(batch.tokens(), tokens);
            let outside = batch.keep.iter().zip(&batch.attention_mask).any(|(&k, &a)| k && a == 0);
            prop_assert!(!outside, "kept tokens are attended");
        }
    }
}
