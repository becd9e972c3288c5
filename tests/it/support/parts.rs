//! Runs of `init` on the example that are parts of larger ones, and what they write.

use super::eva::{self, root};
use serde_json::Value;
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
