//! An edited model in a folder of its own, with the files that hold its weights.

use super::{Destination, Error, Shared};
use crate::onnx::{self, Model};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// File name of the written graph.
pub const MODEL: &str = "model.onnx";

/// What lies beside a model and belongs to it.
const BESIDE: [&str; 6] = [
    "config.json",
    "generation_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
];

/// The bytes of a graph for another folder, and the files with its weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// The graph.
    pub graph: Vec<u8>,
    /// Every file that the graph refers to: where it is, and its name beside the graph. Files that the caller wrote
    /// into the folder are left out.
    pub files: Vec<(PathBuf, String)>,
}

/// How large the files with weights are, and how they came into the folder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Weights {
    /// Bytes of files that were linked.
    pub linked: u64,
    /// Bytes of files that were copied.
    pub copied: u64,
}

/// Finds names for the files of `model` beside a graph called [`MODEL`]. `own` are names of files that the caller
/// writes there.
///
/// Data files keep their names. The model's own file, which holds weights when no data file does, is called
/// `base.onnx` there.
///
/// # Errors
/// What [`Model::to_bytes_elsewhere`] says.
pub fn moved(model: &Model, own: &[&str]) -> Result<Moved, onnx::Error> {
    let real = model.path().canonicalize().ok();
    let itself = |location: &str| real.as_deref() == Some(model.dir().join(location).as_path());
    let mut names: BTreeMap<String, String> = BTreeMap::new();
    let graph = model.to_bytes_elsewhere(&mut |location| {
        if own.contains(&location) {
            return location.to_owned();
        }
        if let Some(name) = names.get(location) {
            return name.clone();
        }
        let mut name = if itself(location) { "base.onnx".to_owned() } else { location.to_owned() };
        while name == MODEL || own.contains(&name.as_str()) || names.values().any(|taken| *taken == name) {
            name = format!("base-{name}");
        }
        names.insert(location.to_owned(), name.clone());
        name
    })?;
    let files = names.into_iter().map(|(location, name)| (model.dir().join(location), name)).collect();
    Ok(Moved { graph, files })
}

/// A name for a new data file that no file of `model` has.
pub fn free_name(model: &Model, wanted: &str) -> String {
    let mut name = wanted.to_owned();
    while name == MODEL || model.data_files().any(|taken| taken == name) {
        name = format!("new-{name}");
    }
    name
}

/// Puts the graph, the files with its weights, and copies of the settings and the tokenizer beside the model into the
/// folder; `inside` is empty or ends in a slash, and names a folder in it.
///
/// # Errors
/// [`Error::Io`].
pub fn put(model: &Path, moved: &Moved, destination: &mut Destination, inside: &str) -> Result<Weights, Error> {
    let mut weights = Weights::default();
    for (source, name) in &moved.files {
        let bytes = source.metadata().map_or(0, |metadata| metadata.len());
        match destination.share(source, &format!("{inside}{name}"))? {
            Shared::Linked => weights.linked += bytes,
            Shared::Copied => weights.copied += bytes,
        }
    }
    let folder = model.parent().unwrap_or(Path::new(""));
    for name in BESIDE {
        let source = folder.join(name);
        if source.is_file() && !moved.files.iter().any(|(_, taken)| taken == name) {
            destination.copy(&source, &format!("{inside}{name}"))?;
        }
    }
    destination.write(&format!("{inside}{MODEL}"), &moved.graph)?;
    Ok(weights)
}
