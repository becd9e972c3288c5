//! Surroundings and names that nobody wishes for: full disks, limits, pipes and devices in place of files, names that write
//! to a terminal, numbers without bounds.
#![cfg(unix)]

use crate::support::eva;
use crate::support::graph::{F32, net};
use crate::support::parts::{MODEL, folder, init, refused};
use std::fs;
use std::fs::File;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn full() -> Stdio {
    File::options().write(true).open("/dev/full").unwrap().into()
}

#[test]
fn a_full_disk_under_the_output_is_an_error() {
    for line in [&["inspect", MODEL, "--json"][..], &["inspect", MODEL], &["completions", "bash"]] {
        let output = eva::eva().args(line).stdout(full()).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{line:?}");
        assert!(eva::text(&output.stderr).contains("cannot write to stdout: No space left"), "{line:?}");
    }
    // The exit status is that of the error, whether it can be told or not.
    let status = |line: &[&str]| eva::eva().args(line).stderr(full()).stdout(Stdio::null()).status().unwrap().code();
    assert_eq!(status(&["inspect", "no/such.onnx"]), Some(1));
    assert_eq!(status(&["inspect", MODEL, "--no-such-option"]), Some(2));
}

#[test]
fn numbers_of_options_have_bounds() {
    let dir = folder(0, 2);
    let largest = usize::MAX.to_string();
    for option in ["--threads", "--rank"] {
        for number in ["100000000000000", "9223372036854775808", largest.as_str(), "99999999999999999999", "-1", "1e3"]
        {
            let (status, said) = refused(&mut init(dir.path(), &["--out", "@out", option, number]));
            assert!(status == Some(2) && said.starts_with("error: "), "{option} {number}: {status:?} {said}");
        }
    }
    assert!(!dir.path().join("out").exists());
}

/// Runs a command that must end by itself within a minute, in memory of 4 GB.
fn bounded(line: &[&str], dir: &Path) -> Output {
    let program = eva::eva().get_program().to_owned();
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -v 4000000; exec timeout 60 \"$@\"", "sh"]).arg(program).args(line);
    command.current_dir(dir).output().unwrap()
}

#[test]
fn devices_and_pipes_are_no_files() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    assert!(Command::new("mkfifo").arg(path.join("pipe")).status().unwrap().success());
    symlink("/dev/zero", path.join("zero")).unwrap();
    let external = net().shaped_input("x", F32, &[-1, 4]).external("w", &[4, 4], &[("location", "data.bin")]);
    external.node("MatMul", "m", &["x", "w"], "y").output("y").save_as(&path.join("external.onnx"));
    net()
        .shaped_input("x", F32, &[-1, 4])
        .values("w", &[4, 4], &[0.5; 16])
        .node("MatMul", "m", &["x", "w"], "y")
        .output("y")
        .save_as(&path.join("plain.onnx"));
    for special in ["pipe", "zero"] {
        let place = |name: &str| {
            let _ = fs::remove_file(path.join(name));
            fs::create_dir_all(path.join(name).parent().unwrap()).unwrap();
            symlink(path.join(special), path.join(name)).unwrap();
        };
        let check = |line: &[&str]| {
            let output = bounded(line, path);
            let said = eva::text(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{special} {line:?}: {said}");
            assert!(said.contains("a device or a pipe"), "{special} {line:?}: {said}");
        };
        check(&["inspect", special]);
        place("data.bin");
        check(&["inspect", "external.onnx"]);
        place("adapter/adapter_config.json");
        check(&["convert", "adapter", "out.onnx_adapter"]);
        fs::remove_file(path.join("adapter/adapter_config.json")).unwrap();
        let config = r#"{"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": ["m"]}"#;
        fs::write(path.join("adapter/adapter_config.json"), config).unwrap();
        place("adapter/adapter_model.safetensors");
        check(&["convert", "adapter", "out.onnx_adapter"]);
        check(&["splice", "plain.onnx", "adapter", "--out", "out"]);
        place("checkpoint/model.safetensors");
        check(&["inspect", "plain.onnx", "--checkpoint", "checkpoint"]);
        check(&["convert", special, "out"]);
        check(&["merge", special, "--out", "out"]);
        place("run/eva.json");
        check(&["report", "run"]);
        // What cannot be read beside a model is as if it were not there.
        place("config.json");
        assert!(bounded(&["inspect", "plain.onnx"], path).status.success(), "{special}");
        assert!(!path.join("out").exists());
    }
}

#[test]
fn names_do_not_write_to_the_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let evil = "a\u{1b}]0;title\u{7}\u{202e}\r\u{9b}2J";
    let name = format!("/{evil}/MatMul");
    let net = net().shaped_input(evil, F32, &[-1, 4]).weight(&format!("{evil}.weight"), &[4, 4]);
    net.node("MatMul", &name, &[evil, &format!("{evil}.weight")], "y").output("y").save_as(&dir.path().join("m.onnx"));
    fs::write(dir.path().join("rows.jsonl"), format!("{{\"text\": 1, \"{}\": 2}}\n", "\\u001b[2J")).unwrap();
    let lines: [&[&str]; 4] = [
        &["inspect", "m.onnx"],
        &["inspect", "m.onnx", "--trust-node-names"],
        &["init", "m.onnx", "--data", "rows.jsonl", "--out", "out"],
        &["init", "m.onnx", "--data", "rows.jsonl", "--out", "out", "--target-modules", evil],
    ];
    for line in lines {
        let output = eva::eva().args(line).current_dir(dir.path()).output().unwrap();
        for text in [eva::text(&output.stdout), eva::text(&output.stderr)] {
            let raw = text.chars().find(|c| c.is_control() && *c != '\n' || *c == '\u{202e}');
            assert_eq!(raw, None, "{line:?}: {text}");
        }
    }
}

#[test]
fn a_limit_of_the_size_of_files_is_an_error() {
    let dir = folder(0, 4);
    let program = eva::eva();
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -f 16; exec \"$@\"", "sh"]).arg(program.get_program());
    command.args(init(dir.path(), &["--out", "@out"]).get_args()).current_dir(eva::root());
    let (status, said) = refused(&mut command);
    assert!(status == Some(2) && said.contains("File too large"), "{status:?} {said}");
    let names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["rows.jsonl"]);
}

#[test]
fn a_folder_whose_name_is_no_text_is_said_to_be_none() {
    let dir = folder(0, 2);
    let odd = dir.path().join(std::ffi::OsString::from_vec(b"odd\xff".to_vec()));
    fs::create_dir(&odd).unwrap();
    net()
        .shaped_input("x", F32, &[-1, 4])
        .values("w", &[4, 4], &[0.5; 16])
        .node("MatMul", "m", &["x", "w"], "y")
        .output("y")
        .save_as(&odd.join("m.onnx"));
    fs::write(odd.join("rows.jsonl"), "{\"x\": [[1, 2, 3, 4]]}\n").unwrap();
    assert!(eva::eva().arg("inspect").arg(odd.join("m.onnx")).output().unwrap().status.success());
    let mut command = eva::eva();
    command
        .args(["init", "m.onnx", "--names", "nodes", "--data", "rows.jsonl", "--out", "out", "--rank", "2"])
        .current_dir(&odd);
    let (status, said) = refused(&mut command);
    assert!(status == Some(1) && said.contains("not valid UTF-8") && !odd.join("out").exists(), "{status:?} {said}");
}
