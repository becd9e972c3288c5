//! Where repositories keep a model, and the files that describe it: beside each other, or, as on the Hugging Face Hub,
//! the model in a folder `onnx` and the other files in the folder above.

use crate::hint::Hint;
use std::path::{Component, Path, PathBuf};

/// The folder with the models of a repository. Source: repositories of Optimum and transformers.js on the Hub.
const ONNX: &str = "onnx";
/// How far from the model's folder upwards a folder `onnx` may be: `onnx/q4/model.onnx`.
const LEVELS: usize = 2;
/// How deep models are looked for in a folder, and in how many folders.
const DEPTH: usize = 3;
const MOST_FOLDERS: usize = 1000;
/// The model that Optimum exports, and the start of the names of what is made from it: `model_quantized`.
const MAIN: &str = "model";
/// The encoder that Optimum exports.
const ENCODER: &str = "encoder_model";
/// The model that embeds tokens. Source: transformers.js, and the builder of ONNX Runtime GenAI.
const EMBEDDERS: [&str; 3] = ["embed_tokens", "embeddings", "embedding"];
/// Candidates that a message lists.
const LISTED: usize = 12;

/// Why a folder does not stand for a model.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is none.
    #[error("the folder `{}` has no .onnx file", dir.display())]
    NoModel {
        /// The folder.
        dir: PathBuf,
    },
    /// There are several.
    #[error("the folder `{}` has {} models: {}", dir.display(), models.len(), list(models))]
    SeveralModels {
        /// The folder.
        dir: PathBuf,
        /// Their paths.
        models: Vec<PathBuf>,
    },
}

impl Hint for Error {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NoModel { .. } => "give the .onnx file; Optimum exports one from a PyTorch model".to_owned(),
            Self::SeveralModels { .. } => "give the file of one of them".to_owned(),
        })
    }
}

fn list(models: &[PathBuf]) -> String {
    let mut names: Vec<String> = models.iter().take(LISTED).map(|model| format!("`{}`", model.display())).collect();
    if models.len() > LISTED {
        names.push(format!("and {} more", models.len() - LISTED));
    }
    names.join(", ")
}

/// The model that a path stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its file.
    pub model: PathBuf,
    /// Which file was taken of several, as a sentence.
    pub note: Option<String>,
}

/// The model at `path`, which is its file, or a folder with one model or with one and its variants (`model_q4.onnx`).
///
/// # Errors
/// When a folder has no model, or several.
pub fn model(path: &Path) -> Result<Found, Error> {
    if !path.is_dir() {
        return Ok(Found { model: path.to_owned(), note: None });
    }
    let dir = || path.to_owned();
    let models = models(path);
    let main = models.iter().find(|model| stem(model) == MAIN);
    match (&models[..], main) {
        ([], _) => Err(Error::NoModel { dir: dir() }),
        ([model], _) => Ok(Found { model: model.clone(), note: None }),
        (all, Some(main)) if all.iter().all(|model| model == main || is_variant(model, main)) => {
            let note = format!("`{}` is used, not {} in its folder", main.display(), variants(all.len() - 1));
            Ok(Found { model: main.clone(), note: Some(note) })
        }
        _ => Err(Error::SeveralModels { dir: dir(), models }),
    }
}

/// The models that a path stands for: one, as in [`model`], or all of one folder.
///
/// # Errors
/// As [`model`], when a folder has models in several folders.
pub fn all(path: &Path) -> Result<Vec<PathBuf>, Error> {
    match model(path) {
        Ok(_) => Ok(vec![path.to_owned()]),
        Err(Error::SeveralModels { models, .. }) if models.iter().all(|one| one.parent() == models[0].parent()) => {
            Ok(models)
        }
        Err(error) => Err(error),
    }
}

fn variants(count: usize) -> String {
    if count == 1 { "the variant of it".to_owned() } else { format!("the {count} variants of it") }
}

fn stem(path: &Path) -> &str {
    path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default()
}

/// Whether a file is the model `main` in another precision or otherwise optimized, by its name.
fn is_variant(path: &Path, main: &Path) -> bool {
    path.parent() == main.parent() && stem(path).strip_prefix(stem(main)).is_some_and(|rest| rest.starts_with('_'))
}

/// The models in the folder itself, else in its folder `onnx`, else in the folders below; by name.
fn models(dir: &Path) -> Vec<PathBuf> {
    let (mut level, mut seen) = (vec![dir.to_owned()], 0);
    let mut below = Vec::new();
    for depth in 0..DEPTH {
        let mut next = Vec::new();
        for folder in level {
            seen += 1;
            let (models, folders) = entries(&folder);
            if depth == 0 && !models.is_empty() {
                return models;
            }
            if let Some(onnx) = folders.iter().find(|folder| depth == 0 && is_onnx(folder)) {
                let models = entries(onnx).0;
                if !models.is_empty() {
                    return models;
                }
            }
            below.extend(models);
            next.extend(folders);
        }
        next.truncate(MOST_FOLDERS.saturating_sub(seen));
        level = next;
    }
    below
}

/// The models in a folder, and the folders in it that are not hidden; each by name.
fn entries(dir: &Path) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let (mut models, mut folders) = (Vec::new(), Vec::new());
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            if !entry.file_name().to_string_lossy().starts_with('.') {
                folders.push(path);
            }
        } else if path.extension().is_some_and(|extension| extension == "onnx") && path.is_file() {
            models.push(path);
        }
    }
    models.sort();
    folders.sort();
    (models, folders)
}

fn is_onnx(folder: &Path) -> bool {
    folder.file_name().is_some_and(|name| name.eq_ignore_ascii_case(ONNX))
}

/// The folders in which the files lie that describe `model`, nearest first: its own, and those up to the one around a
/// folder `onnx`.
pub fn folders(model: &Path) -> Vec<PathBuf> {
    let own = model.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut folders = vec![own.to_owned()];
    let leads_up = own.components().any(|part| part == Component::ParentDir);
    let whole = if leads_up { own.canonicalize() } else { std::path::absolute(own) };
    let Ok(whole) = whole else { return folders };
    if let Some(level) = whole.ancestors().take(LEVELS).position(is_onnx) {
        folders.extend(whole.ancestors().skip(1).take(level + 1).map(Path::to_owned));
    }
    folders
}

/// The file called `name` that describes `model`, if there is one.
pub fn find(model: &Path, name: &str) -> Option<PathBuf> {
    folders(model).into_iter().map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// The encoder beside a decoder: in the precision that the decoder's name ends in (`decoder_model_merged_q4.onnx`), else
/// `encoder_model.onnx`.
pub fn encoder(decoder: &Path) -> Option<PathBuf> {
    beside(decoder, decoder, &[ENCODER])
}

/// The model that embeds the tokens of a decoder, beside it or in the folder `onnx` there: in the precision that the
/// decoder's name ends in, else the plain one, else the only one.
pub fn embedder(decoder: &Path) -> Option<PathBuf> {
    let below = decoder.with_file_name(ONNX).join("model");
    [decoder, &below].into_iter().find_map(|place| {
        let of = |name: &Path| EMBEDDERS.iter().any(|start| stem(name).starts_with(start));
        beside(place, decoder, &EMBEDDERS).or_else(|| {
            let mut models = place.parent().map(entries).unwrap_or_default().0;
            models.retain(|model| of(model) && model != decoder);
            models.pop().filter(|_| models.is_empty())
        })
    })
}

/// The file beside `place` of one of these names, with the end of that of `decoder`.
fn beside(place: &Path, decoder: &Path, names: &[&str]) -> Option<PathBuf> {
    let ends = stem(decoder).match_indices('_').map(|(at, _)| &stem(decoder)[at..]);
    let mut paths = ends.chain([""]).flat_map(|end| names.iter().map(move |name| format!("{name}{end}.onnx")));
    paths.find_map(|name| Some(place.with_file_name(name)).filter(|path| path != decoder && path.is_file()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(dir: &Path, files: &[&str]) {
        for file in files {
            let path = dir.join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
    }

    /// What a folder with these files stands for, relative to it.
    fn taken(files: &[&str]) -> Result<String, Error> {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), files);
        model(dir.path()).map(|found| found.model.strip_prefix(dir.path()).unwrap().to_str().unwrap().to_owned())
    }

    #[test]
    fn the_model_of_a_folder() {
        assert_eq!(taken(&["a.onnx", "a.onnx.data", "config.json"]).unwrap(), "a.onnx");
        assert_eq!(taken(&["config.json", "onnx/model.onnx"]).unwrap(), "onnx/model.onnx");
        assert_eq!(taken(&["model.onnx", "onnx/other.onnx"]).unwrap(), "model.onnx");
        assert_eq!(taken(&["cpu/int4/model.onnx"]).unwrap(), "cpu/int4/model.onnx");
        assert_eq!(taken(&["onnx/model.onnx", "openvino/x.onnx"]).unwrap(), "onnx/model.onnx");
        assert_eq!(taken(&["onnx/model.onnx", "onnx/model_q4.onnx"]).unwrap(), "onnx/model.onnx");
    }

    #[test]
    fn folders_with_no_or_several_models() {
        assert!(matches!(taken(&["config.json"]), Err(Error::NoModel { .. })));
        assert!(matches!(taken(&["a/b/c/d/model.onnx", ".git/x.onnx"]), Err(Error::NoModel { .. })));
        for files in [["encoder_model.onnx", "decoder_model.onnx"], ["model.onnx", "embed_tokens.onnx"]] {
            let error = taken(&files).unwrap_err();
            assert!(files.iter().all(|file| error.to_string().contains(file)), "{error}");
        }
        assert!(matches!(taken(&["a/model.onnx", "b/model.onnx"]), Err(Error::SeveralModels { .. })));
    }

    #[test]
    fn the_encoder_of_a_decoder() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &["encoder_model.onnx", "encoder_model_q4.onnx"]);
        let beside = |decoder: &str| encoder(&dir.path().join(decoder)).map(|path| stem(&path).to_owned());
        assert_eq!(beside("decoder_model_merged_q4.onnx").as_deref(), Some("encoder_model_q4"));
        assert_eq!(beside("decoder_model_merged.onnx").as_deref(), Some("encoder_model"));
        assert_eq!(beside("decoder_model_fp16.onnx").as_deref(), Some("encoder_model"));
        assert_eq!(encoder(Path::new("nowhere/decoder_model.onnx")), None);
    }

    #[test]
    fn the_embedder_of_a_decoder() {
        let beside = |files: &[&str], decoder: &str| {
            let dir = tempfile::tempdir().unwrap();
            write(dir.path(), files);
            let found = embedder(&dir.path().join(decoder))?;
            Some(found.strip_prefix(dir.path()).unwrap().to_str().unwrap().to_owned())
        };
        let all = ["onnx/embed_tokens.onnx", "onnx/embed_tokens_q4.onnx"];
        assert_eq!(beside(&all, "onnx/decoder_model_merged_q4.onnx").as_deref(), Some(all[1]));
        assert_eq!(beside(&all, "onnx/decoder_model_merged_fp16.onnx").as_deref(), Some(all[0]));
        assert_eq!(beside(&all, "decoder_model_merged.onnx").as_deref(), Some(all[0]));
        assert_eq!(beside(&all[1..], "onnx/decoder_model_merged.onnx").as_deref(), Some(all[1]));
        assert_eq!(beside(&["embedding.onnx"], "model.onnx").as_deref(), Some("embedding.onnx"));
        assert_eq!(beside(&["embed_tokens_q4.onnx", "embed_tokens_q8.onnx"], "model.onnx"), None);
        assert_eq!(beside(&["embed_tokens.onnx"], "embed_tokens.onnx"), None);
    }

    #[test]
    fn files_that_describe_a_model() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        write(dir.path(), &["a", "repo/a", "repo/b", "repo/onnx/b", "repo/onnx/q4/model.onnx"]);
        assert_eq!(find(&at("repo/onnx/model.onnx"), "a"), Some(at("repo/a")));
        assert_eq!(find(&at("repo/onnx/model.onnx"), "b"), Some(at("repo/onnx/b")));
        assert_eq!(find(&at("repo/onnx/q4/model.onnx"), "a"), Some(at("repo/a")));
        assert_eq!(find(&at("repo/model.onnx"), "c"), None);
        std::fs::remove_file(at("repo/a")).unwrap();
        assert_eq!(find(&at("repo/onnx/model.onnx"), "a"), None);
        assert_eq!(find(&at("repo/onnx/q4/../model.onnx"), "b"), Some(at("repo/onnx/q4/../b")));
        assert!(find(Path::new("model.onnx"), "Cargo.toml").is_some());
    }
}
