//! The tensors of the rows of a batch as one tensor for each input.

use super::error::{BadTensor, Error};
use super::example::Example;
use super::tensors::{NamedTensor, bad};
use crate::tensor::Tensor;

/// The sizes of each tensor in a batch of these examples, padded to `length` tokens.
///
/// # Errors
/// [`BadTensor::Ragged`] when rows differ along an axis that is none of tokens.
pub(crate) fn sizes(examples: &[&Example], length: usize) -> Result<Vec<Vec<usize>>, Error> {
    let first = examples.first().map_or(&[][..], |example| &example.tensors);
    let sizes_of = |(at, named): (usize, &NamedTensor)| {
        let mut sizes = named.tensor.shape().to_vec();
        let per_token = token_axes(examples, at);
        per_token.iter().for_each(|axis| sizes[*axis] = length);
        for example in examples {
            let other = example.tensors[at].tensor.shape();
            let same = |axis: usize| per_token.contains(&axis) || other.get(axis) == sizes.get(axis);
            if other.len() != sizes.len() || !(0..sizes.len()).all(same) {
                let reason = BadTensor::Ragged { got: other.to_vec(), expected: named.tensor.shape().to_vec() };
                return Err(bad(&example.origin, &named.name, reason));
            }
        }
        Ok(sizes)
    };
    first.iter().enumerate().map(sizes_of).collect()
}

/// The axes along which tensor `at` of all examples has an entry for each token.
fn token_axes(examples: &[&Example], at: usize) -> Vec<usize> {
    let mut axes = examples.first().map_or_else(Vec::new, |example| example.tensors[at].token_axes.clone());
    axes.retain(|axis| examples.iter().all(|example| example.tensors[at].token_axes.contains(axis)));
    axes
}

/// One tensor for each input with the rows of all examples, and zeros up to `dims` sequences and tokens.
pub(crate) fn stacked(examples: &[&Example], dims: (usize, usize)) -> Option<Vec<NamedTensor>> {
    let first = examples.first().map_or(&[][..], |example| &example.tensors);
    let sizes = sizes(examples, dims.1).ok()?;
    let stack = |(at, named): (usize, &NamedTensor)| {
        let rows: Vec<&Tensor> = examples.iter().map(|example| &example.tensors[at].tensor).collect();
        Some(NamedTensor {
            name: named.name.clone(),
            tensor: Tensor::stack(&rows, dims.0, &sizes[at])?,
            token_axes: token_axes(examples, at).into_iter().map(|axis| axis + 1).collect(),
        })
    };
    first.iter().enumerate().map(stack).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calib::example::without_tokens;
    use crate::calib::row::testing::origin;

    fn example(shape: &[usize], token_axes: &[usize]) -> Example {
        let tensor = Tensor::from_vec(shape, vec![1i64; shape.iter().product()]).unwrap();
        let named = NamedTensor { name: "x".to_owned(), tensor, token_axes: token_axes.to_vec() };
        Example { tensors: vec![named], ..without_tokens(Vec::new(), origin()) }
    }

    /// Shape, axes of tokens and entries that are no padding, for 3 sequences of 4 tokens.
    fn stacked_as(examples: &[Example]) -> Option<(Vec<usize>, Vec<usize>, usize)> {
        let all = stacked(&examples.iter().collect::<Vec<_>>(), (3, 4))?;
        let ones = all[0].tensor.to_integers()?.iter().filter(|value| **value == 1).count();
        Some((all[0].tensor.shape().to_vec(), all[0].token_axes.clone(), ones))
    }

    #[test]
    fn axes_of_tokens_are_padded() {
        let rows = [example(&[3, 3, 5], &[0, 1]), example(&[2, 2, 5], &[0, 1])];
        assert_eq!(stacked_as(&rows), Some((vec![3, 4, 4, 5], vec![1, 2], 65)));
        // An axis that is as long as the tokens of one row by chance.
        let rows = [example(&[3, 2], &[0, 1]), example(&[2, 2], &[0])];
        assert_eq!(stacked_as(&rows), Some((vec![3, 4, 2], vec![1], 10)));
    }

    #[test]
    fn other_axes_must_agree() {
        let rows = [example(&[2], &[]), example(&[3], &[])];
        let error = sizes(&rows.iter().collect::<Vec<_>>(), 4).unwrap_err();
        let expected = "`f` line 1: `x` has shape [3], and another row of its batch has [2]";
        assert_eq!(error.to_string(), expected);
    }
}
