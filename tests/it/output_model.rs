//! What comes into a folder with a model: weights that are read, and the files that run it.

use crate::support::adapters::adapter;
use crate::support::eva;
use crate::support::graph::{F32, Net, net};
use eva_onnx::adapter::Base;
use eva_onnx::dtype::DType;
use eva_onnx::formats::peft::{self, CONFIG, WEIGHTS};
use eva_onnx::linear;
use eva_onnx::onnx::Model;
use eva_onnx::output::{Destination, Error, Link, model};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

/// Two layers and an embedding; 70 kB of weights.
fn layers() -> Net {
    net()
        .input("ids", 7)
        .floats("embed", &[20, 96], F32)
        .floats("onnx::1", &[96, 80], F32)
        .floats("onnx::2", &[80, 96], F32)
        .node("Gather", "gather", &["embed", "ids"], "x")
        .node("MatMul", "/model/layers.0/mlp/up_proj/MatMul", &["x", "onnx::1"], "h")
        .node("MatMul", "/model/layers.0/mlp/down_proj/MatMul", &["h", "onnx::2"], "y")
        .output("y")
}

/// A model called `name`, and an adapter for its layers in `adapter`.
fn saved(dir: &Path, name: &str, net: Net) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, net.encoded()).unwrap();
    let linears = linear::find(&Model::open(&path).unwrap(), None).0;
    let adapter = adapter(&linears, true);
    fs::create_dir(dir.join("adapter")).unwrap();
    fs::write(dir.join("adapter").join(WEIGHTS), peft::weights(&adapter, DType::F32).unwrap()).unwrap();
    fs::write(dir.join("adapter").join(CONFIG), peft::config(&adapter, &Base::default())).unwrap();
    path
}

fn splice(dir: &Path, arguments: &[&str]) -> (bool, String) {
    let output = eva::eva().arg("splice").args(arguments).current_dir(dir).output().unwrap();
    (output.status.success(), eva::text(&output.stderr))
}

fn size(dir: &Path) -> u64 {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
}

#[test]
fn a_merged_folder_has_no_weight_twice() {
    let dir = tempfile::tempdir().unwrap();
    let path = saved(dir.path(), "net.onnx", layers());
    let (done, said) = splice(dir.path(), &["net.onnx", "adapter", "--as", "merged", "--out", "merged"]);
    assert!(done, "{said}");
    let (before, after) = (fs::metadata(path).unwrap().len(), size(&dir.path().join("merged")));
    // Where each weight begins is written down, and two begin at a page.
    assert!(after < before + 3 * 4096 + 1024, "{after} bytes of {before}");
    let merged = Model::open(dir.path().join("merged/model.onnx")).unwrap();
    let original = Model::open(dir.path().join("net.onnx")).unwrap();
    let bytes = |model: &Model, name: &str| model.tensor(name).unwrap().bytes().unwrap().into_owned();
    assert!(bytes(&merged, "embed") == bytes(&original, "embed"));
    assert!(bytes(&merged, "onnx::1") != bytes(&original, "onnx::1"));
    // A hard link needs no space, so the file is left whole.
    let (done, said) =
        splice(dir.path(), &["net.onnx", "adapter", "--as", "merged", "--out", "linked", "--link", "hard"]);
    assert!(done, "{said}");
    assert_eq!(fs::metadata(dir.path().join("linked/base.onnx")).unwrap().len(), before);
    let linked = Model::open(dir.path().join("linked/model.onnx")).unwrap();
    for name in ["embed", "onnx::1", "onnx::2"] {
        assert!(bytes(&merged, name) == bytes(&linked, name), "{name}");
    }
}

#[test]
fn a_trainable_folder_keeps_data_files_whole() {
    let dir = tempfile::tempdir().unwrap();
    let path = saved(dir.path(), "net.onnx", layers());
    let (done, said) = splice(dir.path(), &["net.onnx", "adapter", "--out", "trainable"]);
    assert!(done, "{said}");
    assert!(fs::read(path).unwrap() == fs::read(dir.path().join("trainable/base.onnx")).unwrap());
}

#[test]
fn the_files_that_run_a_model_come_along() {
    let dir = tempfile::tempdir().unwrap();
    saved(dir.path(), "decoder.onnx", layers());
    let along = ["chat_template.jinja", "merges.txt", "preprocessor_config.json", "tokenizer.model", "spiece.model"];
    let not = ["other.onnx", "model.safetensors", "pytorch_model.bin", "rows.jsonl", "adapter_config.json"];
    for name in along.into_iter().chain(not) {
        fs::write(dir.path().join(name), name).unwrap();
    }
    fs::create_dir(dir.path().join("additional_chat_templates")).unwrap();
    fs::write(dir.path().join("additional_chat_templates/rag.jinja"), "rag").unwrap();
    let settings = json!({"model": {
        "decoder": {"filename": "decoder.onnx", "hidden_size": 96},
        "vision": {"filename": "vision.onnx"},
        "pipeline": [{"embeddings": {"filename": "decoder.onnx"}}],
    }});
    fs::write(dir.path().join("genai_config.json"), settings.to_string()).unwrap();
    let (done, said) = splice(dir.path(), &["decoder.onnx", "adapter", "--as", "adapter-inputs", "--out", "out"]);
    assert!(done, "{said}");
    assert!(said.contains("note: the folder lacks vision.onnx, which genai_config.json names"), "{said}");
    let mut names: Vec<String> = fs::read_dir(dir.path().join("out"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let ours = ["adapter.onnx_adapter", "additional_chat_templates", "base.onnx", "genai_config.json", "model.onnx"];
    let mut expected: Vec<&str> = along.into_iter().chain(ours).collect();
    expected.sort_unstable();
    assert_eq!(names, expected);
    let text = fs::read_to_string(dir.path().join("out/genai_config.json")).unwrap();
    let settings: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(settings["model"]["decoder"]["filename"], "model.onnx");
    assert_eq!(settings["model"]["decoder"]["hidden_size"], 96);
    assert_eq!(settings["model"]["pipeline"][0]["embeddings"]["filename"], "model.onnx");
}

/// A model in a folder of its own with a data file.
fn external(dir: &Path) -> Model {
    let entries = [("location", "w.bin"), ("length", "4096")];
    fs::write(dir.join("w.bin"), [7; 4096]).unwrap();
    fs::write(dir.join("m.onnx"), net().external("w", &[32, 32], &entries).encoded()).unwrap();
    Model::open(dir.join("m.onnx")).unwrap()
}

#[test]
fn a_model_that_is_replaced_meanwhile_stays_as_it_was() {
    let put = |change: &dyn Fn(&Path), link: Link| {
        let dir = tempfile::tempdir().unwrap();
        let model = external(dir.path());
        let out = dir.path().join("out");
        let mut destination = Destination::prepare(&out, false).unwrap();
        destination.set_link(link);
        change(&dir.path().join("w.bin"));
        model::put(&model, &model, &mut destination, "", &model::FileNames::default()).map(|_| {
            destination.commit(&[]).unwrap();
            fs::read(out.join("w.bin")).unwrap()
        })
    };
    let replace = |path: &Path| {
        fs::write(path.with_extension("new"), [9; 4096]).unwrap();
        fs::rename(path.with_extension("new"), path).unwrap();
    };
    for link in [Link::Copy, Link::Hard] {
        assert_eq!(put(&|_| (), link).unwrap(), [7; 4096]);
        assert_eq!(put(&replace, link).unwrap(), [7; 4096]);
        assert_eq!(put(&|path| fs::remove_file(path).unwrap(), link).unwrap(), [7; 4096]);
        let longer = |path: &Path| {
            use std::io::Write;
            fs::OpenOptions::new().append(true).open(path).unwrap().write_all(b"more").unwrap();
        };
        assert!(matches!(put(&longer, link), Err(Error::Changed { .. })));
    }
}

#[test]
fn clones_are_made_or_refused() {
    let dir = tempfile::tempdir().unwrap();
    let model = external(dir.path());
    let mut destination = Destination::prepare(&dir.path().join("out"), false).unwrap();
    destination.set_link(Link::Reflink);
    match model::put(&model, &model, &mut destination, "", &model::FileNames::default()) {
        Ok(_) => {
            destination.commit(&[]).unwrap();
            assert_eq!(fs::read(dir.path().join("out/w.bin")).unwrap(), [7; 4096]);
        }
        Err(error) => assert!(matches!(error, Error::NoReflink { .. }), "{error}"),
    }
}
