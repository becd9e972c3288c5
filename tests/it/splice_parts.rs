//! One adapter for a model of several files.

use crate::support::adapters::adapter;
use crate::support::eva;
use crate::support::graph::{Net, net};
use eva_onnx::adapter::{Adapter, Base};
use eva_onnx::dtype::DType;
use eva_onnx::formats::peft::{self, CONFIG, WEIGHTS};
use eva_onnx::formats::spliced;
use eva_onnx::linear;
use eva_onnx::onnx::Model;
use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};
use std::fs;
use std::path::Path;

/// A model with one product for each of these modules.
fn model(modules: &[&str]) -> Net {
    modules.iter().fold(net().shaped_input("x", 1, &[-1, 4]), |net, module| {
        let (weight, output) = (format!("onnx::{module}"), format!("{module}_y"));
        let node = format!("/{}/MatMul", module.replace('.', "/").replace("layers/", "layers."));
        net.floats(&weight, &[4, 6], 1).node("MatMul", &node, &["x", &weight], &output).shaped_output(
            &output,
            1,
            &[-1, 6],
        )
    })
}

const UP: &str = "model.layers.0.mlp.up_proj";
const GATE: &str = "model.layers.0.mlp.gate_proj";
const OTHER: &str = "model.layers.1.mlp.up_proj";

/// A folder with two files of a model and an adapter for all modules of both.
fn saved(dir: &Path) -> Adapter {
    let files = [("one", [UP, GATE]), ("two", [GATE, OTHER])];
    let mut whole = Adapter::default();
    for (file, modules) in files {
        fs::write(dir.join(format!("{file}.onnx")), model(&modules).encoded()).unwrap();
        let linears = linear::find(&Model::open(dir.join(format!("{file}.onnx"))).unwrap(), None).0;
        for module in adapter(&linears, true).modules {
            if whole.modules.iter().all(|known| known.module != module.module) {
                whole.modules.push(module);
            }
        }
    }
    assert_eq!(whole.modules.iter().map(|m| m.module.as_str()).collect::<Vec<_>>(), [UP, GATE, OTHER]);
    save(&whole, &dir.join("adapter"));
    whole
}

fn save(adapter: &Adapter, dir: &Path) {
    fs::create_dir_all(dir).unwrap();
    fs::write(dir.join(WEIGHTS), peft::weights(adapter, DType::F32).unwrap()).unwrap();
    fs::write(dir.join(CONFIG), peft::config(adapter, &Base::default())).unwrap();
}

/// Whether a splice succeeds, and what it says.
fn splice(dir: &Path, model: &str, out: &str) -> (bool, String) {
    let output = eva::eva().args(["splice", model, "adapter", "--out", out]).current_dir(dir).output().unwrap();
    (output.status.success(), eva::text(&output.stderr))
}

#[test]
fn each_file_takes_its_modules() {
    let dir = tempfile::tempdir().unwrap();
    let whole = saved(dir.path());
    for (file, own, other) in [("one", [0, 1], "two"), ("two", [1, 2], "one")] {
        let (done, said) = splice(dir.path(), &format!("{file}.onnx"), file);
        assert!(done, "{said}");
        let note = format!(
            "2 of the adapter's 3 modules are in this file; the others are in `{other}.onnx`, which need a splice of \
             their own"
        );
        assert!(said.contains(&note), "{said}");
        let model = Model::open(dir.path().join(file).join("model.onnx")).unwrap();
        assert_eq!(spliced::read(&model).unwrap().0.modules, own.map(|index| whole.modules[index].clone()));
    }
}

#[test]
fn a_folder_is_spliced_as_a_whole() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("models");
    fs::create_dir(&folder).unwrap();
    let whole = saved(&folder);
    fs::rename(folder.join("adapter"), dir.path().join("adapter")).unwrap();
    fs::write(folder.join("embed.onnx"), net().shaped_input("ids", 7, &[-1]).output("ids").encoded()).unwrap();
    fs::write(folder.join("tokenizer.model"), "t").unwrap();
    let (done, said) = splice(dir.path(), "models", "out");
    assert!(done, "{said}");
    for (file, own) in [("one", [0, 1]), ("two", [1, 2])] {
        assert!(said.contains(&format!("note: `{file}.onnx` has 2 of the adapter's 3 modules\n")), "{said}");
        let model = Model::open(dir.path().join("out").join(format!("{file}.onnx"))).unwrap();
        assert_eq!(spliced::read(&model).unwrap().0.modules, own.map(|index| whole.modules[index].clone()));
    }
    let mut names: Vec<String> = fs::read_dir(dir.path().join("out"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["embed.onnx", "one.onnx", "tokenizer.model", "two.onnx"]);
    // Every form has files of its own for each model.
    for (form, more) in [("merged", "one.merged.data"), ("adapter-inputs", "two.onnx_adapter")] {
        let arguments = ["splice", "models", "adapter", "--as", form, "--out", form];
        let output = eva::eva().args(arguments).current_dir(dir.path()).output().unwrap();
        assert!(output.status.success(), "{}", eva::text(&output.stderr));
        assert!(dir.path().join(form).join(more).exists());
    }
    // A module that no file has.
    let mut other = whole.clone();
    other.modules[0].module = "model.layers.9.mlp.up_proj".to_owned();
    save(&other, &dir.path().join("adapter"));
    let (done, said) = splice(dir.path(), "models", "other");
    assert!(!done && said.contains("1 of its 3 modules are not in it: `model.layers.9.mlp.up_proj`"), "{said}");
}

#[test]
fn modules_of_an_adapter_can_be_chosen() {
    let dir = tempfile::tempdir().unwrap();
    let whole = saved(dir.path());
    let chosen = |modules: &str, out: &str| {
        let arguments = ["splice", "one.onnx", "adapter", "--modules", modules, "--out", out];
        let output = eva::eva().args(arguments).current_dir(dir.path()).output().unwrap();
        (output.status.success(), eva::text(&output.stderr))
    };
    for (modules, out) in [("gate_proj", "a"), (r"model\.layers\.\d\.mlp\.gate_proj", "b")] {
        let (done, said) = chosen(modules, out);
        assert!(done && said.contains("note: 2 of the adapter's 3 modules are left out by --modules"), "{said}");
        let model = Model::open(dir.path().join(out).join("model.onnx")).unwrap();
        assert_eq!(spliced::read(&model).unwrap().0.modules, [whole.modules[1].clone()]);
    }
    let (done, said) = chosen("q_proj", "c");
    assert!(!done && said.contains("error: the adapter has no module that --modules q_proj names"), "{said}");
}

#[test]
fn what_no_file_has_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let mut whole = saved(dir.path());
    let refused = |adapter: &Adapter| {
        save(adapter, &dir.path().join("adapter"));
        let (done, said) = splice(dir.path(), "one.onnx", "out");
        assert!(!done, "{said}");
        said
    };
    let mut unknown = whole.modules[2].clone();
    unknown.module = "model.layers.9.mlp.up_proj".to_owned();
    whole.modules.push(unknown);
    let said = refused(&whole);
    assert!(said.contains("1 of its 4 modules are not in it: `model.layers.9.mlp.up_proj`"), "{said}");
    // The other file has the module, but not of this size.
    whole.modules.pop();
    whole.modules[2].a = whole.modules[2].a.slice(ndarray::s![.., ..3]).to_owned();
    let said = refused(&whole);
    assert!(said.contains(&format!("1 of its 3 modules are not in it: `{OTHER}`")), "{said}");
    // This file has none of them.
    whole.modules.drain(..2);
    let said = refused(&whole);
    assert!(said.contains("1 of its 1 modules are not in it"), "{said}");
}

/// The weight [6, 4] that PyTorch has where a model stores [4, 6].
fn weight(model: &Model, module: &str) -> Vec<f32> {
    let values = model.tensor(&format!("onnx::{module}")).unwrap().bytes().unwrap().into_owned();
    let values: Vec<f32> = values.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    (0..24).map(|index| values[index % 4 * 6 + index / 4]).collect()
}

#[test]
fn the_weight_that_an_adapter_brings_must_be_the_models() {
    let dir = tempfile::tempdir().unwrap();
    saved(dir.path());
    let path = dir.path().join("adapter").join(WEIGHTS);
    let bytes = fs::read(&path).unwrap();
    let with = |dtype: Dtype, saved: Vec<u8>, out: &str| {
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let name = format!("base_model.model.{UP}.base_layer.weight");
        let saved = (name, TensorView::new(dtype, vec![6, 4], &saved).unwrap());
        let views = tensors.iter().map(|(name, view)| (name.to_owned(), view)).chain([saved]);
        fs::write(&path, serialize(views, None).unwrap()).unwrap();
        splice(dir.path(), "one.onnx", out)
    };
    let mut values = weight(&Model::open(dir.path().join("one.onnx")).unwrap(), UP);
    let plain = |values: &[f32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    let halves = values.iter().flat_map(|value| half::bf16::from_f32(*value).to_le_bytes()).collect();
    let (done, said) = with(Dtype::F32, plain(&values), "f32");
    assert!(done, "{said}");
    let (done, said) = with(Dtype::BF16, halves, "bf16");
    assert!(done, "{said}");
    values[23] += 0.125;
    let (done, said) = with(Dtype::F32, plain(&values), "other");
    let message = format!("the adapter was trained with another weight of module `{UP}` than the model's");
    assert!(!done && said.contains(&message), "{said}");
}
