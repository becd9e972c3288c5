//! What lies beside a model: config.json, genai_config.json, tokenizer.json.

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
    /// What the names of an encoder that was exported on its own lack, and what is in those that lack nothing; `None` when
    /// it is none or that is not known.
    pub encoder_prefix: Option<(&'static str, &'static str)>,
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
        task_type: architecture.and_then(task_type).map(str::to_owned),
        cache,
        unknown_encoder: encoder && architecture.is_none(),
        encoder_prefix: encoder_prefix.and_then(encoder_path),
        positions: size(&config["max_position_embeddings"]).or(size(&config["n_positions"])),
        decoder_start: token("decoder_start_token_id").or_else(|| token("pad_token_id")),
        vocab_size: size(&config["vocab_size"]).or(size(&genai["model"]["vocab_size"])),
        tokenizer: file("tokenizer.json"),
    }
}

/// Where a transformers architecture with an encoder and a decoder keeps its encoder.
fn encoder_path(architecture: &str) -> Option<(&'static str, &'static str)> {
    const TOP: [&str; 5] = ["T5", "MT5", "UMT5", "LongT5", "SwitchTransformers"];
    const INNER: [&str; 13] = [
        "BigBirdPegasus",
        "Bart",
        "Blenderbot",
        "BlenderbotSmall",
        "LED",
        "M2M100",
        "MBart",
        "Marian",
        "Mvp",
        "PLBart",
        "Pegasus",
        "PegasusX",
        "Whisper",
    ];
    const PAIRS: [&str; 3] = ["EncoderDecoder", "SpeechEncoderDecoder", "VisionEncoderDecoder"];
    let heads = ["ForConditionalGeneration", "MTModel"];
    let with_head = heads.iter().find_map(|head| architecture.strip_suffix(head));
    let bare = architecture.strip_suffix("Model").filter(|_| with_head.is_none());
    match (with_head, bare) {
        (Some(name), _) if TOP.contains(&name) => Some(("encoder", "encoder.")),
        (Some(name), _) if INNER.contains(&name) => Some(("model.encoder", "encoder.")),
        (_, Some(name)) if TOP.contains(&name) || INNER.contains(&name) => Some(("encoder", "encoder.")),
        // The encoder is a whole model, which calls its own body so, too.
        (_, Some(name)) if PAIRS.contains(&name) => Some(("encoder", "encoder.encoder.")),
        _ => None,
    }
}

/// PEFT's task type of a transformers architecture; `None` unless it is a language model, see [`TASK_TYPES`].
fn task_type(architecture: &str) -> Option<&'static str> {
    let [causal, seq_2_seq, _] = TASK_TYPES;
    let by_ending = [("ForConditionalGeneration", seq_2_seq), ("ForCausalLM", causal), ("LMHeadModel", causal)];
    by_ending.iter().find(|(ending, _)| architecture.ends_with(ending)).map(|(_, task)| *task)
}

#[cfg(test)]
mod tests {
    use super::encoder_path;

    #[track_caller]
    fn check(architecture: &str, path: Option<&str>) {
        assert_eq!(encoder_path(architecture).map(|(path, _)| path), path, "{architecture}");
    }

    #[test]
    fn encoders_by_architecture() {
        check("T5ForConditionalGeneration", Some("encoder"));
        check("T5Model", Some("encoder"));
        check("BartForConditionalGeneration", Some("model.encoder"));
        check("BartModel", Some("encoder"));
        check("MarianMTModel", Some("model.encoder"));
        check("MarianModel", Some("encoder"));
        check("T5EncoderModel", None);
        check("BertModel", None);
        check("VisionEncoderDecoderModel", Some("encoder"));
        check("LlamaModel", None);
    }
}
