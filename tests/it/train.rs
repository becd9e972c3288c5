//! Training adapters on ONNX Runtime.

use crate::support::eva::{eva, graph, root, run, text};
use eva_onnx::formats::peft;
use eva_onnx::options::{AdamW, DataOptions, Order, RuntimeOptions, Schedule, TrainSettings};
use eva_onnx::{ErrorKind, Hint, Init, Next, Train};
use std::fs;
use std::path::{Path, PathBuf};

fn rows() -> PathBuf {
    root().join("fixtures/calibration.jsonl")
}

/// An adapter for a model, initialised on two batches.
fn adapter(model: &Path, dir: &Path) -> PathBuf {
    let folder = dir.join("adapter");
    if folder.is_dir() {
        return folder;
    }
    Init::new(model).data([rows()]).device("cpu").max_batches(2).rank(4).run().unwrap().save(&folder).unwrap();
    folder
}

fn settings(steps: usize) -> TrainSettings {
    TrainSettings { steps: Some(steps), rate: 3e-3, schedule: Schedule::Constant, ..TrainSettings::default() }
}

/// A training of the example model with the first rows of the data.
fn train(dir: &Path, steps: usize) -> Train {
    train_of(graph("example/dynamo"), dir, steps)
}

fn train_of(model: PathBuf, dir: &Path, steps: usize) -> Train {
    let data = dir.join("rows.jsonl");
    let text = fs::read_to_string(rows()).unwrap();
    fs::write(&data, text.lines().take(8).map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    let options = DataOptions { order: Order::Kept, max_length: 64, ..DataOptions::default() };
    let adapter = adapter(&model, dir);
    Train::new(model).data([data]).adapter(adapter).data_options(options).settings(settings(steps))
}

#[test]
fn the_loss_falls_and_training_twice_gives_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let trained = train(dir.path(), 12).run().unwrap();
    let losses: Vec<f64> = trained.history.iter().map(|step| step.loss).collect();
    assert!(losses[10] < losses[0] && losses[11] < losses[1], "{losses:?}");
    trained.save(dir.path().join("first")).unwrap();
    train(dir.path(), 12).run().unwrap().save(dir.path().join("second")).unwrap();
    let bytes = |folder: &str| fs::read(dir.path().join(folder).join("adapter_model.safetensors")).unwrap();
    assert!(bytes("first") == bytes("second") && bytes("first") != bytes("adapter"));
}

#[test]
fn batches_that_count_together_are_one_batch() {
    let dir = tempfile::tempdir().unwrap();
    let whole = train(dir.path(), 2);
    let options = DataOptions { order: Order::Kept, max_length: 64, ..DataOptions::default() };
    let batch = |rows| DataOptions { batch_size: eva_onnx::options::BatchSize::Rows(rows), ..options.clone() };
    let parts = whole.clone().data_options(batch(2)).settings(TrainSettings { accumulate: 2, ..settings(2) });
    let [whole, parts] = [whole.data_options(batch(4)), parts].map(|train| train.run().unwrap());
    for (one, other) in whole.history.iter().zip(&parts.history) {
        assert_eq!(one.targets, other.targets);
        // Sums of a few hundred losses in another order.
        assert!((one.loss - other.loss).abs() <= 1e-5 * one.loss, "{one:?} {other:?}");
        assert!((one.norm - other.norm).abs() <= 1e-4 * one.norm, "{one:?} {other:?}");
    }
}

#[test]
fn the_observer_stops_a_training_and_the_evaluation_is_of_other_rows() {
    let dir = tempfile::tempdir().unwrap();
    let after_two =
        |progress: &eva_onnx::results::TrainProgress| if progress.steps == 2 { Next::Stop } else { Next::Continue };
    let stopped = train(dir.path(), 5).run_with(after_two).unwrap();
    assert_eq!((stopped.history.len(), stopped.planned), (2, 5));
    let error = train(dir.path(), 5).run_with(|_| Next::Stop).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Interrupted);
    let every = TrainSettings { eval_every: Some(1), ..settings(2) };
    let trained = train(dir.path(), 2).eval([dir.path().join("rows.jsonl")]).settings(every).run().unwrap();
    assert_eq!(trained.evaluations.iter().map(|evaluation| evaluation.step).collect::<Vec<_>>(), [1, 2]);
    assert!(trained.evaluations[1].loss < trained.evaluations[0].loss);
}

#[test]
fn the_evaluation_of_the_next_batch_is_the_loss_of_the_next_step() {
    let dir = tempfile::tempdir().unwrap();
    // All eight rows are one batch, so that each step has the rows of the evaluation.
    let whole = DataOptions {
        batch_size: eva_onnx::options::BatchSize::Rows(8),
        order: Order::Kept,
        max_length: 64,
        ..DataOptions::default()
    };
    let every = TrainSettings { eval_every: Some(1), ..settings(3) };
    for model in ["example/dynamo", "example/optimum"] {
        let data = dir.path().join("rows.jsonl");
        let train = train_of(graph(model), dir.path(), 3).data_options(whole.clone()).eval([data]);
        let trained = train.settings(every).run().unwrap();
        for (evaluation, next) in trained.evaluations.iter().zip(&trained.history[1..]) {
            assert_eq!((evaluation.step + 1, evaluation.targets), (next.step, next.targets));
            // Sums of a few hundred losses in another order.
            assert!((evaluation.loss - next.loss).abs() <= 1e-5 * next.loss, "{model}: {evaluation:?} {next:?}");
        }
    }
}

#[test]
fn labels_that_are_other_tokens_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("labelled.jsonl");
    let with = |labels: &str| {
        let rows =
            format!("{{\"input_ids\": [5, 6, 7], \"labels\": [-100, 6, 7]}}\n{{\"input_ids\": [5, 6, 7], {labels}}}\n");
        fs::write(&data, rows).unwrap();
        train(dir.path(), 1).data([&data]).run()
    };
    // Both rows predict their last two tokens.
    assert_eq!(with("\"labels\": [[-100, 6, 7]]").unwrap().history[0].targets, 4);
    let error = with("\"labels\": [6, 7, -100]").err().unwrap();
    assert!(error.to_string().contains("line 2: label 6 of token 0"), "{error}");
}

#[test]
fn a_training_takes_one_device() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = RuntimeOptions { devices: "cpu,cpu".to_owned(), ..RuntimeOptions::default() };
    let error = train(dir.path(), 1).runtime(runtime).run().err().unwrap();
    assert_eq!(error.to_string(), "a training runs on one device");
}

#[test]
fn a_loss_that_is_not_finite_ends_the_training() {
    let dir = tempfile::tempdir().unwrap();
    let wild = TrainSettings { rate: 1e30, adamw: AdamW { clip: 0.0, ..AdamW::default() }, ..settings(9) };
    let error = train(dir.path(), 9).settings(wild).run().err().unwrap();
    assert!(error.to_string().contains("is not finite"), "{error}");
    assert!(error.hint().unwrap().contains("--lr"));
}

#[test]
fn the_command_writes_an_adapter_and_refuses_other_models() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("trained");
    let mut command = eva();
    command.args(["train", "--steps", "2", "--max-length", "48", "--device", "cpu", "--lr", "1e-3"]);
    command.args(["--rank", "3", "--rho", "1", "--data"]);
    let printed = run(command.arg(rows()).arg("--out").arg(&out).arg(graph("example/dynamo"))).unwrap();
    assert!(printed.contains("2 of 2 steps on cpu"), "{printed}");
    let report: serde_json::Value = serde_json::from_slice(&fs::read(out.join("train.json")).unwrap()).unwrap();
    assert_eq!(report["steps"].as_array().unwrap().len(), 2);
    let (adapter, _) = peft::read(&out).unwrap();
    assert!(adapter.modules.iter().all(|module| module.rank() <= 3), "{adapter:?}");
    assert_eq!(adapter.modules.iter().map(|module| module.rank()).max(), Some(3));
    let mut command = eva();
    command
        .arg("train")
        .arg(graph("tiny/bert-dynamo"))
        .args(["--device", "cpu", "--data"])
        .arg(rows())
        .arg("--out")
        .arg(dir.path().join("none"));
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert!(
        text(&output.stderr).contains("the row has no `label` or `labels`, which single-label-classification needs"),
        "{}",
        text(&output.stderr)
    );
}
