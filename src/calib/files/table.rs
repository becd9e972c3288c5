//! Tables: CSV and its kin, with the names of the columns in the first line.

use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use csv::{ErrorKind, StringRecord};
use serde_json::Value;

use super::super::error::Error;
use super::super::file_error::FileError;
use super::super::row::{FieldValue, Fields, Row, RowOrigin};
use super::bounded::{Bounded, exceeded};
use super::object::{too_long, unreadable};

/// Columns whose cells hold lists, as JSON.
const LISTS: [&str; 9] = [
    "input_ids",
    "attention_mask",
    "token_type_ids",
    "position_ids",
    "labels",
    "decoder_input_ids",
    "messages",
    "conversations",
    "history",
];

/// The rows of a table.
pub(super) struct Table<R> {
    reader: csv::Reader<Bounded<R>>,
    file: Arc<Path>,
    columns: Option<Vec<String>>,
    /// What the reader's count of lines lacks: where lines end in CR and LF, it counts the LF with the next record.
    uncounted: usize,
    ended: bool,
}

impl<R: Read> Table<R> {
    pub(super) fn new(input: R, file: Arc<Path>, delimiter: u8) -> Self {
        let reader = csv::ReaderBuilder::new().delimiter(delimiter).from_reader(Bounded::new(input));
        Self { reader, file, columns: None, uncounted: 0, ended: false }
    }

    fn next_row(&mut self) -> Result<Option<Row>, Error> {
        let columns = match self.columns.take() {
            Some(columns) => columns,
            None => self.header()?,
        };
        let columns = self.columns.insert(columns);
        let mut record = StringRecord::new();
        self.reader.get_mut().allow();
        let read = self.reader.read_record(&mut record);
        let line = self.uncounted + record.position().map_or(0, |position| position.line()) as usize;
        let origin = |line| RowOrigin::Line { file: self.file.clone(), line };
        match read {
            Ok(true) => {
                let fields: Fields =
                    columns.iter().zip(&record).map(|(name, cell)| (&**name, value(name, cell))).collect();
                Ok(Some(Row { origin: origin(line), fields }))
            }
            Ok(false) => Ok(None),
            Err(error) => {
                self.ended = error.is_io_error();
                Err(failed(error, origin))
            }
        }
    }

    /// The names of the columns.
    fn header(&mut self) -> Result<Vec<String>, Error> {
        self.reader.get_mut().allow();
        let header = self.reader.headers().cloned();
        let header = header.map_err(|error| {
            // Without names there are no rows, and the header would be read again and again.
            self.ended = true;
            failed(error, |line| RowOrigin::Line { file: self.file.clone(), line })
        })?;
        let within: usize = header.iter().map(|name| name.matches('\n').count()).sum();
        self.uncounted = (2 + within).saturating_sub(self.reader.position().line() as usize);
        let columns: Vec<String> = header.iter().map(|name| name.trim().to_owned()).collect();
        let twice = columns.iter().enumerate().find(|(at, name)| columns[..*at].contains(name));
        match twice {
            Some((_, name)) => {
                self.ended = true;
                Err(FileError::TwoColumns { file: self.file.to_path_buf(), name: name.clone() }.into())
            }
            None => Ok(columns),
        }
    }
}

impl<R: Read> Iterator for Table<R> {
    type Item = Result<Row, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended { None } else { self.next_row().transpose() }
    }
}

/// The value of a cell: text, or the list that it holds. An empty list is none.
fn value(column: &str, cell: &str) -> FieldValue {
    if !LISTS.contains(&column) {
        return cell.into();
    }
    let list = if cell.trim().is_empty() { Ok(Value::Null) } else { serde_json::from_str(cell) };
    list.map_or_else(|_| cell.into(), FieldValue::Json)
}

fn failed(error: csv::Error, origin: impl Fn(usize) -> RowOrigin) -> Error {
    let origin = origin(error.position().map_or(1, |position| position.line()) as usize);
    match error.into_kind() {
        ErrorKind::UnequalLengths { expected_len, len, .. } => {
            FileError::Columns { origin, expected: expected_len, got: len }.into()
        }
        ErrorKind::Utf8 { err, .. } => Error::NotUtf8 { origin, column: err.valid_up_to() + 1 },
        ErrorKind::Io(error) if exceeded(&error) => too_long(origin),
        ErrorKind::Io(error) => unreadable(Path::new(&origin.source()), error),
        other => unreadable(Path::new(&origin.source()), io::Error::other(format!("{other:?}"))),
    }
}
