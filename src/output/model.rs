//! Writes an edited model into a folder, with the files that hold its weights.

use super::beside::{self, GenaiSettings};
use super::error::at;
use super::pack::{Packed, real};
use super::{Destination, Error, Link, Shared};
use crate::onnx::{FileState, Model};
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

/// File name of the written graph.
pub const MODEL: &str = "model.onnx";

/// File names of a written model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileNames {
    /// The graph.
    pub graph: String,
    /// A copy of the original model file, for the weights inside it.
    pub base: String,
}

impl Default for FileNames {
    /// Those of a model that is alone in its folder.
    fn default() -> Self {
        Self { graph: MODEL.to_owned(), base: "base.onnx".to_owned() }
    }
}

impl FileNames {
    /// Those of one of several models, which is called `graph`.
    pub fn of(graph: &str) -> Self {
        Self { graph: graph.to_owned(), base: format!("base-{graph}") }
    }
}

/// What was put into a folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Put {
    /// Bytes of files with weights that were linked.
    pub linked: u64,
    /// Bytes of files with weights that were copied.
    pub copied: u64,
    /// Other models that the settings name, which are not in the folder.
    pub absent: Vec<String>,
}

/// Stages `model` under these names in the folder `inside` of the output, with the files that hold its weights and copies of
/// the files beside it that run it. `inside` is empty or ends in a slash. `original` is what `model` was made from by
/// edits.
///
/// Data files keep their names where no other file of the output has them. The file that the model was opened from is
/// called [`FileNames::base`], if it holds weights. A copy of a data file has only the weights that are still read. Files of new
/// weights must have been staged under the locations that the graph gives them.
///
/// # Errors
/// [`Error::Io`]; [`Error::Read`]; [`Error::Changed`] when a file was written into since the model was opened;
/// [`Error::Graph`] when the graph cannot be serialised.
pub fn put(
    original: &Model,
    model: &Model,
    destination: &mut Destination,
    inside: &str,
    file_names: &FileNames,
) -> Result<Put, Error> {
    let staged: Vec<String> = destination.staged(inside).map(key).collect();
    let mut beside = beside::files(model);
    beside.retain(|(_, name)| !staged.contains(&key(name)) && key(name) != key(&file_names.graph));
    let mut names = DataFileNames::new(model, file_names);
    names.taken.extend(staged);
    names.taken.extend(beside.iter().map(|(_, name)| key(name)));
    let whole = destination.link() != Link::Copy;
    let packed = if whole { BTreeMap::new() } else { Packed::plan(original, model)? };
    let mut packed_at: BTreeMap<String, Option<&Packed>> = BTreeMap::new();
    let graph = model.to_bytes_elsewhere(&mut |place| {
        let known = packed_at.entry(place.location.to_owned());
        let part = known.or_insert_with(|| packed.get(&real(&model.dir().join(place.location))));
        (names.of(place.location), part.map_or(place.offset, |packed| packed.offset(place.offset)))
    });
    let graph = graph.map_err(|source| Error::Graph { source })?;

    destination.protect(model.path());
    for location in model.data_files() {
        destination.protect(&model.dir().join(location));
    }
    let mut put = Put::default();
    for (path, DataFile { location, name }) in &names.files {
        let name = format!("{inside}{name}");
        let file = SourceFile { model, path, location };
        let (shared, bytes) = file.put(packed.get(path), destination, &name)?;
        match shared {
            Shared::Linked => put.linked += bytes,
            Shared::Copied => put.copied += bytes,
        }
    }
    let own = model.path().file_name().unwrap_or_default().to_string_lossy();
    for (source, name) in &beside {
        match beside::genai(name, source, &own, &file_names.graph) {
            Some(GenaiSettings { text, others }) => {
                destination.write(&format!("{inside}{name}"), text.as_bytes())?;
                put.absent.extend(others);
            }
            None => destination.copy(source, &format!("{inside}{name}"))?,
        }
    }
    destination.write(&format!("{inside}{}", file_names.graph), &graph)?;
    Ok(put)
}

/// A data file of a model.
struct SourceFile<'m> {
    model: &'m Model,
    path: &'m Path,
    location: &'m str,
}

impl SourceFile<'_> {
    /// Stages the file as it was when the model was opened, or the part of it that is read; returns the bytes.
    fn put(&self, packed: Option<&Packed>, to: &mut Destination, name: &str) -> Result<(Shared, u64), Error> {
        let bytes = self.model.file_bytes(self.location).unwrap_or_default();
        let state = self.checked()?;
        let written = match (packed, state) {
            (Some(packed), _) => {
                let written = packed.write(bytes, to.create(name)?);
                written.map_err(at(&to.dir().join(name)))?;
                (Shared::Copied, packed.len())
            }
            (None, FileState::Unchanged) => (to.share(self.path, name)?, bytes.len() as u64),
            (None, _) => {
                to.write(name, bytes)?;
                (Shared::Copied, bytes.len() as u64)
            }
        };
        if state == FileState::Unchanged && self.model.file_state(self.location) != FileState::Unchanged {
            return Err(self.changed());
        }
        Ok(written)
    }

    fn checked(&self) -> Result<FileState, Error> {
        match self.model.file_state(self.location) {
            FileState::Overwritten => Err(self.changed()),
            state => Ok(state),
        }
    }

    fn changed(&self) -> Error {
        Error::Changed { path: self.path.to_owned() }
    }
}

/// A location for a new data file that no data file of `model` has.
pub fn free_name(model: &Model, wanted: &str) -> String {
    let known: Vec<String> = model.data_files().map(|location| key(&plain(location))).collect();
    let mut name = wanted.to_owned();
    while known.contains(&key(&name)) {
        name = format!("new-{name}");
    }
    name
}

/// A data file of the written graph.
struct DataFile {
    /// One of the locations that the model gives.
    location: String,
    /// The name in the output.
    name: String,
}

/// Names beside the written graph for the data files of a model.
struct DataFileNames<'m> {
    model: &'m Model,
    file_names: &'m FileNames,
    /// By the location that the graph gives.
    locations: BTreeMap<String, String>,
    /// By the real path: several locations may lead to one file.
    files: BTreeMap<PathBuf, DataFile>,
    /// Keys of names that no other file may have.
    taken: Vec<String>,
}

impl<'m> DataFileNames<'m> {
    fn new(model: &'m Model, file_names: &'m FileNames) -> Self {
        let taken = vec![key(&file_names.graph)];
        Self { model, file_names, locations: BTreeMap::new(), files: BTreeMap::new(), taken }
    }

    /// The new location of the file at `location`.
    fn of(&mut self, location: &str) -> String {
        if let Some(name) = self.locations.get(location) {
            return name.clone();
        }
        let name = self.find(location);
        self.locations.insert(location.to_owned(), name.clone());
        name
    }

    fn find(&mut self, location: &str) -> String {
        let is_new = !self.model.data_files().any(|known| known == location);
        if is_new {
            return location.to_owned();
        }
        let path = real(&self.model.dir().join(location));
        if let Some(file) = self.files.get(&path) {
            return file.name.clone();
        }
        let itself = path == real(self.model.path());
        let mut name = if itself { self.file_names.base.clone() } else { plain(location) };
        while self.is_taken(&name) {
            name = format!("base-{name}");
        }
        self.taken.push(key(&name));
        self.files.insert(path, DataFile { location: location.to_owned(), name: name.clone() });
        name
    }

    /// Whether the name, or a folder in it, is the name of another file.
    fn is_taken(&self, name: &str) -> bool {
        let key = key(name);
        self.taken.iter().any(|taken| Path::new(&key).starts_with(taken))
    }
}

/// What names are compared by: on some file systems, names that differ only in case are the same.
fn key(name: &str) -> String {
    name.to_lowercase()
}

/// The location without `.` components.
fn plain(location: &str) -> String {
    let parts = Path::new(location).components().filter_map(|part| match part {
        Component::Normal(part) => part.to_str(),
        _ => None,
    });
    parts.collect::<Vec<_>>().join("/")
}
