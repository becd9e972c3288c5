//! The names of the ONNX Runtime genai builder, which renames and repacks modules.

use crate::linear::candidate::Candidate;
use crate::linear::layer::{Part, Slice};
use crate::onnx::{Graph, Model};

/// Architectures whose own checkpoints pack q|k|v and gate|up.
const PACKED: [&str; 2] = ["phi3", "phi3v"];

/// Architectures that call their modules as Llama does, which is what the builder calls all.
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

const UNKNOWN: &str = "the builder calls the modules of all architectures alike: genai_config.json or config.json beside \
                       the model, or --checkpoint, would tell their own names";

/// Whether the builder made the model.
pub(crate) fn is_genai(model: &Model) -> bool {
    model.producer() == "onnxruntime-genai"
}

/// The PyTorch modules behind the builder's `module`, or why they cannot be told.
pub(crate) fn parts(
    graph: &Graph<'_>,
    candidate: &Candidate<'_>,
    module: &str,
    model_type: Option<&str>,
) -> Result<Vec<Part>, String> {
    let kind = model_type.map(str::to_lowercase).unwrap_or_default();
    let packed = PACKED.contains(&kind.as_str());
    if !packed && !LIKE_LLAMA.contains(&kind.as_str()) {
        return Err(UNKNOWN.to_owned());
    }
    let module = module.replace(".attn.", ".self_attn.");
    let (parent, leaf) = module.rsplit_once('.').unwrap_or(("", &module));
    match leaf {
        "qkv_proj" if !packed => split(graph, candidate, parent),
        "gate_proj" if packed => Ok(vec![half(parent, 0, candidate.out_features)]),
        "up_proj" if packed => Ok(vec![half(parent, candidate.out_features, candidate.out_features)]),
        _ => Ok(vec![Part { module, columns: None, slice: None }]),
    }
}

/// One half of a `gate_up_proj` that the builder splits.
fn half(parent: &str, start: usize, width: usize) -> Part {
    let slice = Slice { start, end: start + width, of: 2 * width };
    Part { module: format!("{parent}.gate_up_proj"), columns: None, slice: Some(slice) }
}

/// q, k and v side by side, with widths from the attention node of the same module.
fn split(graph: &Graph<'_>, candidate: &Candidate<'_>, parent: &str) -> Result<Vec<Part>, String> {
    let unknown = || "it packs q, k and v, and their widths cannot be told".to_owned();
    let (q, k) = widths(graph, candidate).ok_or_else(unknown)?;
    let part =
        |leaf: &str, start, end| Part { module: format!("{parent}.{leaf}"), columns: Some((start, end)), slice: None };
    Ok(vec![part("q_proj", 0, q), part("k_proj", q, q + k), part("v_proj", q + k, q + 2 * k)])
}

fn widths(graph: &Graph<'_>, candidate: &Candidate<'_>) -> Option<(usize, usize)> {
    let attention = attention(candidate.node.name())?;
    let (_, node) = graph.nodes(0).find(|(_, node)| {
        let path = node.name().rsplit_once('/').map(|(path, _)| path);
        path == Some(attention) && node.int("num_heads").is_some()
    })?;
    let heads = usize::try_from(node.int("num_heads")?).ok()?;
    let kv_heads = node.int("kv_num_heads").map_or(Some(heads), |heads| usize::try_from(heads).ok())?;
    let width = candidate.out_features;
    let all = heads.checked_add(kv_heads.checked_mul(2)?)?;
    let size = width.checked_div(all).filter(|size| size * all == width)?;
    Some((heads * size, kv_heads * size))
}

/// `/model/layers.0/attn` of `/model/layers.0/attn/qkv_proj/MatMul`.
fn attention(node: &str) -> Option<&str> {
    let (module, _) = node.rsplit_once('/')?;
    module.rsplit_once('/').map(|(attention, _)| attention)
}
