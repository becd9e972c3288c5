//! Writes an edited model into a folder, with the files that hold its weights.

use super::{Destination, Error, Shared};
use crate::hub::layout;
use crate::onnx::Model;
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

/// File name of the written graph.
pub const MODEL: &str = "model.onnx";

/// File name of a copy of the original model file, for the weights inside it.
const BASE: &str = "base.onnx";

/// Settings and tokenizer files that are copied along when they are in the model's folder.
const BESIDE: [&str; 6] = [
    "config.json",
    "generation_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
];

/// How large the files with weights are, and how they came into the folder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weights {
    /// Bytes of files that were linked.
    pub linked: u64,
    /// Bytes of files that were copied.
    pub copied: u64,
}

/// Stages `model` as [`MODEL`] in the folder `inside` of the output, with the files that hold its weights and copies of
/// the settings and the tokenizer beside it. `inside` is empty or ends in a slash.
///
/// Data files keep their names where no other file of the output has them. The file that the model was opened from is
/// called `base.onnx`, if it holds weights. Files of new weights must have been staged under the locations that the
/// graph gives them.
///
/// # Errors
/// [`Error::Io`]; [`Error::Graph`] when the graph cannot be serialised.
pub fn put(model: &Model, destination: &mut Destination, inside: &str) -> Result<Weights, Error> {
    let beside = beside(model);
    let mut names = DataFileNames::new(model);
    names.taken.extend(destination.staged(inside).map(key));
    names.taken.extend(beside.iter().map(|(_, name)| key(name)));
    let graph =
        model.to_bytes_elsewhere(&mut |location| names.of(location)).map_err(|source| Error::Graph { source })?;

    destination.protect(model.path());
    for location in model.data_files() {
        destination.protect(&model.dir().join(location));
    }
    let mut weights = Weights::default();
    for (source, name) in &names.files {
        let bytes = source.metadata().map_or(0, |metadata| metadata.len());
        match destination.share(source, &format!("{inside}{name}"))? {
            Shared::Linked => weights.linked += bytes,
            Shared::Copied => weights.copied += bytes,
        }
    }
    for (source, name) in &beside {
        destination.copy(source, &format!("{inside}{name}"))?;
    }
    destination.write(&format!("{inside}{MODEL}"), &graph)?;
    Ok(weights)
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

/// The files of [`BESIDE`] that describe the model; those that hold weights are left out.
fn beside(model: &Model) -> Vec<(PathBuf, &'static str)> {
    let data: Vec<PathBuf> = model.data_files().map(|location| real(&model.dir().join(location))).collect();
    let files = BESIDE.into_iter().filter_map(|name| Some((layout::find(model.path(), name)?, name)));
    files.filter(|(path, _)| !data.contains(&real(path))).collect()
}

/// Names beside the written graph for the data files of a model.
struct DataFileNames<'m> {
    model: &'m Model,
    /// By the location that the graph gives.
    locations: BTreeMap<String, String>,
    /// By the real path: several locations may lead to one file.
    files: BTreeMap<PathBuf, String>,
    /// Keys of names that no other file may have.
    taken: Vec<String>,
}

impl<'m> DataFileNames<'m> {
    fn new(model: &'m Model) -> Self {
        Self { model, locations: BTreeMap::new(), files: BTreeMap::new(), taken: vec![key(MODEL)] }
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
        if let Some(name) = self.files.get(&path) {
            return name.clone();
        }
        let itself = path == real(self.model.path());
        let mut name = if itself { BASE.to_owned() } else { plain(location) };
        while self.is_taken(&name) {
            name = format!("base-{name}");
        }
        self.taken.push(key(&name));
        self.files.insert(path, name.clone());
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

fn real(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}
