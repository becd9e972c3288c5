//! The library as a program uses it, and the binary as a program that uses nothing else.

use crate::support::eva::{self, graph, root};
use crate::support::exports;
use eva_onnx::options::{BatchSize, DataOptions, Fields, Form, Selection, Settings};
use eva_onnx::{ErrorKind, Hint, Init, Next};
use std::fs;
use std::path::PathBuf;

fn rows() -> PathBuf {
    root().join("fixtures/calibration.jsonl")
}

/// A short run on the example model.
fn run() -> Init {
    Init::new(graph("example/dynamo")).data([rows()]).device("cpu").max_batches(2).rank(4)
}

#[test]
fn a_run_is_self_contained() {
    let mut planned = Vec::new();
    let observe = |progress: &eva_onnx::results::Progress| {
        // It is also called while rows are waited for.
        if progress.modules > 0 {
            planned.push((progress.batches, progress.planned));
        }
        Next::Continue
    };
    let run = run().run_with(observe).unwrap();
    assert_eq!(planned, [(0, Some(2)), (1, Some(2)), (2, Some(2))]);
    assert_eq!(run.history.len(), 2);
    assert_eq!(run.modules.iter().map(|module| module.rank).sum::<usize>(), run.budget);
    for module in &run.modules {
        assert!(module.group < run.groups.len() && (0.0..=1.0).contains(&module.explained_variance), "{module:?}");
    }
    let dir = tempfile::tempdir().unwrap();
    let (saved, printed) = (dir.path().join("saved"), dir.path().join("printed"));
    run.save(&saved).unwrap();
    let mut command = eva::eva();
    command.args(["init", "--device", "cpu", "--max-batches", "2", "--rank", "4", "--alpha", "4", "--quiet"]);
    eva::run(command.arg("--data").arg(rows()).arg("--out").arg(&printed).arg(graph("example/dynamo"))).unwrap();
    for file in ["adapter_model.safetensors", "adapter_config.json"] {
        assert!(fs::read(saved.join(file)).unwrap() == fs::read(printed.join(file)).unwrap(), "{file}");
    }
    let error = run.save(&saved).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Environment, "{error}");
}

#[test]
fn the_observer_ends_a_run() {
    let error = run().run_with(|_| Next::Stop).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Interrupted);
    let after_one =
        |progress: &eva_onnx::results::Progress| if progress.batches == 1 { Next::Stop } else { Next::Continue };
    assert_eq!(run().run_with(after_one).unwrap().history.len(), 1);
}

#[test]
fn a_file_that_changes_during_the_run_is_an_error_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("rows.jsonl");
    fs::write(&file, "{\"input_ids\": [5, 6, 7]}\n".repeat(400)).unwrap();
    let settings = Settings { rank: 4, tau: 1.0, ..Settings::default() };
    let options = DataOptions { batch_size: BatchSize::Rows(1), ..DataOptions::default() };
    let init = Init::new(graph("example/dynamo")).data([&file]).device("cpu").settings(settings).data_options(options);
    let error = init.run_with(|progress| {
        if progress.batches == 1 {
            fs::File::options().write(true).open(&file).unwrap().set_len(100).unwrap();
        }
        Next::Continue
    });
    let error = error.err().unwrap();
    assert_eq!(error.to_string(), format!("`{}` changed while it was read", file.display()));
    assert_eq!(error.kind(), ErrorKind::Changed);
}

#[test]
fn models_that_cannot_be_made_are_refused_before_the_data_is_read() {
    let dir = exports::unpacked("bert/attention");
    let model = dir.path().join("model.onnx");
    let nowhere = dir.path().join("nowhere.jsonl");
    let mut seen = 0;
    for form in [Form::Trainable, Form::AdapterInputs] {
        let init = Init::new(&model).data([&nowhere]).device("cpu").emit([form]);
        let error = init.run_with(|_| {
            seen += 1;
            Next::Continue
        });
        let error = error.err().unwrap();
        assert_eq!((error.kind(), seen), (ErrorKind::Input, 0));
        let text = error.to_string();
        assert!(text.contains("model.onnx`: module `") && text.contains("fused with the attention"), "{text}");
        assert!(error.hint().is_some_and(|hint| !hint.contains("--")), "{error}");
    }
    // Layers that are not chosen do not matter.
    let selection = Selection { target_modules: "output.dense".to_owned(), ..Selection::default() };
    let error = Init::new(&model).data([&nowhere]).emit([Form::Trainable]).selection(selection).run().err().unwrap();
    assert!(error.to_string().contains("nowhere.jsonl"), "{error}");
    let out = dir.path().join("out");
    let mut command = eva::eva();
    command.args(["init", "--emit", "trainable,adapter-inputs", "--data"]).arg(&nowhere).arg("--out").arg(&out);
    let message = eva::run(command.arg(&model)).unwrap_err();
    assert!(message.contains("cannot get a branch"), "{message}");
    assert!(!out.exists());
}

#[test]
fn what_is_in_the_way_of_the_output_is_found_before_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let refused = |emit: &str| {
        let mut command = eva::eva();
        command.args(["init", "--force", "--data", "nowhere.jsonl", "--emit", emit, "--out"]).arg(&out);
        eva::run(command.arg(graph("example/dynamo"))).unwrap_err()
    };
    fs::create_dir_all(&out).unwrap();
    fs::write(out.join("trainable"), "").unwrap();
    let message = refused("trainable");
    assert!(message.contains(&format!("cannot write `{}`", out.join("trainable").display())), "{message}");
    assert!(refused("peft").contains("nowhere.jsonl"));
    fs::create_dir_all(out.join("eva.json")).unwrap();
    assert!(refused("peft").contains("eva.json`"));
}

#[test]
fn rows_come_from_an_iterator() {
    let text = fs::read_to_string(rows()).unwrap();
    let row = |line: &str| -> serde_json::Value { serde_json::from_str(line).unwrap() };
    let fields: Vec<Fields> = text.lines().map(|line| row(line).as_object().unwrap().clone().into()).collect();
    let made = run().rows("memory", fields).run().unwrap();
    assert_eq!(made.run.data, ["memory"]);
    assert!(made.adapter == run().run().unwrap().adapter);
    let error = run().rows("memory", [Fields::from([("other", "x")])]).run().err().unwrap();
    assert!(error.to_string().contains("`memory` row 1"), "{error}");
}

/// The names of the crate root, its options and its results are all that a program sees.
#[test]
fn the_binary_uses_only_the_facade() {
    let mut files = Vec::new();
    let mut folders = vec![root().join("src/bin"), root().join("examples")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    let root_names = [
        "inspect",
        "cuts",
        "check",
        "splice",
        "convert",
        "merge",
        "doctor",
        "Adapter",
        "DType",
        "Error",
        "ErrorKind",
        "Hint",
        "Init",
        "Next",
        "Train",
    ];
    let mut uses = 0;
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        for rest in text.split("eva_onnx::").skip(1) {
            uses += 1;
            let names = match rest.strip_prefix('{') {
                Some(list) => list.split('}').next().unwrap().split(',').map(str::trim).collect(),
                None => vec![rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap()],
            };
            for name in names.into_iter().filter(|name| !name.is_empty()) {
                let public = ["options", "results"].iter().any(|module| rest.starts_with(&format!("{module}::")));
                assert!(public || root_names.contains(&name), "{}: eva_onnx::{name}", file.display());
            }
        }
    }
    assert!(uses > 10);
}
