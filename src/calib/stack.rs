//! The tensors of the rows of a batch as one tensor for each input.

use super::example::Example;
use super::tensors::NamedTensor;
use crate::tensor::Tensor;

/// The sizes of tensor `at` in a batch of these examples, padded to `length` tokens.
fn sizes(examples: &[&Example], at: usize, length: usize) -> Option<Vec<usize>> {
    let mut sizes = examples.first()?.tensors.get(at)?.tensor.shape().to_vec();
    token_axes(examples, at).into_iter().for_each(|axis| sizes[axis] = length);
    Some(sizes)
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
    let stack = |(at, named): (usize, &NamedTensor)| {
        let rows: Vec<&Tensor> = examples.iter().map(|example| &example.tensors[at].tensor).collect();
        Some(NamedTensor {
            name: named.name.clone(),
            tensor: Tensor::stack(&rows, dims.0, &sizes(examples, at, dims.1)?)?,
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
}
