//! `doctor`: what there is to run models.

use crate::support::eva::{eva, succeeded, text};
use serde_json::Value;

#[test]
fn the_runtime_of_the_tests_is_found_and_runs() {
    let printed = succeeded(&eva().arg("doctor").output().unwrap());
    assert!(printed.contains("\nONNX Runtime 1.") && printed.contains("\n  execution providers: "), "{printed}");
    assert!(printed.ends_with("a small model ran on the CPU: all is well\n"), "{printed}");
    let json: Value = serde_json::from_str(&succeeded(&eva().args(["doctor", "--json"]).output().unwrap())).unwrap();
    let keys: Vec<&str> = json.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["version", "onnxruntime", "searched", "cuda", "cores", "memory_bytes", "problem", "hint"]);
    assert!(json["onnxruntime"]["providers"].as_array().unwrap().contains(&"CPU".into()));
    assert!(json["cores"].as_u64() > Some(0) && json["problem"].is_null());
    let cuda = &json["cuda"];
    assert!(cuda["works"] == true || !cuda["hint"].as_str().unwrap().is_empty(), "{cuda}");
}

#[test]
fn without_a_runtime_the_places_are_listed() {
    let empty = tempfile::tempdir().unwrap();
    let mut command = eva();
    command.arg("doctor").env("PATH", empty.path()).env("VIRTUAL_ENV", empty.path());
    for variable in ["ORT_DYLIB_PATH", "CONDA_PREFIX", "LD_LIBRARY_PATH"] {
        command.env_remove(variable);
    }
    let output = command.output().unwrap();
    let printed = text(&output.stdout);
    if output.status.success() {
        assert!(printed.contains("by the system loader"), "{printed}");
        return;
    }
    assert_eq!(output.status.code(), Some(2));
    assert!(printed.contains("  looked in `VIRTUAL_ENV`: nothing to look at\n"), "{printed}");
    assert!(printed.contains("  looked in the system loader: libonnxruntime.so"), "{printed}");
    assert!(printed.contains("no model can run: no usable ONNX Runtime library found\n"), "{printed}");
    assert!(printed.contains("hint: `pip install onnxruntime`"), "{printed}");
}

#[test]
fn a_library_that_is_none_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("libonnxruntime.so");
    std::fs::write(&file, "no library").unwrap();
    let output = eva().arg("doctor").arg("--ort-lib").arg(&file).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    let expected = format!("no model can run: `{}` does not load as a shared library", file.display());
    assert!(text(&output.stdout).contains(&expected), "{}", text(&output.stdout));
}
