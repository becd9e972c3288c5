//! What `train` does with every committed export, and the table of docs/training.md.
//!
//! `UPDATE_DOCS=1 cargo test --test it train_exports` writes the table anew.

use crate::exports::{EXPORTS, Names, reads};
use crate::support::eva::root;
use eva_onnx::Train;
use eva_onnx::options::{DataOptions, Naming, Order, Schedule, TrainSettings};
use eva_onnx::results::Trained;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

/// Tiny and example models, as graphs/make_tiny.py and graphs/train_example.py make them.
const OTHERS: [(&str, &str); 9] = [
    ("example/dynamo", "torch.onnx (dynamo), Llama"),
    ("example/optimum", "Optimum with past, the same"),
    ("tiny/gpt2-dynamo", "torch.onnx (dynamo), GPT-2"),
    ("tiny/gpt2-optimum", "Optimum with past, the same"),
    ("tiny/bert-dynamo", "torch.onnx (dynamo), BERT classifier"),
    ("tiny/bert-optimum", "Optimum, the same"),
    ("tiny/llama-dynamo-noopt", "torch.onnx (dynamo) without its optimizer, Llama"),
    ("tiny/llama-external", "torch.onnx (dynamo), weights in a file of their own, Llama"),
    ("tiny/llama-ts", "TorchScript, Llama"),
];

/// Trains on two rows for a few steps, the gradient checked before.
fn train(model: &Path, rows: &str, checkpoint: Option<PathBuf>) -> Result<Trained, String> {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("rows.jsonl");
    fs::write(&data, rows).unwrap();
    let settings =
        TrainSettings { steps: Some(4), rate: 3e-3, schedule: Schedule::Constant, ..TrainSettings::default() };
    let options = DataOptions { order: Order::Kept, ..DataOptions::default() };
    let naming = Naming { checkpoint, ..Naming::default() };
    let train = Train::new(model).data([data]).naming(naming).data_options(options).settings(settings);
    let trained = train.run().map_err(|error| error.to_string())?;
    let losses: Vec<f64> = trained.history.iter().map(|step| step.loss).collect();
    assert!(losses[3] < losses[0], "{}: {losses:?}", model.display());
    Ok(trained)
}

/// A cell of the table: what was trained, or why not. Messages name the file first, which is another for every run.
fn cell(model: &Path, trained: Result<Trained, String>) -> String {
    match trained {
        Ok(trained) => {
            let straight = if trained.rounded.is_empty() { "" } else { ", straight through rounding" };
            format!("{} modules, {}{straight}", trained.adapter.modules.len(), trained.loss.as_str())
        }
        Err(message) => {
            let file = format!("`{}`: ", model.display());
            format!("no: {}", message.strip_prefix(&file).unwrap_or(&message).replace('|', "\\|"))
        }
    }
}

/// The rows with what a loss may need beside the inputs.
fn labelled(rows: &str) -> String {
    let labelled = |(row, label): (&str, i64)| {
        let mut row: Value = serde_json::from_str(row).unwrap();
        match row.get("decoder_input_ids").is_some() {
            true => row.as_object_mut().unwrap().remove("decoder_attention_mask"),
            false => row.as_object_mut().unwrap().insert("label".to_owned(), json!(label)),
        };
        format!("{row}\n")
    };
    rows.lines().zip(0..).map(labelled).collect()
}

/// Every folder with a graph.
fn folders(below: &Path, found: &mut BTreeSet<PathBuf>) {
    for entry in fs::read_dir(below).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            folders(&path, found);
        } else if path.to_str().is_some_and(|name| name.ends_with(".onnx") || name.ends_with(".onnx.gz")) {
            found.insert(below.strip_prefix(root().join("graphs")).unwrap().to_owned());
        }
    }
}

#[test]
fn the_table_of_the_documentation_is_what_happens() {
    let mut table = "| made by | trains |\n|---|---|\n".to_owned();
    let mut tried = BTreeSet::new();
    let ids: Vec<i64> = (1..20).map(|i| i * 7 % 30 + 2).collect();
    for (folder, made_by) in OTHERS {
        let model = root().join("graphs").join(folder).join("model.onnx");
        let row = json!({ "input_ids": ids, "label": 1 });
        let trained = train(&model, &format!("{row}\n{row}\n"), None);
        writeln!(table, "| {made_by} | {} |", cell(&model, trained)).unwrap();
        tried.insert(PathBuf::from(folder));
    }
    for export in &EXPORTS {
        let dir = export.unpacked();
        let model = dir.path().join(export.graph);
        let checkpoint = (export.names != Names::All).then(|| export.checkpoint());
        let trained = train(&model, &labelled(&reads(export).rows), checkpoint);
        writeln!(table, "| {} | {} |", export.made_by, cell(&model, trained)).unwrap();
        tried.insert(Path::new("exports").join(export.folder));
    }
    let mut all = BTreeSet::new();
    folders(&root().join("graphs"), &mut all);
    assert_eq!(tried, all);

    let path = root().join("docs/training.md");
    let text = fs::read_to_string(&path).unwrap();
    let (start, end) = ("<!-- generated by tests/it/train_exports.rs -->\n", "<!-- end -->\n");
    let (head, rest) = text.split_once(start).unwrap();
    let (old, tail) = rest.split_once(end).unwrap();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, format!("{head}{start}{table}{end}{tail}")).unwrap();
    } else {
        assert_eq!(old, table, "run `UPDATE_DOCS=1 cargo test --test it train_exports`");
    }
}
