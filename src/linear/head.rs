//! Output heads, by the rule that [`Linear::head`](super::Linear::head) states.

use super::candidate::Candidate;
use super::module::{is_index, leaf};
use crate::graph::logits;
use crate::onnx::Graph;

/// Whether a module is called like the output embedding of a language model.
pub(crate) fn is_output_embedding(module: &str) -> bool {
    ["lm_head", "embed_out", "output_projection"].contains(&leaf(module))
}

/// What the output head is called in an architecture that ties it to the embedding.
pub(crate) fn of_architecture(architecture: &str) -> Option<&'static str> {
    const LM_HEAD: [&str; 30] = [
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
    let endings = ["ForCausalLM", "LMHeadModel", "ForConditionalGeneration", "MTModel"];
    if architecture == "WhisperForConditionalGeneration" {
        return Some("proj_out");
    }
    let family = endings.iter().find_map(|ending| architecture.strip_suffix(ending))?;
    LM_HEAD.contains(&family).then_some("lm_head")
}

/// Whether the layer is an output head; `tied` says whether its weight is also that of an embedding.
pub(crate) fn is_head(graph: &Graph<'_>, candidate: &Candidate<'_>, module: &str, tied: bool) -> bool {
    tied || is_output_embedding(module)
        || is_classifier(module)
        || logits::reaches_logits(graph, candidate.place.scope, candidate.output)
}

fn is_classifier(module: &str) -> bool {
    let is_in_block = module.split('.').skip(1).any(is_index);
    ["score", "classifier"].contains(&leaf(module)) && !is_in_block
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_by_architecture() {
        assert_eq!(of_architecture("GPT2LMHeadModel"), Some("lm_head"));
        assert_eq!(of_architecture("LlamaForCausalLM"), Some("lm_head"));
        assert_eq!(of_architecture("T5ForConditionalGeneration"), Some("lm_head"));
        assert_eq!(of_architecture("WhisperForConditionalGeneration"), Some("proj_out"));
        assert_eq!(of_architecture("GPTNeoXForCausalLM"), None);
        assert_eq!(of_architecture("BertLMHeadModel"), None);
        assert_eq!(of_architecture("LlamaModel"), None);
    }

    #[test]
    fn heads_by_name() {
        assert!(is_output_embedding("lm_head"));
        assert!(is_output_embedding("gpt_neox.embed_out"));
        assert!(is_classifier("classifier"));
        assert!(is_classifier("inner.score"));
        assert!(!is_classifier("encoder.block.1.layer.1.mlp.router.classifier"));
        assert!(!is_classifier("classifier.dense"));
        assert!(!is_classifier("pooler.dense"));
    }
}
