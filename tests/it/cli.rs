//! The binary as a user runs it: what it prints, what it writes, how it fails.

use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

use crate::support::eva::{eva, root, succeeded, text};
use crate::support::exports as files;
use crate::support::graph;
#[cfg(unix)]
use crate::support::terminal;
use crate::support::tolerance::{summed, within};

fn example() -> PathBuf {
    root().join("graphs/example/dynamo/model.onnx")
}

/// Runs `init` on the example into a fresh folder, with more arguments.
fn init(more: &[&str]) -> (TempDir, Output) {
    let dir = tempfile::tempdir().unwrap();
    let mut command = eva();
    command.args([
        "init",
        "graphs/example/dynamo/model.onnx",
        "--data",
        "fixtures/calibration.jsonl",
        "--device",
        "cpu",
    ]);
    command.args(["--max-batches", "6"]).arg("--out").arg(dir.path().join("adapter")).args(more);
    let output = command.output().unwrap();
    (dir, output)
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn help_shows_examples() {
    insta::assert_snapshot!("help", succeeded(&eva().arg("--help").output().unwrap()));
    for command in ["init", "splice", "convert"] {
        insta::assert_snapshot!(
            format!("help_{command}"),
            succeeded(&eva().args([command, "--help"]).output().unwrap())
        );
    }
}

#[test]
fn inspect_lists_every_layer() {
    let output = eva().args(["inspect", "graphs/tiny/gpt2-optimum/model.onnx"]).output().unwrap();
    insta::assert_snapshot!("inspect_gpt2", succeeded(&output));
}

#[test]
fn an_encoder_without_its_config() {
    let dir = files::unpacked("t5/optimum");
    fs::remove_file(dir.path().join("config.json")).unwrap();
    let inspect = |dir: &TempDir| eva().arg("inspect").arg(dir.path().join("encoder_model.onnx")).output().unwrap();
    assert!(succeeded(&inspect(&dir)).contains("\nencoder.block.0.layer.0\n"));
    let net = graph::net().weight("layers.0.fc1.weight", &[6, 4]);
    let (dir, _) = net.node("Gemm", "", &["x", "layers.0.fc1.weight"], "y").int("transB", 1).open();
    fs::rename(dir.path().join("m.onnx"), dir.path().join("encoder_model.onnx")).unwrap();
    let note = String::from_utf8(inspect(&dir).stderr).unwrap();
    assert!(note.contains("without its config.json") && note.contains("--add-prefix"), "{note}");
}

#[test]
fn inspect_json_keeps_its_contract() {
    let output = eva().args(["inspect", "graphs/tiny/bert-dynamo/model.onnx", "--json"]).output().unwrap();
    let document: Value = serde_json::from_str(&succeeded(&output)).unwrap();
    let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>().join(" ");
    assert_eq!(keys(&document), "model linears skipped notes");
    assert_eq!(keys(&document["model"]), "producer opset ir_version inputs external_data");
    assert_eq!(
        keys(&document["linears"][0]),
        "node op scope input output fused weight in_features out_features dtype bias fan_in_fan_out modules named_by group targeted"
    );
}

#[test]
fn init_writes_a_whole_adapter() {
    let (dir, output) = init(&[]);
    let printed = succeeded(&output);
    assert!(printed.contains("336 of 336 ranks allocated"), "{printed}");
    assert!(output.stderr.is_empty(), "no progress without a terminal: {}", text(&output.stderr));
    let adapter = dir.path().join("adapter");
    let mut files: Vec<_> = fs::read_dir(&adapter).unwrap().map(|f| f.unwrap().file_name()).collect();
    files.sort();
    assert_eq!(files, ["adapter_config.json", "adapter_model.safetensors", "eva.json"]);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left beside the adapter");

    let (config, report) = (json(&adapter.join("adapter_config.json")), json(&adapter.join("eva.json")));
    let ranks: Vec<u64> = report["layers"].as_array().unwrap().iter().map(|l| l["rank"].as_u64().unwrap()).collect();
    assert_eq!(ranks.iter().sum::<u64>(), report["budget"].as_u64().unwrap());
    assert_eq!(config["r"].as_u64(), ranks.iter().max().copied());
    assert_eq!(config["lora_alpha"], config["r"], "alpha = r, so the scale is 1 everywhere");
    assert_eq!(report["stopped_by"], "max_batches");
    assert_eq!(report["device"], "cpu");
    assert_eq!(config["task_type"], "CAUSAL_LM");
}

#[test]
fn json_on_stdout_is_the_file() {
    let (dir, output) = init(&["--json"]);
    assert_eq!(succeeded(&output), fs::read_to_string(dir.path().join("adapter/eva.json")).unwrap());
}

#[test]
fn the_same_inputs_give_the_same_bytes() {
    let (a, b) = (init(&["--quiet"]), init(&["--quiet"]));
    assert_eq!(succeeded(&a.1), "");
    for file in ["adapter_model.safetensors", "adapter_config.json"] {
        let read = |dir: &TempDir| fs::read(dir.path().join("adapter").join(file)).unwrap();
        assert!(read(&a.0) == read(&b.0), "{file}");
    }
}

#[test]
fn several_devices_make_one_adapter_the_same_each_time() {
    let (dir, output) = init(&["--quiet"]);
    succeeded(&output);
    let adapter = |name: &str| {
        let out = dir.path().join(name);
        let mut command = eva();
        command.args(["init", MODEL, "--data", DATA, "--device", "cpu,cpu", "--max-batches", "6", "--out"]).arg(&out);
        let printed = succeeded(&command.output().unwrap());
        assert!(printed.contains("cpu,cpu on ONNX Runtime"), "{printed}");
        out
    };
    let (a, b) = (adapter("a"), adapter("b"));
    for file in ["adapter_model.safetensors", "adapter_config.json"] {
        assert!(fs::read(a.join(file)).unwrap() == fs::read(b.join(file)).unwrap(), "{file}");
    }
    let (one, two) = (json(&dir.path().join("adapter/eva.json")), json(&a.join("eva.json")));
    assert_eq!(two["device"], "cpu,cpu");
    for key in ["budget", "ranks_total", "batches", "tokens_seen", "tokens_kept", "stopped_by"] {
        assert_eq!(one[key], two[key], "{key}");
    }
    // The same rows, so the same means, variance and dimensions; the directions are compared with an exact PCA elsewhere.
    for (one, two) in one["groups"].as_array().unwrap().iter().zip(two["groups"].as_array().unwrap()) {
        assert_eq!(one["rows"], two["rows"]);
        let variance = |group: &Value| group["total_variance"].as_f64().unwrap();
        // Sums over at most 192 features, in 32 bits, of rows about as long as their deviations from the mean.
        within(variance(one) / variance(two) - 1.0, summed(192), "total variance");
    }
    let weights = fs::read(a.join("adapter_model.safetensors")).unwrap();
    let weights = safetensors::SafeTensors::deserialize(&weights).unwrap();
    let layers = two["layers"].as_array().unwrap().iter().filter(|layer| layer["rank"] != 0).count();
    assert_eq!(weights.len(), 2 * layers);
}

#[test]
fn rows_longer_than_the_positions_of_the_model_are_cut() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = eva();
    command.args(["init", "graphs/tiny/bert-optimum/model.onnx", "--data", "fixtures/calibration.jsonl"]);
    command.args(["--device", "cpu", "--max-batches", "2", "--out"]).arg(dir.path().join("adapter"));
    assert!(succeeded(&command.output().unwrap()).contains("cut to --max-length"));
}

#[test]
fn uniform_ranks_are_uniform() {
    let (dir, output) = init(&["--ranks", "uniform", "--rank", "4", "--target-modules", "q_proj,down_proj"]);
    succeeded(&output);
    let report = json(&dir.path().join("adapter/eva.json"));
    let layers = report["layers"].as_array().unwrap();
    assert_eq!(layers.len(), 6);
    assert!(layers.iter().all(|layer| layer["rank"] == 4));
}

#[test]
fn a_loose_threshold_converges_early() {
    let (dir, output) = init(&["--tau", "0.5", "--rank", "2", "--rho", "1"]);
    assert!(succeeded(&output).contains("stopped by: all modules converged"));
    assert_eq!(json(&dir.path().join("adapter/eva.json"))["converged"], true);
}

#[test]
fn force_replaces_only_its_own_files() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("notes.txt"), "mine").unwrap();
    let run = |more: &[&str]| {
        let mut command = eva();
        command.args(["init", "graphs/example/optimum/model.onnx", "--data", "fixtures/calibration.jsonl"]);
        command.args(["--device", "cpu", "--max-batches", "1", "--out"]).arg(dir.path()).args(more);
        command.output().unwrap()
    };
    let refused = run(&[]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(
        text(&refused.stderr).contains("hint: give another output folder, or --force"),
        "{}",
        text(&refused.stderr)
    );
    succeeded(&run(&["--force"]));
    assert_eq!(fs::read_to_string(dir.path().join("notes.txt")).unwrap(), "mine");
    assert!(dir.path().join("adapter_config.json").exists());
}

#[cfg(unix)]
#[test]
fn an_interrupt_still_writes_a_valid_adapter() {
    let dir = tempfile::tempdir().unwrap();
    let rows = fs::read_to_string(root().join("fixtures/calibration.jsonl")).unwrap().repeat(20);
    fs::write(dir.path().join("rows.jsonl"), rows).unwrap();
    let adapter = dir.path().join("adapter");
    let mut command = eva();
    command.args(["init", MODEL, "--device", "cpu", "--tau", "1", "--data"]);
    command.arg(dir.path().join("rows.jsonl")).arg("--out").arg(&adapter);
    let one_batch = regex::Regex::new("[1-9][0-9]*(/[0-9]+)? batches").unwrap();
    let output = terminal::interrupted_at(command, |shown| one_batch.is_match(shown));
    assert_eq!(output.status.code(), Some(130), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("stopped by: interrupted"));
    assert_eq!(json(&adapter.join("eva.json"))["stopped_by"], "interrupted");
    let weights = fs::read(adapter.join("adapter_model.safetensors")).unwrap();
    assert_eq!(safetensors::SafeTensors::deserialize(&weights).unwrap().len(), 2 * 21);
}

/// A run that must fail: the exit status and parts of what it says.
#[track_caller]
fn check_failure(arguments: &[&str], status: i32, says: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let mut command = eva();
    command.arg("init").args(arguments).args(["--device", "cpu"]);
    if !arguments.contains(&"--out") {
        command.arg("--out").arg(dir.path().join("adapter"));
    }
    let output = command.output().unwrap();
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{stderr}");
    for part in says {
        assert!(stderr.contains(part), "no `{part}` in: {stderr}");
    }
    assert!(output.stdout.is_empty());
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left behind");
}

const DATA: &str = "fixtures/calibration.jsonl";
const MODEL: &str = "graphs/example/dynamo/model.onnx";

fn file(dir: &TempDir, name: &str, content: impl AsRef<[u8]>) -> String {
    let path = dir.path().join(name);
    fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_missing_model_is_named() {
    check_failure(&["nowhere.onnx", "--data", DATA], 1, &["error: ", "`nowhere.onnx`"]);
}

#[test]
fn what_is_no_onnx_file_is_recognised() {
    let dir = tempfile::tempdir().unwrap();
    let page = file(&dir, "page.onnx", "<!doctype html><html></html>");
    check_failure(&[&page, "--data", DATA], 1, &[&page, "hint: "]);
}

#[test]
fn a_truncated_model_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let whole = fs::read(example()).unwrap();
    let cut = file(&dir, "cut.onnx", &whole[..whole.len() / 2]);
    check_failure(&[&cut, "--data", DATA], 1, &["error: ", "cut.onnx"]);
}

#[test]
fn external_data_must_be_there_and_whole() {
    let dir = tempfile::tempdir().unwrap();
    let source = root().join("graphs/tiny/llama-external");
    let model = file(&dir, "model.onnx", fs::read(source.join("model.onnx")).unwrap());
    check_failure(&[&model, "--data", DATA], 1, &["model.onnx.data", "hint: "]);
    let data = fs::read(source.join("model.onnx.data")).unwrap();
    file(&dir, "model.onnx.data", &data[..data.len() / 2]);
    check_failure(&[&model, "--data", DATA], 1, &["model.onnx.data"]);
}

#[test]
fn external_data_may_not_leave_the_folder() {
    let dir = tempfile::tempdir().unwrap();
    let model = fs::read(root().join("graphs/tiny/llama-external/model.onnx")).unwrap();
    // A location of the same length keeps the file valid.
    let escaped = String::from_utf8_lossy(&model).contains("model.onnx.data");
    assert!(escaped);
    let mut bytes = model;
    while let Some(at) = bytes.windows(15).position(|w| w == b"model.onnx.data") {
        bytes[at..at + 15].copy_from_slice(b"../../../passwd");
    }
    let model = file(&dir, "model.onnx", bytes);
    check_failure(&[&model, "--data", DATA], 1, &["../../../passwd"]);
}

#[test]
fn bad_rows_are_named_by_line() {
    let dir = tempfile::tempdir().unwrap();
    let empty = file(&dir, "empty.jsonl", "");
    check_failure(&[MODEL, "--data", &empty], 1, &["empty.jsonl"]);
    let broken = file(&dir, "broken.jsonl", "{\"text\": \"fine\"}\n{\"text\": oops}\n");
    check_failure(&[MODEL, "--data", &broken, "--keep-order"], 1, &["broken.jsonl", "line 2"]);
    let useless = file(&dir, "useless.jsonl", "{\"body\": \"x\", \"id\": 3}\n");
    check_failure(&[MODEL, "--data", &useless], 1, &["line 1", "body", "hint: ", "--text-field"]);
}

#[test]
fn tokens_beyond_the_vocabulary_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let rows = file(&dir, "rows.jsonl", "{\"input_ids\": [1, 2, 99999]}\n");
    check_failure(&[MODEL, "--data", &rows], 1, &["99999", "rows.jsonl", "hint: "]);
}

#[test]
fn no_matching_layer_lists_what_there_is() {
    check_failure(&[MODEL, "--data", DATA, "--target-modules", "query"], 1, &["query", "q_proj", "down_proj"]);
}

#[test]
fn an_unknown_device_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let adapter = dir.path().join("adapter");
    for (devices, says) in [
        ("tpu", "unknown device `tpu`"),
        ("cpu,auto", "unknown device `auto`"),
        ("cuda:0,1", "unknown device `1`"),
        ("cpu,", "unknown device ``"),
        ("cuda,cpu,cuda:0", "the device `cuda:0` is named twice"),
    ] {
        let arguments = ["init", MODEL, "--data", DATA, "--device", devices, "--out"];
        let output = eva().args(arguments).arg(&adapter).output().unwrap();
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains(says) && stderr.contains("hint: "), "{stderr}");
    }
}

#[test]
fn without_onnx_runtime_there_is_one_cure() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = eva();
    command.args(["init", MODEL, "--data", DATA, "--out"]).arg(dir.path().join("adapter"));
    command.env_clear().env("PATH", "/nonexistent");
    let output = command.output().unwrap();
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("pip install onnxruntime"), "{stderr}");
}

#[cfg(target_os = "linux")]
#[test]
fn an_output_that_cannot_be_made_is_refused_before_the_run() {
    check_failure(&[MODEL, "--data", DATA, "--out", "/sys/adapter"], 2, &["cannot write `/sys", "hint: "]);
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let said = |options: &str| {
        // A limit on the size of files fails the write as a full disk does.
        let script = format!(
            "trap '' XFSZ; ulimit -f 8; exec '{}' init {MODEL} --data {DATA} --device cpu --max-batches 1 --no-progress \
             --out '{}' {options}",
            env!("CARGO_BIN_EXE_eva-onnx"),
            dir.path().join("adapter").display()
        );
        let output = Command::new("bash").arg("-c").arg(script).current_dir(root()).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
        text(&output.stderr)
    };
    assert!(said("").contains("cannot write"));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left behind");
    let spilled = said(&format!("--blocks 2 --spill '{}'", dir.path().join("states").display()));
    assert!(spilled.starts_with("error: cannot keep the hidden states in `"), "{spilled}");
    assert!(!dir.path().join("adapter").exists());
}
