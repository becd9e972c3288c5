//! Writes an adapter as PEFT reads it.
//!
//! The config has only keys that every PEFT since 0.14 understands. `r` is the largest rank and `lora_alpha` belongs to
//! it, so that readers that ignore `rank_pattern` and `alpha_pattern` still see a true maximum and the right scale.

use super::{GRAPH_NAMES, PREFIX};
use crate::adapter::{Adapter, AdapterModule, Base};
use crate::dtype::DType;
use crate::formats::Error;
use crate::linear::module::endings;
use ndarray::Array2;
use safetensors::tensor::{Dtype, TensorView, serialize};
use serde_json::{Map, Value, json};
use std::collections::{HashMap, HashSet};

/// The weights file: `A` [r, in] and `B` [out, r] of every module, in `f32`, `f16` or `bf16`.
///
/// # Errors
/// [`Error::Overflow`] when a value is too large for `dtype`, [`Error::DType`] for other types.
pub fn weights(adapter: &Adapter, dtype: DType) -> Result<Vec<u8>, Error> {
    let mut tensors = Vec::with_capacity(2 * adapter.modules.len());
    for module in &adapter.modules {
        let (rank, in_features) = module.a.dim();
        let name = |matrix: &str| format!("{PREFIX}{}.{matrix}.weight", module.module);
        let a = encode(&module.module, &module.a, dtype)?;
        let b = match &module.b {
            Some(b) => encode(&module.module, b, dtype)?,
            None => vec![0; module.out_features * rank * dtype.bits().unwrap_or(0) / 8],
        };
        tensors.push((name("lora_A"), vec![rank, in_features], a));
        tensors.push((name("lora_B"), vec![module.out_features, rank], b));
    }
    let stored = match dtype {
        DType::F32 => Dtype::F32,
        DType::F16 => Dtype::F16,
        DType::BF16 => Dtype::BF16,
        _ => return Err(Error::DType { dtype }),
    };
    let views = tensors.iter().map(|(name, shape, data)| Ok((name, TensorView::new(stored, shape.clone(), data)?)));
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let file = views.collect::<Result<Vec<_>, _>>().and_then(|views| serialize(views, Some(metadata)));
    file.map_err(|source| Error::Safetensors { source })
}

/// The values in little-endian order, row by row.
fn encode(module: &str, values: &Array2<f32>, dtype: DType) -> Result<Vec<u8>, Error> {
    let encoded = dtype.encode(values).ok_or(Error::DType { dtype })?;
    if encoded.overflowed > 0 {
        return Err(Error::Overflow { module: module.to_owned(), dtype });
    }
    Ok(encoded.bytes)
}

/// The config file.
pub fn config(adapter: &Adapter, base: &Base) -> String {
    let rank = adapter.max_rank();
    let largest = adapter.modules.iter().find(|module| module.rank() == rank);
    let alpha = largest.map_or(1.0, |module| module.alpha);
    let differs = |module: &AdapterModule| module.rank() != rank || module.alpha != alpha;
    let patterned = patterned(adapter, differs);
    let pattern = |value: &dyn Fn(&AdapterModule) -> Value| -> Map<String, Value> {
        patterned.iter().map(|module| (module.module.clone(), value(module))).collect()
    };
    let names: Vec<_> = adapter.modules.iter().map(|module| module.module.as_str()).collect();
    let mut config = json!({
        "peft_type": "LORA",
        "task_type": base.task_type,
        "base_model_name_or_path": base.name,
        "r": rank,
        "lora_alpha": number(alpha),
        "lora_dropout": 0.0,
        "target_modules": names,
        "bias": "none",
        "fan_in_fan_out": adapter.modules.iter().any(|module| module.fan_in_fan_out),
        "use_rslora": false,
        "modules_to_save": null,
        "rank_pattern": pattern(&|module| json!(module.rank())),
        "alpha_pattern": pattern(&|module| number(module.alpha)),
        "inference_mode": true,
        "init_lora_weights": true,
    });
    if let Some(names) = base.names {
        config[GRAPH_NAMES] = json!(names);
    }
    let excluded = adapter.exclude_modules();
    if !excluded.is_empty() {
        config["exclude_modules"] = json!(excluded);
    }
    serde_json::to_string_pretty(&config).unwrap_or_default() + "\n"
}

/// The modules that need a pattern: those that differ from the rest, and those whose names end in the name of one.
///
/// PEFT takes the first pattern that matches the end of a module's name, so a name comes before its own endings.
fn patterned(adapter: &Adapter, differs: impl Fn(&AdapterModule) -> bool) -> Vec<&AdapterModule> {
    let different = adapter.modules.iter().filter(|module| differs(module));
    let different: HashSet<&str> = different.map(|module| module.module.as_str()).collect();
    let is_reached = |name: &str| endings(name).any(|ending| different.contains(ending));
    let mut patterned: Vec<_> = adapter.modules.iter().collect();
    patterned.retain(|module| different.contains(module.module.as_str()) || is_reached(&module.module));
    patterned.sort_by_key(|module| std::cmp::Reverse(module.module.split('.').count()));
    patterned
}

/// A JSON number, whole where it can be.
fn number(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 1e15 { json!(value as i64) } else { json!(value) }
}
