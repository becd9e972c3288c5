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
pub(crate) fn integers(row: &Row, name: &str) -> Result<Option<Vec<i64>>, Error> {
    const EXPECTED: &str = "a list of integers";
    let wrong = |got: String| wrong_type(name, EXPECTED, got, &row.origin);
    match row.fields.present(name) {
        None => Ok(None),
        Some(FieldValue::Json(Value::Array(values))) => {
            let integer = |value: &Value| {
                value.as_i64().ok_or_else(|| {
                    let got = if value.is_number() { value.to_string() } else { json_kind(value).to_owned() };
                    wrong(format!("{got} in it"))
                })
            };
            values.iter().map(integer).collect::<Result<_, _>>().map(Some)
        }
        Some(FieldValue::Json(value)) => Err(wrong(json_kind(value).to_owned())),
        Some(FieldValue::Tensor(tensor)) => {
            let list = tensor.to_integers().filter(|_| tensor.shape().len() == 1);
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
