//! `check`: whether an adapter fits a model, before anything is run.

use crate::support::adapters::adapter;
use crate::support::eva::{eva, text};
use crate::support::graph::{F32, Net, U8, net};
use eva_onnx::adapter::{Adapter, Base};
use eva_onnx::dtype::DType;
use eva_onnx::formats::peft::{self, CONFIG, WEIGHTS};
use eva_onnx::linear;
use eva_onnx::onnx::Model;
use serde_json::Value;
use std::fs;
use std::path::Path;

/// A layer of a known name and these sizes.
fn layer(net: Net, name: &str, sizes: &[i64]) -> Net {
    let (weight, at) = (format!("onnx::{name}"), net.graph.node.len());
    let node = format!("/model/layers.0/mlp/{name}/MatMul");
    net.floats(&weight, sizes, F32).node("MatMul", &node, &["x", &weight], &format!("y{at}"))
}

fn model() -> Net {
    layer(layer(net().shaped_input("x", F32, &[-1, 4]), "up_proj", &[4, 6]), "gate_proj", &[4, 6])
}

/// An adapter for all layers of the model.
fn save(dir: &Path, base: &Base, change: impl Fn(&mut Adapter)) {
    fs::write(dir.join("m.onnx"), model().encoded()).unwrap();
    let mut adapter = adapter(&linear::find(&Model::open(dir.join("m.onnx")).unwrap(), None).0, true);
    change(&mut adapter);
    fs::create_dir_all(dir.join("adapter")).unwrap();
    fs::write(dir.join("adapter").join(WEIGHTS), peft::weights(&adapter, DType::F16).unwrap()).unwrap();
    fs::write(dir.join("adapter").join(CONFIG), peft::config(&adapter, base)).unwrap();
}

/// The exit status, the document, and what is said without `--json`.
fn check(dir: &Path) -> (i32, Value, String) {
    let run = |more: &[&str]| eva().current_dir(dir).args(["check", "m.onnx", "adapter"]).args(more).output().unwrap();
    let (json, plain) = (run(&["--json"]), run(&[]));
    assert_eq!(json.status, plain.status);
    let document = serde_json::from_slice(&json.stdout).unwrap_or_default();
    (json.status.code().unwrap(), document, text(&plain.stdout) + &text(&plain.stderr))
}

#[test]
fn an_adapter_that_fits() {
    let dir = tempfile::tempdir().unwrap();
    save(dir.path(), &Base { name: Some("org/one".to_owned()), ..Base::default() }, |_| {});
    fs::write(dir.path().join("config.json"), r#"{"_name_or_path": "org/other"}"#).unwrap();
    let (status, document, said) = check(dir.path());
    assert_eq!(status, 0, "{said}");
    assert_eq!(document["fits"], true);
    assert_eq!((&document["modules"], &document["ranks"]), (&2.into(), &serde_json::json!([1, 2])));
    assert_eq!((&document["adapter_dtypes"][0], &document["model_dtypes"][0]), (&"f16".into(), &"f32".into()));
    assert_eq!(document["forms"].as_array().unwrap().len(), 3);
    assert!(document["forms"].as_array().unwrap().iter().all(|form| form["problem"].is_null()));
    let note = "the adapter was made for `org/one`, and config.json calls the model `org/other`";
    assert!(said.contains("2 modules, ranks 1 to 2, f16; layers of the model, f32") && said.contains(note), "{said}");
    assert!(said.contains("the adapter fits the model"), "{said}");
}

#[test]
fn adapters_of_other_models() {
    let dir = tempfile::tempdir().unwrap();
    save(dir.path(), &Base::default(), |adapter| adapter.modules[0].module = "model.layers.7.mlp.up_proj".to_owned());
    let (status, document, said) = check(dir.path());
    assert_eq!((status, &document["fits"]), (1, &false.into()));
    assert!(said.contains("1 of its 2 modules are not in it: `model.layers.7.mlp.up_proj`"), "{said}");
    assert!(said.contains("hint: `eva-onnx inspect`"), "{said}");
    let wide = layer(layer(net().shaped_input("x", F32, &[-1, 4]), "up_proj", &[4, 8]), "gate_proj", &[4, 6]);
    save(dir.path(), &Base::default(), |_| {});
    fs::write(dir.path().join("m.onnx"), wide.encoded()).unwrap();
    let (status, _, said) = check(dir.path());
    assert!(status == 1 && said.contains("(4 to 6 in the adapter, 4 to 8 in the model)"), "{said}");
    fs::remove_file(dir.path().join("adapter").join(WEIGHTS)).unwrap();
    let (status, _, said) = check(dir.path());
    assert!(status == 1 && said.contains("error: cannot read"), "{said}");
}

#[test]
fn forms_that_cannot_be_made() {
    let dir = tempfile::tempdir().unwrap();
    save(dir.path(), &Base::default(), |adapter| adapter.modules.truncate(1));
    let quantized = net().shaped_input("x", F32, &[-1, 4]).stored("q", &[4, 6], U8).floats("s", &[], F32);
    let quantized = quantized.node("DequantizeLinear", "", &["q", "s"], "w");
    let name = "/model/layers.0/mlp/up_proj/MatMul";
    fs::write(dir.path().join("m.onnx"), quantized.node("MatMul", name, &["x", "w"], "y").encoded()).unwrap();
    let (status, document, said) = check(dir.path());
    assert_eq!(status, 0, "{said}");
    let problems: Vec<bool> = document["forms"].as_array().unwrap().iter().map(|f| f["problem"].is_string()).collect();
    assert_eq!(problems, [false, false, true]);
    assert!(said.contains("splice --as merged: no: module `model.layers.0.mlp.up_proj` cannot be merged"), "{said}");
}
