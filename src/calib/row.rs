//! A row of calibration data as its source gives it: named fields and their origin.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

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

impl RowOrigin {
    /// The file or source.
    pub(crate) fn source(&self) -> String {
        match self {
            Self::Line { file, .. } => file.display().to_string(),
            Self::Item { source, .. } => source.to_string(),
        }
    }

    /// The folder that paths in the row are relative to: that of its file, or the one that holds the arrays of the rows.
    pub(crate) fn folder(&self) -> &Path {
        let file = match self {
            Self::Line { file, .. } => file,
            Self::Item { source, .. } => Path::new(&**source),
        };
        if file.is_dir() {
            return file;
        }
        file.parent().unwrap_or(Path::new(""))
    }
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
    /// Whether it holds nothing: null, or an empty text, list or object.
    fn is_empty(&self) -> bool {
        match self {
            Self::Json(Value::Null) => true,
            Self::Json(Value::String(text)) => text.is_empty(),
            Self::Json(Value::Array(items)) => items.is_empty(),
            Self::Json(Value::Object(object)) => object.is_empty(),
            Self::Json(Value::Bool(_) | Value::Number(_)) | Self::Tensor(_) => false,
        }
    }

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
pub struct Fields(Vec<Field>);

#[derive(Clone, Debug, PartialEq)]
struct Field {
    name: String,
    value: FieldValue,
    read: Read,
}

/// Whether a field was read. It does not tell fields apart.
#[derive(Debug, Default)]
struct Read(AtomicBool);

impl Clone for Read {
    fn clone(&self) -> Self {
        Self(self.0.load(Ordering::Relaxed).into())
    }
}

impl PartialEq for Read {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Fields {
    /// The value of a field.
    pub fn get(&self, name: &str) -> Option<&FieldValue> {
        let field = self.0.iter().find(|field| field.name == name)?;
        field.read.0.store(true, Ordering::Relaxed);
        Some(&field.value)
    }

    /// The value of a field that is there and not null.
    pub(crate) fn present(&self, name: &str) -> Option<&FieldValue> {
        self.get(name).filter(|value| **value != FieldValue::Json(Value::Null))
    }

    /// The value of a field that is there and not null. This does not count as reading it.
    pub(crate) fn peek(&self, name: &str) -> Option<&FieldValue> {
        let field = self.0.iter().find(|field| field.name == name)?;
        Some(&field.value).filter(|value| **value != FieldValue::Json(Value::Null))
    }

    /// Whether a field is there and not null. This does not count as reading it.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.peek(name).is_some()
    }

    /// Gives a field a value, in place of the one that it has.
    pub(crate) fn set(&mut self, name: &str, value: impl Into<FieldValue>) {
        let value = value.into();
        match self.0.iter_mut().find(|field| field.name == name) {
            Some(field) => field.value = value,
            None => self.0.push(Field { name: name.to_owned(), value, read: Read::default() }),
        }
    }

    /// The names of the fields.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|field| field.name.as_str())
    }

    /// The fields.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &FieldValue)> {
        self.0.iter().map(|field| (field.name.as_str(), &field.value))
    }

    /// The same fields without those of some names, and with another one.
    pub(crate) fn replaced(mut self, without: &[&str], name: &str, value: impl Into<FieldValue>) -> Self {
        self.0.retain(|field| !without.contains(&field.name.as_str()));
        self.0.push(Field { name: name.to_owned(), value: value.into(), read: Read::default() });
        self
    }

    /// The names of the fields with a value that nobody has read.
    pub(crate) fn unread(&self) -> impl Iterator<Item = &str> {
        let unread = |field: &&Field| !field.read.0.load(Ordering::Relaxed) && !field.value.is_empty();
        self.0.iter().filter(unread).map(|field| field.name.as_str())
    }
}

/// A later field of the same name replaces an earlier one.
impl<N: Into<String>, V: Into<FieldValue>> FromIterator<(N, V)> for Fields {
    fn from_iter<T: IntoIterator<Item = (N, V)>>(fields: T) -> Self {
        let mut all: Vec<Field> = Vec::new();
        for (name, value) in fields {
            let (name, value) = (name.into(), value.into());
            match all.iter_mut().find(|earlier| earlier.name == name) {
                Some(earlier) => earlier.value = value,
                None => all.push(Field { name, value, read: Read::default() }),
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
        let field = |(name, value)| Field { name, value: FieldValue::Json(value), read: Read::default() };
        Self(object.into_iter().map(field).collect())
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
