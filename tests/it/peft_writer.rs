//! The PEFT files, read the way PEFT reads them.

use eva_onnx::Hint;
use eva_onnx::adapter::{Adapter, AdapterModule, Base};
use eva_onnx::dtype::DType;
use eva_onnx::formats::peft::{config, weights};
use ndarray::Array2;
use proptest::prelude::*;
use regex::Regex;
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;

fn module(name: &str, rank: usize) -> AdapterModule {
    AdapterModule {
        module: name.to_owned(),
        a: Array2::from_shape_fn((rank, 5), |(i, j)| (i * 5 + j) as f32 / 3.0),
        out_features: 7,
        alpha: 2.0 * rank as f64,
        b: None,
        fan_in_fan_out: false,
        magnitude: None,
    }
}

fn adapter(modules: &[(&str, usize)], unadapted: &[&str]) -> Adapter {
    Adapter {
        modules: modules.iter().map(|(name, rank)| module(name, *rank)).collect(),
        unadapted: unadapted.iter().map(|&name| name.to_owned()).collect(),
    }
}

fn parsed(adapter: &Adapter) -> Value {
    serde_json::from_str(&config(adapter, &Base::default())).unwrap()
}

/// PEFT's lookup (`get_pattern_key`): the first key, in order, that matches the name or its end.
fn looked_up(config: &Value, pattern: &str, default: &str, name: &str) -> f64 {
    let keys = config[pattern].as_object().unwrap();
    let hit = keys.iter().find(|(key, _)| Regex::new(&format!(r"^(.*\.)?({key})$")).unwrap().is_match(name));
    hit.map_or(&config[default], |(_, value)| value).as_f64().unwrap()
}

#[track_caller]
fn check(adapter: &Adapter) {
    let config = parsed(adapter);
    assert_eq!(config["r"], adapter.max_rank());
    for module in &adapter.modules {
        assert_eq!(looked_up(&config, "rank_pattern", "r", &module.module), module.rank() as f64, "{}", module.module);
        assert_eq!(looked_up(&config, "alpha_pattern", "lora_alpha", &module.module), module.alpha);
    }
}

#[test]
fn every_module_gets_its_own_rank() {
    check(&adapter(&[("layers.0.q", 3), ("layers.0.k", 8), ("layers.1.q", 1)], &[]));
}

#[test]
fn a_name_that_ends_like_another_is_not_shadowed() {
    check(&adapter(&[("layer.0.q", 3), ("encoder.layer.0.q", 8), ("decoder.layer.0.q", 5)], &[]));
    check(&adapter(&[("layer.0.q", 8), ("encoder.layer.0.q", 3)], &[]));
}

#[test]
fn a_module_left_out_is_not_reached_through_its_ending() {
    let config = parsed(&adapter(&[("layer.0.q", 3)], &["encoder.layer.0.q", "layer.0.k"]));
    assert_eq!(config["exclude_modules"], serde_json::json!(["encoder.layer.0.q"]));
    assert!(parsed(&adapter(&[("layer.0.q", 3)], &["layer.0.k"])).get("exclude_modules").is_none());
}

#[test]
fn the_config_is_minimal_and_whole_numbers_stay_whole() {
    let config = parsed(&adapter(&[("q", 4)], &[]));
    assert_eq!(config["lora_alpha"].to_string(), "8");
    assert_eq!(config["init_lora_weights"], true);
    assert_eq!(config["peft_type"], "LORA");
    assert!(config["rank_pattern"].as_object().unwrap().is_empty());
}

#[test]
fn conv1d_is_told_by_fan_in_fan_out() {
    let mut adapter = adapter(&[("c_attn", 4)], &[]);
    assert_eq!(parsed(&adapter)["fan_in_fan_out"], false);
    adapter.modules[0].fan_in_fan_out = true;
    assert_eq!(parsed(&adapter)["fan_in_fan_out"], true);
}

#[test]
fn weights_hold_a_as_it_is_and_b_as_zeros() {
    let adapter = adapter(&[("m.q", 3)], &[]);
    for (dtype, stored, width) in
        [(DType::F32, Dtype::F32, 4), (DType::F16, Dtype::F16, 2), (DType::BF16, Dtype::BF16, 2)]
    {
        let bytes = weights(&adapter, dtype).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let a = tensors.tensor("base_model.model.m.q.lora_A.weight").unwrap();
        let b = tensors.tensor("base_model.model.m.q.lora_B.weight").unwrap();
        assert_eq!((a.dtype(), a.shape(), b.shape()), (stored, &[3, 5][..], &[7, 3][..]));
        assert!(b.data().iter().all(|byte| *byte == 0) && b.data().len() == 21 * width);
        let expected: Vec<u8> = match dtype {
            DType::F16 => adapter.modules[0].a.iter().flat_map(|&v| half::f16::from_f32(v).to_le_bytes()).collect(),
            DType::BF16 => adapter.modules[0].a.iter().flat_map(|&v| half::bf16::from_f32(v).to_le_bytes()).collect(),
            _ => adapter.modules[0].a.iter().flat_map(|v| v.to_le_bytes()).collect(),
        };
        assert!(a.data() == expected);
    }
}

#[test]
fn values_that_a_type_cannot_hold_are_refused() {
    let mut adapter = adapter(&[("m.q", 3), ("m.v", 2)], &[]);
    adapter.modules[1].a[[1, 4]] = 65504.0;
    weights(&adapter, DType::F16).unwrap();
    adapter.modules[1].a[[1, 4]] = -65520.0;
    let error = weights(&adapter, DType::F16).unwrap_err();
    assert_eq!(error.to_string(), "the adapter of module `m.v` has values that are too large for f16");
    assert_eq!(error.hint().unwrap(), "use --dtype f32 or --dtype bf16");
    weights(&adapter, DType::BF16).unwrap();
    adapter.modules[1].b = Some(Array2::from_elem((7, 2), 1e6));
    adapter.modules[1].a[[1, 4]] = 0.0;
    assert!(weights(&adapter, DType::F16).is_err());
    assert_eq!(weights(&adapter, DType::I8).unwrap_err().to_string(), "an adapter cannot be written in i8");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    /// Names over a tiny alphabet end in each other all the time.
    #[test]
    fn no_pattern_shadows_another(
        modules in prop::collection::btree_map("[ab](\\.[ab]){0,3}", 1usize..4, 1..8),
    ) {
        let modules: Vec<_> = modules.iter().map(|(name, rank)| (name.as_str(), *rank)).collect();
        check(&adapter(&modules, &[]));
    }
}
