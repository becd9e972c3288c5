//! Options from the environment and from files, and what helps with options: manual pages, completions.

use crate::support::eva::{eva, root, succeeded, text};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

const MODEL: &str = "graphs/tiny/gpt2-optimum/model.onnx";

/// `init` on two batches of the example, into a folder.
fn init(out: &Path) -> Command {
    let mut command = eva();
    command.args(["init", MODEL, "--max-batches", "2", "--device", "cpu", "--quiet", "--out"]).arg(out);
    command
}

fn report(out: &Path) -> Value {
    serde_json::from_slice(&fs::read(out.join("eva.json")).unwrap()).unwrap()
}

#[track_caller]
fn refused(output: &Output, expected: &str) {
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
    assert_eq!(text(&output.stderr), expected);
}

#[test]
fn the_command_line_wins_over_the_environment_and_that_over_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("eva.toml");
    fs::write(&config, "rank = 3\nseed = 3\nrho = 3\n[init]\ndata = ['fixtures/calibration.jsonl']\n").unwrap();
    let out = dir.path().join("adapter");
    let mut command = init(&out);
    command.arg("--config").arg(&config).args(["--rank", "1"]);
    command.env("EVA_ONNX_RANK", "2").env("EVA_ONNX_SEED", "2").env("EVA_ONNX_LR", "1");
    succeeded(&command.output().unwrap());
    let report = report(&out);
    assert_eq!(
        (report["rank"].as_u64(), report["seed"].as_u64(), report["rho"].as_f64()),
        (Some(1), Some(2), Some(3.0))
    );
    let words: Vec<&str> = report["command"].as_array().unwrap().iter().map(|word| word.as_str().unwrap()).collect();
    assert!(words.contains(&"--seed=2") && words.contains(&"--data=fixtures/calibration.jsonl"), "{words:?}");
}

#[test]
fn the_environment_gives_what_the_command_line_would() {
    let dir = tempfile::tempdir().unwrap();
    let [by_words, by_variables] = ["words", "variables"].map(|name| dir.path().join(name));
    let data = ["--data", "fixtures/calibration.jsonl"];
    succeeded(
        &init(&by_words).args(data).args(["--rank", "2", "--shuffle", "--batch-tokens", "200"]).output().unwrap(),
    );
    let mut command = init(&by_variables);
    command.args(data).env("EVA_ONNX_RANK", "2").env("EVA_ONNX_SHUFFLE", "true").env("EVA_ONNX_BATCH_TOKENS", "200");
    succeeded(&command.output().unwrap());
    let weights = |folder: &Path| fs::read(folder.join("adapter_model.safetensors")).unwrap();
    assert!(weights(&by_words) == weights(&by_variables));
}

#[test]
fn what_is_wrong_is_said_with_its_place() {
    let dir = tempfile::tempdir().unwrap();
    let run = |text: &str| {
        fs::write(dir.path().join("eva.toml"), text).unwrap();
        let mut command = eva();
        command.current_dir(dir.path()).args(["init", "m.onnx", "--config", "eva.toml"]).output().unwrap()
    };
    let did = "hint: did you mean `rank`?\n";
    refused(&run("\n[init]\nrnak = 1\n"), &format!("error: `eva.toml` line 3: `rnak` is no option of `init`\n{did}"));
    refused(&run("rank = [1, 2]\n"), "error: --rank takes one value; it is from `eva.toml` line 1\n");
    refused(&run("a = 1\na = 2\n"), "error: `eva.toml` line 2: duplicate key\n");
    let output = run("rank = 0\ndata = 'd'\n");
    assert!(text(&output.stderr).starts_with("error: invalid value '0' for '--rank <RANK>'"));
    assert!(text(&output.stderr).ends_with("hint: --rank is from `eva.toml` line 1\n"));
    assert_eq!(output.status.code(), Some(2));
    let missing = eva().args(["init", "m.onnx", "--config", "no.toml"]).output().unwrap();
    assert!(text(&missing.stderr).starts_with("error: cannot read `no.toml`"), "{}", text(&missing.stderr));
}

#[test]
fn a_variable_of_no_option_is_noted() {
    let output = eva().args(["inspect", MODEL]).env("EVA_ONNX_RNAK", "8").output().unwrap();
    succeeded(&output);
    let note = "note: `EVA_ONNX_RNAK` is not used: no option has that name; did you mean `rank`?\n";
    assert_eq!(text(&output.stderr), note);
}

#[test]
fn every_command_has_a_manual_page() {
    let dir = tempfile::tempdir().unwrap();
    let printed = succeeded(&eva().arg("man").arg("--out").arg(dir.path()).output().unwrap());
    let help = succeeded(&eva().arg("--help").output().unwrap());
    let listed = help.split_once("Commands:\n").unwrap().1.split_once("\n\n").unwrap().0;
    let commands = listed.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let mut expected: Vec<String> = commands
        .map(|line| line.split_whitespace().next().unwrap())
        .filter(|command| *command != "help")
        .map(|command| format!("eva-onnx-{command}.1"))
        .collect();
    expected.push("eva-onnx.1".to_owned());
    expected.sort();
    let mut pages: Vec<String> =
        fs::read_dir(dir.path()).unwrap().map(|page| page.unwrap().file_name().into_string().unwrap()).collect();
    pages.sort();
    assert_eq!(pages, expected);
    assert_eq!(printed.lines().count(), pages.len());
    let page = fs::read_to_string(dir.path().join("eva-onnx-init.1")).unwrap();
    assert!(page.contains(".SH NAME") && page.contains("\\-\\-batch\\-size"), "{page}");
    let again = eva().arg("man").arg("--out").arg(dir.path()).output().unwrap();
    assert_eq!(again.status.code(), Some(2), "pages are not replaced unasked");
    succeeded(&eva().args(["man", "--force", "--out"]).arg(dir.path()).output().unwrap());
}

#[test]
fn shells_complete_commands_and_options() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = succeeded(&eva().args(["completions", shell]).output().unwrap());
        assert!(script.contains("eva-onnx") && script.contains("batch-tokens") && script.contains("doctor"), "{shell}");
    }
    let script = succeeded(&eva().args(["completions", "bash"]).output().unwrap());
    let function = script.split("complete -F ").nth(1).unwrap().split(' ').next().unwrap();
    let asked = format!(
        "{script}\nCOMP_WORDS=(eva-onnx init --batch-t); COMP_CWORD=2; {function} eva-onnx --batch-t init\n\
         printf '%s\\n' \"${{COMPREPLY[@]}}\""
    );
    let Ok(answer) = Command::new("bash").args(["-c", &asked]).current_dir(root()).output() else { return };
    assert_eq!(text(&answer.stdout), "--batch-tokens\n", "{}", text(&answer.stderr));
}
