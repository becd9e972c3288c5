//! Adapters in exported graphs: bit-equal to the base while B is zero, equal to each other in all forms, and files.

use crate::support::adapters;
use crate::support::eva::{self, graph, root};

use crate::support::tolerance::{F32_DRIFT, within};
use adapters::{OPTIONS, adapter, bit_equal, distance, runtime};
use eva_onnx::adapter::{Adapter, Base};
use eva_onnx::calib::{self, Batch};
use eva_onnx::dtype::DType;
use eva_onnx::feeds::{self, CacheShape};
use eva_onnx::formats::peft::{self, CONFIG, WEIGHTS};
use eva_onnx::formats::spliced;
use eva_onnx::linear;
use eva_onnx::onnx::Model;
use eva_onnx::runtime::{Runtime, Session};
use std::fs;
use std::path::{Path, PathBuf};

const EXPORTS: [&str; 9] = [
    "example/dynamo",
    "example/optimum",
    "tiny/bert-dynamo",
    "tiny/bert-optimum",
    "tiny/gpt2-dynamo",
    "tiny/gpt2-optimum",
    "tiny/llama-dynamo-noopt",
    "tiny/llama-external",
    "tiny/llama-ts",
];

fn save(adapter: &Adapter, dir: &Path) {
    fs::create_dir_all(dir).unwrap();
    fs::write(dir.join(WEIGHTS), peft::weights(adapter, DType::F32).unwrap()).unwrap();
    fs::write(dir.join(CONFIG), peft::config(adapter, &Base::default())).unwrap();
}

/// Runs the binary; its standard error when it fails.
fn eva(arguments: &[&str], paths: &[&Path]) -> Result<String, String> {
    eva::run(eva::eva().args(arguments).args(paths))
}

fn spliced(model: &Path, adapter: &Path, form: &str, out: &Path) -> Model {
    eva(&["splice", "--as", form, "--out", out.to_str().unwrap()], &[model, adapter]).unwrap();
    Model::open(out.join("model.onnx")).unwrap()
}

/// The outputs of a language model or classifier for a few real rows.
fn run(runtime: &Runtime, model: &Model, batches: &[Batch]) -> Vec<Vec<f64>> {
    let plan = feeds::Feeds::plan(&model.inputs(), CacheShape::default()).unwrap();
    let mut session = Session::load(runtime, model, OPTIONS).unwrap();
    let mut all = Vec::new();
    for batch in batches {
        let feeds = plan.bind(batch).unwrap();
        let outputs = session.run(feeds.iter().map(|(name, value)| (name.as_str(), value))).unwrap();
        all.extend(outputs.iter().map(|output| output.to_f64().unwrap().1));
    }
    all
}

fn batches(export: &str) -> Vec<Batch> {
    let options = calib::LoadOptions {
        tokenizer: Some(root().join("graphs").join(export).join("tokenizer.json")),
        batch_size: calib::BatchSize::Rows(3),
        max_length: 40,
        max_batches: Some(2),
        ..calib::LoadOptions::default()
    };
    let loaded = calib::load(&mut calib::DataFiles::new([root().join("fixtures/calibration.jsonl")]), &options);
    loaded.unwrap().batches().collect()
}

#[test]
fn without_training_the_outputs_are_the_same_to_the_bit() {
    let runtime = runtime();
    for export in EXPORTS {
        let dir = tempfile::tempdir().unwrap();
        let path = graph(export);
        let model = Model::open(&path).unwrap();
        save(&adapter(&linear::find(&model, None).0, false), &dir.path().join("adapter"));
        let batches = batches(export);
        let base = run(&runtime, &model, &batches);
        for form in ["trainable", "adapter-inputs", "merged"] {
            let model = spliced(&path, &dir.path().join("adapter"), form, &dir.path().join(form));
            bit_equal(&run(&runtime, &model, &batches), &base, &format!("{export} {form}"));
        }
    }
}

#[test]
fn trained_and_merged_agree() {
    let runtime = runtime();
    for export in EXPORTS {
        let dir = tempfile::tempdir().unwrap();
        let path = graph(export);
        let model = Model::open(&path).unwrap();
        save(&adapter(&linear::find(&model, None).0, true), &dir.path().join("adapter"));
        let batches = batches(export);
        let base = run(&runtime, &model, &batches);
        let branches = spliced(&path, &dir.path().join("adapter"), "trainable", &dir.path().join("trainable"));
        let branches = run(&runtime, &branches, &batches);
        assert!(distance(&branches, &base) > 0.01, "{export}");
        let merged = spliced(&path, &dir.path().join("adapter"), "merged", &dir.path().join("merged"));
        let off = distance(&run(&runtime, &merged, &batches), &branches);
        within(off, F32_DRIFT, export);
    }
}

#[cfg(unix)]
#[test]
fn the_base_files_are_shared_and_untouched() {
    use std::os::unix::fs::MetadataExt;
    let dir = tempfile::tempdir().unwrap();
    let source = root().join("graphs/tiny/llama-external");
    // A folder on the same file system as the output, whatever the repository lies on.
    let base = dir.path().join("base");
    fs::create_dir(&base).unwrap();
    for name in ["model.onnx", "model.onnx.data", "config.json"] {
        fs::copy(source.join(name), base.join(name)).unwrap();
    }
    let model = Model::open(base.join("model.onnx")).unwrap();
    save(&adapter(&linear::find(&model, None).0, true), &dir.path().join("adapter"));
    let out = dir.path().join("out");
    let arguments = ["splice", "--link", "hard", "--out", out.to_str().unwrap()];
    let text = eva(&arguments, &[&base.join("model.onnx"), &dir.path().join("adapter")]).unwrap();
    assert!(text.contains("MB of weights shared with the model by hard links"), "{text}");
    let inode = |path: PathBuf| fs::metadata(path).unwrap().ino();
    assert_eq!(inode(out.join("model.onnx.data")), inode(base.join("model.onnx.data")));
    assert!(!out.join("base.onnx").exists(), "no weights are in the model's own file");
    assert_ne!(inode(out.join("config.json")), inode(base.join("config.json")));
    for name in ["model.onnx", "model.onnx.data"] {
        assert_eq!(fs::read(base.join(name)).unwrap(), fs::read(source.join(name)).unwrap());
    }
    let copied = dir.path().join("copied");
    let arguments = ["splice", "--out", copied.to_str().unwrap()];
    let text = eva(&arguments, &[&base.join("model.onnx"), &dir.path().join("adapter")]).unwrap();
    assert!(text.contains("MB of weights copied"), "{text}");
    assert_ne!(inode(copied.join("model.onnx.data")), inode(base.join("model.onnx.data")));
    // The folder stands alone: it moves, and the model it was made from goes.
    fs::remove_dir_all(&base).unwrap();
    fs::rename(&out, dir.path().join("moved")).unwrap();
    let moved = Model::open(dir.path().join("moved/model.onnx")).unwrap();
    run(&runtime(), &moved, &batches("tiny/llama-external"));
}

#[test]
fn the_adapter_comes_out_as_it_went_in() {
    for export in EXPORTS {
        let dir = tempfile::tempdir().unwrap();
        let path = graph(export);
        let adapter = adapter(&linear::find(&Model::open(&path).unwrap(), None).0, true);
        save(&adapter, &dir.path().join("adapter"));
        let model = spliced(&path, &dir.path().join("adapter"), "trainable", &dir.path().join("out"));
        assert_eq!(spliced::read(&model).unwrap().0, peft::read(&dir.path().join("adapter")).unwrap().0);
    }
}

#[test]
fn what_does_not_fit_is_listed() {
    let dir = tempfile::tempdir().unwrap();
    let path = graph("example/dynamo");
    let mut adapter = adapter(&linear::find(&Model::open(&path).unwrap(), None).0, false);
    adapter.modules.truncate(3);
    adapter.modules[0].module = "model.layers.9.q_proj".to_owned();
    adapter.modules[1].out_features += 1;
    save(&adapter, &dir.path().join("adapter"));
    let out = dir.path().join("out");
    let arguments = ["splice", "graphs/example/dynamo/model.onnx", "--out", out.to_str().unwrap()];
    let error = eva(&arguments, &[&dir.path().join("adapter")]).unwrap_err();
    let error = error.replace(dir.path().to_str().unwrap(), "DIR");
    insta::assert_snapshot!("splice_misfit", error);
    assert!(!out.exists());

    fs::create_dir(&out).unwrap();
    fs::write(out.join("mine"), "x").unwrap();
    let error = eva(&arguments, &[&dir.path().join("adapter")]).unwrap_err();
    assert!(error.contains("exists and is not empty"), "{error}");
}

#[test]
fn a_spliced_model_takes_no_second_adapter() {
    let dir = tempfile::tempdir().unwrap();
    let path = graph("tiny/gpt2-dynamo");
    save(&adapter(&linear::find(&Model::open(&path).unwrap(), None).0, true), &dir.path().join("adapter"));
    spliced(&path, &dir.path().join("adapter"), "trainable", &dir.path().join("once"));
    let twice = dir.path().join("twice");
    let arguments = ["splice", "--out", twice.to_str().unwrap()];
    let error = eva(&arguments, &[&dir.path().join("once/model.onnx"), &dir.path().join("adapter")]).unwrap_err();
    assert!(error.contains("the model holds an adapter of eva-onnx already"), "{error}");
}

#[test]
fn init_emits_models_beside_the_adapter() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let arguments = ["init", "graphs/tiny/gpt2-dynamo/model.onnx", "--data", "fixtures/calibration.jsonl"];
    let more = ["--device", "cpu", "--max-batches", "2", "--rank", "4", "--emit", "trainable,adapter-inputs"];
    eva(&[&arguments[..], &more, &["--quiet", "--out", out.to_str().unwrap()]].concat(), &[]).unwrap();
    let adapter = peft::read(&out).unwrap().0;
    let trainable = Model::open(out.join("trainable/model.onnx")).unwrap();
    assert!(spliced::read(&trainable).unwrap().0 == adapter);
    assert!(out.join("adapter-inputs/adapter.onnx_adapter").exists());
    let runtime = runtime();
    let batches = batches("tiny/gpt2-dynamo");
    let base = Model::open(graph("tiny/gpt2-dynamo")).unwrap();
    bit_equal(&run(&runtime, &trainable, &batches), &run(&runtime, &base, &batches), "trainable");
}
