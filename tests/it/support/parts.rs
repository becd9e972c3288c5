//! Runs of `init` on the example that are parts of larger ones, and what they write.

use super::adapters::read_a;
use super::eva::{self, root};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

pub const MODEL: &str = "graphs/example/dynamo/model.onnx";

/// `init` on the first rows of the calibration data, in a folder.
pub fn init(dir: &Path, options: &[&str]) -> Command {
    let mut command = eva::eva();
    command.args(["init", MODEL, "--device", "cpu", "--no-progress", "--max-length", "48", "--data"]);
    command.arg(dir.join("rows.jsonl"));
    for option in options {
        // Names of files are those in the folder.
        match option.strip_prefix('@') {
            Some(file) => command.arg(dir.join(file)),
            None => command.arg(option),
        };
    }
    command
}

/// A folder with so many rows of the calibration data, from `from` on.
pub fn folder(from: usize, rows: usize) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    write_rows(&dir.path().join("rows.jsonl"), from, rows);
    dir
}

pub fn write_rows(path: &Path, from: usize, rows: usize) {
    let text = fs::read_to_string(root().join("fixtures/calibration.jsonl")).unwrap();
    let rows: Vec<_> = text.lines().skip(from).take(rows).collect();
    assert!(!rows.is_empty());
    fs::write(path, rows.join("\n") + "\n").unwrap();
}

/// `merge` of files of a folder.
pub fn merge(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = eva::eva();
    command.arg("merge").args(arguments).current_dir(dir);
    command
}

/// Runs a command that fails: its exit status and what it says.
#[track_caller]
pub fn refused(command: &mut Command) -> (Option<i32>, String) {
    let output = command.output().unwrap();
    assert!(!output.status.success(), "{}", eva::text(&output.stdout));
    (output.status.code(), eva::text(&output.stderr))
}

#[track_caller]
pub fn done(command: &mut Command) -> String {
    eva::succeeded(&command.output().unwrap())
}

/// What an adapter's folder holds: weights, config, and eva.json without what belongs to the process.
pub fn adapter(dir: &Path) -> (Vec<u8>, Vec<u8>, Value) {
    let read = |name: &str| fs::read(dir.join(name)).unwrap_or_else(|error| panic!("{name} in {dir:?}: {error}"));
    let mut report: Value = serde_json::from_slice(&read("eva.json")).unwrap();
    for of_process in ["seconds", "peak_rss_bytes"] {
        assert!(report.as_object_mut().unwrap().remove(of_process).is_some(), "{of_process}");
    }
    report.as_object_mut().unwrap().remove("command");
    (read("adapter_model.safetensors"), read("adapter_config.json"), report)
}

/// Largest difference of an entry of `A`, whose rows have length 1. Sums are rounded otherwise where a fused operator of the
/// whole model is cut in two.
pub const ALIKE: f64 = 1e-5;

/// What two runs wrote: whether the bytes are the same, and the largest difference of an entry; ranks must be the same.
#[track_caller]
pub fn compared(one: &Path, other: &Path, what: &str) -> (bool, f64) {
    let ((one_bytes, _, one_report), (other_bytes, _, other_report)) = (adapter(one), adapter(other));
    let ranks = |report: &Value| -> BTreeMap<String, Value> {
        let layers = report["layers"].as_array().unwrap().iter();
        layers.map(|layer| (layer["module"].as_str().unwrap().to_owned(), layer["rank"].clone())).collect()
    };
    assert_eq!(ranks(&one_report), ranks(&other_report), "{what}");
    for name in ["batches", "tokens_seen", "tokens_kept", "stopped_by"] {
        assert!(one_report[name] == other_report[name] && !one_report[name].is_null(), "{what}: {name}");
    }
    let [one, other] = [one, other].map(|dir| read_a(dir).into_iter().collect::<BTreeMap<_, _>>());
    let mut largest: f64 = 0.0;
    for ((module, one), (same, other)) in one.iter().zip(&other) {
        assert_eq!((module, one.dim()), (same, other.dim()), "{what}");
        largest = one.iter().zip(other).map(|(one, other)| (one - other).abs()).fold(largest, f64::max);
    }
    (one_bytes == other_bytes, largest)
}

/// The same, and no entry differs by more than rounding.
#[track_caller]
pub fn alike(one: &Path, other: &Path, what: &str) -> (bool, f64) {
    let (same, largest) = compared(one, other, what);
    assert!(largest <= ALIKE, "{what}: {largest}");
    (same, largest)
}
