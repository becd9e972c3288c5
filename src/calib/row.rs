//! A row of calibration data as its source gives it: named fields and their origin.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::tensor::Tensor;

/// Where a row comes from, for messages.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RowOrigin {
    /// A line of a file.
    Line {
        /// The file as it was given.
        file: Arc<Path>,
        /// Line number, from 1.
        line: usize,
    },
    /// A row of any other source.
    Item {
        /// The source's name.
        source: Arc<str>,
        /// Number of the row, from 1.
        number: usize,
    },
}

impl fmt::Display for RowOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line { file, line } => write!(f, "`{}` line {line}", file.display()),
            Self::Item { source, number } => write!(f, "`{source}` row {number}"),
        }
    }
}

/// A row of calibration data.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// Where it comes from.
    pub origin: RowOrigin,
    /// Its named values.
    pub fields: Fields,
}

/// The value of a field.
#[derive(Clone, Debug, PartialEq)]
pub enum FieldValue {
    /// Text, numbers, lists of numbers.
    Json(Value),
    /// A tensor for an input of the model, without the batch axis; or token ids and masks `[length]`.
    Tensor(Tensor),
}

impl FieldValue {
    /// The kind of value, for a message.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Json(value) => json_kind(value),
            Self::Tensor(_) => "a tensor",
        }
    }
}

impl From<Value> for FieldValue {
    fn from(value: Value) -> Self {
        Self::Json(value)
    }
}

impl From<&str> for FieldValue {
    fn from(text: &str) -> Self {
        Self::Json(text.into())
    }
}

impl From<String> for FieldValue {
    fn from(text: String) -> Self {
        Self::Json(text.into())
    }
}

impl From<Tensor> for FieldValue {
    fn from(tensor: Tensor) -> Self {
        Self::Tensor(tensor)
    }
}

/// The fields of a row by name, in their order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fields(Vec<(String, FieldValue)>);

impl Fields {
    /// The value of a field.
    pub fn get(&self, name: &str) -> Option<&FieldValue> {
        self.0.iter().find(|(field, _)| field == name).map(|(_, value)| value)
    }

    /// The value of a field that is there and not null.
    pub(crate) fn present(&self, name: &str) -> Option<&FieldValue> {
        self.get(name).filter(|value| **value != FieldValue::Json(Value::Null))
    }

    /// The names of the fields.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }
}

/// A later field of the same name replaces an earlier one.
impl<N: Into<String>, V: Into<FieldValue>> FromIterator<(N, V)> for Fields {
    fn from_iter<T: IntoIterator<Item = (N, V)>>(fields: T) -> Self {
        let mut all: Vec<(String, FieldValue)> = Vec::new();
        for (name, value) in fields {
            let (name, value) = (name.into(), value.into());
            match all.iter_mut().find(|(earlier, _)| *earlier == name) {
                Some((_, earlier)) => *earlier = value,
                None => all.push((name, value)),
            }
        }
        Self(all)
    }
}

impl<N: Into<String>, V: Into<FieldValue>, const LEN: usize> From<[(N, V); LEN]> for Fields {
    fn from(fields: [(N, V); LEN]) -> Self {
        fields.into_iter().collect()
    }
}

impl From<Map<String, Value>> for Fields {
    fn from(object: Map<String, Value>) -> Self {
        Self(object.into_iter().map(|(name, value)| (name, FieldValue::Json(value))).collect())
    }
}

/// The kind of a JSON value, for a message.
pub(crate) fn json_kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use super::*;

    /// Line 1 of the file `f`.
    pub(crate) fn origin() -> RowOrigin {
        RowOrigin::Line { file: Path::new("f").into(), line: 1 }
    }

    /// A row from the text of a JSON object.
    #[track_caller]
    pub(crate) fn row(json: &str) -> Row {
        let object: Map<String, Value> = serde_json::from_str(json).unwrap();
        Row { origin: origin(), fields: object.into() }
    }
}
