//! Inputs of a model that rows hold as tensors or nested lists of numbers: images, sounds.

use serde_json::{Number, Value};

use super::error::{BadTensor, Error};
use super::example::{Example, Named};
use super::row::{FieldValue, Row, RowOrigin};
use crate::dtype::DType;
use crate::tensor::Tensor;

/// An input of a model that is a field of every row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInput {
    /// Name of the input and of the field.
    pub name: String,
    /// Type of its elements.
    pub dtype: DType,
    /// Sizes without the batch axis; `None` where the model takes any.
    pub shape: Vec<Option<usize>>,
}

/// The fields of a row for the inputs.
pub(crate) fn read(row: &Row, inputs: &[TensorInput]) -> Result<Vec<Named>, Error> {
    let read = |input: &TensorInput| {
        let wrong = |reason| Error::BadTensor {
            origin: row.origin.clone(),
            field: input.name.clone(),
            reason: Box::new(reason),
        };
        let tensor = field(row.fields.get(&input.name), input).map_err(wrong)?;
        Ok((input.name.clone(), tensor))
    };
    inputs.iter().map(read).collect()
}

fn field(value: Option<&FieldValue>, input: &TensorInput) -> Result<Tensor, BadTensor> {
    let tensor = match value {
        None => return Err(BadTensor::Missing),
        Some(FieldValue::Tensor(tensor)) if tensor.dtype() == input.dtype => tensor.clone(),
        Some(FieldValue::Tensor(tensor)) => {
            return Err(BadTensor::Type { expected: input.dtype, got: tensor.dtype() });
        }
        Some(FieldValue::Json(value)) => from_json(value, input)?,
    };
    let is_size = |(size, fixed): (&usize, &Option<usize>)| fixed.is_none_or(|fixed| fixed == *size);
    let sizes = tensor.shape();
    if sizes.len() != input.shape.len() || !sizes.iter().zip(&input.shape).all(is_size) {
        return Err(BadTensor::Shape { expected: input.shape.clone(), got: sizes.to_vec() });
    }
    Ok(tensor)
}

/// An example of a model that reads no tokens. It counts as one token, all of whose rows enter the statistics.
pub(crate) fn example(origin: RowOrigin) -> Example {
    Example {
        origin,
        ids: vec![0],
        types: None,
        positions: None,
        attended: vec![true],
        keep: vec![true],
        source: None,
        tensors: Vec::new(),
        truncated: false,
    }
}

/// A tensor of the input's type from nested lists of numbers.
fn from_json(value: &Value, input: &TensorInput) -> Result<Tensor, BadTensor> {
    let mut shape = Vec::new();
    let mut numbers = Vec::new();
    collect(value, 0, &mut shape, &mut numbers)?;
    let tensor = if input.dtype.is_float() {
        let floats: Option<Vec<f64>> = numbers.iter().map(|number| number.as_f64()).collect();
        floats.and_then(|floats| Tensor::from_f64(input.dtype, &shape, &floats))
    } else {
        let integers: Option<Vec<i64>> = numbers.iter().map(|number| number.as_i64()).collect();
        integers.and_then(|integers| Tensor::from_i64(input.dtype, &shape, &integers))
    };
    tensor.ok_or(BadTensor::Numbers { dtype: input.dtype })
}

/// Adds the numbers below `value` to `numbers`, and finds the sizes of the lists or holds them to those found.
fn collect<'v>(
    value: &'v Value,
    depth: usize,
    shape: &mut Vec<usize>,
    numbers: &mut Vec<&'v Number>,
) -> Result<(), BadTensor> {
    match value {
        Value::Number(number) if depth == shape.len() => {
            numbers.push(number);
            Ok(())
        }
        Value::Array(items) => {
            if numbers.is_empty() && depth == shape.len() {
                shape.push(items.len());
            }
            match shape.get(depth) {
                Some(size) if *size == items.len() => {
                    items.iter().try_for_each(|item| collect(item, depth + 1, shape, numbers))
                }
                _ => Err(BadTensor::Lengths),
            }
        }
        Value::Number(_) => Err(BadTensor::Depths),
        _ => Err(BadTensor::NoNumbers),
    }
}

/// One tensor for each input with the rows of all examples, and zeros up to `sequences` rows.
///
/// `None` when shapes differ.
pub(crate) fn stacked(examples: &[&Example], sequences: usize) -> Option<Vec<Named>> {
    let first = examples.first().map_or(&[][..], |example| &example.tensors);
    let stack = |(at, (name, tensor)): (usize, &Named)| {
        let filler = Tensor::zeros(tensor.dtype(), tensor.shape())?;
        let rows = examples.iter().map(|example| example.tensors.get(at).map(|(_, tensor)| tensor));
        let rows = rows.chain((examples.len()..sequences).map(|_| Some(&filler)));
        Some((name.clone(), Tensor::stack(&rows.collect::<Option<Vec<_>>>()?)?))
    };
    first.iter().enumerate().map(stack).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calib::row::testing;

    #[track_caller]
    fn check(json: &str, dtype: DType, expected: &str) {
        let inputs = [TensorInput { name: "x".to_owned(), dtype, shape: vec![Some(2), None] }];
        let text = match read(&testing::row(json), &inputs) {
            Ok(tensors) => match &tensors[0].1 {
                Tensor::F32(array) => format!("{:?} {:?}", array.shape(), array.iter().collect::<Vec<_>>()),
                other => format!("{:?} {:?}", other.shape(), other.to_integers().unwrap()),
            },
            Err(error) => error.to_string().replace("`f` line 1: ", ""),
        };
        assert_eq!(text, expected);
    }

    #[test]
    fn nested_lists() {
        let check = |json: &str, expected: &str| check(json, DType::F32, expected);
        check(r#"{"x": [[1, 2.5, 3], [4, 5, 6]]}"#, "[2, 3] [1.0, 2.5, 3.0, 4.0, 5.0, 6.0]");
        check(r#"{"x": [[1, 2], [3]]}"#, "`x` has lists of different lengths");
        check(r#"{"x": [[1], 3]}"#, "`x` has lists of different depths");
        check(r#"{"x": [[1], ["a"]]}"#, "`x` must be a tensor or nested lists of numbers");
        check(r#"{"x": [1, 2]}"#, "`x` has shape [2], and the model takes [2, any]");
        check(r#"{"y": 1}"#, "`x` is missing");
    }

    #[test]
    fn integers() {
        check(r#"{"x": [[1], [-4]]}"#, DType::I64, "[2, 1] [1, -4]");
        check(r#"{"x": [[1], [0]]}"#, DType::Bool, "[2, 1] [1, 0]");
        check(r#"{"x": [[1.5], [4]]}"#, DType::I64, "`x` has numbers that are no i64");
        check(r#"{"x": [[300], [4]]}"#, DType::U8, "`x` has numbers that are no u8");
    }

    #[test]
    fn tensors_are_taken_as_they_are() {
        let tensor = Tensor::from_vec(&[2, 1], vec![1.0f32, 2.0]).unwrap();
        let row = Row { origin: testing::origin(), fields: [("x", tensor.clone())].into() };
        let input = |dtype| [TensorInput { name: "x".to_owned(), dtype, shape: vec![Some(2), None] }];
        assert_eq!(read(&row, &input(DType::F32)).unwrap(), [("x".to_owned(), tensor)]);
        let error = read(&row, &input(DType::I64)).unwrap_err().to_string();
        assert_eq!(error, "`f` line 1: `x` has elements of type f32, and the model takes i64");
    }
}
