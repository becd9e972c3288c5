//! What a training program needs to know of a spliced model: `manifest.json`, and a script that uses it.

use super::Error;
use super::error::Defect;
use crate::dtype::DType;
use crate::onnx::Model;
use crate::splice::{LABELS, LOSS, Record, Task};
use serde_json::{Value, json};
use std::collections::HashSet;
use std::path::Path;

/// File name of the manifest.
pub const MANIFEST: &str = "manifest.json";
/// File name of the script.
pub const SCRIPT: &str = "train.py";

/// Key of the record in the manifest.
const ADAPTER: &str = "adapter";

/// The script, which trains with onnxruntime-training-cpu 1.19.2.
pub fn script() -> &'static str {
    include_str!("train.py")
}

/// The names of `A` and `B` of all modules.
pub fn trainable(record: &Record) -> Vec<String> {
    record.modules.iter().flat_map(|module| [module.a.clone(), module.b.clone()]).collect()
}

/// The manifest of `model`, which has a loss.
pub fn manifest(model: &Model, record: &Record, task: Task, logits: &str) -> String {
    let trainable = trainable(record);
    let known: HashSet<&str> = trainable.iter().map(String::as_str).collect();
    let floats = model.tensors().filter(|tensor| tensor.dtype() == DType::F32 && !known.contains(tensor.name()));
    let document = json!({
        "version": 1,
        "task": task.as_str(),
        "loss": LOSS,
        "logits": logits,
        "labels": LABELS,
        "inputs": model.inputs(),
        "trainable": trainable,
        "frozen": floats.map(|tensor| tensor.name()).collect::<Vec<_>>(),
        ADAPTER: record,
    });
    serde_json::to_string_pretty(&document).unwrap_or_default() + "\n"
}

/// The record in the manifest beside the file `path` or in the folder above. A `manifest.json` of another program is
/// ignored.
///
/// # Errors
/// [`Error::Malformed`] when a manifest has a record that is damaged.
pub(super) fn record_beside(path: &Path) -> Result<Option<Record>, Error> {
    for folder in path.ancestors().skip(1).take(2) {
        let path = folder.join(MANIFEST);
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let mut manifest: Value = serde_json::from_str(&text).unwrap_or_default();
        let is_ours = manifest["trainable"].is_array() && manifest[ADAPTER].is_object();
        if is_ours {
            let record = serde_json::from_value(manifest[ADAPTER].take());
            return record.map(Some).map_err(|error| Error::malformed(&path, Defect::Json(error)));
        }
    }
    Ok(None)
}
