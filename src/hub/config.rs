//! The files beside a model: config.json, genai_config.json, tokenizer.json.

use super::conventions::{self, EncoderPrefix};
use super::layout;
use crate::feeds::CacheShape;
use crate::regular;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The task types of PEFT under which an adapter without a trained head loads. With the others (SEQ_CLS, TOKEN_CLS,
/// QUESTION_ANS), PEFT expects the weights of the head in the adapter.
pub const TASK_TYPES: [&str; 3] = ["CAUSAL_LM", "SEQ_2_SEQ_LM", "FEATURE_EXTRACTION"];

/// What the files beside a model record. A file that is missing or not understood records nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelConfig {
    /// `model_type` of transformers, for example `llama`.
    pub model_type: Option<String>,
    /// Class of the model in transformers, for example `LlamaForCausalLM`.
    pub architecture: Option<String>,
    /// Name of the base model.
    pub base_model: Option<String>,
    /// PEFT task type.
    pub task_type: Option<String>,
    /// Sizes of the key/value cache.
    pub cache: CacheShape,
    /// Heads of the queries.
    pub attention_heads: Option<usize>,
    /// Whether the output head may share its weight with the embedding.
    pub tied: bool,
    /// The position of the first token.
    pub first_position: usize,
    /// Longest sequence in tokens.
    pub positions: Option<usize>,
    /// The token that the decoder of an encoder-decoder model starts with.
    pub decoder_start: Option<u32>,
    /// Rows of the embedding.
    pub vocab_size: Option<usize>,
    /// The start that module names of an encoder exported by itself lack; `None` for other models.
    pub encoder_prefix: Option<EncoderPrefix>,
    /// Whether the model is an encoder exported by itself, of unknown architecture.
    pub unknown_encoder: bool,
    /// The tokenizer.
    pub tokenizer: Option<PathBuf>,
    /// The settings of the processor of pictures or sounds.
    pub preprocessor: Option<PathBuf>,
    /// `problem_type` of transformers: what a classifier is trained for.
    pub problem_type: Option<String>,
    /// The classes of a classifier.
    pub classes: Classes,
}

/// The classes of a classifier.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Classes {
    /// Their number, if it is recorded.
    pub count: Option<usize>,
    /// The class of each name: `id2label`.
    pub by_name: BTreeMap<String, usize>,
}

impl ModelConfig {
    /// Reads the files that [`layout::find`] finds for `model`; those that are not there are looked for in the folder
    /// `checkpoint`.
    pub fn read(model: &Path, checkpoint: Option<&Path>) -> Self {
        let in_checkpoint =
            |name: &str| checkpoint.map(|folder| folder.join(name)).filter(|path: &PathBuf| path.is_file());
        let find = |name: &str| layout::find(model, name).or_else(|| in_checkpoint(name));
        let json = |name: &str| -> Value {
            let text = find(name).and_then(|path| regular::read_to_string(&path).ok()).unwrap_or_default();
            serde_json::from_str(&text).unwrap_or_default()
        };
        let (config, genai) = (json("config.json"), json("genai_config.json"));
        let architecture = config["architectures"][0].as_str();
        let stem = model.file_stem().and_then(|name| name.to_str());
        let after_padding = config["model_type"].as_str().is_some_and(conventions::counts_after_padding);
        let first_position = token(&config["pad_token_id"]).filter(|_| after_padding).map_or(0, |id| id as usize + 1);
        let positions = size(&config["max_position_embeddings"]).or(size(&config["n_positions"]));
        let is_encoder = stem.is_some_and(|name| name.starts_with("encoder_model"));
        Self {
            model_type: config["model_type"].as_str().or(genai["model"]["type"].as_str()).map(str::to_owned),
            architecture: architecture.map(str::to_owned),
            base_model: config["_name_or_path"].as_str().filter(|name| !name.is_empty()).map(str::to_owned),
            task_type: architecture.and_then(conventions::task_type).map(str::to_owned),
            cache: cache(&config, &genai),
            attention_heads: size(&config["num_attention_heads"])
                .or(size(&genai["model"]["decoder"]["num_attention_heads"])),
            // Where it is shared by default, configs do not say so.
            tied: config["tie_word_embeddings"].as_bool().unwrap_or(true),
            unknown_encoder: is_encoder && architecture.is_none(),
            encoder_prefix: architecture.filter(|_| is_encoder).and_then(conventions::encoder_prefix),
            first_position,
            positions: positions.map(|most| most.saturating_sub(first_position).max(1)),
            decoder_start: token(&config["decoder_start_token_id"]).or_else(|| token(&config["pad_token_id"])),
            vocab_size: size(&config["vocab_size"]).or(size(&genai["model"]["vocab_size"])),
            tokenizer: find("tokenizer.json"),
            // Later versions of transformers write the second one.
            preprocessor: find("preprocessor_config.json").or_else(|| find("processor_config.json")),
            problem_type: config["problem_type"].as_str().map(str::to_owned),
            classes: classes(&config),
        }
    }
}

fn cache(config: &Value, genai: &Value) -> CacheShape {
    let decoder = &genai["model"]["decoder"];
    let heads = size(&config["num_attention_heads"]);
    let per_head = || Some(size(&config["hidden_size"])? / heads?);
    CacheShape {
        heads: size(&decoder["num_key_value_heads"]).or(size(&config["num_key_value_heads"])).or(heads),
        head_dim: size(&decoder["head_size"]).or(size(&config["head_dim"])).or_else(per_head),
    }
}

fn classes(config: &Value) -> Classes {
    let names = config["id2label"].as_object();
    let named = |(class, name): (&String, &Value)| Some((name.as_str()?.to_owned(), class.parse().ok()?));
    let count = names.map(serde_json::Map::len).filter(|count| *count > 0).or_else(|| size(&config["num_labels"]));
    Classes { count, by_name: names.into_iter().flatten().filter_map(named).collect() }
}

/// A positive number.
fn size(value: &Value) -> Option<usize> {
    value.as_u64().and_then(|n| usize::try_from(n).ok()).filter(|&n| n > 0)
}

/// A token id.
fn token(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|id| u32::try_from(id).ok())
}
