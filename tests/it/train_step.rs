//! The graph of a step: with activations computed again, and as a model of its own.

use crate::support::eva::{eva, graph, root, run};
use crate::support::exports;
use eva_onnx::Train;
use eva_onnx::onnx::{Graph, Model};
use eva_onnx::options::{DataOptions, Recompute, TrainSettings};
use eva_onnx::results::Trained;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Token ids that every model of the tests knows.
fn rows(dir: &Path) -> std::path::PathBuf {
    let data = dir.join("rows.jsonl");
    let row = |start: i64| serde_json::json!({ "input_ids": (start..start + 12).map(|i| i * 7 % 30 + 1).collect::<Vec<_>>() });
    fs::write(&data, format!("{}\n{}\n", row(1), row(5))).unwrap();
    data
}

fn trained(model: &Path, dir: &Path, recompute: Recompute) -> Trained {
    let settings = TrainSettings { steps: Some(4), rate: 3e-3, recompute, ..TrainSettings::default() };
    Train::new(model).data([rows(dir)]).data_options(DataOptions::default()).settings(settings).run().unwrap()
}

fn emit(model: &Path, dir: &Path, more: &[&str]) -> Command {
    let mut command = eva();
    command.args(["train", "--device", "cpu", "--emit", "step-graph", "--data"]).arg(rows(dir));
    command.arg("--out").arg(dir.join("step")).args(more).arg(model);
    command
}

/// Nodes of the written step that compute activations again.
fn copies(dir: &Path) -> usize {
    let model = Model::open(dir.join("step/model.onnx")).unwrap();
    Graph::new(&model).nodes(0).filter(|(_, node)| node.name().starts_with("again/")).count()
}

#[test]
fn activations_that_are_computed_again_give_the_same_training() {
    for export in ["genai-llama/fp32", "llama/optimum", "qwen3-moe/optimum", "llama/int4-qdq"] {
        let dir = exports::unpacked(export);
        let model = dir.path().join("model.onnx");
        let [kept, again] = [Recompute::Off, Recompute::On].map(|recompute| trained(&model, dir.path(), recompute));
        assert!(again.recomputed && !kept.recomputed);
        for (one, other) in kept.history.iter().zip(&again.history) {
            // Fused operators of the forward pass may round in another order.
            assert!((one.loss - other.loss).abs() <= 1e-6 * one.loss, "{export}: {one:?} {other:?}");
            assert!((one.norm - other.norm).abs() <= 1e-5 * one.norm, "{export}: {one:?} {other:?}");
        }
        run(&mut emit(&model, dir.path(), &["--recompute", "on"])).unwrap();
        assert!(copies(dir.path()) > 10, "{export} has {} copies", copies(dir.path()));
        run(&mut emit(&model, dir.path(), &["--recompute", "off", "--force"])).unwrap();
        assert_eq!(copies(dir.path()), 0);
    }
}

#[test]
fn the_vector_of_a_step_graph_is_an_adapter() {
    let dir = tempfile::tempdir().unwrap();
    let model = graph("tiny/gpt2-dynamo");
    run(&mut emit(&model, dir.path(), &["--quiet"])).unwrap();
    let step = dir.path().join("step");
    let manifest: serde_json::Value = serde_json::from_slice(&fs::read(step.join("manifest.json")).unwrap()).unwrap();
    let length = manifest["length"].as_u64().unwrap() as usize;
    let mut vector = fs::read(step.join("theta.f32")).unwrap();
    assert_eq!(vector.len(), 4 * length);
    let convert = |to: &str| {
        let to = dir.path().join(to);
        run(eva().arg("convert").arg(&step).arg(&to)).map(|_| fs::read(to.join("adapter_model.safetensors")).unwrap())
    };
    assert!(convert("same").unwrap() == fs::read(step.join("adapter_model.safetensors")).unwrap());
    // The first value of the first A [in, rank], which is that of its transpose.
    let first = manifest["parameters"][0]["name"].as_str().unwrap();
    let module = first.strip_prefix("lora/").unwrap().strip_suffix("/A").unwrap();
    vector[..4].copy_from_slice(&0.75f32.to_le_bytes());
    fs::write(step.join("theta.f32"), &vector).unwrap();
    let changed = convert("changed").unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&changed).unwrap();
    let tensor = tensors.tensor(&format!("base_model.model.{module}.lora_A.weight")).unwrap();
    assert_eq!(tensor.data()[..4], 0.75f32.to_le_bytes());
    fs::write(step.join("theta.f32"), &vector[4..]).unwrap();
    let error = convert("short").unwrap_err();
    assert!(error.contains(&format!("does not hold {length} finite 32-bit floats")), "{error}");
    let error =
        run(&mut emit(&root().join("graphs/tiny/bert-dynamo/model.onnx"), dir.path(), &["--force"])).unwrap_err();
    assert!(error.contains("the step graph is of causal language models"), "{error}");
}
