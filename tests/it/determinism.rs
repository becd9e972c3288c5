//! Same inputs give the same bytes, however paths are spelt.

use crate::support::eva::{self, root};
use serde_json::Value;
use std::fs;
use std::path::Path;

/// What `init` writes: weights, config, and eva.json without what belongs to the run.
fn init(folder: &Path, model: &str, data: &str, options: &[&str]) -> (Vec<u8>, Vec<u8>, Value) {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("adapter");
    let mut command = eva::eva();
    command.current_dir(folder).args(["init", model, "--data", data, "--device", "cpu", "--max-batches", "5"]);
    eva::succeeded(&command.args(["--quiet", "--out"]).arg(&out).args(options).output().unwrap());
    let mut report: Value = serde_json::from_slice(&fs::read(out.join("eva.json")).unwrap()).unwrap();
    let object = report.as_object_mut().unwrap();
    for of_run in ["model", "data", "command", "seconds", "peak_rss_bytes"] {
        assert!(object.remove(of_run).is_some(), "{of_run}");
    }
    let read = |name: &str| fs::read(out.join(name)).unwrap();
    (read("adapter_model.safetensors"), read("adapter_config.json"), report)
}

const MODELS: [&str; 3] = ["graphs/tiny/bert-optimum", "graphs/tiny/gpt2-optimum", "graphs/tiny/llama-ts"];

#[test]
fn spellings_of_paths_change_no_byte() {
    let data = root().join("fixtures/calibration.jsonl");
    let data = data.to_str().unwrap();
    for model in MODELS {
        let path = format!("{model}/model.onnx");
        let first = init(&root(), &path, data, &[]);
        let same = |folder: &Path, path: &str, data: &str| {
            assert!(init(folder, path, data, &[]) == first, "{} {path} {data}", folder.display());
        };
        same(&root(), &path, data);
        same(&root(), root().join(&path).to_str().unwrap(), "fixtures/../fixtures/calibration.jsonl");
        same(&root().join(model), "./model.onnx", "../../../fixtures/calibration.jsonl");
    }
}

/// ONNX Runtime divides the long products of the sketch by its threads, which changes the rounding of their sums.
#[test]
fn threads_change_no_byte_where_the_host_decomposes() {
    for model in MODELS {
        let with = |threads| {
            let options = ["--threads", threads, "--capture", "outputs"];
            init(&root(), &format!("{model}/model.onnx"), "fixtures/calibration.jsonl", &options)
        };
        assert!(with("1") == with("2") && with("2") == with("3"), "{model}");
    }
}
