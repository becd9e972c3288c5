//! What lies beside a model: config.json, genai_config.json, tokenizer.json.

use super::args::TASK_TYPES;
use crate::feeds::CacheShape;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// What the config files beside a model tell. A file that is missing or not understood tells nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Beside {
    /// Kind of the model, as transformers names it.
    pub model_type: Option<String>,
    /// Name of the base model.
    pub base_model: Option<String>,
    /// PEFT task type.
    pub task_type: Option<String>,
    /// Sizes of the key/value cache.
    pub cache: CacheShape,
    /// Positions that the model knows.
    pub positions: Option<usize>,
    /// Rows of the embedding.
    pub vocab_size: Option<usize>,
    /// The tokenizer.
    pub tokenizer: Option<PathBuf>,
}

/// Reads the files beside `model`.
pub(super) fn beside(model: &Path) -> Beside {
    let dir = model.parent().unwrap_or(Path::new(""));
    let read = |name: &str| -> Value {
        let text = std::fs::read_to_string(dir.join(name)).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    };
    let (config, genai) = (read("config.json"), read("genai_config.json"));
    let size = |value: &Value| value.as_u64().and_then(|n| usize::try_from(n).ok()).filter(|&n| n > 0);
    let decoder = &genai["model"]["decoder"];
    let heads = size(&config["num_attention_heads"]);
    let per_head = || Some(size(&config["hidden_size"])? / heads?);
    let cache = CacheShape {
        heads: size(&decoder["num_key_value_heads"]).or(size(&config["num_key_value_heads"])).or(heads),
        head_dim: size(&decoder["head_size"]).or(size(&config["head_dim"])).or_else(per_head),
    };
    let architecture = config["architectures"][0].as_str();
    let tokenizer = dir.join("tokenizer.json");
    Beside {
        model_type: config["model_type"].as_str().or(genai["model"]["type"].as_str()).map(str::to_owned),
        base_model: config["_name_or_path"].as_str().filter(|name| !name.is_empty()).map(str::to_owned),
        task_type: architecture.and_then(task_type).map(str::to_owned),
        cache,
        positions: size(&config["max_position_embeddings"]).or(size(&config["n_positions"])),
        vocab_size: size(&config["vocab_size"]).or(size(&genai["model"]["vocab_size"])),
        tokenizer: tokenizer.is_file().then_some(tokenizer),
    }
}

/// PEFT's task type of a transformers architecture; `None` unless it is a language model, see [`TASK_TYPES`].
fn task_type(architecture: &str) -> Option<&'static str> {
    let [causal, seq_2_seq, _] = TASK_TYPES;
    let by_ending = [("ForConditionalGeneration", seq_2_seq), ("ForCausalLM", causal), ("LMHeadModel", causal)];
    by_ending.iter().find(|(ending, _)| architecture.ends_with(ending)).map(|(_, task)| *task)
}
