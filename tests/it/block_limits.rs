//! What runs in blocks hold and hand on: what is counted, where it is kept, and what is cleared away.

use crate::support::eva;
use crate::support::graph::{BOOL, F32, I64, net, pattern};
use crate::support::parts::{adapter, alike, done, folder, init, refused};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

/// The larger of two weights is in the branches of an `If`.
#[test]
fn weights_in_branches_count() {
    const D: i64 = 8;
    let branch = |name: &str| {
        let inner = net().values(name, &[64, D], &pattern(512)).node("ReduceMean", "", &[name], "mean");
        inner.ints("axes", &[0]).int("keepdims", 0).node("Add", "", &["a", "mean"], "inner").output("inner")
    };
    let (model, _) = net()
        .shaped_input("input_ids", I64, &[-1, -1])
        .values("table", &[10, D], &pattern(80))
        .values("w1", &[D, D], &pattern(64))
        .values("w2", &[D, D], &pattern(64))
        .bytes("yes", &[], BOOL, vec![1])
        .node("Gather", "/embed/Gather", &["table", "input_ids"], "x")
        .node("MatMul", "/fc1/MatMul", &["x", "w1"], "a")
        .node("If", "/If", &["yes"], "b")
        .branch("then_branch", branch("then"))
        .branch("else_branch", branch("else"))
        .node("Relu", "/Relu", &["b"], "r")
        .node("MatMul", "/fc2/MatMul", &["r", "w2"], "y")
        .shaped_output("y", F32, &[-1, -1, D])
        .open();
    let mut command = eva::eva();
    command.arg("inspect").arg(model.path().join("m.onnx")).args(["--blocks", "2", "--trust-node-names", "--json"]);
    let document: Value = serde_json::from_str(&done(&mut command)).unwrap();
    let bytes = |block: &Value| block["weight_bytes"].as_u64().unwrap();
    let all: u64 = document["blocks"].as_array().unwrap().iter().map(bytes).sum();
    // `w2` does not run for the input of its layer.
    assert_eq!(all, 4 * (80 + 64 + 2 * 512) + 1);
}

/// Room for hidden states is known to be too little before a batch runs.
#[test]
fn too_many_hidden_states_are_refused_at_once() {
    let dir = folder(0, 4);
    let dir = dir.path();
    let huge = ["--batch-size", "1", "--pad-to", "4000000000", "--blocks", "3", "--out", "@never"];
    let places: [&[&str]; 2] = [&[], &["--spill", "@states"]];
    for place in places {
        let (status, said) = refused(init(dir, &huge).args(place.iter().map(|word| match word.strip_prefix('@') {
            Some(file) => dir.join(file).into_os_string(),
            None => word.into(),
        })));
        assert!(status == Some(2) && said.contains("the hidden states of 4 batches need"), "{said}");
        assert!(!dir.join("never").exists());
    }
}

/// Rows whose tensors fill several windows, which are read from files for every block.
#[test]
fn tensors_of_rows_are_read_from_files_again() {
    const D: usize = 6;
    let square = [D as i64, D as i64];
    let weight = |shift: usize| pattern(D * D + shift)[shift..].to_vec();
    let (model, _) = net()
        .shaped_input("states", F32, &[-1, -1, D as i64])
        .values("w1", &square, &weight(0))
        .values("w2", &square, &weight(7))
        .values("w3", &square, &weight(11))
        .node("MatMul", "/fc1/MatMul", &["states", "w1"], "a")
        .node("Relu", "/r1", &["a"], "b")
        .node("MatMul", "/fc2/MatMul", &["b", "w2"], "c")
        .node("Relu", "/r2", &["c"], "d")
        .node("MatMul", "/fc3/MatMul", &["d", "w3"], "y")
        .shaped_output("y", F32, &[-1, -1, D as i64])
        .open();
    let dir = model.path();
    // More rows than the 64 batches of a window have.
    let lines: Vec<String> = (0..150)
        .map(|row| {
            let entry = |at: usize| ((row * 37 + at * 11) % 23) as f64 / 23.0 - 0.5;
            let states: Vec<Vec<f64>> = (0..4).map(|token| (0..D).map(|i| entry(token * D + i)).collect()).collect();
            json!({"states": states}).to_string()
        })
        .collect();
    fs::write(dir.join("rows.jsonl"), lines.join("\n")).unwrap();
    let run = |options: &[&str], out: &str| {
        let mut command = eva::eva();
        command.arg("init").arg(dir.join("m.onnx")).arg("--data").arg(dir.join("rows.jsonl"));
        command.args(["--trust-node-names", "--device", "cpu", "--tau", "1", "--rank", "2", "--batch-size", "1"]);
        done(command.arg("--out").arg(dir.join(out)).args(options).current_dir(dir));
    };
    run(&[], "whole");
    run(&["--blocks", "2"], "memory");
    run(&["--blocks", "2", "--spill", "states"], "files");
    assert!(adapter(&dir.join("memory")).0 == adapter(&dir.join("files")).0);
    assert_eq!(adapter(&dir.join("files")).2["batches"], 150);
    alike(&dir.join("whole"), &dir.join("files"), "rows in files");
    assert!(!dir.join("states").exists());
}

/// The folder of a run that was killed after its summary was written.
#[test]
fn an_old_folder_is_cleared_when_the_summary_is_there() {
    let dir = folder(0, 4);
    let dir = dir.path();
    let options = ["--tau", "1", "--blocks", "3", "--spill", "@states", "--summary", "@sum.safetensors"];
    done(&mut init(dir, &options));
    let leave = |dir: &Path| {
        fs::create_dir(dir).unwrap();
        ["eva-block-1", "eva-states-0", "eva-rows-1"].iter().for_each(|name| fs::write(dir.join(name), "x").unwrap());
    };
    leave(&dir.join("states"));
    // Nobody says that it is of this run.
    done(&mut init(dir, &options));
    assert!(dir.join("states/eva-block-1").exists());
    fs::write(dir.join("states/mine"), "x").unwrap();
    done(init(dir, &options).arg("--resume"));
    assert_eq!(fs::read_dir(dir.join("states")).unwrap().count(), 1);
}
