//! Models that are not of PyTorch: modules are called as the graph calls its nodes or weights, and adapters say so.

use crate::support::adapters::{self, outputs, read_a};
use crate::support::eva::{eva, succeeded, text};
use crate::support::graph::{F32, Net, net, pattern};
use crate::support::tolerance::{SKETCH_LOSS, within};
use crate::support::{exact, rows};
use eva_onnx::linear::{GraphNames, Known, Reason, find_knowing};
use eva_onnx::onnx::Model;
use std::fs;
use std::path::Path;
use std::process::Output;

/// Two dense layers of Keras as tf2onnx names them.
fn keras() -> Net {
    let net = net().shaped_input("x", F32, &[-1, 8]).values("dense/kernel:0", &[8, 6], &pattern(48));
    let net = net.node("MatMul", "model/dense/MatMul", &["x", "dense/kernel:0"], "a").node(
        "Relu",
        "model/dense/Relu",
        &["a"],
        "h",
    );
    let net = net.values("dense_1/kernel:0", &[6, 3], &pattern(18));
    net.node("MatMul", "model/dense_1/MatMul", &["h", "dense_1/kernel:0"], "y").shaped_output("y", F32, &[-1, 3])
}

/// A folder with that model and 64 rows; the rows.
fn folder() -> (tempfile::TempDir, ndarray::Array2<f64>) {
    let (dir, _) = keras().open();
    let rows = rows(64, 8, 0.3, 5).mapv(|value| f64::from(value as f32));
    let lines = rows.outer_iter().map(|row| format!("{{\"x\": {:?}}}\n", row.to_vec()));
    fs::write(dir.path().join("rows.jsonl"), lines.collect::<String>()).unwrap();
    (dir, rows)
}

fn run(dir: &Path, arguments: &str) -> Output {
    eva().current_dir(dir).args(arguments.split(' ')).output().unwrap()
}

#[track_caller]
fn refused(dir: &Path, arguments: &str, message: &str) {
    let output = run(dir, arguments);
    assert!(!output.status.success() && text(&output.stderr).contains(message), "{}", text(&output.stderr));
}

/// The names, and the reasons of what has none.
fn named(net: Net, names: GraphNames) -> (Vec<String>, Vec<Reason>) {
    let (_dir, model) = net.open();
    let layers = find_knowing(&model, &Known { graph_names: Some(names), ..Known::default() });
    let names = layers.linears.iter().map(|linear| linear.modules[0].module.clone());
    (names.collect(), layers.skipped.into_iter().map(|skipped| skipped.reason).collect())
}

#[test]
fn names_of_nodes_and_weights() {
    assert_eq!(named(keras(), GraphNames::Nodes).0, ["model.dense", "model.dense_1"]);
    assert_eq!(named(keras(), GraphNames::Weights).0, ["dense.kernel_0", "dense_1.kernel_0"]);
    let product = |net: Net, node: &str, weight: &str, output: &str| net.node("MatMul", node, &["x", weight], output);
    let two = || net().weight("linear_0.w_0", &[4, 4]).weight("b.weight", &[4, 4]);
    // Operators tell layers of one module apart.
    let mixed = product(product(two(), "/mix/MatMul", "linear_0.w_0", "y"), "/mix/MatMul_1", "b.weight", "z");
    assert_eq!(named(mixed.clone(), GraphNames::Nodes).0, ["mix.MatMul", "mix.MatMul_1"]);
    assert_eq!(named(mixed, GraphNames::Weights).0, ["linear_0.w_0", "b"]);
    // A repeated call is one module.
    let twice = product(product(two(), "/fc/MatMul", "b.weight", "y"), "/fc/MatMul_1", "b.weight", "z");
    assert_eq!(named(twice, GraphNames::Nodes).0, ["fc", "fc"]);
    let unnamed = product(product(two(), "", "b.weight", "y"), "(p+o)/m", "linear_0.w_0", "z");
    assert_eq!(named(unnamed, GraphNames::Nodes), (vec!["_p_o_.m".to_owned()], vec![Reason::NodeWithoutName]));
    let equal = product(product(two(), "n", "b.weight", "y"), "n", "linear_0.w_0", "z");
    let reason = Reason::ClaimedTwice { module: "n".to_owned() };
    assert_eq!(named(equal, GraphNames::Nodes), (Vec::new(), vec![reason.clone(), reason]));
}

#[test]
fn an_adapter_by_the_names_of_the_graph() {
    let (dir, rows) = folder();
    let dir = dir.path();
    refused(dir, "init m.onnx --data rows.jsonl", "--names nodes takes the names of its graph");
    let init = run(dir, "init m.onnx --data rows.jsonl --names nodes --rank 2 --tau 1 --device cpu --out adapter");
    succeeded(&init);
    assert!(text(&init.stderr).contains("modules are called by the nodes of the graph"), "{}", text(&init.stderr));
    let a = read_a(&dir.join("adapter"));
    let (_, dense) = a.iter().find(|(name, _)| name == "model.dense").unwrap();
    within(1.0 - exact(rows.view()).captured(dense.view()), SKETCH_LOSS, "variance captured");
    for file in ["adapter_config.json", "eva.json"] {
        let document: serde_json::Value =
            serde_json::from_slice(&fs::read(dir.join("adapter").join(file)).unwrap()).unwrap();
        let key = if file == "eva.json" { "names" } else { "eva_onnx_names" };
        assert_eq!(document[key], "nodes", "{file}");
    }

    // The adapter says which names it has.
    let spliced = run(dir, "splice m.onnx adapter --out trainable");
    succeeded(&spliced);
    assert!(text(&spliced.stderr).contains("PEFT has no such modules"));
    let output = |path: &str| {
        let x: Vec<f32> = rows.iter().map(|value| *value as f32).collect();
        outputs(&Model::open(dir.join(path)).unwrap(), &[64, 8], x)
    };
    adapters::bit_equal(&output("trainable/model.onnx"), &output("m.onnx"), "B is zero");
    let back = run(dir, "convert trainable/model.onnx back");
    assert!(text(&back.stderr).contains("PEFT has no such modules"));
    for file in ["adapter_model.safetensors", "adapter_config.json"] {
        assert!(
            fs::read(dir.join("back").join(file)).unwrap() == fs::read(dir.join("adapter").join(file)).unwrap(),
            "{file}"
        );
    }
    succeeded(&run(dir, "convert adapter uniform --uniform-rank --model m.onnx"));

    // A file of ONNX Runtime has no place for that.
    succeeded(&run(dir, "convert adapter a.onnx_adapter"));
    refused(dir, "splice m.onnx a.onnx_adapter --out s", "are not in it");
    succeeded(&run(dir, "splice m.onnx a.onnx_adapter --names nodes --out s"));

    refused(
        dir,
        "splice m.onnx adapter --names weights --out t",
        "the adapter calls modules by the nodes of the graph",
    );
    refused(dir, "inspect m.onnx --names nodes --checkpoint c", "cannot be used with");
}
