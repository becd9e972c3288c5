//! The files beside a model that run it: settings, tokenizer, processors, templates, programs.

use crate::hub::layout;
use crate::onnx::Model;
use serde_json::Value;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// Most bytes of such a file. The largest tokenizers have about 40 MB.
const LARGEST: u64 = 1 << 26;

/// Extensions of other models, weights, data, archives and media.
const OTHERS: &str = "
    onnx ort onnx_adapter onnx_data data safetensors bin pt pth ckpt h5 msgpack gguf ggml npy npz tflite pb mlmodel
    engine plan trt pdmodel pdiparams pkl pickle joblib ot rten mnn param
    jsonl ndjson csv tsv parquet arrow feather db sqlite log out
    zip tar gz tgz bz2 xz zst 7z whl so dll dylib exe o a
    png jpg jpeg gif webp bmp tif tiff svg wav flac mp3 ogg m4a mp4 mkv avi webm pdf
";

/// Files of an adapter, of a training, and lists of weights that do not come along.
const NOT: [&str; 3] = ["adapter_config.json", "eva.json", "manifest.json"];
const NOT_ENDINGS: [&str; 2] = [".index.json", ".onnx.json"];

/// The settings of ONNX Runtime GenAI.
const GENAI: &str = "genai_config.json";

/// A folder of chat templates.
const TEMPLATES: &str = "additional_chat_templates";

/// The files that run `model`, in its folder and those that describe it, with their names in the output. Files that
/// hold weights are left out.
pub(super) fn files(model: &Model) -> Vec<(PathBuf, String)> {
    let data: Vec<PathBuf> = model.data_files().filter_map(|name| model.dir().join(name).canonicalize().ok()).collect();
    let mut found = BTreeMap::new();
    for folder in layout::folders(model.path()) {
        for inside in ["", TEMPLATES] {
            for entry in std::fs::read_dir(folder.join(inside)).into_iter().flatten().flatten() {
                let (path, name) = (entry.path(), entry.file_name());
                let Some(name) = name.to_str().filter(|name| runs_models(name)) else { continue };
                let is_small = path.metadata().is_ok_and(|file| file.is_file() && file.len() <= LARGEST);
                if is_small && path.canonicalize().is_ok_and(|real| !data.contains(&real)) {
                    let name = Path::new(inside).join(name).to_string_lossy().into_owned();
                    found.entry(name).or_insert(path);
                }
            }
        }
    }
    found.into_iter().map(|(name, path)| (path, name)).collect()
}

/// Whether a file of this name may be needed to run a model.
fn runs_models(name: &str) -> bool {
    let lower = name.to_lowercase();
    let extension = Path::new(&lower).extension().and_then(OsStr::to_str).unwrap_or_default();
    // Names of data files: `model.onnx_data_1`, `model.onnx.data`.
    let is_weight = extension.starts_with("onnx") || OTHERS.split_whitespace().any(|other| other == extension);
    let is_other = NOT.contains(&name) || NOT_ENDINGS.iter().any(|ending| lower.ends_with(ending));
    !(is_weight || is_other || name.starts_with('.') || name.ends_with('~'))
}

/// The settings of ONNX Runtime GenAI, and the models that they name beside the one that was renamed.
pub(super) struct GenaiSettings {
    pub(super) text: String,
    pub(super) others: Vec<String>,
}

/// The settings at `path` where the model called `old` is called `new`. `None` if `name` is not that of these settings,
/// or they are not understood.
pub(super) fn genai(name: &str, path: &Path, old: &str, new: &str) -> Option<GenaiSettings> {
    if name != GENAI {
        return None;
    }
    let text = std::fs::read_to_string(path).ok()?;
    let mut settings: Value = serde_json::from_str(&text).ok()?;
    let mut others = Vec::new();
    let mut renamed = false;
    visit_filenames(&mut settings, &mut |named| {
        if named == old {
            renamed |= old != new;
            new.clone_into(named);
        } else if named.ends_with(".onnx") && !others.contains(named) {
            others.push(named.clone());
        }
    });
    let text = if renamed { serde_json::to_string_pretty(&settings).ok()? + "\n" } else { text };
    Some(GenaiSettings { text, others })
}

/// Every text under the key `filename`.
fn visit_filenames(value: &mut Value, visit: &mut impl FnMut(&mut String)) {
    match value {
        Value::Object(entries) => {
            for (key, value) in entries {
                match value {
                    Value::String(text) if key == "filename" => visit(text),
                    other => visit_filenames(other, visit),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| visit_filenames(item, visit)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::runs_models;

    #[test]
    fn settings_come_along_and_weights_do_not() {
        let with = [
            "config.json",
            "genai_config.json",
            "chat_template.jinja",
            "tokenizer.model",
            "spiece.model",
            "merges.txt",
            "vocab.json",
            "sentencepiece.bpe.model",
            "qwen.tiktoken",
            "source.spm",
            "bpe.codes",
            "modeling_x.py",
            "LICENSE",
            "preprocessor_config.json",
            "ort_config.json",
            "README.md",
        ];
        assert_eq!(with.map(runs_models), [true; 16]);
        let without = [
            "decoder.onnx",
            "model.onnx_data",
            "model.onnx.data",
            "model.onnx_data_1",
            "pytorch_model.bin",
            "model.safetensors",
            "model.safetensors.index.json",
            "adapter_config.json",
            "eva.json",
            "rows.jsonl",
            "a.onnx_adapter",
            ".gitattributes",
            "photo.JPG",
        ];
        assert_eq!(without.map(runs_models), [false; 13]);
    }
}
