//! The PEFT reader: scales and ranks as PEFT takes them, round trips, and what is refused.

use crate::support::tolerance::within;
use eva_onnx::Hint;
use eva_onnx::adapter::{Adapter, AdapterModule, Base};
use eva_onnx::dtype::DType;
use eva_onnx::formats::peft::{self, CONFIG, WEIGHTS};
use ndarray::Array2;
use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use tempfile::TempDir;

fn module(name: &str, rank: usize, alpha: f64) -> AdapterModule {
    let value = |(i, j): (usize, usize)| (i * 7 + j) as f32 / 8.0 - 1.0;
    AdapterModule {
        module: name.to_owned(),
        a: Array2::from_shape_fn((rank, 4), value),
        out_features: 3,
        b: Some(Array2::from_shape_fn((3, rank), value)),
        alpha,
        fan_in_fan_out: false,
        magnitude: None,
    }
}

fn adapter() -> Adapter {
    let modules = vec![module("h.10.up", 2, 4.0), module("h.2.up", 3, 1.5), module("up", 3, 6.0)];
    Adapter { modules, unadapted: Vec::new() }
}

fn write(dir: &Path, adapter: &Adapter, dtype: DType, change: &dyn Fn(&mut Value)) {
    let base = Base { name: Some("base".to_owned()), task_type: Some("CAUSAL_LM".to_owned()), ..Base::default() };
    let mut config = serde_json::from_str(&peft::config(adapter, &base)).unwrap();
    change(&mut config);
    fs::write(dir.join(CONFIG), config.to_string()).unwrap();
    fs::write(dir.join(WEIGHTS), peft::weights(adapter, dtype).unwrap()).unwrap();
}

fn written(change: &dyn Fn(&mut Value)) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &adapter(), DType::F32, change);
    dir
}

#[test]
fn what_is_written_is_read() {
    let dir = written(&|_| ());
    let (read, base) = peft::read(dir.path()).unwrap();
    assert_eq!(read, adapter());
    assert_eq!((base.name.as_deref(), base.task_type.as_deref()), (Some("base"), Some("CAUSAL_LM")));
    let again = peft::config(&read, &base);
    assert_eq!(
        serde_json::from_str::<Value>(&again).unwrap(),
        serde_json::from_str::<Value>(&fs::read_to_string(dir.path().join(CONFIG)).unwrap()).unwrap()
    );
    assert_eq!(peft::weights(&read, DType::F32).unwrap(), fs::read(dir.path().join(WEIGHTS)).unwrap());
}

#[test]
fn half_precision_is_widened() {
    for dtype in [DType::F16, DType::BF16] {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &adapter(), dtype, &|_| ());
        assert_eq!(peft::read(dir.path()).unwrap().0, adapter());
    }
}

#[test]
fn modules_named_in_part_come_in_counting_order() {
    let dir = written(&|config| config["target_modules"] = json!(["up"]));
    let modules = peft::read(dir.path()).unwrap().0.modules;
    // The one name that is complete comes first.
    assert_eq!(modules.iter().map(|m| m.module.as_str()).collect::<Vec<_>>(), ["up", "h.2.up", "h.10.up"]);
}

/// Scales of `h.10.up` (rank 2), `h.2.up` and `up` (rank 3).
#[track_caller]
fn scales(change: &dyn Fn(&mut Value), expected: [f64; 3]) {
    let dir = written(change);
    let modules = peft::read(dir.path()).unwrap().0.modules;
    for (module, expected) in modules.iter().zip(expected) {
        // A square root, a product and a quotient.
        within(module.scale() / expected - 1.0, 4.0 * f64::EPSILON, &module.module);
    }
}

#[test]
fn scales_are_those_of_peft() {
    let set = |alpha: Value, pattern: Value, root: bool| {
        move |config: &mut Value| {
            config["lora_alpha"] = alpha.clone();
            config["alpha_pattern"] = pattern.clone();
            config["use_rslora"] = json!(root);
        }
    };
    let (r2, r3) = (2f64.sqrt(), 3f64.sqrt());
    scales(&set(json!(6), json!({}), false), [3.0, 2.0, 2.0]);
    scales(&set(json!(6), json!({}), true), [6.0 / r2, 6.0 / r3, 6.0 / r3]);
    // The first that matches wins; keys are expressions and match the end of a name after a dot.
    scales(&set(json!(6), json!({"2.up": 3.0, "up": 12}), false), [6.0, 1.0, 4.0]);
    scales(&set(json!(6), json!({"up": 12, "2.up": 3}), false), [6.0, 4.0, 4.0]);
    scales(&set(json!(6), json!({r"h\.\d+\.up": 12}), false), [6.0, 4.0, 2.0]);
    scales(&set(json!(6), json!({"p": 12, "^up": 3}), false), [3.0, 2.0, 1.0]);
}

#[test]
fn thousands_of_patterns_are_read() {
    let modules = (0..5000).map(|index| module(&format!("h.{index}.up"), 1 + index % 3, index as f64)).collect();
    let adapter = Adapter { modules, unadapted: vec!["x.h.7.up".to_owned()] };
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &adapter, DType::F32, &|_| ());
    let (read, _) = peft::read(dir.path()).unwrap();
    assert_eq!(read, adapter);
}

#[track_caller]
fn refused(change: &dyn Fn(&mut Value), message: &str) {
    let dir = written(change);
    let error = peft::read(dir.path()).unwrap_err();
    let text = error.to_string().replace(&format!("{}/", dir.path().display()), "");
    assert_eq!(text, message);
    assert!(error.hint().is_some());
}

#[test]
fn other_adapters_are_refused() {
    let set = |key: &'static str, value: Value| move |config: &mut Value| config[key] = value.clone();
    refused(
        &set("peft_type", json!("LOHA")),
        "`adapter_config.json` is an adapter with `peft_type` LOHA, which is not LoRA",
    );
    refused(
        &set("use_dora", json!(true)),
        "`adapter_config.json` is an adapter with `use_dora`, which scales the columns of the whole weight, not only a \
         low-rank product",
    );
    refused(
        &set("bias", json!("lora_only")),
        "`adapter_config.json` is an adapter with `bias`, which needs other biases in the model",
    );
    refused(
        &set("modules_to_save", json!(["score"])),
        "`adapter_config.json` is an adapter with `modules_to_save`, which replaces whole modules",
    );
    refused(
        &set("rank_pattern", json!({})),
        "`adapter_model.safetensors`: the matrices of module `h.10.up` do not fit: their rank is 2, and \
         `adapter_config.json` says 3",
    );
    refused(
        &set("alpha_pattern", json!({"(?=x)": 1})),
        "`adapter_config.json`: the pattern `(?=x)` is not understood: error: look-around, including look-ahead and \
         look-behind, is not supported",
    );
}

#[test]
fn other_tensors_are_refused() {
    let with = |name: &str, dims: Vec<usize>| {
        let dir = written(&|_| ());
        let zeros = vec![0; 4 * dims.iter().product::<usize>()];
        let view = TensorView::new(Dtype::F32, dims, &zeros).unwrap();
        fs::write(dir.path().join(WEIGHTS), serialize([(name, view)], None).unwrap()).unwrap();
        let error = peft::read(dir.path()).unwrap_err().to_string();
        error.replace(&format!("{}/", dir.path().display()), "")
    };
    assert_eq!(
        with("base_model.model.wte.lora_embedding_A", vec![2, 2]),
        "`adapter_model.safetensors` is an adapter with the tensor `base_model.model.wte.lora_embedding_A`, which is a \
         product in an embedding, not in a linear layer"
    );
    assert_eq!(
        with("base_model.model.up.lora_B.weight", vec![2, 2]),
        "`adapter_model.safetensors`: the matrices of module `up` do not fit: A is missing"
    );
    assert_eq!(
        with("base_model.model.up.lora_A.weight", vec![2, 2]),
        "`adapter_model.safetensors`: the matrices of module `up` do not fit: B is missing"
    );
}

/// No bytes of a file bound the rank of matrices without elements.
#[test]
fn matrices_without_elements_are_refused() {
    let dir = written(&|config| config["r"] = (1u64 << 40).into());
    let empty = |dims: [usize; 2]| TensorView::new(Dtype::F32, dims.to_vec(), &[]).unwrap();
    let name = |matrix: &str| format!("base_model.model.up.lora_{matrix}.weight");
    let tensors = [(name("A"), empty([1 << 40, 0])), (name("B"), empty([0, 1 << 40]))];
    fs::write(dir.path().join(WEIGHTS), serialize(tensors, None).unwrap()).unwrap();
    let error = peft::read(dir.path()).unwrap_err().to_string();
    assert!(error.ends_with("do not fit: A is (1099511627776, 0) and B is (0, 1099511627776)"), "{error}");
}

type Rename<'r> = &'r dyn Fn(&str) -> String;

/// Writes the weights with other names.
fn renamed(dir: &Path, rename: Rename<'_>) {
    let bytes = fs::read(dir.join(WEIGHTS)).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let views = tensors.iter().map(|(name, view)| (rename(name), view));
    fs::write(dir.join(WEIGHTS), serialize(views, None).unwrap()).unwrap();
}

#[test]
fn names_of_wrappers_and_adapters_are_taken_off() {
    let renames: [Rename<'_>; 10] = [
        &|name| format!("model.{name}"),
        &|name| format!("_forward_module.model.{name}"),
        &|name| name.replace("base_model.model.", "base_model.model._orig_mod."),
        &|name| format!("_orig_mod.{name}"),
        &|name| format!("module.{name}"),
        &|name| format!("module._orig_mod.{name}"),
        &|name| name.replace(".up.", ".up._checkpoint_wrapped_module.").replace("h.", "h._fsdp_wrapped_module."),
        &|name| name.replace(".weight", ".default.weight"),
        &|name| name.replace(".weight", ".my_adapter.weight"),
        &|name| name.replace("base_model.model.", ""),
    ];
    for (index, rename) in renames.into_iter().enumerate() {
        let dir = written(&|_| ());
        renamed(dir.path(), rename);
        assert_eq!(peft::read(dir.path()).unwrap().0, adapter(), "{index}");
    }
    // A module may be called so.
    let dir = written(&|config| {
        *config = json!({"peft_type": "LORA", "r": 3, "lora_alpha": 3, "rank_pattern": {"2.up": 3, "10.up": 2}})
    });
    renamed(dir.path(), &|name| name.replace("base_model.model.", "base_model.model.module."));
    let names: Vec<String> = peft::read(dir.path()).unwrap().0.modules.into_iter().map(|m| m.module).collect();
    assert_eq!(names, ["module.h.2.up", "module.h.10.up", "module.up"]);
}

#[test]
fn one_of_several_adapters_must_be_chosen() {
    let dir = written(&|_| ());
    renamed(dir.path(), &|name| {
        if name.contains("h.2") { name.replace(".weight", ".other.weight") } else { name.to_owned() }
    });
    let error = peft::read(dir.path()).unwrap_err();
    assert!(error.to_string().ends_with("adapter_model.safetensors` has several adapters: default, other"), "{error}");
    // PEFT saves adapters with names in folders.
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("one")).unwrap();
    write(&dir.path().join("one"), &adapter(), DType::F32, &|_| ());
    assert_eq!(peft::read(dir.path()).unwrap().0, adapter());
    fs::create_dir(dir.path().join("two")).unwrap();
    write(&dir.path().join("two"), &adapter(), DType::F32, &|_| ());
    let error = peft::read(dir.path()).unwrap_err();
    assert!(error.to_string().ends_with("has several adapters: one, two"), "{error}");
}

#[test]
fn a_pickle_is_refused_with_its_cure() {
    let dir = written(&|_| ());
    fs::rename(dir.path().join(WEIGHTS), dir.path().join("adapter_model.bin")).unwrap();
    let error = peft::read(dir.path()).unwrap_err();
    assert!(error.to_string().ends_with("is not read: it is a Python pickle, and safetensors are needed"), "{error}");
    let hint = error.hint().unwrap();
    assert!(
        hint.starts_with("python -c 'import sys, torch; ") && hint.contains("adapter_model.safetensors'"),
        "{hint}"
    );
}

#[test]
fn the_weight_of_an_adapted_head_is_passed_over() {
    let with = |module: &str| {
        let dir = written(&|_| ());
        let bytes = fs::read(dir.path().join(WEIGHTS)).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let (name, zeros) = (format!("base_model.model.{module}.base_layer.weight"), vec![0; 48]);
        let saved = (name, TensorView::new(Dtype::F32, vec![3, 4], &zeros).unwrap());
        let views = tensors.iter().map(|(name, view)| (name.to_owned(), view)).chain([saved]);
        fs::write(dir.path().join(WEIGHTS), serialize(views, None).unwrap()).unwrap();
        let saved: Vec<String> = peft::saved_weights(dir.path()).unwrap().iter().map(|(module, _)| module).collect();
        assert_eq!(saved, [module]);
        peft::read(dir.path()).map(|(adapter, _)| adapter).map_err(|error| error.to_string())
    };
    assert_eq!(with("up").unwrap(), adapter());
    let error = with("embed_tokens").unwrap_err();
    assert!(error.contains("the tensor `base_model.model.embed_tokens.base_layer.weight`, which"), "{error}");
}

#[test]
fn a_missing_or_broken_file_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let error = peft::read(dir.path()).unwrap_err();
    assert!(error.to_string().starts_with(&format!("cannot read `{}", dir.path().join(CONFIG).display())));
    let dir = written(&|_| ());
    fs::write(dir.path().join(WEIGHTS), b"short").unwrap();
    let error = peft::read(dir.path()).unwrap_err();
    assert!(error.to_string().contains("cannot be understood"), "{error}");
}
