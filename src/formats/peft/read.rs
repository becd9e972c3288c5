//! Reads the folder of a LoRA adapter.

use super::{CONFIG, WEIGHTS};
use crate::adapter::{Adapter, AdapterModule, Base};
use crate::formats::Error;
use ndarray::Array2;
use regex::Regex;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Reads the adapter in `dir`, with what it says of its base model.
///
/// Scales follow PEFT: the first pattern that matches the end of a module's name wins, and `use_rslora` divides alpha
/// by the root of the rank. The alpha of the result is the one that gives that scale with `alpha / rank`.
///
/// # Errors
/// [`Error::Unsupported`] for everything that is not a plain low-rank product: other kinds of adapters, DoRA, trained
/// biases, modules saved whole, embeddings.
pub fn read(dir: &Path) -> Result<(Adapter, Base), Error> {
    let config = Config::read(&dir.join(CONFIG))?;
    let path = dir.join(WEIGHTS);
    let bytes = std::fs::read(&path).map_err(|source| Error::Io { path: path.clone(), source })?;
    let malformed =
        |error: safetensors::SafeTensorError| Error::Malformed { path: path.clone(), reason: error.to_string() };
    let tensors = SafeTensors::deserialize(&bytes).map_err(malformed)?;
    let mut modules = Vec::new();
    for (module, [a, b]) in pairs(&path, &tensors)? {
        modules.push(config.module(&path, module, &a, &b)?);
    }
    if modules.is_empty() {
        return Err(Error::Empty { path });
    }
    modules.sort_by_cached_key(|module| (config.position(&module.module), natural(&module.module)));
    let untouched = strings(&config.values["exclude_modules"]);
    Ok((Adapter { modules, untouched }, config.base()))
}

struct Config {
    path: PathBuf,
    values: Value,
    /// `rank_pattern` and `alpha_pattern`, compiled in their order.
    ranks: Vec<(Regex, Value)>,
    alphas: Vec<(Regex, Value)>,
}

/// Settings that change what an adapter computes: the key, whether a value is harmless, and why others are not used.
type Check = (&'static str, fn(&Value) -> bool, &'static str);

const CHECKS: [Check; 14] = [
    ("use_dora", off, "scales the columns of the whole weight, not only a low-rank product"),
    ("bias", no_bias, "needs other biases in the model"),
    ("lora_bias", off, "adds a bias to the product"),
    ("modules_to_save", off, "replaces whole modules"),
    ("trainable_token_indices", off, "replaces rows of an embedding"),
    ("target_parameters", off, "changes parameters that are no linear layer"),
    ("layer_replication", off, "repeats layers of the model"),
    ("use_qalora", off, "pools the inputs of the product"),
    ("use_bdlora", off, "has block-diagonal matrices"),
    ("alora_invocation_tokens", off, "starts in the middle of a text"),
    ("arrow_config", off, "is a router over several adapters"),
    ("kasa_config", off, "has a diagonal between its matrices"),
    ("monteclora_config", off, "samples its matrices"),
    ("velora_config", off, "compresses what it is given"),
];

fn off(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(items) => items.is_empty(),
        _ => false,
    }
}

fn no_bias(value: &Value) -> bool {
    value.is_null() || value == "none"
}

impl Config {
    fn read(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
        let malformed = |reason: String| Error::Malformed { path: path.to_owned(), reason };
        let values: Value = serde_json::from_str(&text).map_err(|error| malformed(error.to_string()))?;
        let kind = values["peft_type"].as_str().ok_or_else(|| malformed("`peft_type` is missing".to_owned()))?;
        let unsupported = |what, reason| Error::Unsupported { path: path.to_owned(), what, reason };
        if kind != "LORA" {
            return Err(unsupported(format!("`peft_type` {kind}"), "is not LoRA"));
        }
        if let Some((key, _, reason)) = CHECKS.iter().find(|(key, harmless, _)| !harmless(&values[*key])) {
            return Err(unsupported(format!("`{key}`"), *reason));
        }
        let (ranks, alphas) = (patterns(path, &values["rank_pattern"])?, patterns(path, &values["alpha_pattern"])?);
        Ok(Self { path: path.to_owned(), values, ranks, alphas })
    }

    fn base(&self) -> Base {
        let text = |key: &str| self.values[key].as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        Base { name: text("base_model_name_or_path"), task_type: text("task_type") }
    }

    /// Place of the module among those that the config names in full.
    fn position(&self, module: &str) -> usize {
        let names = self.values["target_modules"].as_array();
        names.and_then(|names| names.iter().position(|name| name == module)).unwrap_or(usize::MAX)
    }

    fn module(
        &self,
        path: &Path,
        module: String,
        a: &TensorView<'_>,
        b: &TensorView<'_>,
    ) -> Result<AdapterModule, Error> {
        let wrong = |reason: String| Error::Matrices { path: path.to_owned(), module: module.clone(), reason };
        let (a, b) = (matrix(a).map_err(wrong)?, matrix(b).map_err(wrong)?);
        let rank = a.nrows();
        if rank == 0 || b.ncols() != rank {
            return Err(wrong(format!("A is {:?} and B is {:?}", a.dim(), b.dim())));
        }
        let expected = first(&self.ranks, &module).unwrap_or(&self.values["r"]).as_u64();
        if expected.is_some_and(|expected| expected != rank as u64) {
            let expected = expected.unwrap_or_default();
            return Err(wrong(format!("their rank is {rank}, and `{}` says {expected}", self.path.display())));
        }
        let alpha = first(&self.alphas, &module).unwrap_or(&self.values["lora_alpha"]).as_f64();
        let alpha = alpha.filter(|alpha| alpha.is_finite());
        let alpha = alpha.ok_or_else(|| wrong(format!("`{}` gives no `lora_alpha`", self.path.display())))?;
        let root = self.values["use_rslora"] == true;
        Ok(AdapterModule {
            out_features: b.nrows(),
            alpha: if root { alpha * (rank as f64).sqrt() } else { alpha },
            fan_in_fan_out: self.values["fan_in_fan_out"] == true,
            b: b.iter().any(|value| *value != 0.0).then_some(b),
            a,
            module,
        })
    }
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(|name| name.as_str().map(str::to_owned)).collect()
}

/// Compiles the keys of a pattern the way PEFT reads them.
fn patterns(path: &Path, value: &Value) -> Result<Vec<(Regex, Value)>, Error> {
    let none = Map::new();
    let entries = value.as_object().unwrap_or(&none);
    let compiled = entries.iter().map(|(key, value)| match Regex::new(&format!(r"^(?:.*\.)?(?:{key})$")) {
        Ok(regex) => Ok((regex, value.clone())),
        Err(error) => {
            let reason = error.to_string().lines().last().unwrap_or_default().to_owned();
            Err(Error::Pattern { path: path.to_owned(), pattern: key.clone(), reason })
        }
    });
    compiled.collect()
}

fn first<'p>(patterns: &'p [(Regex, Value)], module: &str) -> Option<&'p Value> {
    patterns.iter().find(|(regex, _)| regex.is_match(module)).map(|(_, value)| value)
}

/// `A` and `B` of every module.
fn pairs<'t>(path: &Path, tensors: &'t SafeTensors<'_>) -> Result<BTreeMap<String, [TensorView<'t>; 2]>, Error> {
    let mut found: BTreeMap<String, [Option<TensorView<'t>>; 2]> = BTreeMap::new();
    for (key, view) in tensors.iter() {
        let Some((module, part)) = split(key) else {
            return Err(stranger(path, key));
        };
        found.entry(module.to_owned()).or_default()[part] = Some(view);
    }
    let complete = |(module, pair): (String, [Option<TensorView<'t>>; 2])| match pair {
        [Some(a), Some(b)] => Ok((module, [a, b])),
        [a, _] => {
            let reason = format!("{} is missing", if a.is_some() { "B" } else { "A" });
            Err(Error::Matrices { path: path.to_owned(), module, reason })
        }
    };
    found.into_iter().map(complete).collect()
}

/// The module of `base_model.model.<module>.lora_A.weight`, and 0 for A or 1 for B. Old versions of PEFT wrote the name
/// of the adapter before `weight`.
fn split(key: &str) -> Option<(&str, usize)> {
    let key = key.strip_prefix("base_model.model.").unwrap_or(key).strip_suffix(".weight")?;
    let key = key.strip_suffix(".default").unwrap_or(key);
    key.strip_suffix(".lora_A").map(|module| (module, 0)).or(key.strip_suffix(".lora_B").map(|module| (module, 1)))
}

fn stranger(path: &Path, key: &str) -> Error {
    let reason = match () {
        () if key.contains("lora_embedding") => "is a product in an embedding, not in a linear layer",
        () if key.contains("lora_magnitude") => "scales the columns of the whole weight, not only a low-rank product",
        () => "is no matrix of a low-rank product",
    };
    Error::Unsupported { path: path.to_owned(), what: format!("the tensor `{key}`"), reason }
}

fn matrix(view: &TensorView<'_>) -> Result<Array2<f32>, String> {
    let [rows, columns] = view.shape() else {
        return Err(format!("a matrix has shape {:?}", view.shape()));
    };
    let halves = || view.data().as_chunks::<2>().0.iter().copied();
    let values: Vec<f32> = match view.dtype() {
        Dtype::F32 => view.data().as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
        Dtype::F16 => halves().map(|bytes| half::f16::from_le_bytes(bytes).to_f32()).collect(),
        Dtype::BF16 => halves().map(|bytes| half::bf16::from_le_bytes(bytes).to_f32()).collect(),
        other => return Err(format!("a matrix has type {other:?}")),
    };
    if !values.iter().all(|value| value.is_finite()) {
        return Err("a value is not finite".to_owned());
    }
    Array2::from_shape_vec((*rows, *columns), values).map_err(|error| error.to_string())
}

/// A key that sorts names with their numbers in counting order.
fn natural(name: &str) -> Vec<(u64, String)> {
    name.split('.').map(|part| part.parse().map_or((u64::MAX, part.to_owned()), |n| (n, String::new()))).collect()
}
