//! The JSON object of a row.

use std::io;
use std::path::Path;

use serde_json::Value;

use super::super::error::Error;
use super::super::file_error::FileError;
use super::super::row::{Row, RowOrigin, json_kind};

/// Most bytes of a row.
pub(super) const LONGEST: usize = 1 << 28;

/// The row of one JSON object.
pub(super) fn parse(mut origin: RowOrigin, bytes: Vec<u8>) -> Result<Row, Error> {
    let text = match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => return Err(Error::NotUtf8 { origin, column: error.utf8_error().valid_up_to() + 1 }),
    };
    match serde_json::from_str(&text) {
        Ok(Value::Object(object)) => Ok(Row { origin, fields: object.into() }),
        Ok(other) => Err(Error::NotAnObject { origin, got: json_kind(&other) }),
        Err(error) => {
            let message = error.to_string();
            let message = message.split(" at line ").next().unwrap_or_default().to_owned();
            if let RowOrigin::Line { line, .. } = &mut origin {
                *line += error.line().saturating_sub(1);
            }
            Err(Error::Json { origin, column: error.column(), message })
        }
    }
}

/// The error of a row with more than [`LONGEST`] bytes.
pub(super) fn too_long(origin: RowOrigin) -> Error {
    FileError::LongRow { origin, most: LONGEST }.into()
}

/// The error of a file that cannot be read.
pub(super) fn unreadable(file: &Path, source: io::Error) -> Error {
    Error::Io { file: file.to_owned(), source }
}
