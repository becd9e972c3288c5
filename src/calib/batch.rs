//! A batch: named inputs, padded to one length, and their masks.

use ndarray::{Array2, Axis, s};
use std::ops::Range;

use super::example::Example;
use super::stack::stacked;
use super::tensors::NamedTensor;
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
    /// Whether the model fixes a size of the batch.
    pub fn is_fixed(self) -> bool {
        self.batch.is_some() || self.length.is_some()
    }
}

/// Which inputs with a value for each token a model reads beside the token ids.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TokenInputs {
    /// Which tokens are attended.
    pub mask: bool,
    /// Token types.
    pub types: bool,
    /// Positions.
    pub positions: bool,
}

/// Inputs of a model for some sequences, and the masks that decide which of their rows count.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// What the model reads, or the decoder of a model that has an encoder as well.
    pub tokens: Tokens,
    /// What the encoder reads, for a model that has one beside a decoder.
    pub encoder: Option<Tokens>,
    /// Other inputs of the model by name, [batch, ...]. Where it reads no tokens, each sequence counts as one.
    pub tensors: Vec<NamedTensor>,
    /// Tokens that enter the statistics, a subset of the attended ones of `tokens`, [batch, length].
    pub keep: Array2<bool>,
}

/// Sequences of tokens padded on the right to one length.
#[derive(Clone, Debug, PartialEq)]
pub struct Tokens {
    /// Inputs with a value for each token, by name, [batch, length, ...]: `input_ids`, and `token_type_ids` and
    /// `position_ids` where some row has them.
    pub inputs: Vec<(String, Tensor)>,
    /// Tokens that are no padding, [batch, length].
    pub attended: Array2<bool>,
}

impl Tokens {
    /// Sequences of token ids [batch, length].
    pub fn new(ids: Array2<i64>, attended: Array2<bool>) -> Self {
        Self { inputs: vec![("input_ids".to_owned(), Tensor::I64(ids.into_dyn()))], attended }
    }

    /// The input of this name.
    pub fn input(&self, name: &str) -> Option<&Tensor> {
        self.inputs.iter().find(|(input, _)| input == name).map(|(_, tensor)| tensor)
    }

    /// Attended tokens of the sequences `wanted`, as row indices of the activations flattened to
    /// `[batch * length, features]`.
    pub fn rows(&self, wanted: &[i64]) -> Vec<i64> {
        let length = self.attended.ncols() as i64;
        let attended = |sequence: i64| {
            let row = self.attended.row(sequence as usize);
            let tokens = row.into_iter().zip(0..).filter(|(attended, _)| **attended);
            tokens.map(move |(_, token)| sequence * length + token).collect::<Vec<i64>>()
        };
        wanted.iter().flat_map(|sequence| attended(*sequence)).collect()
    }

    /// The position of each token in its sequence [batch, length]: that which the row gives, or else the number of
    /// attended tokens before it, as transformers' `generate` counts them. Padding at the end is counted on.
    pub fn positions(&self) -> Vec<i64> {
        if let Some(given) = self.input("position_ids").and_then(Tensor::to_integers) {
            return given;
        }
        self.attended.outer_iter().flat_map(|row| counted(&row.to_vec())).map(i64::from).collect()
    }

    /// Tokens of sequence `index` up to the last that is no padding, at least 1.
    pub fn used(&self, index: usize) -> usize {
        self.attended.row(index).iter().rposition(|attended| *attended).map_or(1, |last| last + 1)
    }

    /// The first `length` tokens of the sequences at `indices`.
    fn part(&self, indices: &[usize], length: usize) -> Self {
        let inputs = self.inputs.iter();
        Self {
            inputs: inputs
                .map(|(name, tensor)| (name.clone(), tensor.select(0, indices).truncate(1, length)))
                .collect(),
            attended: part(&self.attended, indices, length),
        }
    }
}

fn part<T: Clone>(matrix: &Array2<T>, indices: &[usize], length: usize) -> Array2<T> {
    matrix.select(Axis(0), indices).slice(s![.., ..length]).to_owned()
}

impl Batch {
    /// A batch of nothing but tokens, none of which enters the statistics.
    pub fn of_tokens(tokens: Tokens) -> Self {
        let keep = Array2::from_elem(tokens.attended.dim(), false);
        Self { tokens, encoder: None, tensors: Vec::new(), keep }
    }

    /// Sequences, and tokens of each.
    pub fn dim(&self) -> (usize, usize) {
        self.keep.dim()
    }

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
    pub fn attended(&self) -> usize {
        self.tokens.attended.iter().filter(|attended| **attended).count()
    }

    /// The first and the last half of the sequences; `None` for a single sequence.
    pub fn halves(&self) -> Option<[Batch; 2]> {
        let (sequences, length) = self.dim();
        let half = sequences / 2;
        let encoder = self.encoder.as_ref().map_or(0, |tokens| tokens.attended.ncols());
        let part = |sequences: Range<usize>| self.part(&sequences.collect::<Vec<_>>(), length, encoder);
        (half > 0).then(|| [part(0..half), part(half..sequences)])
    }

    /// The first `length` tokens of the sequences at `indices`, and the first `encoder` tokens of their encoder.
    ///
    /// # Panics
    /// When an index or a length is out of bounds.
    #[must_use]
    pub fn part(&self, indices: &[usize], length: usize, encoder: usize) -> Self {
        Self {
            tokens: self.tokens.part(indices, length),
            encoder: self.encoder.as_ref().map(|tokens| tokens.part(indices, encoder)),
            tensors: self.tensors.iter().map(|named| named.select(indices).truncate(length)).collect(),
            keep: part(&self.keep, indices, length),
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
    let ids = examples.iter().map(|example| &example.ids[..]);
    let attended = examples.iter().map(|example| &example.attended[..]);
    let mut tokens = Tokens::new(padded(ids, dims, pad_id.into()), padded(attended, dims, false));
    if typed {
        let types = examples.iter().map(|example| example.types.as_deref().unwrap_or_default());
        tokens.inputs.push(("token_type_ids".to_owned(), Tensor::I64(padded(types, dims, 0).into_dyn())));
    }
    if examples.iter().any(|example| example.positions.is_some()) {
        let positions = |example: &&Example| example.positions.clone().unwrap_or_else(|| counted(&example.attended));
        let positions: Vec<Vec<u32>> = examples.iter().map(positions).collect();
        let positions = padded(positions.iter().map(Vec::as_slice), dims, 0);
        tokens.inputs.push(("position_ids".to_owned(), Tensor::I64(positions.into_dyn())));
    }
    Batch {
        tokens,
        encoder: encoder(examples, dims.0, pad_id),
        tensors: stacked(examples, dims).unwrap_or_default(),
        keep: padded(examples.iter().map(|example| &example.keep[..]), dims, false),
    }
}

/// For each token, the number of attended tokens before it. Padding at the end is counted on.
fn counted(attended: &[bool]) -> Vec<u32> {
    let end = attended.iter().rposition(|attended| *attended).map_or(0, |last| last + 1);
    let ones = attended.iter().enumerate().map(|(at, attended)| u32::from(*attended || at >= end));
    let before = ones.scan(0, |next, one| Some(std::mem::replace(next, *next + one)));
    before.collect()
}

fn encoder(examples: &[&Example], sequences: usize, pad_id: u32) -> Option<Tokens> {
    let sources: Vec<_> = examples.iter().filter_map(|example| example.source.as_ref()).collect();
    let dims = (sequences, sources.iter().map(|(ids, _)| ids.len()).max()?);
    let ids = padded(sources.iter().map(|(ids, _)| &ids[..]), dims, pad_id.into());
    Some(Tokens::new(ids, padded(sources.iter().map(|(_, attended)| &attended[..]), dims, false)))
}

/// Rows of different lengths as one matrix, filled up with `filler`.
fn padded<'a, F, T>(rows: impl Iterator<Item = &'a [F]>, dims: (usize, usize), filler: T) -> Array2<T>
where
    F: Copy + Into<T> + 'a,
    T: Clone,
{
    let mut all = Array2::from_elem(dims, filler);
    for (mut to, from) in all.outer_iter_mut().zip(rows) {
        to.iter_mut().zip(from).for_each(|(to, from)| *to = (*from).into());
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calib::row::testing::origin;
    use ndarray::array;
    use proptest::prelude::*;

    fn integers(batch: &Batch, name: &str) -> Option<Array2<i64>> {
        batch.tokens.input(name)?.view::<i64>()?.into_dimensionality().ok().map(|array| array.to_owned())
    }

    fn example(ids: &[u32], attended: &[bool], keep: &[bool]) -> Example {
        Example {
            origin: origin(),
            ids: ids.to_vec(),
            types: None,
            positions: None,
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
        assert_eq!(integers(&batch, "input_ids"), Some(array![[5, 9, 9], [6, 7, 8]]));
        assert_eq!(batch.tokens.attended, array![[true, false, false], [true, true, true]]);
        assert_eq!(batch.rows(), [0, 4, 5]);
        assert_eq!((batch.kept(), batch.attended()), (3, 4));
        assert_eq!(integers(&batch, "token_type_ids"), None);
    }

    #[test]
    fn positions_count_attended_tokens() {
        assert_eq!(counted(&[true, true, false, false]), [0, 1, 2, 3]);
        assert_eq!(counted(&[false, true, false, true, false]), [0, 0, 1, 1, 2]);
        assert_eq!(counted(&[false, false]), [0, 1]);
        let given = Example { positions: Some(vec![4, 0]), ..example(&[5, 6], &[true; 2], &[true; 2]) };
        let plain = example(&[6, 7, 8], &[true, false, true], &[true, false, true]);
        let batch = pad(&[&given, &plain], FixedDims::default(), 0, false);
        assert_eq!(batch.tokens.positions(), [4, 0, 0, 0, 1, 1]);
        assert_eq!(pad(&[&plain], FixedDims::default(), 0, false).tokens.positions(), [0, 1, 1]);
    }

    #[test]
    fn static_dimensions_are_filled() {
        let masked = example(&[5, 6], &[true; 2], &[false; 2]);
        let kept = example(&[7], &[true], &[true]);
        let shape = FixedDims { batch: Some(3), length: Some(4) };
        let batch = pad(&[&masked, &kept], shape, 0, true);
        assert_eq!(integers(&batch, "input_ids"), Some(array![[5, 6, 0, 0], [7, 0, 0, 0], [0, 0, 0, 0]]));
        assert_eq!(batch.sequences(), [1]);
        assert_eq!(batch.rows(), [4]);
        assert_eq!(integers(&batch, "token_type_ids"), Some(Array2::zeros((3, 4))));
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
            let ids = integers(&batch, "input_ids").unwrap();
            prop_assert_eq!(ids.dim(), (examples.len() + filler, longest + extra));
            let (mut rows, mut sequences, mut tokens) = (vec![], vec![], 0);
            for (b, example) in examples.iter().enumerate() {
                for t in 0..example.ids.len() {
                    prop_assert_eq!(ids[[b, t]], i64::from(example.ids[t]));
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
            prop_assert_eq!(batch.attended(), tokens);
            let outside = batch.keep.iter().zip(&batch.tokens.attended).any(|(&k, &a)| k && !a);
            prop_assert!(!outside, "kept tokens are attended");
        }
    }
}
