//! How llama.cpp calls and keeps the weights of a model.
//!
//! Source: `constants.py` and `tensor_mapping.py` of gguf-py, and the classes of `conversion/` in llama.cpp (2026).

use super::config::ModelConfig;
use crate::linear::module::is_index;

/// The layout of one model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The name of the architecture.
    pub architecture: &'static str,
    /// The heads of queries and of keys, where the rows of their weights have another order than in transformers.
    reordered: Option<(usize, usize)>,
    /// Whether there is a weight of its own for the output head.
    has_head: bool,
}

/// Architectures by `model_type`, and whether the rows of queries and keys are reordered.
const ARCHITECTURES: [(&str, &str, bool); 10] = [
    ("gemma", "gemma", false),
    ("gemma2", "gemma2", false),
    ("gemma3_text", "gemma3", false),
    ("gpt2", "gpt2", false),
    ("llama", "llama", true),
    ("mistral", "llama", true),
    ("phi3", "phi3", false),
    ("qwen2", "qwen2", false),
    ("qwen3", "qwen3", false),
    ("smollm3", "smollm3", true),
];

/// Weights of a block by what follows its index.
const TENSORS: [(&str, &str); 14] = [
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.qkv_proj", "attn_qkv"),
    ("self_attn.o_proj", "attn_output"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.gate_up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
    ("attn.c_attn", "attn_qkv"),
    ("attn.c_proj", "attn_output"),
    ("mlp.c_fc", "ffn_up"),
    ("mlp.c_proj", "ffn_down"),
    ("lm_head", "output"),
];

/// The start of the names of blocks.
const BLOCKS: [&str; 2] = ["model.layers.", "transformer.h."];

impl Layout {
    /// That of the model that `config` describes; `None` if it is not known.
    pub fn new(config: &ModelConfig) -> Option<Layout> {
        let model_type = config.model_type.as_deref()?;
        let (_, architecture, is_reordered) = ARCHITECTURES.iter().find(|(known, ..)| *known == model_type)?;
        let heads = || Some((config.attention_heads?, config.cache.heads?));
        let reordered = if *is_reordered { Some(heads()?) } else { None };
        Some(Layout { architecture, reordered, has_head: !config.tied })
    }

    /// The name of the weight of a module, without the `.weight` at its end.
    pub fn tensor(&self, module: &str) -> Option<String> {
        let tensor = |inside: &str| TENSORS.iter().find(|(known, _)| *known == inside).map(|(_, tensor)| *tensor);
        if module == "lm_head" {
            return tensor(module).filter(|_| self.has_head).map(str::to_owned);
        }
        let block = BLOCKS.iter().find_map(|start| module.strip_prefix(start))?;
        let (index, inside) = block.split_once('.').filter(|(index, _)| is_index(index))?;
        Some(format!("blk.{index}.{}", tensor(inside)?))
    }

    /// The heads that the rows of the module's weight belong to, if they are reordered.
    pub(crate) fn heads(&self, module: &str) -> Option<usize> {
        let (queries, keys) = self.reordered?;
        match module.rsplit('.').next() {
            Some("q_proj") => Some(queries),
            Some("k_proj") => Some(keys),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(model_type: &str, tied: bool) -> Option<Layout> {
        let mut config = ModelConfig { model_type: Some(model_type.to_owned()), tied, ..ModelConfig::default() };
        config.attention_heads = Some(8);
        config.cache.heads = Some(2);
        Layout::new(&config)
    }

    #[test]
    fn names_of_weights() {
        let llama = layout("llama", false).unwrap();
        assert_eq!(llama.tensor("model.layers.3.self_attn.q_proj").as_deref(), Some("blk.3.attn_q"));
        assert_eq!(llama.tensor("lm_head").as_deref(), Some("output"));
        assert_eq!(layout("llama", true).unwrap().tensor("lm_head"), None);
        assert_eq!(llama.tensor("model.layers.3.mlp.experts.0.up_proj"), None);
        let gpt2 = layout("gpt2", true).unwrap();
        assert_eq!(gpt2.tensor("transformer.h.11.attn.c_attn").as_deref(), Some("blk.11.attn_qkv"));
        assert_eq!(layout("bert", false), None);
    }

    #[test]
    fn heads_of_reordered_rows() {
        let heads = |model_type: &str, leaf: &str| {
            layout(model_type, false).unwrap().heads(&format!("model.layers.0.self_attn.{leaf}"))
        };
        assert_eq!((heads("mistral", "q_proj"), heads("mistral", "k_proj")), (Some(8), Some(2)));
        assert_eq!((heads("llama", "v_proj"), heads("qwen2", "q_proj")), (None, None));
    }
}
