//! Lines of a file that are not blank, with their positions: JSON lines.

use std::io::{BufRead, Read};
use std::path::Path;
use std::sync::Arc;

use super::super::error::Error;
use super::super::row::{Row, RowOrigin};
use super::object::{LONGEST, parse, too_long, unreadable};

/// A line that is not blank, and its position in the file.
pub(super) struct RawLine {
    pub(super) number: usize,
    pub(super) offset: u64,
    pub(super) bytes: Vec<u8>,
}

/// A file being read line by line.
pub(super) struct Lines<R> {
    file: Arc<Path>,
    input: R,
    number: usize,
    offset: u64,
    ended: bool,
}

impl<R: BufRead> Lines<R> {
    pub(super) fn new(input: R, file: Arc<Path>) -> Self {
        Self { file, input, number: 0, offset: 0, ended: false }
    }

    /// The next line as it is, with its end.
    pub(super) fn next_raw(&mut self) -> Result<Option<RawLine>, Error> {
        if self.ended {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        let limited = (&mut self.input).take(LONGEST as u64 + 1).read_until(b'\n', &mut bytes);
        let read = limited.map_err(|source| {
            self.ended = true;
            unreadable(&self.file, source)
        })?;
        self.number += 1;
        if read > LONGEST {
            self.ended = true;
            return Err(too_long(RowOrigin::Line { file: self.file.clone(), line: self.number }));
        }
        let offset = self.offset;
        self.offset += read as u64;
        Ok((read > 0).then_some(RawLine { number: self.number, offset, bytes }))
    }

    /// The next line that is not blank, without byte order mark and surrounding white space.
    pub(super) fn next_line(&mut self) -> Result<Option<RawLine>, Error> {
        while let Some(RawLine { number, offset, bytes }) = self.next_raw()? {
            let mark = if number == 1 && bytes.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
            let from_mark = bytes[mark..].trim_ascii_start();
            let skipped = bytes.len() - from_mark.len();
            let row = from_mark.trim_ascii_end();
            if !row.is_empty() {
                return Ok(Some(RawLine { number, offset: offset + skipped as u64, bytes: row.to_vec() }));
            }
        }
        Ok(None)
    }
}

/// The rows of JSON lines.
impl<R: BufRead> Iterator for Lines<R> {
    type Item = Result<Row, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let line = match self.next_line() {
            Ok(line) => line?,
            Err(error) => return Some(Err(error)),
        };
        Some(parse(RowOrigin::Line { file: self.file.clone(), line: line.number }, line.bytes))
    }
}
