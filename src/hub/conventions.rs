//! What transformers and the tools around it call things: one table a fact, each with its source.
//!
//! Unless said otherwise the source is transformers 4.57.6, where `modeling` means `models/*/modeling_*.py`.

/// Endings of the classes of language models. Source: the classes of `modeling`.
const LANGUAGE_MODELS: [&str; 4] = ["ForCausalLM", "LMHeadModel", "ForConditionalGeneration", "MTModel"];

/// Families whose language models can share the weight of `lm_head` with the embedding. Source: `_tied_weights_keys` in
/// `modeling`.
const TIED_LM_HEADS: [&str; 30] = [
    "Bart",
    "Bloom",
    "CodeGen",
    "Cohere",
    "Falcon",
    "GPT2",
    "GPTBigCode",
    "GPTNeo",
    "Gemma",
    "Gemma2",
    "Gemma3",
    "Granite",
    "Llama",
    "M2M100",
    "MBart",
    "MT5",
    "Marian",
    "Mistral",
    "Mpt",
    "OPT",
    "Olmo",
    "Olmo2",
    "Phi3",
    "Qwen2",
    "Qwen3",
    "SmolLM3",
    "StableLm",
    "Starcoder2",
    "T5",
    "XGLM",
];

/// The name of the output head in an architecture that ties it to the embedding.
pub(crate) fn tied_head(architecture: &str) -> Option<&'static str> {
    // `_tied_weights_keys` of models/whisper/modeling_whisper.py.
    if architecture == "WhisperForConditionalGeneration" {
        return Some("proj_out");
    }
    let family = LANGUAGE_MODELS.iter().find_map(|ending| architecture.strip_suffix(ending))?;
    TIED_LM_HEADS.contains(&family).then_some("lm_head")
}

/// Output embeddings of language models: `embed_out` in GPT-NeoX, `output_projection` in BioGPT and TrOCR. Source:
/// `get_output_embeddings` in `modeling`.
const OUTPUT_EMBEDDINGS: [&str; 3] = ["lm_head", "embed_out", "output_projection"];

/// Whether the last component of a module path is that of the output embedding of a language model.
pub(crate) fn is_output_embedding(leaf: &str) -> bool {
    OUTPUT_EMBEDDINGS.contains(&leaf)
}

/// Heads for sequence and token classification. Source: `*ForSequenceClassification` in `modeling`.
const CLASSIFIERS: [&str; 2] = ["score", "classifier"];

/// Whether the last component of a module path is that of a classification head. Routers inside blocks use the same
/// names.
pub(crate) fn is_classifier(leaf: &str) -> bool {
    CLASSIFIERS.contains(&leaf)
}

/// Modules that look rows up instead of multiplying. Source: `nn.Embedding` in `modeling`; `tok_embeddings` also in the
/// original Llama, `embedding` and `embeddings` in hand-written models.
const EMBEDDINGS: [&str; 13] = [
    "embed_tokens",
    "embed_positions",
    "wte",
    "wpe",
    "word_embeddings",
    "position_embeddings",
    "token_type_embeddings",
    "shared",
    "embed_in",
    "tok_embeddings",
    "embedding",
    "embeddings",
    "relative_attention_bias",
];

/// Whether the last component of a module path is that of an embedding.
pub(crate) fn is_embedding(leaf: &str) -> bool {
    EMBEDDINGS.contains(&leaf)
}

/// Linear layers by the module around them, indices of blocks left out. Source: `nn.Linear` and `Conv1D` in `modeling`;
/// `wq` to `wo` and `w1` to `w3` in the original Llama, `c_attn` to `c_proj` in the original GPT-2.
const LAYERS: [(&str, &str); 11] = [
    (
        "self_attn attn attention self_attention self cross_attn cross_attention crossattention encoder_attn \
         encoder_decoder_attention",
        "q_proj k_proj v_proj o_proj out_proj qkv_proj q_a_proj q_b_proj kv_a_proj_with_mqa kv_b_proj in_proj pos_proj \
         query key value query_key_value dense qkv proj c_attn c_proj Wqkv Wo wq wk wv wo",
    ),
    ("attention", "q_lin k_lin v_lin out_lin"),
    ("SelfAttention LocalSelfAttention TransientGlobalSelfAttention EncDecAttention", "q k v o"),
    (
        "mlp ffn feed_forward DenseReluDense experts shared_expert shared_experts block_sparse_moe",
        "gate_proj up_proj down_proj gate_up_proj fc1 fc2 fc_in fc_out c_fc c_proj dense_h_to_4h dense_4h_to_h w1 w2 w3 \
         Wi Wo wi wi_0 wi_1 wo gate router shared_expert_gate",
    ),
    ("layers", "fc1 fc2 linear1 linear2"),
    ("mixer mamba", "in_proj x_proj out_proj"),
    ("decoder", "project_in project_out"),
    ("downsample", "reduction"),
    ("intermediate output head", "dense"),
    ("router", "classifier layer"),
    ("predictions lm_head", "decoder"),
];

/// Whether architectures have a linear layer `leaf` in a module `parent`; both are single components of a path.
pub(crate) fn is_layer(parent: &str, leaf: &str) -> bool {
    LAYERS.iter().any(|(parents, leaves)| is_one_of(parents, parent) && is_one_of(leaves, leaf))
}

/// Whether architectures have linear layers in a module of this name.
pub(crate) fn has_layers(parent: &str) -> bool {
    LAYERS.iter().any(|(parents, _)| is_one_of(parents, parent))
}

/// Linear layers beside the body of a model. Source: `modeling`, classes with a head.
const HEADS: &str = "lm_head embed_out output_projection proj_out score text_projection visual_projection";

/// Whether the name is that of a linear layer beside the body of a model.
pub(crate) fn is_head(name: &str) -> bool {
    is_one_of(HEADS, name)
}

/// Modules around those with linear layers. Source: `modeling`, classes of bodies and stacks.
const BODIES: &str = "model transformer encoder decoder language_model text_model vision_model layers layer block h";

/// Whether the name is that of a module around those with linear layers.
pub(crate) fn is_body(name: &str) -> bool {
    is_one_of(BODIES, name)
}

fn is_one_of(words: &str, name: &str) -> bool {
    words.split(' ').any(|word| word == name)
}

/// The projections of q, k and v by the end of the path of the attention around them, for the architectures whose
/// attention ONNX Runtime's optimizer fuses. Source: `modeling` of BERT, ViT, BART, and DistilBERT.
const PROJECTIONS: [(&str, [&str; 3]); 5] = [
    ("attention.self", ["query", "key", "value"]),
    ("attention.attention", ["query", "key", "value"]),
    ("self_attn", ["q_proj", "k_proj", "v_proj"]),
    ("encoder_attn", ["q_proj", "k_proj", "v_proj"]),
    ("attention", ["q_lin", "k_lin", "v_lin"]),
];

/// How q, k and v are called in the attention module of this path.
pub(crate) fn projections(attention: &str) -> Option<[&'static str; 3]> {
    // models/albert/modeling_albert.py.
    if attention.contains("albert_layer_groups.") {
        return Some(["query", "key", "value"]);
    }
    // models/distilbert/modeling_distilbert.py; other attentions called `attention` have other projections.
    let is_distilbert = attention.contains("transformer.layer.");
    let ends_in = |end: &str| attention.strip_suffix(end).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    let mut all = PROJECTIONS.iter().filter(|(_, leaves)| is_distilbert || leaves[0] != "q_lin");
    all.find(|(end, _)| ends_in(end)).map(|(_, leaves)| *leaves)
}

/// Model types whose checkpoints pack q, k and v, and gate and up. Source: `modeling` of Phi-3.
const PACKED: [&str; 2] = ["phi3", "phi3v"];

/// Whether checkpoints of this model type pack q, k and v, and gate and up.
pub(crate) fn packs_projections(model_type: &str) -> bool {
    PACKED.contains(&model_type)
}

/// Model types whose modules are called as in Llama, which is how the genai builder calls those of all. Source:
/// `modeling`; `models/builder.py` of onnxruntime-genai 0.18.0.
const LIKE_LLAMA: [&str; 13] = [
    "ernie4_5",
    "gemma",
    "gemma2",
    "gemma3",
    "gemma3_text",
    "granite",
    "llama",
    "mistral",
    "nemotron",
    "olmo",
    "qwen2",
    "qwen3",
    "smollm3",
];

/// Whether modules of this model type are called as in Llama.
pub(crate) fn is_like_llama(model_type: &str) -> bool {
    LIKE_LLAMA.contains(&model_type)
}

/// Model types that count positions from after the id of padding. Source: `create_position_ids_from_input_ids` in
/// `modeling`.
const POSITIONS_AFTER_PADDING: [&str; 15] = [
    "camembert",
    "data2vec-text",
    "esm",
    "ibert",
    "layoutlmv3",
    "lilt",
    "longformer",
    "luke",
    "markuplm",
    "mpnet",
    "roberta",
    "roberta-prelayernorm",
    "xlm-roberta",
    "xlm-roberta-xl",
    "xmod",
];

/// Whether models of this type count positions from after the id of padding.
pub(crate) fn counts_after_padding(model_type: &str) -> bool {
    POSITIONS_AFTER_PADDING.contains(&model_type)
}

/// What the names of the modules of an encoder lack when it was exported on its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncoderPrefix {
    /// What to put before the names.
    pub prefix: &'static str,
    /// What some name contains if none lacks the prefix.
    pub present: &'static str,
}

/// The encoder of T5 and its successors. Source: `self.encoder` in `models/t5/modeling_t5.py`.
pub const T5_ENCODER: EncoderPrefix = EncoderPrefix { prefix: "encoder", present: "encoder." };

/// Families that keep their encoder at the top of the model. Source: `self.encoder` in `modeling`.
const ENCODER_AT_TOP: [&str; 5] = ["T5", "MT5", "UMT5", "LongT5", "SwitchTransformers"];

/// Families that keep their encoder inside the body of the model, and the name of the body. Source: `base_model_prefix`
/// in `modeling`.
const ENCODER_IN_BODY: [(&str, &str); 13] = [
    ("Bart", "model.encoder"),
    ("BigBirdPegasus", "model.encoder"),
    ("Blenderbot", "model.encoder"),
    ("BlenderbotSmall", "model.encoder"),
    ("LED", "led.encoder"),
    ("M2M100", "model.encoder"),
    ("MBart", "model.encoder"),
    ("Marian", "model.encoder"),
    ("Mvp", "model.encoder"),
    ("PLBart", "model.encoder"),
    ("Pegasus", "model.encoder"),
    ("PegasusX", "model.encoder"),
    ("Whisper", "model.encoder"),
];

/// Families that join two whole models. Source: `self.encoder` in `modeling` of `encoder_decoder`,
/// `speech_encoder_decoder` and `vision_encoder_decoder`.
const ENCODER_IS_MODEL: [&str; 3] = ["EncoderDecoder", "SpeechEncoderDecoder", "VisionEncoderDecoder"];

/// Where an architecture with an encoder and a decoder keeps its encoder.
pub fn encoder_prefix(architecture: &str) -> Option<EncoderPrefix> {
    let at = |prefix| Some(EncoderPrefix { prefix, present: "encoder." });
    let in_body = |family: &str| ENCODER_IN_BODY.iter().find(|(known, _)| *known == family).map(|(_, path)| *path);
    let with_head = ["ForConditionalGeneration", "MTModel"].iter().find_map(|head| architecture.strip_suffix(head));
    if let Some(family) = with_head {
        return if ENCODER_AT_TOP.contains(&family) { at("encoder") } else { at(in_body(family)?) };
    }
    let family = architecture.strip_suffix("Model")?;
    if ENCODER_AT_TOP.contains(&family) || in_body(family).is_some() {
        return at("encoder");
    }
    // The encoder is a whole model, which calls its own body `encoder` too.
    let is_model = ENCODER_IS_MODEL.contains(&family);
    is_model.then_some(EncoderPrefix { prefix: "encoder", present: "encoder.encoder." })
}

/// Whether a module path is one of T5 and its successors, which alone call their attention so. Source: `modeling` of
/// T5.
pub fn is_of_t5(module: &str) -> bool {
    module.contains(".SelfAttention.")
}

/// PEFT's task type by the ending of the architecture. Source: `TaskType` in `utils/peft_types.py` of PEFT 0.21.2.
const TASKS: [(&str, &str); 3] =
    [("ForConditionalGeneration", "SEQ_2_SEQ_LM"), ("ForCausalLM", "CAUSAL_LM"), ("LMHeadModel", "CAUSAL_LM")];

/// PEFT's task type of an architecture; `None` unless it is a language model.
pub fn task_type(architecture: &str) -> Option<&'static str> {
    TASKS.iter().find(|(ending, _)| architecture.ends_with(ending)).map(|(_, task)| *task)
}

/// Tokens that may stand for padding when `tokenizer.json` names none, best first. Source: tokens for
/// padding, ends and separators in tokenizers on the Hugging Face Hub.
pub(crate) const PAD_TOKENS: [&str; 13] = [
    "<|pad|>",
    "<pad>",
    "[PAD]",
    "<|finetune_right_pad_id|>",
    "<|endoftext|>",
    "</s>",
    "<eos>",
    "[EOS]",
    "<|end_of_text|>",
    "<|eot_id|>",
    "<|im_end|>",
    "<|end|>",
    "[SEP]",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_by_architecture() {
        assert_eq!(tied_head("GPT2LMHeadModel"), Some("lm_head"));
        assert_eq!(tied_head("LlamaForCausalLM"), Some("lm_head"));
        assert_eq!(tied_head("T5ForConditionalGeneration"), Some("lm_head"));
        assert_eq!(tied_head("WhisperForConditionalGeneration"), Some("proj_out"));
        assert_eq!(tied_head("GPTNeoXForCausalLM"), None);
        assert_eq!(tied_head("BertLMHeadModel"), None);
        assert_eq!(tied_head("LlamaModel"), None);
    }

    #[test]
    fn encoders_by_architecture() {
        #[track_caller]
        fn check(architecture: &str, prefix: Option<&str>) {
            assert_eq!(encoder_prefix(architecture).map(|found| found.prefix), prefix, "{architecture}");
        }
        check("T5ForConditionalGeneration", Some("encoder"));
        check("T5Model", Some("encoder"));
        check("BartForConditionalGeneration", Some("model.encoder"));
        check("LEDForConditionalGeneration", Some("led.encoder"));
        check("BartModel", Some("encoder"));
        check("MarianMTModel", Some("model.encoder"));
        check("MarianModel", Some("encoder"));
        check("T5EncoderModel", None);
        check("BertModel", None);
        check("VisionEncoderDecoderModel", Some("encoder"));
        check("LlamaModel", None);
    }

    #[test]
    fn tasks_by_architecture() {
        assert_eq!(task_type("T5ForConditionalGeneration"), Some("SEQ_2_SEQ_LM"));
        assert_eq!(task_type("GPT2LMHeadModel"), Some("CAUSAL_LM"));
        assert_eq!(task_type("BertForSequenceClassification"), None);
    }

    #[test]
    fn projections_by_attention() {
        assert_eq!(projections("bert.encoder.layer.0.attention.self"), Some(["query", "key", "value"]));
        assert_eq!(projections("distilbert.transformer.layer.1.attention"), Some(["q_lin", "k_lin", "v_lin"]));
        assert_eq!(projections("layers.1.attention"), None);
    }
}
