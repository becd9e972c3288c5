//! Parquet: tables in columns, as the Hugging Face Hub has them. Their pages are read while the rows are put together.

mod compact;
mod delta;
mod pages;
mod schema;
#[cfg(test)]
mod tests;
mod value;

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use ::parquet::errors::ParquetError;
use ::parquet::file::reader::{FileReader, SerializedFileReader};
use ::parquet::record::Row as Cells;
use ::parquet::record::reader::{ReaderIter, TreeBuilder};

use super::super::error::Error;
use super::super::file_error::FileError;
use super::super::row::{Row, RowOrigin};
use super::object::unreadable;
use crate::caught::caught;

/// Values of a column that are taken from its pages at once.
const AT_ONCE: usize = 64;

/// The rows of a Parquet file.
pub(super) struct Parquet {
    reader: SerializedFileReader<File>,
    /// The same file, for what the reader does not check.
    file: File,
    name: Arc<Path>,
    source: Arc<str>,
    /// Groups of rows that are begun.
    begun: usize,
    group: Option<ReaderIter>,
    /// Rows before.
    rows: usize,
    ended: bool,
}

impl Parquet {
    /// Opens a file, which messages call `name`.
    ///
    /// # Errors
    /// When it cannot be read, is broken, or has columns that are not read.
    pub(super) fn open(path: &Path, name: Arc<Path>) -> Result<Self, Error> {
        let failed = |source| unreadable(&name, source);
        let file = File::open(path).map_err(failed)?;
        let again = file.try_clone().map_err(failed)?;
        let opened = caught(move || {
            let reader = SerializedFileReader::new(again).map_err(message)?;
            schema::check(reader.metadata().file_metadata().schema())?;
            Ok::<_, String>(reader)
        });
        let reader = opened.map_err(|message| FileError::Parquet { file: name.to_path_buf(), message })?;
        let source = name.display().to_string().into();
        Ok(Self { reader, file, name, source, begun: 0, group: None, rows: 0, ended: false })
    }

    fn next_row(&mut self) -> Result<Option<Row>, Error> {
        let cells = caught(|| self.next_cells()).map_err(|message| {
            self.ended = true;
            FileError::Parquet { file: self.name.to_path_buf(), message }
        })?;
        let Some(cells) = cells else { return Ok(None) };
        self.rows += 1;
        let origin = RowOrigin::Item { source: self.source.clone(), number: self.rows };
        let fields = value::fields(cells).map_err(|(column, found)| {
            let origin = origin.clone();
            FileError::Cell { origin, column, found }
        })?;
        Ok(Some(Row { origin, fields }))
    }

    fn next_cells(&mut self) -> Result<Option<Cells>, String> {
        loop {
            if let Some(row) = self.group.as_mut().and_then(Iterator::next) {
                return row.map(Some).map_err(message);
            }
            if self.begun == self.reader.num_row_groups() {
                return Ok(None);
            }
            let group = self.reader.get_row_group(self.begun).map_err(message)?;
            pages::check(&self.file, &*group)?;
            let rows = TreeBuilder::new().with_batch_size(AT_ONCE);
            let rows = rows.as_iter(group.metadata().schema_descr_ptr(), &*group).map_err(message)?;
            self.group = Some(rows);
            self.begun += 1;
        }
    }
}

impl Iterator for Parquet {
    type Item = Result<Row, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended { None } else { self.next_row().transpose() }
    }
}

/// What the library says, without the name of its error.
fn message(error: ParquetError) -> String {
    let text = error.to_string();
    text.strip_prefix("Parquet error: ").unwrap_or(&text).to_owned()
}
