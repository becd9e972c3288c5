//! Inputs of a model that rows hold as nested lists of numbers: images, sounds.

use ndarray::{ArrayD, Axis, IxDyn};
use serde_json::Value;

use super::error::{Error, Origin};
use super::example::Example;
use super::jsonl::Line;
use super::parse::object;

/// A float input of a model: its name and, without the axis of the batch, its sizes as far as they are fixed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInput {
    /// Name of the input and of the field of a row.
    pub name: String,
    /// Sizes of a row; `None` where the model takes any.
    pub shape: Vec<Option<usize>>,
}

/// A tensor by the name of its input, without the axis of the batch.
pub(crate) type Named = (String, ArrayD<f32>);

/// The fields of a line for the inputs.
pub(crate) fn read(line: &Line, inputs: &[TensorInput]) -> Result<Vec<Named>, Error> {
    if inputs.is_empty() {
        return Ok(Vec::new());
    }
    let origin = &line.origin;
    let row = object(line)?;
    let mut tensors = Vec::with_capacity(inputs.len());
    for input in inputs {
        let wrong = |reason: String| Error::BadTensor { origin: origin.clone(), field: input.name.clone(), reason };
        let value = row.get(&input.name).ok_or_else(|| wrong("is missing".to_owned()))?;
        let (mut shape, mut data) = (Vec::new(), Vec::new());
        collect(value, 0, &mut shape, &mut data).map_err(|reason| wrong(reason.to_owned()))?;
        let fits = shape.len() == input.shape.len()
            && shape.iter().zip(&input.shape).all(|(size, fixed)| fixed.is_none_or(|fixed| fixed == *size));
        if !fits {
            return Err(wrong(format!("has shape {shape:?}, and the model takes {}", sizes(&input.shape))));
        }
        let tensor = ArrayD::from_shape_vec(IxDyn(&shape), data).map_err(|error| wrong(error.to_string()))?;
        tensors.push((input.name.clone(), tensor));
    }
    Ok(tensors)
}

/// An example of a model that reads no tokens. It counts as one token, all of whose rows enter the statistics.
pub(crate) fn example(origin: Origin) -> Example {
    Example {
        origin,
        ids: vec![0],
        types: None,
        attended: vec![true],
        keep: vec![true],
        source: None,
        tensors: Vec::new(),
        truncated: false,
    }
}

fn sizes(shape: &[Option<usize>]) -> String {
    let size = |size: &Option<usize>| size.map_or("any".to_owned(), |size| size.to_string());
    format!("[{}]", shape.iter().map(size).collect::<Vec<_>>().join(", "))
}

/// Adds the numbers below `value` to `data`, and finds the sizes of the lists or holds them to those found.
fn collect(value: &Value, depth: usize, shape: &mut Vec<usize>, data: &mut Vec<f32>) -> Result<(), &'static str> {
    match value {
        Value::Number(number) if depth == shape.len() => {
            data.push(number.as_f64().unwrap_or(f64::NAN) as f32);
            Ok(())
        }
        Value::Array(items) => {
            if data.is_empty() && depth == shape.len() {
                shape.push(items.len());
            }
            match shape.get(depth) {
                Some(size) if *size == items.len() => {
                    items.iter().try_for_each(|item| collect(item, depth + 1, shape, data))
                }
                _ => Err("has lists of different lengths"),
            }
        }
        Value::Number(_) => Err("has lists of different depths"),
        _ => Err("must be nested lists of numbers"),
    }
}

/// One tensor for each input with the rows of all examples; `None` if their shapes differ.
pub(crate) fn stacked(examples: &[&Example], sequences: usize) -> Option<Vec<Named>> {
    let first = examples.first().map_or(&[][..], |example| &example.tensors);
    let stack = |(at, (name, tensor)): (usize, &Named)| {
        let filler = ArrayD::zeros(tensor.raw_dim());
        let rows = examples.iter().map(|example| example.tensors.get(at).map(|(_, tensor)| tensor.view()));
        let rows = rows.chain((examples.len()..sequences).map(|_| Some(filler.view())));
        let rows: Option<Vec<_>> = rows.collect();
        Some((name.clone(), ndarray::stack(Axis(0), &rows?).ok()?))
    };
    first.iter().enumerate().map(stack).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(row: &str, expected: &str) {
        let line = Line { origin: Origin { file: std::path::Path::new("f").into(), line: 1 }, text: row.to_owned() };
        let inputs = [TensorInput { name: "x".to_owned(), shape: vec![Some(2), None] }];
        let text = match read(&line, &inputs) {
            Ok(tensors) => format!("{:?} {:?}", tensors[0].1.shape(), tensors[0].1.iter().collect::<Vec<_>>()),
            Err(error) => error.to_string().replace("`f` line 1: ", ""),
        };
        assert_eq!(text, expected);
    }

    #[test]
    fn nested_lists() {
        check(r#"{"x": [[1, 2.5, 3], [4, 5, 6]]}"#, "[2, 3] [1.0, 2.5, 3.0, 4.0, 5.0, 6.0]");
        check(r#"{"x": [[1, 2], [3]]}"#, "`x` has lists of different lengths");
        check(r#"{"x": [[1], 3]}"#, "`x` has lists of different depths");
        check(r#"{"x": [[1], ["a"]]}"#, "`x` must be nested lists of numbers");
        check(r#"{"x": [1, 2]}"#, "`x` has shape [2], and the model takes [2, any]");
        check(r#"{"y": 1}"#, "`x` is missing");
    }
}
