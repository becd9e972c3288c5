//! `init --split layers`: a model divided among devices gives what the whole model gives on one of them.

use crate::exports::{EXPORTS, Names, reads};
use crate::support::adapters::read_a;
use crate::support::eva::{self, graph};
use crate::support::graph::{F32, I64, net, pattern};
use crate::support::parts::{adapter, done, folder, refused};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

const TWO: [&str; 4] = ["--device", "cpu,cpu", "--split", "layers"];
const THREE: [&str; 4] = ["--device", "cpu,cpu,cpu", "--split", "layers"];
const ONE: [&str; 2] = ["--device", "cpu"];

/// `init` on the example with rows of a folder. Each part has as many threads as the whole model.
fn init(dir: &Path, options: &[&str], out: &str) -> Command {
    let mut command = eva::eva();
    command.args(["init", "graphs/example/dynamo/model.onnx", "--no-progress", "--max-length", "48", "--threads", "1"]);
    command.arg("--data").arg(dir.join("rows.jsonl")).arg("--out").arg(dir.join(out)).args(options);
    command
}

/// The same bytes, ranks and records of batches.
#[track_caller]
fn same(dir: &Path, one: &str, other: &str) -> Value {
    let [one, other] = [one, other].map(|out| adapter(&dir.join(out)));
    assert!(one.0 == other.0, "other bytes");
    for key in
        ["layers", "groups", "history", "batches", "tokens_seen", "tokens_kept", "stopped_by", "converged", "bad_rows"]
    {
        assert_eq!(one.2[key], other.2[key], "{key}");
    }
    other.2
}

/// Every way in which exporters and tools store models.
#[test]
fn all_exports_give_what_they_give_whole() {
    let mut equal = 0;
    for export in EXPORTS {
        let dir = export.unpacked();
        fs::write(dir.path().join("rows.jsonl"), reads(&export).rows).unwrap();
        let run = |options: &[&str], out: &str| {
            let mut command = eva::eva();
            command.current_dir(dir.path()).args(["init", export.graph, "--data", "rows.jsonl", "--out", out]);
            command.args(["--rank", "3", "--tau", "1", "--batch-size", "1", "--quiet", "--threads", "1"]);
            command.args(["--target-modules", ".*"]).args(options);
            if export.names != Names::All {
                command.arg("--checkpoint").arg(export.checkpoint());
            }
            eva::run(&mut command)
        };
        let what = format!("{}/{}", export.folder, export.graph);
        run(&ONE, "whole").unwrap_or_else(|said| panic!("{what}: {said}"));
        run(&THREE, "layers").unwrap_or_else(|said| panic!("{what}: {said}"));
        let (same, largest) = export.alike(dir.path(), ["whole", "layers"]);
        equal += usize::from(same);
        println!("{what}: {} {largest:e}", if same { "the same bytes" } else { "differs by" });
    }
    assert!(equal * 10 > EXPORTS.len() * 9, "{equal} of {} have the same bytes", EXPORTS.len());
}

/// The run ends with the batch with which the whole model ends, though parts are further then.
#[test]
fn a_run_that_converges_ends_with_the_same_batch() {
    let dir = folder(0, 60);
    let dir = dir.path();
    for (name, options) in [
        ("eva", &["--tau", "0.9", "--rank", "2"][..]),
        ("svd", &["--tau", "0.9", "--rank", "2", "--capture", "outputs"]),
    ] {
        let options = [options, &["--batch-size", "2"]].concat();
        done(init(dir, &ONE, &format!("{name}-whole")).args(&options));
        for (devices, split) in [("two", TWO), ("three", THREE)] {
            done(init(dir, &split, &format!("{name}-{devices}")).args(&options));
            let report = same(dir, &format!("{name}-whole"), &format!("{name}-{devices}"));
            let batches = report["batches"].as_u64().unwrap();
            assert!(report["stopped_by"] == "converged" && batches < 30 - 3, "{batches}");
        }
    }
}

/// Padding that a model reads is found in the last part; then batches are split in all of them from the same batch on.
#[test]
fn what_one_part_demands_holds_for_all() {
    const D: usize = 6;
    let square = [D as i64, D as i64];
    let weight = |shift: usize| pattern(D * D + shift)[shift..].to_vec();
    let net = net()
        .shaped_input("input_ids", I64, &[-1, -1])
        .values("table", &[100, D as i64], &pattern(100 * D))
        .values("w1", &square, &weight(0))
        .values("w2", &square, &weight(7))
        .values("w3", &square, &weight(11))
        .node("Gather", "/embed/Gather", &["table", "input_ids"], "x")
        .node("MatMul", "/fc1/MatMul", &["x", "w1"], "a")
        .node("ReduceMean", "/ReduceMean", &["a"], "mean")
        .ints("axes", &[1])
        .node("Add", "/Add", &["a", "mean"], "sum")
        .node("MatMul", "/fc2/MatMul", &["sum", "w2"], "b")
        .node("Sqrt", "/Sqrt", &["b"], "root")
        .node("MatMul", "/fc3/MatMul", &["root", "w3"], "y")
        .shaped_output("y", F32, &[-1, -1, D as i64]);
    let (model, _) = net.open();
    let dir = model.path();
    let row = |row: usize| -> Vec<usize> {
        // The first batches have no padding.
        let length = if row < 6 { 7 } else { 5 + row % 4 };
        (0..length).map(|token| (row * 31 + token * 17) % 100).collect()
    };
    let lines: Vec<String> = (0..15).map(|at| json!({"input_ids": row(at)}).to_string()).collect();
    fs::write(dir.join("rows.jsonl"), lines.join("\n")).unwrap();
    let run = |options: &[&str], out: &str| {
        let mut command = eva::eva();
        command.arg("init").arg(dir.join("m.onnx")).arg("--data").arg(dir.join("rows.jsonl"));
        command.args(["--trust-node-names", "--tau", "1", "--rank", "2", "--batch-size", "3", "--keep-order"]);
        command.args(["--threads", "1", "--out"]).arg(dir.join(out)).args(options);
        command
    };
    let finite = ["--exclude-modules", "fc3"];
    done(run(&ONE, "whole").args(finite));
    done(run(&TWO, "layers").args(finite));
    same(dir, "whole", "layers");
    // Square roots of negative numbers: the layer and the batch are named.
    let said = |split: &[&str]| {
        let (status, said) = refused(&mut run(split, "never"));
        assert!(status == Some(1) && said.contains("`fc3` (tensor `root`) is not finite in batch 1"), "{said}");
        said
    };
    assert_eq!(said(&ONE), said(&TWO));
}

#[test]
fn summaries_and_checkpoints_are_those_of_the_whole_model() {
    let dir = folder(0, 16);
    let dir = dir.path();
    let base = ["--tau", "1", "--batch-size", "2"];
    done(init(dir, &ONE, "whole").args(base));
    done(init(dir, &TWO, "kept").args(base).args(["--checkpoint-every", "3"]));
    same(dir, "whole", "kept");
    // A part of the rows, as a summary.
    for (split, file) in [(&ONE[..], "one.safetensors"), (&TWO, "two.safetensors")] {
        let mut command = eva::eva();
        command.args(["init", "graphs/example/dynamo/model.onnx", "--no-progress", "--threads", "1", "--shard", "0/2"]);
        command.arg("--data").arg(dir.join("rows.jsonl")).arg("--summary").arg(dir.join(file)).args(split);
        done(&mut command);
    }
    let open = |name: &str| eva_onnx::summary::SummaryFile::open(&dir.join(name)).unwrap();
    let (one, two) = (open("one.safetensors"), open("two.safetensors"));
    assert_eq!(one.facts.run, two.facts.run);
    for group in 0..one.facts.grouping.groups.len() {
        assert_eq!(one.group(group).unwrap().summary, two.group(group).unwrap().summary);
    }
}

#[test]
fn a_stopped_run_goes_on() {
    use eva_onnx::options::{BatchSize, CheckpointOptions, DataOptions, Order, RuntimeOptions, Settings, Split};
    use eva_onnx::{ErrorKind, Init, Next};
    let dir = folder(0, 16);
    let dir = dir.path();
    let file = dir.join("state");
    let run = |split: Split| {
        // Rows of like lengths share the batches of a run; fewer batches would be others.
        let (order, batch_size) = (Order::Kept, BatchSize::Rows(2));
        let data = DataOptions { max_length: 48, batch_size, order, ..DataOptions::default() };
        let runtime = RuntimeOptions { devices: "cpu,cpu".to_owned(), threads: 2, ..RuntimeOptions::default() };
        let run = Init::new(graph("example/dynamo")).data([dir.join("rows.jsonl")]).data_options(data).runtime(runtime);
        run.settings(Settings { tau: 1.0, ..Settings::default() }).split(split)
    };
    let kept = || CheckpointOptions { file: file.clone(), every: None, resume: true };
    let mut seen = Vec::new();
    let stop = |progress: &eva_onnx::results::Progress| {
        seen.push(progress.batches);
        if progress.batches == 3 { Next::Stop } else { Next::Continue }
    };
    let error = run(Split::Layers).checkpoints(kept()).run_with(stop).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Interrupted);
    // The batches that were under way are done.
    assert!(seen.windows(2).all(|two| two[1] - two[0] <= 1) && seen.last() > Some(&3), "{seen:?}");
    let error = run(Split::Rows).checkpoints(kept()).run().err().unwrap();
    assert!(error.to_string().contains("it differs in --blocks or --split"), "{error}");
    let went_on = run(Split::Layers).checkpoints(kept()).run().unwrap();
    let whole = run(Split::Layers).run().unwrap();
    assert_eq!(went_on.history, whole.history);
    assert_eq!(went_on.adapter, whole.adapter);
    // Without a file, the adapter is made of the batches that were done.
    let stop = |progress: &eva_onnx::results::Progress| if progress.batches == 3 { Next::Stop } else { Next::Continue };
    let stopped = run(Split::Layers).run_with(stop).unwrap();
    let count = stopped.history.len();
    assert!((4..8).contains(&count), "{count}");
    assert_eq!(stopped.adapter, run(Split::Layers).max_batches(count).run().unwrap().adapter);
}

#[test]
fn what_is_divided_is_said_and_what_cannot_be_is_refused() {
    let dir = folder(0, 8);
    let dir = dir.path();
    let said = init(dir, &TWO, "out").args(["--emit", "adapter-inputs"]).output().unwrap();
    let said = eva::text(&said.stderr);
    assert!(
        said.contains("note: the layers were divided among the devices: cpu had") && said.contains(", cpu had"),
        "{said}"
    );
    assert!(dir.join("out/adapter-inputs/model.onnx").is_file());
    let dry = eva::eva()
        .args(["init", "graphs/example/dynamo/model.onnx", "--dry-run", "--json", "--data"])
        .arg(dir.join("rows.jsonl"))
        .args(TWO)
        .output()
        .unwrap();
    let plan: Value = serde_json::from_str(&eva::succeeded(&dry)).unwrap();
    assert!(plan["device"] == "cpu,cpu" && plan["seconds_of_batch"].as_f64().unwrap() > 0.0, "{plan}");
    let check = |options: &[&str], status: i32, reason: &str| {
        let (found, said) = refused(&mut init(dir, options, "never"));
        assert!(found == Some(status) && said.contains(reason) && said.contains("hint: "), "{said}");
        assert!(!dir.join("never").exists());
    };
    let layers = ["--split", "layers"];
    check(&[&layers[..], &ONE].concat(), 2, "--split layers divides a model among devices, and there is one");
    check(&[&TWO[..], &["--blocks", "2"]].concat(), 2, "blocks run on one device, and --split layers is for several");
    let many = vec!["cpu"; 500].join(",");
    check(&[&layers[..], &["--device", many.as_str()]].concat(), 2, "parts, and 500 devices are named");
}

/// The second of three parts takes 4 * 4096^b bytes for b rows: those of 4 rows are more than an address space has. Its
/// layers and those after it learn from halves, as in the whole model; the layer before it from whole batches, as in a model
/// that ends there.
#[test]
fn a_batch_too_large_for_one_part_is_run_in_halves() {
    const D: usize = 6;
    let square = [D as i64, D as i64];
    let weight = |shift: usize| pattern(D * D + shift)[shift..].to_vec();
    let begin = || {
        net()
            .shaped_input("input_ids", I64, &[-1, -1])
            .values("table", &[100, D as i64], &pattern(100 * D))
            .values("w1", &square, &weight(0))
            .node("Gather", "/embed/Gather", &["table", "input_ids"], "x")
            .node("MatMul", "/fc1/MatMul", &["x", "w1"], "a")
    };
    let all = begin()
        .values("w2", &square, &weight(7))
        .values("w3", &square, &weight(11))
        .integers("first", &[1], &[0])
        .integers("base", &[1], &[4096])
        .values("zero", &[1], &[0.0])
        .node("Shape", "/Shape", &["input_ids"], "shape")
        .node("Gather", "/Gather", &["shape", "first"], "rows")
        .node("Pow", "/Pow", &["base", "rows"], "size")
        .node("Expand", "/Expand", &["zero", "size"], "zeros")
        .node("ReduceMax", "/ReduceMax", &["zeros"], "most")
        .int("keepdims", 0)
        .node("Add", "/Add", &["a", "most"], "hungry")
        .node("MatMul", "/fc2/MatMul", &["hungry", "w2"], "b")
        .node("Relu", "/Relu", &["b"], "c")
        .node("MatMul", "/fc3/MatMul", &["c", "w3"], "y")
        .shaped_output("y", F32, &[-1, -1, D as i64]);
    let (model, _) = all.open();
    let (beginning, _) = begin().shaped_output("a", F32, &[-1, -1, D as i64]).open();
    let dir = model.path();
    let row = |row: usize| (0..6).map(|token| (row * 31 + token * 17) % 100).collect::<Vec<usize>>();
    let lines: Vec<String> = (0..16).map(|at| json!({"input_ids": row(at)}).to_string()).collect();
    fs::write(dir.join("rows.jsonl"), lines.join("\n")).unwrap();
    let run = |model: &Path, options: &[&str], halves: bool| {
        let out = tempfile::tempdir().unwrap();
        let mut command = eva::eva();
        command.arg("init").arg(model.join("m.onnx")).arg("--data").arg(dir.join("rows.jsonl"));
        command.args(["--trust-node-names", "--tau", "1", "--rank", "2", "--ranks", "uniform", "--batch-size", "4"]);
        let output = command.args(["--threads", "1", "--out"]).arg(out.path()).args(options).output().unwrap();
        let said = (eva::text(&output.stderr), eva::succeeded(&output)).0;
        assert_eq!(said.contains("too little memory for some batches: 4 were split"), halves, "{said}");
        read_a(out.path()).into_iter().collect::<BTreeMap<_, _>>()
    };
    let layers = run(dir, &THREE, true);
    let (whole, first) = (run(dir, &ONE, true), run(beginning.path(), &ONE, false));
    assert_eq!(layers.keys().collect::<Vec<_>>(), ["fc1", "fc2", "fc3"]);
    assert_eq!((&layers["fc2"], &layers["fc3"]), (&whole["fc2"], &whole["fc3"]));
    assert_eq!(layers["fc1"], first["fc1"]);
}
