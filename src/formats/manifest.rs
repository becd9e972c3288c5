//! What a training program must know of a spliced model: `manifest.json` and a script that uses it.

use crate::dtype::DType;
use crate::onnx::Model;
use crate::splice::{LABELS, LOSS, Record, Task};
use serde_json::json;
use std::collections::HashSet;

/// File name of the manifest.
pub const MANIFEST: &str = "manifest.json";
/// File name of the script.
pub const SCRIPT: &str = "train.py";

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
        "adapter": record,
    });
    serde_json::to_string_pretty(&document).unwrap_or_default() + "\n"
}
