//! A batch: named inputs, padded to one length, and their masks.

use ndarray::{Array2, Axis, s};
use std::ops::Range;

use super::example::Example;
use super::padding::Padding;
use super::stack::stacked;
use super::tensors::NamedTensor;
use crate::tensor::Tensor;

/// Dimensions that the model fixes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
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
    /// Whether rows came with padding that is left off.
    pub stripped: bool,
    /// Whether other batches have tensors of other shapes.
    pub varied: bool,
}

/// Sequences of tokens padded on the right to one length.
#[derive(Clone, Debug, PartialEq)]
pub struct Tokens {
    /// Inputs with a value for each token, by name, [batch, length, ...]: `input_ids`, and `token_type_ids` and
    /// `position_ids` where some row has them.
    pub inputs: Vec<(String, Tensor)>,
    /// Tokens that are no padding, [batch, length].
    pub attended: Array2<bool>,
    /// What the lengths of sequences are multiples of, where the model takes no others.
    pub step: usize,
}

impl Tokens {
    /// Sequences of token ids [batch, length].
    pub fn new(ids: Array2<i64>, attended: Array2<bool>) -> Self {
        Self { inputs: vec![("input_ids".to_owned(), Tensor::I64(ids.into_dyn()))], attended, step: 1 }
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

    /// The shortest length that sequence `index` can be cut to without the loss of a token that is no padding, at least
    /// 1.
    pub fn used(&self, index: usize) -> usize {
        let used = self.attended.row(index).iter().rposition(|attended| *attended).map_or(1, |last| last + 1);
        used.next_multiple_of(self.step.max(1)).min(self.attended.ncols())
    }

    /// The first `length` tokens of the sequences at `indices`.
    fn part(&self, indices: &[usize], length: usize) -> Self {
        let inputs = self.inputs.iter();
        Self {
            inputs: inputs
                .map(|(name, tensor)| (name.clone(), tensor.select(0, indices).truncate(1, length)))
                .collect(),
            attended: part(&self.attended, indices, length),
            step: self.step,
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
        Self { tokens, encoder: None, tensors: Vec::new(), keep, stripped: false, varied: false }
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
            stripped: self.stripped,
            varied: self.varied,
        }
    }

    /// Indices of the sequences with at least one kept token, ascending.
    pub fn sequences(&self) -> Vec<i64> {
        let kept = self.keep.outer_iter().zip(0..).filter(|(row, _)| row.iter().any(|keep| *keep));
        kept.map(|(_, sequence)| sequence).collect()
    }
}

/// How examples become a batch.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Shape {
    /// What the model fixes.
    pub(crate) fixed: FixedDims,
    /// To which length the others are padded.
    pub(crate) padding: Padding,
    /// The token id of padding.
    pub(crate) pad_id: u32,
    /// Whether there are `token_type_ids`, zeros where an example has none.
    pub(crate) typed: bool,
    /// Whether some row came with padding.
    pub(crate) stripped: bool,
    /// Whether the tensors of rows have different shapes.
    pub(crate) varied: bool,
}

/// Pads examples to one length; missing sequences are fully masked.
pub(crate) fn pad(examples: &[&Example], shape: Shape) -> Batch {
    let Shape { fixed, padding, pad_id, typed, stripped, varied } = shape;
    let longest = examples.iter().map(|example| padding.of_tokens(example)).max().unwrap_or(0);
    let dims = (fixed.batch.unwrap_or(0).max(examples.len()), fixed.length.unwrap_or(longest));
    let ids = examples.iter().map(|example| &example.ids[..]);
    let attended = examples.iter().map(|example| &example.attended[..]);
    let mut tokens = Tokens::new(padded(ids, dims, pad_id.into()), padded(attended, dims, false));
    tokens.step = padding.step(dims.1);
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
        encoder: encoder(examples, dims.0, shape),
        tensors: stacked(examples, dims).unwrap_or_default(),
        keep: padded(examples.iter().map(|example| &example.keep[..]), dims, false),
        stripped: stripped && padding == Padding::Longest,
        varied,
    }
}

/// For each token, the number of attended tokens before it. Padding at the end is counted on.
fn counted(attended: &[bool]) -> Vec<u32> {
    let end = attended.iter().rposition(|attended| *attended).map_or(0, |last| last + 1);
    let ones = attended.iter().enumerate().map(|(at, attended)| u32::from(*attended || at >= end));
    let before = ones.scan(0, |next, one| Some(std::mem::replace(next, *next + one)));
    before.collect()
}

fn encoder(examples: &[&Example], sequences: usize, Shape { padding, pad_id, .. }: Shape) -> Option<Tokens> {
    let sources: Vec<_> = examples.iter().filter_map(|example| example.source.as_ref()).collect();
    let dims = (sequences, examples.iter().filter_map(|example| padding.of_source(example)).max()?);
    let ids = padded(sources.iter().map(|(ids, _)| &ids[..]), dims, pad_id.into());
    let tokens = Tokens::new(ids, padded(sources.iter().map(|(_, attended)| &attended[..]), dims, false));
    Some(Tokens { step: padding.step(dims.1), ..tokens })
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
            given: [ids.len(), 0],
        }
    }

    #[test]
    fn padding_is_on_the_right_and_masked() {
        let short = example(&[5], &[true], &[true]);
        let long = example(&[6, 7, 8], &[true; 3], &[false, true, true]);
        let batch = pad(&[&short, &long], Shape { pad_id: 9, ..Shape::default() });
        assert_eq!(integers(&batch, "input_ids"), Some(array![[5, 9, 9], [6, 7, 8]]));
        assert_eq!(batch.tokens.attended, array![[true, false, false], [true, true, true]]);
        assert_eq!(batch.rows(), [0, 4, 5]);
        assert_eq!((batch.kept(), batch.attended()), (3, 4));
        assert_eq!(integers(&batch, "token_type_ids"), None);
    }

    #[test]
    fn padding_may_be_asked_for() {
        let mut row = example(&[5, 6, 7], &[true; 3], &[true; 3]);
        row.given = [4, 6];
        row.source = Some((vec![1; 5], vec![true; 5]));
        let sizes = |padding| {
            let batch = pad(&[&row], Shape { padding, ..Shape::default() });
            let source = batch.encoder.as_ref().map_or((0, 0), |tokens| (tokens.attended.ncols(), tokens.used(0)));
            ((batch.dim().1, batch.tokens.used(0)), source)
        };
        assert_eq!(sizes(Padding::Longest), ((3, 3), (5, 5)));
        assert_eq!(sizes(Padding::Given), ((4, 4), (6, 6)));
        assert_eq!(sizes(Padding::Multiple(4)), ((4, 4), (8, 8)));
        assert_eq!(sizes(Padding::To(8)), ((8, 8), (8, 8)));
        // A short row beside a long one can be cut to a length that the model takes.
        let long = example(&[8; 9], &[true; 9], &[true; 9]);
        let batch = pad(&[&row, &long], Shape { padding: Padding::Multiple(4), ..Shape::default() });
        assert_eq!((batch.dim(), batch.tokens.used(0), batch.tokens.used(1)), ((2, 12), 4, 12));
    }

    #[test]
    fn positions_count_attended_tokens() {
        assert_eq!(counted(&[true, true, false, false]), [0, 1, 2, 3]);
        assert_eq!(counted(&[false, true, false, true, false]), [0, 0, 1, 1, 2]);
        assert_eq!(counted(&[false, false]), [0, 1]);
        let given = Example { positions: Some(vec![4, 0]), ..example(&[5, 6], &[true; 2], &[true; 2]) };
        let plain = example(&[6, 7, 8], &[true, false, true], &[true, false, true]);
        let batch = pad(&[&given, &plain], Shape::default());
        assert_eq!(batch.tokens.positions(), [4, 0, 0, 0, 1, 1]);
        assert_eq!(pad(&[&plain], Shape::default()).tokens.positions(), [0, 1, 1]);
    }

    #[test]
    fn static_dimensions_are_filled() {
        let masked = example(&[5, 6], &[true; 2], &[false; 2]);
        let kept = example(&[7], &[true], &[true]);
        let fixed = FixedDims { batch: Some(3), length: Some(4) };
        let batch = pad(&[&masked, &kept], Shape { fixed, typed: true, ..Shape::default() });
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
            let fixed = FixedDims { batch: Some(examples.len() + filler), length: Some(longest + extra) };
            let batch = pad(&examples.iter().collect::<Vec<_>>(), Shape { fixed, ..Shape::default() });
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
