//! The chat templates beside a tokenizer, where transformers looks for them.

use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

use super::error::ChatError;
use crate::regular;

/// Variables of chat templates with special tokens. Source: `SPECIAL_TOKENS_ATTRIBUTES` in `tokenization_utils_base.py`
/// of transformers 4.57.6.
const SPECIAL_TOKENS: [&str; 8] = [
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
    "additional_special_tokens",
];

/// Chat templates by name, and the special tokens that they may use.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Files {
    /// The folder that was searched.
    pub(crate) folder: PathBuf,
    /// Names and texts; a single template is called `default`.
    pub(crate) templates: Vec<(String, String)>,
    /// Special tokens by the names of their variables.
    pub(crate) tokens: Map<String, Value>,
}

/// Reads what is beside the tokenizer, given as the file or its folder.
pub(crate) fn read(tokenizer: &Path) -> Result<Files, ChatError> {
    let folder = if tokenizer.is_dir() {
        tokenizer
    } else {
        tokenizer.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
    };
    let config = json(&folder.join("tokenizer_config.json"))?;
    // As in transformers, files of templates come before those in the configuration.
    let mut templates = Vec::new();
    templates.extend(text(&folder.join("chat_template.jinja"))?.map(|text| ("default".to_owned(), text)));
    templates.extend(additional(&folder.join("additional_chat_templates"))?);
    if templates.is_empty() {
        templates = stored(&config["chat_template"]);
    }
    if templates.is_empty() {
        templates = stored(&json(&folder.join("chat_template.json"))?["chat_template"]);
    }
    // Only older configurations, which do not list the added tokens, are completed by this file.
    let is_complete = config.get("added_tokens_decoder").is_some();
    let map = if is_complete { Value::Null } else { json(&folder.join("special_tokens_map.json"))? };
    let tokens = SPECIAL_TOKENS.iter().filter_map(|name| {
        let known = map.get(name).or_else(|| config.get(name));
        Some(((*name).to_owned(), content(known?)?))
    });
    Ok(Files { folder: folder.to_owned(), templates, tokens: tokens.collect() })
}

/// The templates of a configuration: one text, or a list of names and texts.
fn stored(template: &Value) -> Vec<(String, String)> {
    let named = |entry: &Value| Some((entry["name"].as_str()?.to_owned(), entry["template"].as_str()?.to_owned()));
    match template {
        Value::String(text) => vec![("default".to_owned(), text.clone())],
        Value::Array(entries) => entries.iter().filter_map(named).collect(),
        _ => Vec::new(),
    }
}

/// The templates of a folder by the names of their files, in order.
fn additional(folder: &Path) -> Result<Vec<(String, String)>, ChatError> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut paths: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|extension| extension == "jinja")).collect();
    paths.sort();
    let named = |path: PathBuf| {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Ok(text(&path)?.map(|text| (name, text)))
    };
    paths.into_iter().filter_map(|path| named(path).transpose()).collect()
}

/// The text of a token: itself, or the `content` of what describes it. `None` for empty ones, which are no variables.
fn content(token: &Value) -> Option<Value> {
    match token {
        Value::Array(tokens) if !tokens.is_empty() => Some(tokens.iter().filter_map(content).collect()),
        Value::Object(token) => content(token.get("content")?),
        Value::String(text) if !text.is_empty() => Some(token.clone()),
        _ => None,
    }
}

/// The text of a file; `None` if there is none.
fn text(path: &Path) -> Result<Option<String>, ChatError> {
    match regular::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ChatError::ChatFile { path: path.to_owned(), message: source.to_string() }),
    }
}

fn json(path: &Path) -> Result<Value, ChatError> {
    let Some(text) = text(path)? else { return Ok(Value::Null) };
    serde_json::from_str(&text)
        .map_err(|error| ChatError::ChatFile { path: path.to_owned(), message: error.to_string() })
}
