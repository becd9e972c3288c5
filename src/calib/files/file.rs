//! One data file: its format, its rows, and whether it stays as it is.

use std::fs::File;
use std::iter;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::arrays::{Container, Stack};
use super::super::error::Error;
use super::super::file_error::FileError;
use super::super::source::Rows;
use super::format::Format;
use super::input::{Input, STDIN, shown};
use super::json::Objects;
use super::lines::Lines;
use super::listing;
use super::named;
use super::object::unreadable;
use super::parquet::Parquet;
use super::stamp::Stamp;
use super::table::Table;
use super::text::Pieces;
use crate::fingerprint::Fingerprint;

/// One data file, or a folder of files that each hold an array of all rows.
#[derive(Clone, Debug)]
pub(super) struct DataFile {
    path: PathBuf,
    /// The files, with what they were at the start; none for what is no regular file, and once all rows are known.
    stamps: Vec<(PathBuf, Stamp)>,
    holds: Holds,
}

/// What the path of a data file is.
#[derive(Clone, Debug)]
enum Holds {
    /// A file of rows.
    Rows,
    /// A folder with a file for each array.
    Arrays,
    /// A folder with pictures and sounds that are its rows.
    Media(Arc<[PathBuf]>),
}

/// A file whose rows can be read in any order.
pub(super) enum AnyOrder {
    /// JSON lines.
    Lines(File),
    /// Arrays.
    Arrays(Stack),
}

impl DataFile {
    pub(super) fn new(path: PathBuf) -> Self {
        let stamp = if path == Path::new(STDIN) { None } else { Stamp::of(&path) };
        Self { stamps: stamp.map(|stamp| (path.clone(), stamp)).into_iter().collect(), path, holds: Holds::Rows }
    }

    /// The files of one array each in a folder as one.
    pub(super) fn of_arrays(folder: &Path, files: Vec<PathBuf>) -> Self {
        let stamp = |file: PathBuf| Stamp::of(&file).map(|stamp| (file, stamp));
        let stamps = files.into_iter().filter_map(stamp).collect();
        Self { path: folder.to_owned(), stamps, holds: Holds::Arrays }
    }

    /// The pictures and sounds of a folder, as one file with a row for each.
    pub(super) fn of_media(folder: PathBuf, media: Vec<PathBuf>) -> Self {
        Self { path: folder, stamps: Vec::new(), holds: Holds::Media(media.into()) }
    }

    /// Its name in messages.
    pub(super) fn name(&self) -> Arc<Path> {
        shown(&self.path)
    }

    /// The file as one that may change, since nothing more is read of it.
    pub(super) fn unchanging(&self) -> Self {
        Self { stamps: Vec::new(), ..self.clone() }
    }

    /// What can be known before its rows are read: whether it is there, and its format. `None` for pipes.
    ///
    /// # Errors
    /// When it cannot be read, or is no data.
    pub(super) fn format(&self) -> Result<Option<Format>, Error> {
        self.is_regular().then(|| self.open().map(|(_, format)| format)).transpose()
    }

    /// Adds its bytes to those of a fingerprint; for a folder, those of all its files; then those of files that its rows
    /// name. The names of arrays count, too.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn add_to(&self, hash: &mut Fingerprint) -> Result<(), Error> {
        let format = if matches!(self.holds, Holds::Rows) { self.format()? } else { None };
        let (called, files): (bool, Vec<&Path>) = match &self.holds {
            Holds::Rows => (format == Some(Format::Arrays(Container::Npy)), vec![&self.path]),
            Holds::Arrays => (true, self.stamps.iter().map(|(file, _)| &**file).collect()),
            Holds::Media(media) => (false, media.iter().map(|file| &**file).collect()),
        };
        for file in files {
            if called {
                hash.bytes(file.file_stem().unwrap_or_default().as_encoded_bytes());
            }
            hash.file(file).map_err(|source| unreadable(file, source))?;
        }
        match format {
            Some(Format::Lines | Format::Json(_) | Format::Table { .. } | Format::Parquet) => {
                named::add_to(hash, self.rows()?)
            }
            Some(Format::Arrays(_)) => named::add_to(hash, Box::new(self.stack()?.texts().into_rows())),
            None if matches!(self.holds, Holds::Arrays) => {
                named::add_to(hash, Box::new(self.stack()?.texts().into_rows()))
            }
            _ => Ok(()),
        }
    }

    /// Its rows, after which it must be as it was.
    ///
    /// # Errors
    /// As [`format`](Self::format).
    pub(super) fn rows(&self) -> Result<Rows<'static>, Error> {
        let mut rows = self.unchecked_rows()?;
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

    fn unchecked_rows(&self) -> Result<Rows<'static>, Error> {
        match &self.holds {
            Holds::Rows => {}
            Holds::Arrays => return Ok(Box::new(self.stack()?.into_rows())),
            Holds::Media(media) => {
                let (media, folder): (_, Arc<Path>) = (media.clone(), self.path.as_path().into());
                return Ok(Box::new((0..media.len()).map(move |at| listing::row(&media[at], at + 1, &folder))));
            }
        }
        let (input, format) = self.open()?;
        let name = input.name.clone();
        Ok(match format {
            Format::Lines => Box::new(Lines::new(input.reader(), name)),
            Format::Json(shape) => Box::new(Objects::new(input.reader(), name, shape)),
            Format::Table { delimiter } => Box::new(Table::new(input.reader(), name, delimiter)),
            Format::Text { paragraphs } => Box::new(Pieces::new(input.reader(), name, paragraphs)),
            Format::Parquet => Box::new(Parquet::open(&self.path, name)?),
            Format::Arrays(_) => Box::new(self.stack()?.into_rows()),
        })
    }

    fn stack(&self) -> Result<Stack, Error> {
        let files: Vec<&Path> = self.stamps.iter().map(|(file, _)| &**file).collect();
        Stack::open(&self.path, &files)
    }

    /// What the rows can be read from in any order, if that is possible.
    ///
    /// # Errors
    /// As [`format`](Self::format).
    pub(super) fn any_order(&self) -> Result<Option<AnyOrder>, Error> {
        if matches!(self.holds, Holds::Arrays) {
            return self.stack().map(|stack| Some(AnyOrder::Arrays(stack)));
        }
        if self.stamps.is_empty() {
            return Ok(None);
        }
        match self.open()? {
            (input, Format::Lines) if input.plain => {
                let file = File::open(&self.path).map_err(|source| unreadable(&self.name(), source))?;
                Ok(Some(AnyOrder::Lines(file)))
            }
            (_, Format::Arrays(_)) => self.stack().map(|stack| Some(AnyOrder::Arrays(stack))),
            _ => Ok(None),
        }
    }

    /// # Errors
    /// When the file is no longer what it was at the start.
    pub(super) fn check(&self) -> Result<(), Error> {
        match self.stamps.iter().find(|(file, stamp)| Stamp::of(file).as_ref() != Some(stamp)) {
            Some((file, _)) => Err(FileError::Changed { file: file.clone() }.into()),
            None => Ok(()),
        }
    }

    /// Whether it can be read again, and from any place.
    pub(super) fn is_regular(&self) -> bool {
        self.path != Path::new(STDIN) && !is_pipe(&self.path)
    }

    fn open(&self) -> Result<(Input, Format), Error> {
        let input = Input::open(&self.path)?;
        let foreign = |foreign| FileError::Foreign { file: input.name.to_path_buf(), foreign };
        let format = Format::of(&input.head, input.whole, &self.path).map_err(foreign)?;
        let as_what = match format {
            Format::Arrays(_) | Format::Parquet if !input.plain => "compressed as a whole",
            Format::Arrays(_) | Format::Parquet if !self.is_regular() => "a stream",
            _ => return Ok((input, format)),
        };
        Err(FileError::NoStream { file: input.name.to_path_buf(), format: format.name(), as_what }.into())
    }
}

/// Whether reading takes away what is read.
fn is_pipe(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| !metadata.is_file() && !metadata.is_dir())
}
