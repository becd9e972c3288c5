//! Which module paths in the names of nodes are certain.
//!
//! TorchScript writes the modules whose `forward` was running. A container whose children are called directly
//! (`nn.ModuleDict`, a module that only holds others) is missing there, and a bare parameter looks like the weight of a
//! layer. So a path counts only if the names of parameters confirm how it begins, and if transformer architectures
//! call layers in such a place as its end does.

use std::collections::{BTreeSet, HashMap};

use super::NamedBy;
use super::names::{Named, base_name, is_invented};
use super::path::Leaves;
use super::target::is_suffix;
use crate::onnx::{Graph, Origin};

const UNCERTAIN: &str = "the path in its node's name, which may leave out containers, is all that names it; \
                         --checkpoint would tell its name, --trust-node-names takes it from the path";

/// What layers without a bias are called by the module around them, numbers left out, in the architectures of
/// transformers and in the first implementations of GPT-2 and Llama.
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
    ("layers", "fc1 fc2"),
    ("mixer mamba", "in_proj x_proj out_proj"),
    ("decoder", "project_in project_out"),
    ("downsample", "reduction"),
    ("intermediate output head", "dense"),
    ("router", "classifier layer"),
    ("predictions lm_head", "decoder"),
];

/// Layers beside the body of a model.
const HEADS: &str = "lm_head embed_out output_projection proj_out score text_projection visual_projection";

/// What the modules around those of [`LAYERS`] are called.
const AROUND: &str = "model transformer encoder decoder language_model text_model vision_model layers layer block h";

fn is_one_of(words: &str, name: &str) -> bool {
    words.split(' ').any(|word| word == name)
}

/// The modules of a model, as far as its parameters and nodes tell.
struct Modules<'a> {
    /// Modules that have a parameter under its own name, and those around them.
    with_parameters: BTreeSet<String>,
    leaves: &'a Leaves,
}

impl<'a> Modules<'a> {
    /// Reads the names of the tensors that nodes of the main graph and its subgraphs use.
    fn new(graph: &Graph<'_>, leaves: &'a Leaves) -> Modules<'a> {
        let mut with_parameters = BTreeSet::new();
        for scope in 0..graph.scopes() {
            for (_, node) in graph.nodes(scope) {
                let stored = |name: &&String| matches!(graph.origin(scope, name), Some(Origin::Initializer(_)));
                let parameters = node.inputs().iter().filter(stored);
                // Where exporters merge equal tensors, the other names stay with an `Identity`.
                let merged = node.outputs().iter().filter(|_| node.op() == "Identity");
                for name in parameters.chain(merged).map(|name| base_name(name)).filter(|name| !is_invented(name)) {
                    with_parameters.extend(name.match_indices('.').map(|(at, _)| name[..at].to_owned()));
                }
            }
        }
        Modules { with_parameters, leaves }
    }

    /// The module whose path in the name of a node is `path`, with the containers that the path leaves out at its start,
    /// and whether that is certain.
    fn complete(&self, path: &str, known: &mut HashMap<String, Around>) -> (String, bool) {
        for (cut, _) in path.rmatch_indices('.') {
            let start = &path[..cut];
            let around = known.entry(start.to_owned()).or_insert_with(|| self.around(start));
            match around {
                Around::Unknown => {}
                Around::Ambiguous => return (path.to_owned(), false),
                Around::Module { module, hides } => {
                    return (format!("{module}{}", &path[cut..]), !*hides && is_conventional(path, cut + 1));
                }
            }
        }
        let mut hidden = self.hidden("", "");
        let certain = match is_one_of(HEADS, path) {
            true => hidden.all(|container| is_one_of(AROUND, container)),
            false => hidden.next().is_none() && is_conventional(path, 0),
        };
        (path.to_owned(), certain)
    }

    /// The one module with parameters whose path ends as `start` does, unless nodes have its whole path in their names.
    fn around(&self, start: &str) -> Around {
        let own = self.with_parameters.get(start).into_iter();
        let longer = self.with_parameters.iter().filter(|name| name.len() > start.len() && is_suffix(name, start));
        let mut all = own.chain(longer.filter(|name| !self.leaves.has(name)));
        match (all.next(), all.next()) {
            (None, _) => Around::Unknown,
            (Some(module), None) => {
                Around::Module { module: module.clone(), hides: self.hidden(start, module).next().is_some() }
            }
            (Some(_), Some(_)) => Around::Ambiguous,
        }
    }

    /// Containers inside `module` that paths leave out: parameters are called after them, and nodes only after what is
    /// inside them.
    fn hidden<'s>(&'s self, start: &'s str, module: &'s str) -> impl Iterator<Item = &'s str> {
        let join = move |name: &str| if start.is_empty() { name.to_owned() } else { format!("{start}.{name}") };
        self.with_parameters.iter().filter_map(move |name| {
            let rest = if module.is_empty() { name } else { name.strip_prefix(module)?.strip_prefix('.')? };
            let (container, inner) = rest.split_once('.')?;
            let hidden =
                !self.leaves.has(&join(container)) && inner.split('.').any(|name| self.leaves.has(&join(name)));
            hidden.then_some(container)
        })
    }
}

/// What is known of the beginning of a path.
enum Around {
    Unknown,
    Ambiguous,
    Module { module: String, hides: bool },
}

/// Whether architectures call a layer as `path` says, of which the first `sure` bytes are known already.
fn is_conventional(path: &str, sure: usize) -> bool {
    let (before, leaf) = path.rsplit_once('.').unwrap_or(("", path));
    let is_number = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let parent = before.rsplit('.').find(|part| !is_number(part)).unwrap_or_default();
    let is_parent = |part: &str| LAYERS.iter().any(|(parents, _)| is_one_of(parents, part));
    let listed = LAYERS.iter().any(|(parents, leaves)| is_one_of(parents, parent) && is_one_of(leaves, leaf));
    let mut unsure = before.get(sure..).unwrap_or_default().split('.');
    (listed || is_one_of(HEADS, leaf))
        && unsure.all(|part| is_number(part) || is_one_of(AROUND, part) || is_parent(part))
}

/// Completes the paths in `names` that nodes or tensors gave, and tells which layers' paths are not certain.
pub(crate) fn complete(graph: &Graph<'_>, leaves: &Leaves, names: &mut [Named]) -> HashMap<usize, String> {
    let modules = Modules::new(graph, leaves);
    let mut known = HashMap::new();
    let mut uncertain = HashMap::new();
    for (index, named) in names.iter_mut().enumerate() {
        let Ok((module, by)) = &mut named.module else { continue };
        // A fused attention is named after the module around its projections.
        let inside = match by {
            NamedBy::Node | NamedBy::Output => "",
            NamedBy::Attention => ".query",
            _ => continue,
        };
        let (whole, certain) = modules.complete(&format!("{module}{inside}"), &mut known);
        *module = whole[..whole.len() - inside.len()].to_owned();
        if !certain {
            uncertain.insert(index, UNCERTAIN.to_owned());
        }
    }
    uncertain
}
