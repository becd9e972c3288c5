//! Typed access to the fields of a row.

use serde_json::{Map, Value};

use super::error::{Error, Origin};

/// A field that is there and not null.
pub(crate) fn present<'a>(row: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    row.get(name).filter(|value| !value.is_null())
}

/// A field that must be a string.
pub(crate) fn string<'a>(row: &'a Map<String, Value>, name: &str, origin: &Origin) -> Result<&'a str, Error> {
    match row.get(name) {
        Some(Value::String(text)) => Ok(text),
        other => {
            let got = other.map_or("nothing", kind).to_owned();
            Err(wrong_type(name, "a string", got, origin))
        }
    }
}

/// A field that must be a list of integers; `None` when it is absent or null.
pub(crate) fn integers(row: &Map<String, Value>, name: &str, origin: &Origin) -> Result<Option<Vec<i64>>, Error> {
    const EXPECTED: &str = "a list of integers";
    let Some(value) = present(row, name) else {
        return Ok(None);
    };
    let Value::Array(values) = value else {
        return Err(wrong_type(name, EXPECTED, kind(value).to_owned(), origin));
    };
    let integer = |value: &Value| {
        value.as_i64().ok_or_else(|| {
            let got = if value.is_number() { value.to_string() } else { kind(value).to_owned() };
            wrong_type(name, EXPECTED, format!("{got} in it"), origin)
        })
    };
    values.iter().map(integer).collect::<Result<_, _>>().map(Some)
}

/// Values of a list that must be from 0 and fit 32 bits.
pub(crate) fn narrow(values: Vec<i64>, name: &str, origin: &Origin) -> Result<Vec<u32>, Error> {
    let narrow = |value: i64| {
        u32::try_from(value)
            .map_err(|_| wrong_type(name, "a list of token ids from 0", format!("{value} in it"), origin))
    };
    values.into_iter().map(narrow).collect()
}

/// The error for a field with a value of the wrong kind.
pub(crate) fn wrong_type(field: &str, expected: &'static str, got: String, origin: &Origin) -> Error {
    Error::FieldType { origin: origin.clone(), field: field.to_owned(), expected, got }
}

/// The kind of a JSON value for a message.
pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
