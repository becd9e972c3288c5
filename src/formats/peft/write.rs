//! Writes an adapter as PEFT reads it.
//!
//! The config holds only what every PEFT since 0.14 understands. `r` is the largest rank and `lora_alpha` goes with
//! it, so that readers that ignore `rank_pattern` and `alpha_pattern` still see a true maximum and the right scale.

use crate::adapter::{Adapter, AdapterModule, Base};
use ndarray::Array2;
use safetensors::tensor::{Dtype, TensorView, serialize};
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::str::FromStr;

/// Element type of the saved adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Element {
    /// 32-bit float.
    F32,
    /// 16-bit IEEE float.
    F16,
    /// bfloat16.
    Bf16,
}

impl FromStr for Element {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "f32" => Ok(Self::F32),
            "f16" => Ok(Self::F16),
            "bf16" => Ok(Self::Bf16),
            _ => Err(format!("`{text}` is not one of f32, f16, bf16")),
        }
    }
}

/// The weights file: `A` [r, in] and `B` [out, r] of every module.
///
/// # Errors
/// The message of safetensors, which only refuses inconsistent shapes.
pub fn weights(adapter: &Adapter, element: Element) -> Result<Vec<u8>, String> {
    let (dtype, width) = match element {
        Element::F32 => (Dtype::F32, 4),
        Element::F16 => (Dtype::F16, 2),
        Element::Bf16 => (Dtype::BF16, 2),
    };
    let mut tensors = Vec::with_capacity(2 * adapter.modules.len());
    for module in &adapter.modules {
        let (rank, in_features) = module.a.dim();
        let key = |part: &str| format!("base_model.model.{}.{part}.weight", module.module);
        let a = bytes(&module.a, element);
        let b = match &module.b {
            Some(b) => bytes(b, element),
            None => vec![0; module.out_features * rank * width],
        };
        tensors.push((key("lora_A"), vec![rank, in_features], a));
        tensors.push((key("lora_B"), vec![module.out_features, rank], b));
    }
    let mut views = Vec::with_capacity(tensors.len());
    for (name, shape, data) in &tensors {
        views.push((name, TensorView::new(dtype, shape.clone(), data).map_err(|e| e.to_string())?));
    }
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    serialize(views, Some(metadata)).map_err(|e| e.to_string())
}

/// The config file.
pub fn config(adapter: &Adapter, base: &Base) -> String {
    let rank = adapter.max_rank();
    let largest = adapter.modules.iter().find(|m| m.rank() == rank);
    let alpha = largest.map_or(1.0, |m| m.alpha);
    let ordered = most_specific_first(adapter);
    let differs = |m: &AdapterModule| m.rank() != rank || m.alpha != alpha;
    let shadowed =
        |m: &AdapterModule| ordered.iter().any(|o| differs(o) && m.module.ends_with(&format!(".{}", o.module)));
    let patterned: Vec<_> = ordered.iter().filter(|m| differs(m) || shadowed(m)).collect();
    let pattern = |value: &dyn Fn(&AdapterModule) -> Value| -> Map<String, Value> {
        patterned.iter().map(|m| (m.module.clone(), value(m))).collect()
    };
    let names: Vec<_> = adapter.modules.iter().map(|m| m.module.as_str()).collect();
    let mut config = json!({
        "peft_type": "LORA",
        "task_type": base.task_type,
        "base_model_name_or_path": base.name,
        "r": rank,
        "lora_alpha": number(alpha),
        "lora_dropout": 0.0,
        "target_modules": names,
        "bias": "none",
        "fan_in_fan_out": adapter.modules.iter().any(|m| m.fan_in_fan_out),
        "use_rslora": false,
        "modules_to_save": null,
        "rank_pattern": pattern(&|m| json!(m.rank())),
        "alpha_pattern": pattern(&|m| number(m.alpha)),
        "inference_mode": true,
        "init_lora_weights": true,
    });
    let excluded = adapter.reached();
    if !excluded.is_empty() {
        config["exclude_modules"] = json!(excluded);
    }
    serde_json::to_string_pretty(&config).unwrap_or_default() + "\n"
}

/// PEFT takes the first pattern that matches the end of a module's name, so a name comes before its own endings.
fn most_specific_first(adapter: &Adapter) -> Vec<&AdapterModule> {
    let mut ordered: Vec<_> = adapter.modules.iter().collect();
    ordered.sort_by_key(|m| std::cmp::Reverse(m.module.split('.').count()));
    ordered
}

/// A JSON number, whole where it can be.
fn number(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 1e15 { json!(value as i64) } else { json!(value) }
}

/// The values in little-endian order, row by row.
fn bytes(values: &Array2<f32>, element: Element) -> Vec<u8> {
    fn all<const N: usize>(values: &Array2<f32>, bytes: impl Fn(f32) -> [u8; N]) -> Vec<u8> {
        let mut all = Vec::with_capacity(N * values.len());
        values.iter().for_each(|&value| all.extend_from_slice(&bytes(value)));
        all
    }
    match element {
        Element::F32 => all(values, f32::to_le_bytes),
        Element::F16 => all(values, |value| half::f16::from_f32(value).to_le_bytes()),
        Element::Bf16 => all(values, |value| half::bf16::from_f32(value).to_le_bytes()),
    }
}
