//! Inputs of a model that rows hold by name, as tensors or nested lists of numbers: images, sounds, states, masks.

use serde_json::Value;

use super::arrays;
use super::bad_tensor::BadTensor;
use super::error::Error;
use super::ids::has_mask;
use super::input::{Size, TensorInput};
use super::row::{FieldValue, Row, RowOrigin};
use crate::tensor::Tensor;

/// A tensor by the name of its input.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedTensor {
    /// Name of the input.
    pub name: String,
    /// The tensor; that of a row has no batch axis.
    pub tensor: Tensor,
    /// The axes along which it has an entry for each token.
    pub token_axes: Vec<usize>,
}

impl NamedTensor {
    /// The first `length` entries along the axes of tokens.
    pub(crate) fn truncate(&self, length: usize) -> Self {
        let tensor = self.token_axes.iter().fold(self.tensor.clone(), |tensor, axis| tensor.truncate(*axis, length));
        Self { tensor, ..self.clone() }
    }

    /// The entries at `indices` of the first axis, which is the batch.
    pub(crate) fn select(&self, indices: &[usize]) -> Self {
        Self { tensor: self.tensor.select(0, indices), ..self.clone() }
    }
}

/// The fields of a row for the inputs. Axes that may be those of tokens count as such until the tokens are known.
pub(crate) fn read(row: &Row, inputs: &[TensorInput]) -> Result<Vec<NamedTensor>, Error> {
    let read = |input: &TensorInput| {
        let wrong = |reason| bad(&row.origin, &input.name, reason);
        let tensor = field(row.fields.present(&input.name), input, &row.origin).map_err(wrong)?;
        let is_open = tensor.shape().len() == 1 && matches!(input.shape[0], Size::Tokens | Size::TokensOrAny);
        if is_open && is_mask(&input.name) && !has_mask(row) && !is_constant(&tensor) {
            return Err(wrong(BadTensor::Mask));
        }
        let open = |(_, size): &(usize, &Size)| matches!(size, Size::Tokens | Size::TokensOrAny);
        let token_axes = input.shape.iter().enumerate().filter(open).map(|(axis, _)| axis).collect();
        Ok(NamedTensor { name: input.name.clone(), tensor, token_axes })
    };
    inputs.iter().map(read).collect()
}

/// Names of masks of tokens of which it is not known whether 1 is a token or padding.
const MASKS: [&str; 11] = [
    "mask",
    "masks",
    "src_mask",
    "tgt_mask",
    "token_mask",
    "tokens_mask",
    "seq_mask",
    "sequence_mask",
    "text_mask",
    "valid_mask",
    "input_masks",
];

fn is_mask(name: &str) -> bool {
    let name = name.to_lowercase();
    MASKS.contains(&&*name) || (name.contains("pad") && name.contains("mask"))
}

fn is_constant(tensor: &Tensor) -> bool {
    let values = tensor.to_floats();
    values.iter().all(|value| *value == values[0])
}

/// What is wrong with a field of a row.
pub(crate) fn bad(origin: &RowOrigin, field: &str, reason: BadTensor) -> Error {
    Error::BadTensor { origin: origin.clone(), field: field.to_owned(), reason: Box::new(reason) }
}

fn field(value: Option<&FieldValue>, input: &TensorInput, origin: &RowOrigin) -> Result<Tensor, BadTensor> {
    let cast = |tensor: &Tensor| {
        let wrong = || BadTensor::Type { expected: input.dtype, got: tensor.dtype() };
        tensor.cast(input.dtype).ok_or_else(wrong)
    };
    let tensor = match value {
        None => return Err(BadTensor::Missing),
        Some(FieldValue::Tensor(tensor)) => cast(tensor)?,
        Some(FieldValue::Json(Value::String(text))) => match serde_json::from_str(text) {
            // A cell of a table.
            Ok(list @ Value::Array(_)) => from_json(&list, input)?,
            _ => match arrays::named(&origin.folder().join(text), &input.name) {
                Ok(FieldValue::Tensor(tensor)) => cast(&tensor)?,
                Ok(_) => return Err(BadTensor::NoNumbers),
                Err(error) => return Err(BadTensor::File { message: error.to_string() }),
            },
        },
        Some(FieldValue::Json(value)) => from_json(value, input)?,
    };
    let is_size = |(size, wanted): (&usize, &Size)| !matches!(wanted, Size::Fixed(fixed) if fixed != size);
    let fits = |tensor: &Tensor| {
        tensor.shape().len() == input.shape.len() && tensor.shape().iter().zip(&input.shape).all(is_size)
    };
    if fits(&tensor) {
        return Ok(tensor);
    }
    // Processors that return tensors give them a batch axis.
    let alone = tensor.squeezed().filter(fits);
    alone.ok_or_else(|| BadTensor::Shape { expected: input.shape.clone(), got: tensor.shape().to_vec() })
}

/// The tensors of a row of `length` tokens, of which those at `wanted` are taken.
///
/// # Errors
/// When a tensor has another number of entries along an axis of tokens.
pub(crate) fn of_tokens(
    tensors: Vec<NamedTensor>,
    inputs: &[TensorInput],
    (length, wanted): (usize, &[usize]),
    origin: &RowOrigin,
) -> Result<Vec<NamedTensor>, Error> {
    let taken = |(named, input): (NamedTensor, &TensorInput)| {
        let NamedTensor { name, mut tensor, mut token_axes } = named;
        token_axes.retain(|axis| input.shape[*axis] == Size::Tokens || tensor.shape()[*axis] == length);
        if let Some(axis) = token_axes.iter().find(|axis| tensor.shape()[**axis] != length) {
            let reason = BadTensor::Tokens { got: tensor.shape()[*axis], expected: length };
            return Err(bad(origin, &name, reason));
        }
        if wanted.len() < length {
            tensor = token_axes.iter().fold(tensor, |tensor, axis| tensor.select(*axis, wanted));
        }
        Ok(NamedTensor { name, tensor, token_axes })
    };
    tensors.into_iter().zip(inputs).map(taken).collect()
}

/// The number of tokens of a row that has no token ids, and the field that gives it: the size of the first axis of tokens.
pub(crate) fn length<'a>(tensors: &'a [NamedTensor], inputs: &[TensorInput]) -> Option<(&'a str, usize)> {
    let size = |wanted: Size| {
        let mut inputs = tensors.iter().zip(inputs);
        inputs.find_map(|(named, input)| {
            let axis = input.shape.iter().position(|size| *size == wanted)?;
            Some((named.name.as_str(), *named.tensor.shape().get(axis)?))
        })
    };
    size(Size::Tokens).or_else(|| size(Size::TokensOrAny))
}

/// A tensor of the input's type from nested lists of numbers or truth values.
fn from_json(value: &Value, input: &TensorInput) -> Result<Tensor, BadTensor> {
    let (mut shape, mut values) = (Vec::new(), Vec::new());
    collect(value, 0, &mut shape, &mut values)?;
    let integer = |value: &&Value| value.as_i64().or_else(|| value.as_bool().map(i64::from));
    let tensor = if input.dtype.is_float() {
        let float = |value: &&Value| value.as_f64().or_else(|| integer(value).map(|integer| integer as f64));
        let floats: Option<Vec<f64>> = values.iter().map(float).collect();
        let wide = floats.and_then(|floats| Tensor::from_vec(&shape, floats));
        wide.and_then(|wide| wide.cast(input.dtype))
    } else {
        let integers: Option<Vec<i64>> = values.iter().map(integer).collect();
        integers.and_then(|integers| Tensor::from_i64(input.dtype, &shape, &integers))
    };
    tensor.ok_or(BadTensor::Numbers { dtype: input.dtype })
}

/// Adds the numbers below `value` to `values`, and finds the sizes of the lists or holds them to those found.
fn collect<'v>(
    value: &'v Value,
    depth: usize,
    shape: &mut Vec<usize>,
    values: &mut Vec<&'v Value>,
) -> Result<(), BadTensor> {
    match value {
        Value::Number(_) | Value::Bool(_) if depth == shape.len() => {
            values.push(value);
            Ok(())
        }
        Value::Array(items) => {
            if values.is_empty() && depth == shape.len() {
                shape.push(items.len());
            }
            match shape.get(depth) {
                Some(size) if *size == items.len() => {
                    items.iter().try_for_each(|item| collect(item, depth + 1, shape, values))
                }
                _ => Err(BadTensor::Lengths),
            }
        }
        Value::Number(_) | Value::Bool(_) => Err(BadTensor::Depths),
        _ => Err(BadTensor::NoNumbers),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calib::row::testing;
    use crate::dtype::DType;

    fn input(dtype: DType, shape: &[Size]) -> [TensorInput; 1] {
        [TensorInput { name: "x".to_owned(), dtype, shape: shape.to_vec() }]
    }

    /// The tensor of a row, or what is wrong with it; `length` tokens, of which all but the first are taken.
    fn shown(row: &Row, inputs: &[TensorInput], length: Option<usize>) -> String {
        let of_tokens = |tensors| match length {
            Some(length) => of_tokens(tensors, inputs, (length, &(1..length).collect::<Vec<_>>()), &testing::origin()),
            None => Ok(tensors),
        };
        match read(row, inputs).and_then(of_tokens) {
            Ok(tensors) => format!("{:?} {:?}", tensors[0].tensor.shape(), tensors[0].tensor.to_floats()),
            Err(error) => error.to_string().replace("`f` line 1: ", ""),
        }
    }

    #[track_caller]
    fn check(json: &str, dtype: DType, expected: &str) {
        assert_eq!(shown(&testing::row(json), &input(dtype, &[Size::Fixed(2), Size::Any]), None), expected);
    }

    #[test]
    fn nested_lists() {
        let check = |json: &str, expected: &str| check(json, DType::F32, expected);
        check(r#"{"x": [[1, 2.5, 3], [4, 5, 6]]}"#, "[2, 3] [1.0, 2.5, 3.0, 4.0, 5.0, 6.0]");
        check(r#"{"x": [[[1, 2], [4, 5]]]}"#, "[2, 2] [1.0, 2.0, 4.0, 5.0]");
        check(r#"{"x": [[1, 2], [3]]}"#, "`x` has lists of different lengths");
        check(r#"{"x": [[1], 3]}"#, "`x` has lists of different depths");
        check(r#"{"x": [[1], ["a"]]}"#, "`x` must be a tensor or nested lists of numbers");
        check(r#"{"x": [1, 2]}"#, "`x` has shape [2], and the model takes [2, any]");
        check(r#"{"y": 1}"#, "`x` is missing");
        check(r#"{"x": null}"#, "`x` is missing");
    }

    #[test]
    fn integers_and_truth_values() {
        check(r#"{"x": [[1], [-4]]}"#, DType::I64, "[2, 1] [1.0, -4.0]");
        check(r#"{"x": [[1], [0]]}"#, DType::Bool, "[2, 1] [1.0, 0.0]");
        check(r#"{"x": [[true], [false]]}"#, DType::Bool, "[2, 1] [1.0, 0.0]");
        check(r#"{"x": [[true], [false]]}"#, DType::F16, "[2, 1] [1.0, 0.0]");
        check(r#"{"x": [[1.5], [4]]}"#, DType::I64, "`x` has numbers that are no i64");
        check(r#"{"x": [[300], [4]]}"#, DType::U8, "`x` has numbers that are no u8");
        check(r#"{"x": [[70000], [4]]}"#, DType::F16, "`x` has numbers that are no f16");
    }

    #[test]
    fn tensors_are_taken_in_any_type_that_holds_their_values() {
        let tensor = Tensor::from_vec(&[2, 1], vec![1.5f64, 2.0]).unwrap();
        let row = Row { origin: testing::origin(), fields: [("x", tensor)].into() };
        let shown = |dtype| shown(&row, &input(dtype, &[Size::Fixed(2), Size::Any]), None);
        assert_eq!(shown(DType::F32), "[2, 1] [1.5, 2.0]");
        assert_eq!(shown(DType::I64), "`x` has elements of type f64, and the model takes i64");
    }

    #[test]
    fn entries_go_with_the_tokens() {
        let check = |json: &str, shape: &[Size], expected: &str| {
            assert_eq!(shown(&testing::row(json), &input(DType::I64, shape), Some(3)), expected);
        };
        let (tokens, perhaps) = (Size::Tokens, Size::TokensOrAny);
        check(r#"{"x": [[1, 2], [3, 4], [5, 6]]}"#, &[tokens, Size::Fixed(2)], "[2, 2] [3.0, 4.0, 5.0, 6.0]");
        check(r#"{"x": [[1, 2, 3], [4, 5, 6], [7, 8, 9]]}"#, &[tokens, tokens], "[2, 2] [5.0, 6.0, 8.0, 9.0]");
        check(r#"{"x": [[1, 2, 3], [4, 5, 6]]}"#, &[perhaps, perhaps], "[2, 2] [2.0, 3.0, 5.0, 6.0]");
        check(r#"{"x": [1, 2, 3]}"#, &[Size::Any], "[3] [1.0, 2.0, 3.0]");
        check(r#"{"x": [1, 2]}"#, &[tokens], "`x` has 2 entries for the row's 3 tokens");
    }
}
