//! The rows of files in another order: only their positions are in memory.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};

use serde_json::{Map, Value};

use super::super::arrays::Stack;
use super::super::error::Error;
use super::super::row::{FieldValue, Row, RowOrigin};
use super::file::{AnyOrder, DataFile};
use super::lines::Lines;
use super::object::{parse, unreadable};

/// Where a row is.
struct Position {
    offset: u64,
    bytes: u32,
    /// Index of the file in [`Positions::files`].
    file: u32,
    /// Its line or number.
    number: u32,
}

/// The rows of some files, each found by its position.
#[derive(Default)]
pub(super) struct Positions {
    files: Vec<Indexed>,
    rows: Vec<Position>,
    /// What is wrong with rows that have no position.
    wrong: Vec<Error>,
}

/// A file whose rows are read by their positions.
struct Indexed {
    of: DataFile,
    rows: Kept,
}

/// Where rows are.
enum Kept {
    /// In lines of JSON: a data file, or the rows of one that is not, written to a temporary file. With the origin of some
    /// row.
    Lines(File, RowOrigin),
    /// In arrays, where the offset of a row is its index.
    Arrays(Stack),
}

impl Positions {
    /// Reads a file, to find its rows.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn add(&mut self, file: &DataFile) -> Result<(), Error> {
        match file.any_order()? {
            Some(AnyOrder::Lines(lines)) => self.add_lines(file, lines),
            Some(AnyOrder::Arrays(stack)) => self.add_arrays(file, stack),
            None => self.add_rows(file),
        }
    }

    /// The number of rows.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    /// The rows in this order, after what is wrong with others.
    pub(super) fn rows(self, order: Vec<usize>) -> impl Iterator<Item = Result<Row, Error>> {
        let Self { mut files, rows, wrong } = self;
        let order = order.into_iter().filter_map(move |index| {
            let Position { offset, bytes, file, number } = rows.get(index)?;
            files.get_mut(*file as usize).map(|file| file.row(*offset, *bytes as usize, *number as usize))
        });
        wrong.into_iter().map(Err).chain(order)
    }

    fn add_lines(&mut self, of: &DataFile, file: File) -> Result<(), Error> {
        let name = of.name();
        let failed = |source| unreadable(&name, source);
        let mut lines = Lines::new(BufReader::with_capacity(1 << 16, file.try_clone().map_err(failed)?), name.clone());
        while let Some(line) = lines.next_line()? {
            self.push(line.offset, line.bytes.len(), line.number);
        }
        of.check()?;
        let origin = RowOrigin::Line { file: name.clone(), line: 0 };
        self.files.push(Indexed { of: of.clone(), rows: Kept::Lines(file, origin) });
        Ok(())
    }

    fn add_arrays(&mut self, of: &DataFile, stack: Stack) -> Result<(), Error> {
        if stack.len() == 0 {
            return Err(Error::NoRows { name: of.name().display().to_string() });
        }
        (0..stack.len()).for_each(|row| self.push(row as u64, 0, row + 1));
        self.files.push(Indexed { of: of.clone(), rows: Kept::Arrays(stack) });
        Ok(())
    }

    /// Writes the rows to a temporary file.
    fn add_rows(&mut self, of: &DataFile) -> Result<(), Error> {
        let name = of.name();
        let failed = |source| unreadable(&name, source);
        let (mut lines, mut offset, mut origin) = (BufWriter::new(tempfile::tempfile().map_err(failed)?), 0, None);
        for row in of.rows()? {
            let row = match row {
                Ok(row) => row,
                Err(error) if error.row().is_some() => {
                    self.wrong.push(error);
                    continue;
                }
                Err(error) => return Err(error),
            };
            let line = to_json(&row);
            lines.write_all(line.as_bytes()).map_err(failed)?;
            self.push(offset, line.len(), number(&row.origin));
            offset += line.len() as u64;
            origin = Some(row.origin);
        }
        let lines = lines.into_inner().map_err(|error| failed(error.into_error()))?;
        let origin = origin.unwrap_or_else(|| RowOrigin::Line { file: name.clone(), line: 0 });
        self.files.push(Indexed { of: of.unchanging(), rows: Kept::Lines(lines, origin) });
        Ok(())
    }

    fn push(&mut self, offset: u64, bytes: usize, number: usize) {
        // Rows are bounded, and files of four thousand million rows are none.
        let (bytes, number) = (bytes as u32, number as u32);
        self.rows.push(Position { offset, bytes, file: self.files.len() as u32, number });
    }
}

impl Indexed {
    fn row(&mut self, offset: u64, bytes: usize, number: usize) -> Result<Row, Error> {
        match &mut self.rows {
            Kept::Lines(lines, origin) => {
                let mut origin = origin.clone();
                match &mut origin {
                    RowOrigin::Line { line: at, .. } | RowOrigin::Item { number: at, .. } => *at = number,
                }
                let read = read_at(lines, offset, bytes);
                self.of.check()?;
                parse(origin, read.map_err(|source| unreadable(&self.of.name(), source))?)
            }
            Kept::Arrays(stack) => {
                let row = stack.row(offset as usize);
                self.of.check()?;
                row
            }
        }
    }
}

fn read_at(file: &mut File, offset: u64, bytes: usize) -> io::Result<Vec<u8>> {
    let mut read = vec![0; bytes];
    file.seek(SeekFrom::Start(offset))?;
    file.read_exact(&mut read)?;
    Ok(read)
}

fn number(origin: &RowOrigin) -> usize {
    match origin {
        RowOrigin::Line { line: at, .. } | RowOrigin::Item { number: at, .. } => *at,
    }
}

fn to_json(row: &Row) -> String {
    let json = |value: &FieldValue| match value {
        FieldValue::Json(value) => value.clone(),
        // Files of rows hold no tensors.
        FieldValue::Tensor(_) => Value::Null,
    };
    let fields = row.fields.iter().map(|(name, value)| (name.to_owned(), json(value)));
    Value::Object(fields.collect::<Map<_, _>>()).to_string()
}
