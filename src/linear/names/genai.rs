//! The names of the ONNX Runtime genai builder, which renames and repacks modules.

use super::packed::side_by_side;
use crate::hub::conventions::{is_like_llama, packs_projections};
use crate::linear::candidate::Candidate;
use crate::linear::layer::{Part, Slice};
use crate::linear::module;
use crate::linear::reason::Reason;
use crate::onnx::{Graph, Model};

/// Whether the builder made the model.
pub(crate) fn is_genai(model: &Model) -> bool {
    model.producer() == "onnxruntime-genai"
}

/// The PyTorch modules behind the builder's `module`, or why they are not known.
pub(crate) fn parts(
    graph: &Graph<'_>,
    candidate: &Candidate<'_>,
    module: &str,
    model_type: Option<&str>,
) -> Result<Vec<Part>, Reason> {
    let model_type = model_type.map(str::to_lowercase).unwrap_or_default();
    let is_packed = packs_projections(&model_type);
    if !is_packed && !is_like_llama(&model_type) {
        return Err(Reason::UnknownArchitecture);
    }
    let module = module.replace(".attn.", ".self_attn.");
    let parent = module::parent(&module);
    let width = candidate.out_features;
    match module::leaf(&module) {
        "qkv_proj" if !is_packed => {
            let (q, k) = widths(graph, candidate).ok_or(Reason::UnknownWidths)?;
            Ok(side_by_side(parent, ["q_proj", "k_proj", "v_proj"], [q, k, k]))
        }
        "gate_proj" if is_packed => Ok(vec![half(parent, 0, width)]),
        "up_proj" if is_packed => Ok(vec![half(parent, width, width)]),
        _ => Ok(vec![Part::whole(module)]),
    }
}

/// One half of a `gate_up_proj` that the builder splits.
fn half(parent: &str, start: usize, width: usize) -> Part {
    let slice = Slice { start, end: start + width, of: 2 * width };
    Part { module: format!("{parent}.gate_up_proj"), columns: None, slice: Some(slice) }
}

/// The widths of q and k, from the attention node of the same module.
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
