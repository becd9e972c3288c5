//! What lies beside a model: config.json, genai_config.json, tokenizer.json.

use super::conventions::{self, EncoderPrefix};
use crate::feeds::CacheShape;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The task types of PEFT under which an adapter without a trained head loads. The others (SEQ_CLS, TOKEN_CLS,
/// QUESTION_ANS) make PEFT expect the weights of the head in the adapter.
pub const TASK_TYPES: [&str; 3] = ["CAUSAL_LM", "SEQ_2_SEQ_LM", "FEATURE_EXTRACTION"];

/// What the config files beside a model tell. A file that is missing or not understood tells nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Beside {
    /// Kind of the model, as transformers names it.
    pub model_type: Option<String>,
    /// Class of the model, as transformers names it.
    pub architecture: Option<String>,
    /// Name of the base model.
    pub base_model: Option<String>,
    /// PEFT task type.
    pub task_type: Option<String>,
    /// Sizes of the key/value cache.
    pub cache: CacheShape,
    /// Positions that the model knows.
    pub positions: Option<usize>,
    /// The token that a decoder with an encoder starts with.
    pub decoder_start: Option<u32>,
    /// Rows of the embedding.
    pub vocab_size: Option<usize>,
    /// What the names of an encoder that was exported on its own lack; `None` for other models or if it is not known.
    pub encoder_prefix: Option<EncoderPrefix>,
    /// Whether it is an encoder that was exported on its own from an unknown architecture.
    pub unknown_encoder: bool,
    /// The tokenizer.
    pub tokenizer: Option<PathBuf>,
}

/// Reads the files beside `model`, and those of its checkpoint that are not there.
pub fn beside(model: &Path, checkpoint: Option<&Path>) -> Beside {
    let dir = model.parent().unwrap_or(Path::new(""));
    let file = |name: &str| {
        let other = || checkpoint.map(|dir| dir.join(name)).filter(|path| path.is_file());
        Some(dir.join(name)).filter(|path| path.is_file()).or_else(other)
    };
    let read = |name: &str| -> Value {
        let text = file(name).and_then(|path| std::fs::read_to_string(path).ok()).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    };
    let (config, genai) = (read("config.json"), read("genai_config.json"));
    let size = |value: &Value| value.as_u64().and_then(|n| usize::try_from(n).ok()).filter(|&n| n > 0);
    let token = |name: &str| config[name].as_u64().and_then(|id| u32::try_from(id).ok());
    let decoder = &genai["model"]["decoder"];
    let heads = size(&config["num_attention_heads"]);
    let per_head = || Some(size(&config["hidden_size"])? / heads?);
    let cache = CacheShape {
        heads: size(&decoder["num_key_value_heads"]).or(size(&config["num_key_value_heads"])).or(heads),
        head_dim: size(&decoder["head_size"]).or(size(&config["head_dim"])).or_else(per_head),
    };
    let architecture = config["architectures"][0].as_str();
    let encoder =
        model.file_stem().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("encoder_model"));
    let encoder_prefix = architecture.filter(|_| encoder);
    Beside {
        model_type: config["model_type"].as_str().or(genai["model"]["type"].as_str()).map(str::to_owned),
        architecture: architecture.map(str::to_owned),
        base_model: config["_name_or_path"].as_str().filter(|name| !name.is_empty()).map(str::to_owned),
        task_type: architecture.and_then(conventions::task_type).map(str::to_owned),
        cache,
        unknown_encoder: encoder && architecture.is_none(),
        encoder_prefix: encoder_prefix.and_then(conventions::encoder_prefix),
        positions: size(&config["max_position_embeddings"]).or(size(&config["n_positions"])),
        decoder_start: token("decoder_start_token_id").or_else(|| token("pad_token_id")),
        vocab_size: size(&config["vocab_size"]).or(size(&genai["model"]["vocab_size"])),
        tokenizer: file("tokenizer.json"),
    }
}
