//! Writes an adapter as PEFT reads it.
//!
//! The config has only keys that every PEFT since 0.14 understands. `r` is the largest rank and `lora_alpha` belongs to
//! it, so that readers that ignore `rank_pattern` and `alpha_pattern` still see a true maximum and the right scale.

use super::{GRAPH_NAMES, PREFIX};
use crate::adapter::{Adapter, AdapterModule, Base};
use crate::dtype::DType;
use crate::formats::Error;
use crate::formats::tensors::{self, StoredTensor};
use crate::linear::module::endings;
use crate::splice::SavedParameter;
use serde_json::{Map, Value, json};
use std::collections::HashSet;

/// The weights file: `A` [r, in] and `B` [out, r] of every module, in `f32`, `f16` or `bf16`.
///
/// # Errors
/// [`Error::Overflow`] when a value is too large for `dtype`, [`Error::DType`] for other types.
pub fn weights(adapter: &Adapter, dtype: DType) -> Result<Vec<u8>, Error> {
    weights_with(adapter, &[], dtype)
}

/// As [`weights`], with the parameters of modules that are saved whole.
///
/// # Errors
/// As [`weights`].
pub fn weights_with(adapter: &Adapter, saved: &[SavedParameter], dtype: DType) -> Result<Vec<u8>, Error> {
    let mut stored = named(adapter, PREFIX, dtype)?;
    for SavedParameter { module, parameter, values } in saved {
        stored.push(StoredTensor::of(module, format!("{PREFIX}{module}.{parameter}"), values, dtype)?);
    }
    tensors::file(&stored, dtype, "pt")
}

/// The file that diffusers loads for one component of a pipeline (`unet`, `transformer`, `text_encoder`): it records no
/// alpha, so that the scale of every module must be 1. Source: `load_lora_weights` in `loaders/lora_pipeline.py` of
/// diffusers (2026).
///
/// # Errors
/// As [`weights`].
pub fn diffusers(adapter: &Adapter, component: &str, dtype: DType) -> Result<Vec<u8>, Error> {
    tensors::file(&named(adapter, &format!("{component}."), dtype)?, dtype, "pt")
}

/// The matrices of every module, under names that start with `prefix`.
fn named(adapter: &Adapter, prefix: &str, dtype: DType) -> Result<Vec<StoredTensor>, Error> {
    let mut stored = Vec::with_capacity(2 * adapter.modules.len());
    for module in &adapter.modules {
        let name = |matrix: &str| format!("{prefix}{}.{matrix}.weight", module.module);
        stored.push(StoredTensor::new(&module.module, name("lora_A"), &module.a, dtype)?);
        let b = match &module.b {
            Some(b) => StoredTensor::new(&module.module, name("lora_B"), b, dtype)?,
            None => StoredTensor::zeros(name("lora_B"), [module.out_features, module.rank()], dtype),
        };
        stored.push(b);
    }
    Ok(stored)
}

/// The config file.
pub fn config(adapter: &Adapter, base: &Base) -> String {
    config_with(adapter, base, &[])
}

/// As [`config`], with the parameters of modules that are saved whole.
pub fn config_with(adapter: &Adapter, base: &Base, saved: &[SavedParameter]) -> String {
    let rank = adapter.max_rank();
    let largest = adapter.modules.iter().find(|module| module.rank() == rank);
    let alpha = largest.map_or(1.0, |module| module.alpha);
    let differs = |module: &AdapterModule| module.rank() != rank || module.alpha != alpha;
    let patterned = patterned(adapter, differs);
    let pattern = |value: &dyn Fn(&AdapterModule) -> Value| -> Map<String, Value> {
        patterned.iter().map(|module| (module.module.clone(), value(module))).collect()
    };
    let names: Vec<_> = adapter.modules.iter().map(|module| module.module.as_str()).collect();
    let mut whole: Vec<&str> = saved.iter().map(|parameter| parameter.module.as_str()).collect();
    whole.dedup();
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
        "modules_to_save": (!saved.is_empty()).then_some(whole),
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
