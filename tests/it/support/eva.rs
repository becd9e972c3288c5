//! The files of the repository, and the binary as a user runs it.

use std::path::PathBuf;
use std::process::{Command, Output};

pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The model of a folder below `graphs`.
pub fn graph(folder: &str) -> PathBuf {
    root().join("graphs").join(folder).join("model.onnx")
}

/// The binary, run in the root of the repository unless the caller names another folder.
pub fn eva() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_eva-onnx"));
    command.current_dir(root());
    command
}

/// Standard output of a run that succeeds, standard error of one that fails.
pub fn run(command: &mut Command) -> Result<String, String> {
    let output = command.output().unwrap();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// Standard output of a run that must succeed.
#[track_caller]
pub fn succeeded(output: &Output) -> String {
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

#[track_caller]
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}
