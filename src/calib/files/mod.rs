//! Rows from files, whatever their format: JSON lines, JSON, tables, plain text, compressed or not; Parquet; arrays.
//!
//! A new format is a variant of `format::Format`, a file with an iterator of rows, and a line in `file`.

mod bounded;
mod file;
mod folder;
mod format;
mod input;
mod json;
mod lines;
mod listing;
mod named;
mod nesting;
mod object;
mod parquet;
mod shuffled;
mod stamp;
mod table;
#[cfg(test)]
mod tests;
mod text;

use std::iter;
use std::path::{Path, PathBuf};

use super::arrays::Container;
use super::error::Error;
use super::file_error::FileError;
use super::source::{RowSource, Rows};
use crate::fingerprint::Fingerprint;
use file::DataFile;
use format::Format;
use shuffled::Positions;

/// The rows of files, one file after the other. A folder stands for the data files in it, or else for the pictures and
/// sounds in it and its subfolders, each of which is a row; `-` stands for standard input. Pictures and sounds that are
/// given themselves come last.
///
/// In another order, only the positions of the rows are kept in memory; rows of files other than plain JSON lines and
/// arrays are written to a temporary file for that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataFiles {
    paths: Vec<PathBuf>,
}

impl DataFiles {
    /// The rows of these files.
    pub fn new(paths: impl IntoIterator<Item = impl Into<PathBuf>>) -> Self {
        Self { paths: paths.into_iter().map(Into::into).collect() }
    }

    /// All files, each looked at once.
    fn files(&self) -> Result<Vec<DataFile>, Error> {
        if self.paths.is_empty() {
            return Err(Error::NoFiles);
        }
        let (mut all, mut given, mut lone) = (Vec::new(), Vec::new(), None::<&PathBuf>);
        for path in &self.paths {
            if path.is_dir() {
                all.extend(of_folder(path)?);
                continue;
            }
            if listing::is_media(path) {
                given.push(path.clone());
                continue;
            }
            let file = DataFile::new(path.clone());
            if file.format()? == Some(Format::Arrays(Container::Npy)) {
                let one = *lone.get_or_insert(path);
                if one.file_stem() != path.file_stem() {
                    return Err(FileError::LoneArrays { one: one.clone(), other: path.clone() }.into());
                }
            }
            all.push(file);
        }
        if let Some(first) = given.first() {
            let folder = first.parent().unwrap_or(Path::new("")).to_owned();
            all.push(DataFile::of_media(folder, given));
        }
        Ok(all)
    }
}

/// The data files of a folder, which must be of one format, or else its pictures and sounds. Files of one array each are
/// one.
fn of_folder(folder: &Path) -> Result<Vec<DataFile>, Error> {
    let mut files = Vec::new();
    let mut first: Option<(PathBuf, Option<Format>)> = None;
    let name = |format: Option<Format>| format.map_or("a pipe", Format::name);
    let paths = folder::data_files(folder)?;
    if paths.is_empty() {
        let media = listing::media_files(folder)?;
        if media.is_empty() {
            return Err(FileError::EmptyFolder { folder: folder.to_owned() }.into());
        }
        return Ok(vec![DataFile::of_media(folder.to_owned(), media)]);
    }
    for path in &paths {
        let file = DataFile::new(path.clone());
        let format = file.format()?;
        let (one, of_first) = first.get_or_insert_with(|| (path.clone(), format));
        if name(*of_first) != name(format) {
            let (one, is) = (one.clone(), name(*of_first));
            return Err(FileError::Mixed { one, is, other: path.clone(), but: name(format) }.into());
        }
        files.push(file);
    }
    if paths.len() > 1 && first.is_some_and(|(_, format)| format == Some(Format::Arrays(Container::Npy))) {
        return Ok(vec![DataFile::of_arrays(folder, paths)]);
    }
    Ok(files)
}

impl RowSource for DataFiles {
    fn rows(&mut self) -> Result<Rows<'_>, Error> {
        let files = self.files()?;
        let rows = |file: DataFile| file.rows().unwrap_or_else(|error| Box::new(iter::once(Err(error))));
        Ok(Box::new(files.into_iter().flat_map(rows)))
    }

    /// By the bytes of all files in their order, those of folders and those that rows name, too; none with pipes, which can
    /// be read once.
    fn fingerprint(&self) -> Result<Option<String>, Error> {
        let mut hash = Fingerprint::new();
        for file in self.files()? {
            if !file.is_regular() {
                return Ok(None);
            }
            file.add_to(&mut hash)?;
        }
        Ok(Some(hash.text()))
    }

    fn permuted(&mut self, permutation: &mut dyn FnMut(usize) -> Vec<usize>) -> Result<Rows<'_>, Error> {
        let mut positions = Positions::default();
        for file in self.files()? {
            positions.add(&file)?;
        }
        let order = permutation(positions.len());
        Ok(Box::new(positions.rows(order)))
    }
}
