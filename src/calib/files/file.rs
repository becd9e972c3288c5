//! One data file: its format, its rows, and whether it stays as it is.

use std::fs::File;
use std::iter;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::error::Error;
use super::super::file_error::FileError;
use super::super::source::Rows;
use super::format::Format;
use super::input::{Input, STDIN, shown};
use super::json::Objects;
use super::lines::Lines;
use super::listing;
use super::object::unreadable;
use super::stamp::Stamp;
use super::table::Table;
use super::text::Pieces;
use crate::fingerprint::Fingerprint;

/// One data file.
#[derive(Clone, Debug)]
pub(super) struct DataFile {
    path: PathBuf,
    /// `None` for what is no regular file, and once all its rows are known.
    stamp: Option<Stamp>,
    /// For a folder, the pictures and sounds that are its rows.
    media: Option<Arc<[PathBuf]>>,
}

impl DataFile {
    pub(super) fn new(path: PathBuf) -> Self {
        let stamp = if path == Path::new(STDIN) { None } else { Stamp::of(&path) };
        Self { path, stamp, media: None }
    }

    /// The pictures and sounds of a folder, as one file with a row for each.
    pub(super) fn of_media(folder: PathBuf, media: Vec<PathBuf>) -> Self {
        Self { path: folder, stamp: None, media: Some(media.into()) }
    }

    /// Its name in messages.
    pub(super) fn name(&self) -> Arc<Path> {
        shown(&self.path)
    }

    /// The file as one that may change, since nothing more is read of it.
    pub(super) fn unchanging(&self) -> Self {
        Self { stamp: None, ..self.clone() }
    }

    /// What can be known before its rows are read: whether it is there, and its format. `None` for pipes.
    ///
    /// # Errors
    /// When it cannot be read, or is no data.
    pub(super) fn format(&self) -> Result<Option<Format>, Error> {
        let regular = self.path != Path::new(STDIN) && !is_pipe(&self.path);
        regular.then(|| self.open().map(|(_, format)| format)).transpose()
    }

    /// Adds its bytes to those of a fingerprint.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn add_to(&self, hash: &mut Fingerprint) -> Result<(), Error> {
        hash.file(&self.path).map_err(|source| unreadable(&self.name(), source))
    }

    /// Its rows, after which it must be as it was.
    ///
    /// # Errors
    /// As [`format`](Self::format).
    pub(super) fn rows(&self) -> Result<Rows<'static>, Error> {
        if let Some(media) = self.media.clone() {
            let folder: Arc<Path> = self.path.as_path().into();
            return Ok(Box::new((0..media.len()).map(move |at| listing::row(&media[at], at + 1, &folder))));
        }
        let (input, format) = self.open()?;
        let name = input.name.clone();
        let mut rows: Rows<'static> = match format {
            Format::Lines => Box::new(Lines::new(input.reader(), name)),
            Format::Json(shape) => Box::new(Objects::new(input.reader(), name, shape)),
            Format::Table { delimiter } => Box::new(Table::new(input.reader(), name, delimiter)),
            Format::Text { paragraphs } => Box::new(Pieces::new(input.reader(), name, paragraphs)),
        };
        let (file, mut any) = (self.clone(), false);
        let rows = iter::from_fn(move || {
            let row = rows.next();
            if let Err(changed) = file.check() {
                return Some(Err(changed));
            }
            if row.is_none() && !any {
                any = true;
                return Some(Err(Error::NoRows { name: file.name().display().to_string() }));
            }
            any = true;
            row
        });
        Ok(Box::new(rows))
    }

    /// The file itself, where its bytes are JSON lines and can be read in any order.
    pub(super) fn plain_lines(&self) -> Result<Option<File>, Error> {
        if self.stamp.is_none() {
            return Ok(None);
        }
        let (input, format) = self.open()?;
        if !input.plain || format != Format::Lines {
            return Ok(None);
        }
        File::open(&self.path).map(Some).map_err(|source| unreadable(&self.name(), source))
    }

    /// # Errors
    /// When the file is no longer what it was at the start.
    pub(super) fn check(&self) -> Result<(), Error> {
        if self.stamp.is_some() && Stamp::of(&self.path) != self.stamp {
            return Err(FileError::Changed { file: self.path.clone() }.into());
        }
        Ok(())
    }

    fn open(&self) -> Result<(Input, Format), Error> {
        let input = Input::open(&self.path)?;
        let foreign = |foreign| FileError::Foreign { file: input.name.to_path_buf(), foreign };
        let format = Format::of(&input.head, input.whole, &self.path).map_err(foreign)?;
        Ok((input, format))
    }
}

/// Whether reading takes away what is read.
fn is_pipe(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| !metadata.is_file() && !metadata.is_dir())
}
