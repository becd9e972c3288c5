//! JSON objects that may be longer than a line: one after the other, or in an array.

use std::io::BufRead;
use std::path::Path;
use std::sync::Arc;

use super::super::error::Error;
use super::super::file_error::FileError;
use super::super::row::{Row, RowOrigin};
use super::format::Shape;
use super::nesting::Nesting;
use super::object::{LONGEST, parse, too_long, unreadable};

/// The objects of a file.
pub(super) struct Objects<R> {
    input: R,
    file: Arc<Path>,
    source: Arc<str>,
    shape: Shape,
    /// Rows before.
    rows: usize,
    /// Line that is read, from 1.
    line: usize,
    ended: bool,
}

impl<R: BufRead> Objects<R> {
    /// The objects of `input`, of which nothing is read yet.
    pub(super) fn new(input: R, file: Arc<Path>, shape: Shape) -> Self {
        let source = file.display().to_string().into();
        Self { input, file, source, shape, rows: 0, line: 1, ended: false }
    }

    fn next_row(&mut self) -> Result<Option<Row>, Error> {
        let in_array = matches!(self.shape, Shape::Array { .. });
        if let (0, Shape::Array { at, .. }) = (self.rows, self.shape) {
            self.skip(at + 1)?;
        }
        let mut next = self.peek_past_space()?;
        if in_array && self.rows > 0 && next == Some(b',') {
            self.skip(1)?;
            next = self.peek_past_space()?;
            if next == Some(b']') {
                self.rows += 1;
                return self.end(Err(self.broken("expected an object")));
            }
        } else if in_array && self.rows > 0 && next.is_some_and(|byte| byte != b']') {
            return self.end(Err(self.broken("no comma after the row before")));
        }
        self.rows += 1;
        match next {
            None if in_array => self.end(Err(self.broken("the file ends before the array does"))),
            None => self.end(Ok(None)),
            Some(b']') if in_array => {
                let last = self.after_array();
                self.end(last.map(|()| None))
            }
            Some(_) => {
                let origin = self.origin();
                let bytes = self.value(&origin)?;
                parse(origin, bytes).map(Some)
            }
        }
    }

    /// The origin of the row that is read.
    fn origin(&self) -> RowOrigin {
        match self.shape {
            Shape::Sequence => RowOrigin::Line { file: self.file.clone(), line: self.line },
            Shape::Array { .. } => RowOrigin::Item { source: self.source.clone(), number: self.rows },
        }
    }

    fn broken(&self, message: &str) -> Error {
        Error::Json { origin: self.origin(), column: 1, message: message.to_owned() }
    }

    fn end<T>(&mut self, with: T) -> T {
        self.ended = true;
        with
    }

    /// The bytes of the next value; at the end of the file what there is of it.
    fn value(&mut self, origin: &RowOrigin) -> Result<Vec<u8>, Error> {
        let (mut nesting, mut bytes) = (Nesting::default(), Vec::new());
        loop {
            let buffer = self.input.fill_buf().map_err(|source| unreadable(&self.file, source))?;
            let mut closed = false;
            let end = buffer.iter().position(|&byte| {
                let before = nesting.ends_before(byte);
                closed = !before && nesting.closes(byte);
                before || closed
            });
            let taken = end.map_or(buffer.len(), |end| end + usize::from(closed));
            bytes.extend_from_slice(&buffer[..taken]);
            self.skip(taken)?;
            if bytes.is_empty() {
                // A comma or bracket where a value should be.
                return self.end(Err(self.broken("expected an object")));
            }
            if bytes.len() > LONGEST {
                return self.end(Err(too_long(origin.clone())));
            }
            self.ended = taken == 0 && end.is_none();
            if end.is_some() || self.ended {
                return Ok(bytes);
            }
        }
    }

    /// Reads what follows the array: nothing but the rest of the object around it.
    fn after_array(&mut self) -> Result<(), Error> {
        self.skip(1)?;
        let mut around = matches!(self.shape, Shape::Array { within: true, .. }).then(|| Nesting::within(1));
        while let Some(nesting) = &mut around {
            let buffer = self.input.fill_buf().map_err(|source| unreadable(&self.file, source))?;
            if buffer.is_empty() {
                return Err(self.broken("the file ends before the object around the rows does"));
            }
            let end = buffer.iter().position(|&byte| nesting.closes(byte));
            let taken = end.map_or(buffer.len(), |end| end + 1);
            self.skip(taken)?;
            if end.is_some() {
                around = None;
            }
        }
        match self.peek_past_space()? {
            None => Ok(()),
            Some(_) => Err(FileError::AfterArray { file: self.file.to_path_buf(), line: self.line }.into()),
        }
    }

    fn skip(&mut self, mut bytes: usize) -> Result<(), Error> {
        while bytes > 0 {
            let buffer = self.input.fill_buf().map_err(|source| unreadable(&self.file, source))?;
            let taken = buffer.len().min(bytes);
            if taken == 0 {
                return Ok(());
            }
            self.line += buffer[..taken].iter().filter(|byte| **byte == b'\n').count();
            self.input.consume(taken);
            bytes -= taken;
        }
        Ok(())
    }

    /// The next byte that is no white space.
    fn peek_past_space(&mut self) -> Result<Option<u8>, Error> {
        loop {
            let buffer = self.input.fill_buf().map_err(|source| unreadable(&self.file, source))?;
            if buffer.is_empty() {
                return Ok(None);
            }
            let space = buffer.len() - buffer.trim_ascii_start().len();
            let next = buffer.get(space).copied();
            self.skip(space)?;
            if next.is_some() {
                return Ok(next);
            }
        }
    }
}

impl<R: BufRead> Iterator for Objects<R> {
    type Item = Result<Row, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended { None } else { self.next_row().transpose() }
    }
}
