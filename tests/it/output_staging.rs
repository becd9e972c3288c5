//! Staging folders: one run an output, and nothing is left of a run that ends, however it ends.

use crate::support::eva;
use eva_onnx::Hint;
use eva_onnx::output::{self, Destination, Error};
use std::fs;
use std::path::Path;

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = entries.collect();
    names.sort();
    names
}

const NEW: &str = ".out.eva-onnx-partial";
const INSIDE: &str = ".eva-onnx-partial";
const COMPLETE: &str = ".eva-onnx-complete";

#[test]
fn a_second_run_with_the_same_output_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (new, old) = (dir.path().join("out"), dir.path().join("old"));
    fs::create_dir(&old).unwrap();
    for (out, staging) in [(&new, dir.path().join(NEW)), (&old, old.join(INSIDE))] {
        let first = Destination::prepare(out, false).unwrap();
        let error = Destination::prepare(out, true).unwrap_err();
        assert!(matches!(&error, Error::Busy { staging: found } if *found == staging), "{error}");
        assert!(error.hint().unwrap().contains("another output"));
        // Other outputs of the same folder are free.
        drop(Destination::prepare(&dir.path().join("other"), false).unwrap());
        first.commit(&[("a", b"1".to_vec())]).unwrap();
        assert_eq!(names(out), ["a"]);
    }
    assert_eq!(names(dir.path()), ["old", "out"]);
}

#[test]
fn what_a_killed_run_left_is_removed_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    for name in [NEW, ".other.eva-onnx-partial", ".out.partial-123"] {
        fs::create_dir_all(dir.path().join(name).join("deep")).unwrap();
        fs::write(dir.path().join(name).join("deep/weights"), "half").unwrap();
    }
    Destination::prepare(&out, false).unwrap().commit(&[("a", vec![])]).unwrap();
    assert_eq!(names(dir.path()), [".other.eva-onnx-partial", ".out.partial-123", "out"]);
    assert_eq!(names(&out), ["a"]);
    // A file of that name is nobody's leftover.
    fs::write(dir.path().join(".b.eva-onnx-partial"), "mine").unwrap();
    assert!(matches!(output::file(&dir.path().join("b"), b"", true), Err(Error::Io { .. })));
    assert_eq!(fs::read(dir.path().join(".b.eva-onnx-partial")).unwrap(), b"mine");
}

#[test]
fn a_killed_move_is_finished_by_the_next_run() {
    let dir = tempfile::tempdir().unwrap();
    let left = || {
        fs::create_dir_all(dir.path().join(COMPLETE).join("b")).unwrap();
        fs::write(dir.path().join(COMPLETE).join("a"), "new").unwrap();
        fs::write(dir.path().join(COMPLETE).join("b/c"), "new").unwrap();
    };
    left();
    assert!(matches!(Destination::prepare(dir.path(), false), Err(Error::Exists { .. })));
    assert_eq!(names(dir.path()), ["a", "b"]);
    assert_eq!(fs::read(dir.path().join("b/c")).unwrap(), b"new");
    // What has been written there since is not replaced.
    left();
    fs::write(dir.path().join("a"), "newer").unwrap();
    let error = Destination::prepare(dir.path(), true).unwrap_err();
    assert!(matches!(&error, Error::Kept { kept, .. } if kept.ends_with(COMPLETE)), "{error}");
    assert_eq!(fs::read(dir.path().join("a")).unwrap(), b"newer");
}

#[test]
fn what_appears_meanwhile_is_not_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    for number in [2, 3] {
        let destination = Destination::prepare(&out, false);
        let destination = match destination {
            Err(Error::Exists { .. }) => {
                fs::rename(&out, dir.path().join("first")).unwrap();
                Destination::prepare(&out, false).unwrap()
            }
            other => other.unwrap(),
        };
        fs::create_dir(&out).unwrap();
        fs::write(out.join("theirs"), "kept").unwrap();
        let error = destination.commit(&[("a", b"result".to_vec())]).unwrap_err();
        let kept = dir.path().join(format!("out-{number}"));
        assert!(matches!(&error, Error::Kept { kept: found, .. } if *found == kept), "{error}");
        assert!(error.to_string().contains("the files are in"), "{error}");
        assert_eq!((names(&out), names(&kept)), (vec!["theirs".to_owned()], vec!["a".to_owned()]));
    }
    // In a folder that was empty.
    let empty = dir.path().join("empty");
    fs::create_dir(&empty).unwrap();
    let destination = Destination::prepare(&empty, false).unwrap();
    fs::write(empty.join("a"), "theirs").unwrap();
    let error = destination.commit(&[("a", vec![]), ("b", vec![])]).unwrap_err();
    assert!(matches!(error, Error::FileExists { .. }), "{error}");
    assert_eq!(names(&empty), ["a"]);
}

#[test]
fn names_may_be_as_long_as_the_file_system_allows() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["a".repeat(255), "\u{e9}".repeat(127)] {
        Destination::prepare(&dir.path().join(&name), false).unwrap().commit(&[("a", vec![])]).unwrap();
        output::file(&dir.path().join(&name).join(&name), b"", false).unwrap();
        let mut expected = vec!["a".to_owned(), name.clone()];
        expected.sort();
        assert_eq!(names(&dir.path().join(&name)), expected);
    }
    // A name that is too long is known before the work.
    assert!(matches!(Destination::prepare(&dir.path().join("a".repeat(256)), false), Err(Error::Io { .. })));
}

#[cfg(unix)]
mod signals {
    use super::*;
    use crate::support::graph::{F32, net};
    use rustix::process::{Pid, Signal, kill_process};
    use std::io::Write;
    use std::process::{Child, Stdio};
    use std::time::{Duration, Instant};

    /// A model of `layers` products [n, n], whose weights are a sparse file, and an adapter for all of them.
    fn model(dir: &Path, layers: usize, n: usize) {
        let mut net = net().shaped_input("x", F32, &[-1, n as i64]);
        let bytes = n * n * 4;
        let mut config = String::new();
        let mut header = serde_json::Map::new();
        for layer in 0..layers {
            let (offset, length) = ((layer * bytes).to_string(), bytes.to_string());
            let weight = format!("onnx::{layer}");
            net = net.external(
                &weight,
                &[n as i64, n as i64],
                &[("location", "w.bin"), ("offset", &offset), ("length", &length)],
            );
            let input = if layer == 0 { "x".to_owned() } else { format!("h{layer}") };
            let name = format!("/model/layers.{layer}/mlp/up_proj/MatMul");
            net = net.node("MatMul", &name, &[&input, &weight], &format!("h{}", layer + 1));
            for (at, (matrix, shape)) in [("A", [1, n]), ("B", [n, 1])].into_iter().enumerate() {
                let start = (2 * layer + at) * n * 4;
                header.insert(
                    format!("base_model.model.model.layers.{layer}.mlp.up_proj.lora_{matrix}.weight"),
                    serde_json::json!({"dtype": "F32", "shape": shape, "data_offsets": [start, start + n * 4]}),
                );
            }
            config = r#"{"peft_type": "LORA", "r": 1, "lora_alpha": 1, "target_modules": ["up_proj"]}"#.to_owned();
        }
        fs::write(dir.join("m.onnx"), net.output(&format!("h{layers}")).encoded()).unwrap();
        fs::File::create(dir.join("w.bin")).unwrap().set_len((layers * bytes) as u64).unwrap();
        fs::create_dir(dir.join("adapter")).unwrap();
        fs::write(dir.join("adapter/adapter_config.json"), config).unwrap();
        let header = serde_json::to_string(&header).unwrap();
        let mut file = fs::File::create(dir.join("adapter/adapter_model.safetensors")).unwrap();
        file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
        file.write_all(header.as_bytes()).unwrap();
        file.write_all(&vec![0; 2 * layers * n * 4]).unwrap();
    }

    /// Waits until the run has begun to write.
    fn writing(child: &mut Child, dir: &Path) -> bool {
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(60) {
            if fs::read_dir(dir.join(NEW)).is_ok_and(|entries| entries.count() > 0) {
                return child.try_wait().unwrap().is_none();
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        false
    }

    #[test]
    fn a_signal_that_is_ignored_stays_so() {
        let dir = tempfile::tempdir().unwrap();
        model(dir.path(), 24, 1024);
        let run =
            format!("trap '' HUP; exec {} splice m.onnx adapter --as merged --out out", env!("CARGO_BIN_EXE_eva-onnx"));
        let mut command = std::process::Command::new("sh");
        command.args(["-c", &run]).current_dir(dir.path()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        assert!(writing(&mut child, dir.path()), "the run ended before it was interrupted");
        kill_process(Pid::from_child(&child), Signal::HUP).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", eva::text(&output.stderr));
        assert!(dir.path().join("out/model.onnx").exists());
    }

    #[test]
    fn nothing_is_left_after_a_signal() {
        let dir = tempfile::tempdir().unwrap();
        model(dir.path(), 24, 1024);
        let start = || {
            let mut command = eva::eva();
            command.current_dir(dir.path()).args(["splice", "m.onnx", "adapter", "--as", "merged", "--out", "out"]);
            command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
        };
        let before = names(dir.path());
        for signal in [Signal::INT, Signal::TERM, Signal::HUP, Signal::KILL] {
            let mut child = start();
            assert!(writing(&mut child, dir.path()), "the run ended before it was interrupted");
            kill_process(Pid::from_child(&child), signal).unwrap();
            let output = child.wait_with_output().unwrap();
            if signal == Signal::KILL {
                assert!(dir.path().join(NEW).exists());
                continue;
            }
            assert_eq!(output.status.code(), Some(130), "{signal:?}");
            assert_eq!(eva::text(&output.stderr), "error: interrupted; nothing was written\n");
            assert_eq!(names(dir.path()), before, "{signal:?}");
        }
        // The next run removes what the killed one left.
        assert!(start().wait_with_output().unwrap().status.success());
        assert!(!dir.path().join(NEW).exists());
        assert!(dir.path().join("out/model.onnx").exists());
    }
}
