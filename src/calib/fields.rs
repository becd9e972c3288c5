//! Typed access to the fields of a row.

use serde_json::Value;

use super::error::Error;
use super::row::{FieldValue, Row, RowOrigin, json_kind};

/// A field that must be a string.
pub(crate) fn string<'a>(row: &'a Row, name: &str) -> Result<&'a str, Error> {
    match row.fields.get(name) {
        Some(FieldValue::Json(Value::String(text))) => Ok(text),
        other => {
            let got = other.map_or("nothing", FieldValue::kind).to_owned();
            Err(wrong_type(name, "a string", got, &row.origin))
        }
    }
}

/// A field that must be a list of integers; `None` when it is absent or null.
///
/// Whole numbers with a decimal point are integers. A list around the list is the axis of a batch of one row, and text
/// that is a JSON list stands for the list, as in tables.
pub(crate) fn integers(row: &Row, name: &str) -> Result<Option<Vec<i64>>, Error> {
    list(row, name, |value| match value.as_i64() {
        None => value.as_f64().and_then(whole),
        integer => integer,
    })
}

/// The integer that a float is.
fn whole(number: f64) -> Option<i64> {
    (number.fract() == 0.0 && number.abs() < EXACT).then_some(number as i64)
}

/// As [`integers`], with true and false as 1 and 0.
pub(crate) fn flags(row: &Row, name: &str) -> Result<Option<Vec<i64>>, Error> {
    match row.fields.present(name) {
        Some(FieldValue::Json(Value::Array(values))) if values.iter().flat_map(inner).all(Value::is_boolean) => {
            list(row, name, |value| value.as_bool().map(i64::from))
        }
        _ => integers(row, name),
    }
}

/// Integers up to here are exact as f64.
const EXACT: f64 = (1u64 << 53) as f64;

/// The values of a list, or the value itself.
fn inner(value: &Value) -> &[Value] {
    value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice)
}

fn list(row: &Row, name: &str, integer: impl Fn(&Value) -> Option<i64>) -> Result<Option<Vec<i64>>, Error> {
    const EXPECTED: &str = "a list of integers";
    let wrong = |got: String| wrong_type(name, EXPECTED, got, &row.origin);
    let element = |value: &Value| {
        integer(value).ok_or_else(|| {
            let got = if value.is_number() { value.to_string() } else { json_kind(value).to_owned() };
            wrong(format!("{got} in it"))
        })
    };
    let all = |values: &[Value]| values.iter().map(element).collect::<Result<_, _>>().map(Some);
    match row.fields.present(name) {
        None => Ok(None),
        Some(FieldValue::Json(Value::Array(values))) => match values.as_slice() {
            [Value::Array(values)] => all(values),
            several if several.len() > 1 && several.iter().all(Value::is_array) => {
                Err(wrong(format!("{} lists in it", several.len())))
            }
            values => all(values),
        },
        Some(FieldValue::Json(Value::String(text))) => match serde_json::from_str::<Vec<Value>>(text) {
            Ok(values) => all(&values),
            Err(_) => Err(wrong("a string".to_owned())),
        },
        Some(FieldValue::Json(value)) => Err(wrong(json_kind(value).to_owned())),
        Some(FieldValue::Tensor(tensor)) => {
            let whole = || tensor.to_floats().into_iter().map(whole).collect::<Option<Vec<i64>>>();
            let list = tensor.to_integers().or_else(whole).filter(|_| matches!(tensor.shape(), [_] | [1, _]));
            list.map(Some)
                .ok_or_else(|| wrong(format!("a tensor of type {} and shape {:?}", tensor.dtype(), tensor.shape())))
        }
    }
}

/// Values of a list that must be from 0 and fit 32 bits.
pub(crate) fn token_ids(values: Vec<i64>, name: &str, origin: &RowOrigin) -> Result<Vec<u32>, Error> {
    let narrow = |value: i64| {
        u32::try_from(value)
            .map_err(|_| wrong_type(name, "a list of token ids from 0", format!("{value} in it"), origin))
    };
    values.into_iter().map(narrow).collect()
}

/// The error for a field with a value of the wrong kind.
pub(crate) fn wrong_type(field: &str, expected: &'static str, got: String, origin: &RowOrigin) -> Error {
    Error::FieldType { origin: origin.clone(), field: field.to_owned(), expected, got }
}
