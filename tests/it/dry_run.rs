//! `--dry-run`: what `init` and `train` would do.

use crate::support::eva::{eva, succeeded, text};
use serde_json::Value;
use std::fs;
use std::path::Path;

const MODEL: &str = "graphs/example/dynamo/model.onnx";

fn json(words: &[&str]) -> Value {
    let output = eva().args(words).args(["--dry-run", "--json", "--device", "cpu"]).output().unwrap();
    serde_json::from_str(&succeeded(&output)).unwrap()
}

#[test]
fn the_plan_of_a_run_is_what_the_run_does() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("adapter");
    let words =
        ["init", MODEL, "--data", "fixtures/calibration.jsonl", "--rank", "4", "--tau", "1", "--max-batches", "70"];
    let plan = json(&[&words[..], &["--out", out.to_str().unwrap()]].concat());
    assert!(!out.exists(), "nothing is written");
    succeeded(&eva().args(words).args(["--device", "cpu", "--quiet", "--out"]).arg(&out).output().unwrap());
    let report: Value = serde_json::from_slice(&fs::read(out.join("eva.json")).unwrap()).unwrap();
    assert_eq!(plan["counted_all"], true);
    for (planned, done) in
        [("batches", "batches"), ("tokens", "tokens_seen"), ("budget", "budget"), ("device", "device")]
    {
        assert_eq!(plan[planned], report[done], "{planned}");
    }
    let of = |document: &Value, name: &str| -> Vec<Value> {
        document["layers"].as_array().unwrap().iter().map(|layer| layer[name].clone()).collect()
    };
    for name in ["module", "group", "in_features", "out_features"] {
        assert_eq!(of(&plan, name), of(&report, name), "{name}");
    }
    assert_eq!(plan["largest_rank"], 8);
    assert!(plan["padded_tokens"].as_u64() >= plan["tokens"].as_u64());
    assert!(plan["seconds_of_batches"].as_f64() > plan["seconds_of_batch"].as_f64());
    assert!(plan["memory"]["peak_rss_bytes"].as_u64() < plan["memory"]["available_bytes"].as_u64());
}

#[test]
fn the_plan_of_a_training_is_what_the_training_does() {
    let dir = tempfile::tempdir().unwrap();
    let data = rows(dir.path());
    let out = dir.path().join("trained");
    let words = ["train", MODEL, "--data", &data, "--accumulate", "2", "--epochs", "2"];
    let plan = json(&[&words[..], &["--out", out.to_str().unwrap()]].concat());
    assert!(!out.exists(), "nothing is written");
    succeeded(&eva().args(words).args(["--device", "cpu", "--quiet", "--out"]).arg(&out).output().unwrap());
    let report: Value = serde_json::from_slice(&fs::read(out.join("train.json")).unwrap()).unwrap();
    assert_eq!((&plan["steps"], &plan["loss"]), (&report["planned"], &report["loss"]));
    assert_eq!((&plan["batches_of_epoch"], &plan["batches_of_step"]), (&Value::from(4), &Value::from(2)));
    assert_eq!(plan["rows"]["rows"], 16);
    assert_eq!(plan["initialisation"]["layers"].as_array().unwrap().len() as u64, plan["modules"].as_u64().unwrap());
    assert!(plan["seconds_of_steps"].as_f64() > plan["seconds_of_batch"].as_f64());
}

#[test]
fn the_plan_reads_well() {
    let dir = tempfile::tempdir().unwrap();
    let data = rows(dir.path());
    let run = |command: &str| {
        let output = eva().args([command, MODEL, "--data", &data, "--dry-run", "--device", "cpu"]).output().unwrap();
        let numbers = regex::Regex::new(r"\d+(\.\d+)? (s|min|h|GiB)\b|Runtime \S+").unwrap();
        numbers.replace_all(&succeeded(&output), "_").into_owned()
    };
    insta::assert_snapshot!("dry_run_init", run("init"));
    insta::assert_snapshot!("dry_run_train", run("train"));
}

#[test]
fn a_bad_row_is_found_before_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("rows.jsonl");
    let row = "{\"text\": \"one two three\"}\n";
    fs::write(&data, row.repeat(300) + "{\"text\": 3}\n").unwrap();
    let output = eva().args(["init", MODEL, "--dry-run", "--data"]).arg(&data).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("line 301"), "{}", text(&output.stderr));
}

/// The first rows of the example as a file.
fn rows(dir: &Path) -> String {
    let text = fs::read_to_string(crate::support::eva::root().join("fixtures/calibration.jsonl")).unwrap();
    let path = dir.join("rows.jsonl");
    fs::write(&path, text.lines().take(16).collect::<Vec<_>>().join("\n")).unwrap();
    path.to_str().unwrap().to_owned()
}
