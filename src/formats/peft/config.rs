//! `adapter_config.json`: what it says of a module, and whether the adapter is nothing but low-rank products.

use super::GRAPH_NAMES;
use crate::adapter::{Base, BaseWeights};
use crate::formats::error::{Defect, Error, Feature};
use crate::linear::module::endings;
use crate::regular;
use regex::Regex;
use serde_json::Value;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// A config that has been checked.
pub(super) struct Config {
    pub(super) path: PathBuf,
    values: Value,
    ranks: Patterns,
    alphas: Patterns,
    /// Position of each name in `target_modules`.
    targets: HashMap<String, usize>,
    weights: BaseWeights,
}

impl Config {
    pub(super) fn read(path: &Path) -> Result<Self, Error> {
        let text = regular::read_to_string(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
        let malformed = |source| Error::malformed(path, source);
        let values: Value = serde_json::from_str(&text).map_err(|error| malformed(Defect::Json(error)))?;
        let kind = values["peft_type"].as_str().ok_or_else(|| malformed(Defect::NoKey { key: "peft_type" }))?;
        let refused = |feature| Error::Unsupported { path: path.to_owned(), feature };
        if let Some(feature) = unsupported(kind, &values) {
            return Err(refused(feature));
        }
        let weights = base_weights(&values["init_lora_weights"]).map_err(refused)?;
        let targets = strings(&values["target_modules"]).into_iter().enumerate();
        Ok(Self {
            path: path.to_owned(),
            ranks: Patterns::new(path, &values["rank_pattern"])?,
            alphas: Patterns::new(path, &values["alpha_pattern"])?,
            // The first of equal names counts.
            targets: targets.rev().map(|(index, name)| (name, index)).collect(),
            weights,
            values,
        })
    }

    pub(super) fn base(&self) -> Base {
        let text = |key: &str| self.values[key].as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        let names = serde_json::from_value(self.values[GRAPH_NAMES].clone()).ok();
        Base { name: text("base_model_name_or_path"), task_type: text("task_type"), weights: self.weights, names }
    }

    /// Position of the module among those that the config names in full; others come last.
    pub(super) fn position(&self, module: &str) -> usize {
        self.targets.get(module).copied().unwrap_or(usize::MAX)
    }

    /// Rank of the module, where the config gives one.
    pub(super) fn rank(&self, module: &str) -> Option<u64> {
        self.ranks.first(module).unwrap_or(&self.values["r"]).as_u64()
    }

    /// The alpha that gives the scale of PEFT with `alpha / rank`: `use_rslora` divides by the root of the rank.
    pub(super) fn alpha(&self, module: &str, rank: usize) -> Option<f64> {
        let alpha = self.alphas.first(module).unwrap_or(&self.values["lora_alpha"]).as_f64()?;
        let root = self.values["use_rslora"] == true;
        Some(if root { alpha * (rank as f64).sqrt() } else { alpha }).filter(|alpha| alpha.is_finite())
    }

    pub(super) fn fan_in_fan_out(&self) -> bool {
        self.values["fan_in_fan_out"] == true
    }

    /// Checks that the adapter is nothing but low-rank products.
    pub(super) fn check_plain(&self) -> Result<(), Error> {
        self.check_off(DORA)?;
        self.check_no_saved()
    }

    /// Checks that no module should be saved whole.
    pub(super) fn check_no_saved(&self) -> Result<(), Error> {
        self.check_off(SAVED)
    }

    fn check_off(&self, (key, effect): (&'static str, &'static str)) -> Result<(), Error> {
        if is_off(&self.values[key]) {
            return Ok(());
        }
        Err(Error::Unsupported { path: self.path.clone(), feature: Feature::Setting { key, effect } })
    }

    pub(super) fn has_dora(&self) -> bool {
        self.values[DORA.0] == true
    }

    /// PEFT's `modules_to_save`.
    pub(super) fn saved_modules(&self) -> Vec<String> {
        strings(&self.values[SAVED.0])
    }

    pub(super) fn excluded(&self) -> Vec<String> {
        strings(&self.values["exclude_modules"])
    }
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(|name| name.as_str().map(str::to_owned)).collect()
}

/// Settings that change what an adapter computes: the key, and the effect of values that are not [`is_off`].
///
/// Source: `LoraConfig` of PEFT 0.21.
const SETTINGS: [(&str, &str); 12] = [
    ("bias", "needs other biases in the model"),
    ("lora_bias", "adds a bias to the product"),
    ("trainable_token_indices", "replaces rows of an embedding"),
    ("target_parameters", "changes parameters that are not of a linear layer"),
    ("layer_replication", "repeats layers of the model"),
    ("use_qalora", "pools the inputs of the product"),
    ("use_bdlora", "has block-diagonal matrices"),
    ("alora_invocation_tokens", "starts in the middle of a text"),
    ("arrow_config", "is a router over several adapters"),
    ("kasa_config", "has a diagonal between its matrices"),
    ("monteclora_config", "samples its matrices"),
    ("velora_config", "compresses its inputs"),
];

/// The same for settings that a model can take, and an adapter by itself cannot.
const DORA: (&str, &str) = ("use_dora", "scales the columns of the whole weight, not only a low-rank product");
const SAVED: (&str, &str) = ("modules_to_save", "replaces whole modules");

fn unsupported(kind: &str, values: &Value) -> Option<Feature> {
    if kind != "LORA" {
        return Some(Feature::Kind { kind: kind.to_owned() });
    }
    let (key, effect) = SETTINGS.iter().find(|(key, _)| !is_off(&values[*key]))?;
    Some(Feature::Setting { key, effect })
}

/// The weights that an adapter with this `init_lora_weights` belongs to.
///
/// `pissa_niter_<n>` takes a random approximation from them, `corda` and `lora_ga` need data, and `loftq`
/// quantizes them.
/// Source: `update_layer` in `tuners/lora/layer.py` of PEFT 0.21.
fn base_weights(init: &Value) -> Result<BaseWeights, Feature> {
    let Value::String(init) = init else { return Ok(BaseWeights::Original) };
    match init.to_lowercase().as_str() {
        "pissa" => Ok(BaseWeights::Pissa),
        "olora" => Ok(BaseWeights::Olora),
        "" | "gaussian" | "eva" | "orthogonal" | "mica" => Ok(BaseWeights::Original),
        _ => Err(Feature::Start { init: init.clone() }),
    }
}

fn is_off(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text == "none",
        Value::Array(items) => items.is_empty(),
        Value::Object(items) => items.is_empty(),
        Value::Bool(true) | Value::Number(_) => false,
    }
}

/// `rank_pattern` or `alpha_pattern`. PEFT matches its keys as regular expressions with the end of a module's name,
/// from its start or after a dot, and takes the first that matches.
///
/// A key without special characters is compared as text, so a dot in it matches only a dot: adapters with a pattern for
/// each of thousands of modules are common.
struct Patterns {
    values: Vec<Value>,
    /// Index in `values` of keys without special characters.
    texts: HashMap<String, usize>,
    /// Other keys in their order, with the index in `values`.
    expressions: Vec<(usize, Regex)>,
}

impl Patterns {
    fn new(path: &Path, value: &Value) -> Result<Self, Error> {
        let mut patterns = Self { values: Vec::new(), texts: HashMap::new(), expressions: Vec::new() };
        for (index, (key, value)) in value.as_object().into_iter().flatten().enumerate() {
            patterns.values.push(value.clone());
            if key.contains(['\\', '^', '$', '*', '+', '?', '(', ')', '[', ']', '{', '}', '|']) {
                let expression = Regex::new(&format!(r"^(?:.*\.)?(?:{key})$")).map_err(|error| {
                    let reason = error.to_string().lines().last().unwrap_or_default().to_owned();
                    Error::Pattern { path: path.to_owned(), pattern: key.clone(), reason }
                })?;
                patterns.expressions.push((index, expression));
            } else {
                patterns.texts.insert(key.clone(), index);
            }
        }
        Ok(patterns)
    }

    /// The value of the first key that matches the module.
    fn first(&self, module: &str) -> Option<&Value> {
        let names = std::iter::once(module).chain(endings(module));
        let text = names.filter_map(|name| self.texts.get(name).copied()).min();
        let expression = self.expressions.iter().find(|(_, expression)| expression.is_match(module));
        let expression = expression.map(|(index, _)| *index);
        self.values.get(text.into_iter().chain(expression).min()?)
    }
}
