//! Arrays as data: what is learnt is the exact PCA of what they hold.

use crate::support::adapters::read_a;
use crate::support::eva::{self, root};
use crate::support::exact;
use crate::support::graph::{F32, I64, Net, net, pattern};
use crate::support::tolerance::{rounded_away, within};
use ndarray::Array2;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

/// A layer that reads the states of every step, masked.
fn model() -> Net {
    net()
        .named_input("states", F32, &["batch", "steps", "3"])
        .named_input("attention_mask", I64, &["batch", "steps"])
        .node("Identity", "/Identity", &["states"], "x")
        .values("w", &[3, 5], &pattern(15))
        .node("MatMul", "/fc/MatMul", &["x", "w"], "y")
        .output("y")
}

/// The folder with the adapter, or what `init` says.
fn init(net: Net, dir: &Path, data: &[&str], options: &[&str]) -> Result<(), String> {
    fs::write(dir.join("m.onnx"), net.encoded()).unwrap();
    let mut command = eva::eva();
    command.current_dir(dir).args(["init", "m.onnx", "--device", "cpu", "--quiet", "--force", "--rank", "3"]);
    command.args(["--trust-node-names", "--tau", "1"]).args(options).arg("--data").args(data);
    let output = command.output().unwrap();
    if output.status.success() { Ok(()) } else { Err(eva::text(&output.stderr)) }
}

/// Expects the leading directions of `seen` [n, 3] at the layer `fc`.
#[track_caller]
fn learnt(dir: &Path, seen: &[f64]) {
    let seen = Array2::from_shape_vec((seen.len() / 3, 3), seen.to_vec()).unwrap();
    let (_, a) = read_a(&dir.join("adapter")).into_iter().find(|(module, _)| module == "fc").unwrap();
    within(1.0 - exact(seen.view()).captured(a.view()), rounded_away(), "arrays");
    let report: Value = serde_json::from_slice(&fs::read(dir.join("adapter/eva.json")).unwrap()).unwrap();
    assert_eq!(report["groups"][0]["rows"], seen.nrows());
}

/// The states that NumPy wrote, of all rows one after the other.
fn states() -> Vec<f64> {
    let rows: Vec<Value> =
        serde_json::from_slice(&fs::read(root().join("fixtures/data/arrays.json")).unwrap()).unwrap();
    let numbers = |row: &Value| {
        row["states"].as_array().unwrap().iter().flat_map(|step| step.as_array().unwrap().clone()).collect::<Vec<_>>()
    };
    rows.iter().flat_map(numbers).map(|number| number.as_f64().unwrap()).collect()
}

#[test]
fn archives_of_numpy_are_rows() {
    for file in ["arrays.npz", "compressed.npz"] {
        let dir = tempfile::tempdir().unwrap();
        fs::copy(root().join("fixtures/data").join(file), dir.path().join("rows")).unwrap();
        for options in [&[][..], &["--shuffle"], &["--batch-size", "1"]] {
            init(model(), dir.path(), &["rows"], options).unwrap();
            learnt(dir.path(), &states());
        }
    }
}

/// A NumPy file of 32-bit floats.
fn npy(shape: &str, values: &[f64]) -> Vec<u8> {
    let text = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n");
    let bytes = values.iter().flat_map(|value| (*value as f32).to_le_bytes()).collect();
    [b"\x93NUMPY\x01\x00".to_vec(), (text.len() as u16).to_le_bytes().to_vec(), text.into_bytes(), bytes].concat()
}

#[test]
fn a_folder_of_arrays_is_one_set() {
    let dir = tempfile::tempdir().unwrap();
    let states = states();
    fs::create_dir(dir.path().join("rows")).unwrap();
    fs::write(dir.path().join("rows/states.npy"), npy("(6, 4, 3)", &states)).unwrap();
    fs::write(dir.path().join("rows/attention_mask.npy"), npy("(6, 4)", &[1.0; 24])).unwrap();
    init(model(), dir.path(), &["rows"], &[]).unwrap();
    learnt(dir.path(), &states);
    fs::write(dir.path().join("rows/attention_mask.npy"), npy("(6, 4)", &[0.5; 24])).unwrap();
    let said = init(model(), dir.path(), &["rows"], &[]).unwrap_err();
    assert!(said.contains("`attention_mask` must be a list of integers, got a tensor of type f32"), "{said}");
    fs::write(dir.path().join("rows/attention_mask.npy"), npy("(5, 4)", &[1.0; 20])).unwrap();
    let said = init(model(), dir.path(), &["rows"], &[]).unwrap_err();
    assert!(said.contains("`attention_mask` has 5 rows, and `states` has 6"), "{said}");
    let said = init(model(), dir.path(), &["rows/states.npy", "rows/attention_mask.npy"], &[]).unwrap_err();
    assert!(said.contains("hold one array each") && said.contains("into one folder"), "{said}");
}

#[test]
fn rows_may_name_their_arrays() {
    let dir = tempfile::tempdir().unwrap();
    let states = states();
    fs::create_dir_all(dir.path().join("data/episodes")).unwrap();
    let mut lines = String::new();
    for (row, values) in states.chunks(12).enumerate() {
        // Rows of different lengths, some with the axis of a batch.
        let steps = 4 - row % 3;
        let shape = if row % 2 == 0 { format!("({steps}, 3)") } else { format!("(1, {steps}, 3)") };
        fs::write(dir.path().join(format!("data/episodes/{row}.npy")), npy(&shape, &values[..3 * steps])).unwrap();
        lines += &format!("{}\n", json!({"states": format!("episodes/{row}.npy")}));
    }
    fs::write(dir.path().join("data/rows.jsonl"), &lines).unwrap();
    init(model(), dir.path(), &["data/rows.jsonl"], &[]).unwrap();
    let seen: Vec<f64> =
        states.chunks(12).enumerate().flat_map(|(row, values)| values[..3 * (4 - row % 3)].to_vec()).collect();
    learnt(dir.path(), &seen);
    fs::write(dir.path().join("data/rows.jsonl"), lines.replace("/4.npy", "/9.npy")).unwrap();
    let said = init(model(), dir.path(), &["data/rows.jsonl"], &[]).unwrap_err();
    assert!(said.contains("`data/rows.jsonl` line 5: `states` names no array: cannot read"), "{said}");
    init(model(), dir.path(), &["data/rows.jsonl"], &["--on-bad-row", "skip"]).unwrap();
}

#[test]
fn arrays_cannot_come_through_a_pipe() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("m.onnx"), model().encoded()).unwrap();
    let mut command = eva::eva();
    command.current_dir(dir.path()).args(["init", "m.onnx", "--quiet", "--trust-node-names", "--data", "-"]);
    command.stdin(fs::File::open(root().join("fixtures/data/arrays.npz")).unwrap());
    let said = eva::text(&command.output().unwrap().stderr);
    assert!(said.contains("`standard input` is NumPy arrays, which is read from its end"), "{said}");
    assert!(said.contains("save it as a file"), "{said}");
}
