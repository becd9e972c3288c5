//! What tells a run from others: what its summary and its checkpoints record of it.

use super::error::Error as InitError;
use super::options::Init;
use super::prepared::{Beside, Prepared};
use crate::adapter::Base;
use crate::calib::{self, BadRows, LoadOptions, RowCounts, Shard};
use crate::capture::Events;
use crate::error::Error;
use crate::eva::Stop;
use crate::fingerprint;
use crate::onnx::Model;
use crate::summary::{BaseFacts, Facts, Part, RunFacts, fields};
use std::path::{Path, PathBuf};

/// Files beside a tokenizer that decide which tokens a row has.
const BESIDE: [&str; 5] =
    ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "chat_template.json", "special_tokens_map.json"];
/// A folder of more templates.
const TEMPLATES: &str = "additional_chat_templates";

/// The facts of a run that has not begun: its part has no counts yet.
///
/// # Errors
/// When a file cannot be read, or the rows can be read once only.
pub(super) fn facts(init: &Init, prepared: &Prepared) -> Result<Facts, Error> {
    let names = &init.rows.names;
    let data = init.rows.source.as_ref().ok_or(calib::Error::NoFiles)?.fingerprint()?;
    let data = data.ok_or_else(|| InitError::Once { names: once(names) })?;
    let load = prepared.load_options(&init.data);
    let named = &prepared.named;
    let other = |other: &Option<Beside>| other.as_ref().map(|other| hash(&other.model)).transpose();
    let mut options = fields(&init.data);
    options.insert("max_length".to_owned(), load.max_length.into());
    // A template in a file is a part of the hash of the tokenizer, wherever the file is.
    if load.chat_template.as_ref().is_some_and(|template| Path::new(template).is_file()) {
        options.remove("chat_template");
    }
    Ok(Facts {
        run: RunFacts {
            path: named.path().display().to_string(),
            model: hash(&named.model)?,
            encoder: other(&prepared.encoder)?,
            embed_tokens: other(&prepared.embedder)?,
            processor: load.media.path.as_deref().map(processor).transpose()?,
            tokenizer: load.tokenizer.as_deref().map(|path| tokenizer(path, &load)).transpose()?,
            capture: init.capture,
            components: init.settings.components(),
            options,
        },
        settings: init.settings,
        base: base(init, prepared),
        grouping: prepared.chosen.grouping.clone(),
        untargeted: prepared.chosen.untargeted.clone(),
        notes: named.layers.notes.clone(),
        parts: vec![Part {
            data,
            files: names.clone(),
            shard: init.shard.unwrap_or(Shard::ALL),
            batches: 0,
            tokens_seen: 0,
            tokens_kept: 0,
            rows: RowCounts::default(),
            bad_rows: BadRows::default(),
            unused: Vec::new(),
            stopped_by: Stop::Exhausted,
            events: Events::default(),
            device: String::new(),
            onnxruntime: String::new(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }],
    })
}

/// What the adapter records of the base model.
pub(super) fn base(init: &Init, prepared: &Prepared) -> BaseFacts {
    let (Base { name, task_type, .. }, config) = (init.base.clone(), &prepared.named.config);
    BaseFacts {
        name: name.or_else(|| config.base_model.clone()),
        task_type: task_type.or_else(|| config.task_type.clone()),
        names: init.naming.names,
    }
}

/// The hash of a model.
pub(crate) fn hash(model: &Model) -> Result<String, Error> {
    model.fingerprint().map_err(|error| Error::from(error).in_file(model.path()))
}

/// How messages call a source that can be read once.
fn once(names: &[String]) -> String {
    let shown = |name: &String| if name == "-" { "standard input".to_owned() } else { format!("`{name}`") };
    names.iter().map(shown).collect::<Vec<_>>().join(", ")
}

/// The hash of the settings of a processor of pictures or sounds.
fn processor(path: &Path) -> Result<String, Error> {
    let hash = fingerprint::of_files([path]);
    Ok(hash.map_err(|source| calib::Error::Io { file: path.to_owned(), source })?)
}

/// The hash of a tokenizer and its chat templates.
fn tokenizer(path: &Path, load: &LoadOptions) -> Result<String, Error> {
    let folder = if path.is_dir() { path } else { path.parent().unwrap_or(Path::new("")) };
    let mut files = vec![if path.is_dir() { path.join(BESIDE[0]) } else { path.to_owned() }];
    files.extend(BESIDE[1..].iter().map(|name| folder.join(name)));
    let entries = std::fs::read_dir(folder.join(TEMPLATES)).into_iter().flatten().flatten();
    let mut templates: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    templates.sort();
    files.extend(templates);
    files.extend(load.chat_template.as_ref().map(PathBuf::from));
    let hash = fingerprint::of_files(files.iter().map(PathBuf::as_path));
    Ok(hash.map_err(|source| calib::Error::Io { file: folder.to_owned(), source })?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn standard_input_is_called_so() {
        assert_eq!(once(&["-".to_owned(), "a.jsonl".to_owned()]), "standard input, `a.jsonl`");
    }
}
