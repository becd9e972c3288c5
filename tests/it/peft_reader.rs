//! The PEFT reader: scales and ranks as PEFT takes them, round trips, and what is refused.

use crate::support::tolerance::within;
use eva_onnx::Hint;
use eva_onnx::adapter::{Adapter, AdapterModule, Base};
use eva_onnx::dtype::DType;
use eva_onnx::formats::peft::{self, CONFIG, WEIGHTS};
use ndarray::Array2;
use safetensors::tensor::{Dtype, TensorView, serialize};
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
    }
}

fn adapter() -> Adapter {
    let modules = vec![module("h.10.up", 2, 4.0), module("h.2.up", 3, 1.5), module("up", 3, 6.0)];
    Adapter { modules, unadapted: Vec::new() }
}

fn write(dir: &Path, adapter: &Adapter, dtype: DType, change: &dyn Fn(&mut Value)) {
    let base = Base { name: Some("base".to_owned()), task_type: Some("CAUSAL_LM".to_owned()) };
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
