//! Trainings that stop and go on.

use crate::support::eva::{eva, graph, root, run, text};
use eva_onnx::options::{AdamW, DataOptions, Order, Schedule, Settings, TrainCheckpointOptions, TrainSettings};
use eva_onnx::results::{TrainProgress, Trained};
use eva_onnx::{ErrorKind, Hint, Init, Next, Train};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::OnceLock;
use std::time::Duration;

const STEPS: usize = 7;

/// Twelve rows of the data.
fn rows(dir: &Path) -> PathBuf {
    let data = dir.join("rows.jsonl");
    let text = fs::read_to_string(root().join("fixtures/calibration.jsonl")).unwrap();
    fs::write(&data, text.lines().take(12).map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    data
}

/// Three batches an epoch, of which two count together, with everything that changes from step to step.
fn settings() -> TrainSettings {
    let adamw = AdamW { weight_decay: 0.1, ..AdamW::default() };
    let settings =
        TrainSettings { steps: Some(STEPS), rate: 3e-3, warmup: 2, accumulate: 2, ..TrainSettings::default() };
    TrainSettings { eval_every: Some(3), adamw, ..settings }
}

fn short(max_length: usize) -> DataOptions {
    DataOptions { max_length, order: Order::Shuffled, ..DataOptions::default() }
}

/// A training of this model.
fn train_of(model: &Path, dir: &Path) -> Train {
    let data = rows(dir);
    Train::new(model).eval([&data]).data([data]).adapter(adapter()).data_options(short(32)).settings(settings())
}

fn train(dir: &Path) -> Train {
    train_of(&graph("example/dynamo"), dir)
}

/// An adapter for the example model, made once.
fn adapter() -> PathBuf {
    static MADE: OnceLock<tempfile::TempDir> = OnceLock::new();
    let dir = MADE.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let data = [root().join("fixtures/calibration.jsonl")];
        let init = Init::new(graph("example/dynamo")).data(data).device("cpu").max_batches(2).rank(4);
        init.run().unwrap().save(dir.path().join("adapter")).unwrap();
        dir
    });
    dir.path().join("adapter")
}

fn checkpoints(dir: &Path) -> TrainCheckpointOptions {
    TrainCheckpointOptions::new(dir.join("checkpoints"))
}

fn stop_after(steps: usize) -> impl FnMut(&TrainProgress) -> Next {
    move |progress| if progress.steps == steps { Next::Stop } else { Next::Continue }
}

#[derive(PartialEq)]
struct Written {
    files: [Vec<u8>; 2],
    steps: Vec<[f64; 3]>,
    evaluations: Vec<(usize, f64)>,
}

/// What a training wrote, and the losses, norms and evaluations of all its steps.
fn result(trained: &Trained, folder: &Path) -> Written {
    trained.save(folder).unwrap();
    let evaluations = trained.evaluations.iter().map(|evaluation| (evaluation.step, evaluation.loss));
    Written {
        files: ["adapter_model.safetensors", "adapter_config.json"].map(|name| fs::read(folder.join(name)).unwrap()),
        steps: trained.history.iter().map(|step| [step.loss, step.norm, step.rate]).collect(),
        evaluations: evaluations.collect(),
    }
}

#[test]
fn a_training_that_was_stopped_goes_on_to_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let whole = result(&train(dir.path()).run().unwrap(), &dir.path().join("whole"));
    for stops in [vec![1], vec![2], vec![3, 5], vec![6]] {
        let place = dir.path().join(format!("{stops:?}"));
        let options = checkpoints(&place);
        for (index, stop) in stops.iter().enumerate() {
            let options = TrainCheckpointOptions { resume: index > 0, ..options.clone() };
            let stopped = train(dir.path()).checkpoints(options).run_with(stop_after(*stop)).unwrap();
            assert_eq!(stopped.checkpoint, Some(place.join(format!("checkpoints/step-{stop:08}"))));
        }
        let resumed = train(dir.path()).checkpoints(TrainCheckpointOptions { resume: true, ..options }).run().unwrap();
        assert_eq!(resumed.resumed.as_ref().map(|resumed| resumed.steps), stops.last().copied());
        let parts = result(&resumed, &place.join("resumed"));
        assert!(parts == whole, "stopped after {stops:?}: {:?} {:?}", parts.steps, whole.steps);
    }
}

/// Without an adapter to start from, the training goes on with that of the checkpoint, not one that is made anew.
#[test]
fn a_training_from_eva_goes_on_to_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let data = rows(dir.path());
    let train = || {
        let settings = TrainSettings { steps: Some(3), schedule: Schedule::Linear, ..TrainSettings::default() };
        Train::new(graph("example/dynamo")).data([&data]).data_options(short(32)).settings(settings)
    };
    let whole = result(&train().run().unwrap(), &dir.path().join("whole"));
    let options = checkpoints(dir.path());
    train().checkpoints(options.clone()).run_with(stop_after(2)).unwrap();
    let options = TrainCheckpointOptions { resume: true, ..options };
    let other = Settings { rank: 8, ..Settings::default() };
    let error = train().method(other).checkpoints(options.clone()).run().err().unwrap();
    assert!(error.to_string().ends_with("with other settings: --rank 16, now 8"), "{error}");
    let resumed = train().checkpoints(options).run().unwrap();
    assert!(result(&resumed, &dir.path().join("resumed")) == whole);
}

#[test]
fn a_training_does_not_go_on_with_other_settings_or_inputs() {
    let dir = tempfile::tempdir().unwrap();
    let options = checkpoints(dir.path());
    train(dir.path()).checkpoints(options.clone()).run_with(stop_after(2)).unwrap();
    let error = train(dir.path()).checkpoints(options.clone()).run().err().unwrap();
    assert!(error.to_string().contains("has checkpoints of an earlier training"), "{error}");
    let options = TrainCheckpointOptions { resume: true, ..options };
    let refused = |train: Train| {
        let error = train.checkpoints(options.clone()).run().err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Environment);
        error.to_string().split_once("with other settings: ").unwrap().1.to_owned()
    };
    let other = TrainSettings { steps: Some(9), rate: 0.5, adamw: AdamW::default(), ..settings() };
    let other = refused(train(dir.path()).settings(other));
    assert_eq!(other, "--lr 0.003, now 0.5; --steps 7, now 9; --weight-decay 0.1, now 0");
    assert_eq!(refused(train(dir.path()).data_options(short(40))), "--max-length 32, now 40; the rows");
    let changed = dir.path().join("changed.jsonl");
    fs::write(&changed, fs::read_to_string(rows(dir.path())).unwrap().replace("the", "The")).unwrap();
    assert_eq!(refused(train(dir.path()).data([&changed])), "the rows");
    let adapter = dir.path().join("other");
    train(dir.path()).run().unwrap().save(&adapter).unwrap();
    assert_eq!(refused(train(dir.path()).adapter(adapter)), "the adapter");
    let model = dir.path().join("model");
    fs::create_dir(&model).unwrap();
    for entry in fs::read_dir(root().join("graphs/example/dynamo")).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, model.join(path.file_name().unwrap())).unwrap();
    }
    let file = model.join("model.onnx");
    let mut bytes = fs::read(&file).unwrap();
    // Another documentation of the model: field 6 of a ModelProto.
    bytes.extend([0x32, 1, b'x']);
    fs::write(&file, bytes).unwrap();
    assert_eq!(refused(train_of(&file, dir.path())), "the model");
}

#[test]
fn the_newest_checkpoints_are_kept_and_damaged_ones_are_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let whole = result(&train(dir.path()).run().unwrap(), &dir.path().join("whole"));
    let options = TrainCheckpointOptions { every: Some(2), ..checkpoints(dir.path()) };
    train(dir.path()).checkpoints(options.clone()).run().unwrap();
    let names = || {
        let mut names: Vec<String> = fs::read_dir(&options.dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    assert_eq!(names(), ["step-00000004", "step-00000006"]);
    let state = |step: usize| options.dir.join(format!("step-{step:08}/state.safetensors"));
    let bytes = fs::read(state(6)).unwrap();
    fs::write(state(6), &bytes[..bytes.len() - 1]).unwrap();
    // What a run that was killed leaves of a checkpoint.
    let partial = options.dir.join(".step-00000007.eva-onnx-partial");
    fs::create_dir(&partial).unwrap();
    fs::write(partial.join("state.safetensors"), "half").unwrap();
    let resume = TrainCheckpointOptions { resume: true, ..options.clone() };
    let resumed = train(dir.path()).checkpoints(resume.clone()).run().unwrap();
    let from = resumed.resumed.as_ref().unwrap();
    assert_eq!((from.steps, &from.damaged), (4, &vec![options.dir.join("step-00000006")]));
    assert!(result(&resumed, &dir.path().join("resumed")) == whole);
    assert_eq!(names(), ["step-00000004", "step-00000006"]);
    for step in [4, 6] {
        fs::write(state(step), "nothing").unwrap();
    }
    let error = train(dir.path()).checkpoints(resume.clone()).run().err().unwrap();
    assert!(error.to_string().contains("step-00000006` is damaged: `state.safetensors`"), "{error}");
    fs::remove_dir_all(&options.dir).unwrap();
    let error = train(dir.path()).checkpoints(resume).run().err().unwrap();
    assert!(error.to_string().contains("there is no checkpoint in"), "{error}");
}

#[test]
fn a_checkpoint_that_cannot_be_written_leaves_the_one_before() {
    let dir = tempfile::tempdir().unwrap();
    let options = TrainCheckpointOptions { every: Some(2), ..checkpoints(dir.path()) };
    let in_the_way = options.dir.join("step-00000004");
    let error = train(dir.path())
        .checkpoints(options.clone())
        .run_with(|progress| {
            if progress.steps == 3 {
                fs::write(&in_the_way, "").unwrap();
            }
            Next::Continue
        })
        .err()
        .unwrap();
    assert!(error.to_string().starts_with("the checkpoint of step 4 was not written: "), "{error}");
    assert!(error.hint().unwrap().ends_with("then --resume goes on from step 2"), "{:?}", error.hint());
    fs::remove_file(&in_the_way).unwrap();
    let resumed = train(dir.path()).checkpoints(TrainCheckpointOptions { resume: true, ..options }).run().unwrap();
    assert_eq!(resumed.resumed.unwrap().steps, 2);
}

#[test]
fn a_loss_that_is_not_finite_leaves_the_last_good_state() {
    let dir = tempfile::tempdir().unwrap();
    let adamw = AdamW { clip: 0.0, ..AdamW::default() };
    let wild = TrainSettings { rate: 1e30, adamw, schedule: Schedule::Constant, ..TrainSettings::default() };
    let options = TrainCheckpointOptions { every: Some(100), ..checkpoints(dir.path()) };
    let error = train(dir.path()).settings(wild).checkpoints(options.clone()).run().err().unwrap();
    assert!(error.to_string().contains("of step 2 is not finite"), "{error}");
    let tensors = fs::read(options.dir.join("step-00000001/state.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&tensors).unwrap();
    let theta = tensors.tensor("theta").unwrap();
    let finite = |bytes: &[u8; 4]| f32::from_le_bytes(*bytes).is_finite();
    assert!(theta.data().as_chunks().0.iter().all(finite));
}

/// The command, and the end of a run with a signal once a checkpoint is there.
struct Commands {
    dir: tempfile::TempDir,
}

impl Commands {
    fn command(&self, out: &str, more: &[&str]) -> std::process::Command {
        let mut command = eva();
        command.args(["train", "--steps", "40", "--max-length", "32", "--lr", "1e-3", "--device", "cpu", "--quiet"]);
        command.arg("--data").arg(self.dir.path().join("rows.jsonl"));
        command.arg("--adapter").arg(adapter());
        command.arg("--out").arg(self.dir.path().join(out)).args(more).arg(graph("example/dynamo"));
        command
    }

    fn begun(&self, out: &str) -> Child {
        let child = self.command(out, &["--save-every", "3"]).stderr(std::process::Stdio::piped()).spawn().unwrap();
        let checkpoints = self.dir.path().join(out).join("checkpoints");
        let is_one = |entry: fs::DirEntry| entry.file_name().to_string_lossy().starts_with("step-");
        while !fs::read_dir(&checkpoints).is_ok_and(|mut entries| entries.any(|entry| entry.is_ok_and(is_one))) {
            std::thread::sleep(Duration::from_millis(1));
        }
        child
    }

    fn adapter_of(&self, out: &str) -> Vec<u8> {
        fs::read(self.dir.path().join(out).join("adapter_model.safetensors")).unwrap()
    }

    fn losses_of(&self, out: &str) -> Vec<String> {
        let report = fs::read(self.dir.path().join(out).join("train.json")).unwrap();
        let report: serde_json::Value = serde_json::from_slice(&report).unwrap();
        report["steps"].as_array().unwrap().iter().map(|step| step["loss"].to_string()).collect()
    }
}

#[cfg(unix)]
#[test]
fn a_command_that_was_killed_or_interrupted_goes_on_to_the_same_bytes() {
    use rustix::process::{Pid, Signal, kill_process};
    let commands = Commands { dir: tempfile::tempdir().unwrap() };
    rows(commands.dir.path());
    run(&mut commands.command("whole", &[])).unwrap();
    for (out, signal) in [("killed", Signal::KILL), ("interrupted", Signal::INT)] {
        let child = commands.begun(out);
        kill_process(Pid::from_child(&child), signal).unwrap();
        let output = child.wait_with_output().unwrap();
        // Both ends come within the 37 steps after the first checkpoint.
        let expected = if signal == Signal::INT { Some(130) } else { None };
        assert_eq!(output.status.code(), expected, "{}", text(&output.stderr));
        let has_adapter = commands.dir.path().join(out).join("adapter_model.safetensors").is_file();
        assert_eq!(has_adapter, signal == Signal::INT);
        run(&mut commands.command(out, &["--save-every", "3", "--resume"])).unwrap();
        assert!(commands.adapter_of(out) == commands.adapter_of("whole"), "{out}");
        assert_eq!(commands.losses_of(out), commands.losses_of("whole"));
    }
}

#[test]
fn an_output_folder_without_result_goes_again() {
    let commands = Commands { dir: tempfile::tempdir().unwrap() };
    rows(commands.dir.path());
    let error = run(&mut commands.command("none", &["--resume"])).unwrap_err();
    assert!(error.contains("there is no checkpoint in") && error.contains("leave out --resume"), "{error}");
    assert!(!commands.dir.path().join("none").exists());
    run(&mut commands.command("done", &["--save-every", "30"])).unwrap();
    let error = run(&mut commands.command("done", &["--force"])).unwrap_err();
    assert!(error.contains("has checkpoints of an earlier training"), "{error}");
}

#[test]
fn a_training_that_was_killed_before_its_first_checkpoint_begins_anew() {
    let commands = Commands { dir: tempfile::tempdir().unwrap() };
    rows(commands.dir.path());
    // What a kill leaves.
    let checkpoints = commands.dir.path().join("killed/checkpoints");
    let partial = checkpoints.join(".step-00000030.eva-onnx-partial");
    fs::create_dir_all(&partial).unwrap();
    fs::write(partial.join("state.safetensors"), "half").unwrap();
    run(&mut commands.command("killed", &["--save-every", "30"])).unwrap();
    let names: Vec<_> = fs::read_dir(&checkpoints).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["step-00000030"]);
    // Anything else is not of this program.
    fs::create_dir_all(commands.dir.path().join("other/checkpoints/mine")).unwrap();
    let error = run(&mut commands.command("other", &["--save-every", "30"])).unwrap_err();
    assert!(error.contains("exists and is not empty"), "{error}");
}
