//! The linear layers of a model as values.

use super::reason::{Fused, Reason};
use crate::checkpoint::Checkpoint;
use crate::dtype::DType;
use serde::{Deserialize, Serialize};

/// A linear layer `y = x W (+ b)` of the main graph or of a branch of an `If`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Linear {
    /// The node that computes it.
    pub at: Location,
    /// The tensor x, whose last axis has `in_features` entries.
    pub input: LayerInput,
    /// The tensor x W.
    pub output: LayerOutput,
    /// The matrix W and the bias b.
    pub weight: LayerWeight,
    /// Width of x.
    pub in_features: usize,
    /// Width of y.
    pub out_features: usize,
    /// The PyTorch modules that the node computes; several if a tool packed them.
    pub modules: Vec<Part>,
    /// Where the module names come from.
    pub named_by: NamedBy,
    /// Whether this is the output head of the model, which `all-linear` leaves out.
    ///
    /// A head is a layer whose result becomes a graph output with `logits` in its name, through nothing but a constant
    /// added, multiplied or divided, casts, tanh, quantization, slices and reshapes; or a layer that shares its weight
    /// with an embedding; or one whose module is called like a head (`lm_head`, `embed_out`, `score`, `classifier`) and
    /// is not inside a numbered block. PEFT leaves out the output embedding and, for sequence classification, `score`
    /// or `classifier`.
    pub head: bool,
    /// Whether it is in a branch of an `If` that something other than a graph input decides on, so that it may not run.
    pub conditional: bool,
}

/// A node of a model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Location {
    /// Its name; may be empty in files that optimizers rewrote.
    pub node: String,
    /// Its operator type.
    pub op: String,
    /// The path to its subgraph: empty for the main graph, else one step per subgraph.
    pub subgraph: Vec<String>,
}

/// What a layer reads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LayerInput {
    /// Name of the tensor.
    pub tensor: String,
    /// The path to the subgraph that defines the tensor, which may be one around the layer's.
    pub subgraph: Vec<String>,
    /// Whether the rows are the tokens that a router sent to the layer, as with the experts of a mixture: any number of
    /// them in a batch, possibly none, in unknown order.
    pub routed: bool,
    /// Whether the tensor depends only on the shapes of the graph inputs, as relative positions do. Such calls are
    /// ignored in favour of the module's other calls.
    pub constant: bool,
}

/// What a layer returns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LayerOutput {
    /// Name of the tensor x W, before a bias that a later node adds; the node's result where `fused` is set.
    pub tensor: String,
    /// Why x W is not a tensor of the graph, if so. The layer can be initialised, but no LoRA branch can be added to
    /// it.
    pub fused: Option<Fused>,
}

/// The parameters of a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerWeight {
    /// The initializer or `Constant` that stores W, before any transposition, cast or dequantization.
    pub tensor: String,
    /// Element type that the product is computed in.
    pub dtype: DType,
    /// The initializer that stores b.
    pub bias: Option<String>,
    /// Whether the PyTorch module stores its weight as [in, out] (the `Conv1D` of GPT-2), which PEFT has to know.
    pub fan_in_fan_out: bool,
}

/// One PyTorch module computed by a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Dotted path of the module.
    pub module: String,
    /// The half-open range of the node's output features that belong to it; `None` for all of them.
    pub columns: Option<(usize, usize)>,
    /// Which of the module's output features the node computes; `None` for all of them.
    pub slice: Option<Slice>,
}

impl Part {
    /// A module that has all output features of the node, and no others.
    pub fn whole(module: impl Into<String>) -> Part {
        Part { module: module.into(), columns: None, slice: None }
    }

    /// Output features of the module; `linear` is the layer that computes it.
    pub fn out_features(&self, linear: &Linear) -> usize {
        match (self.slice, self.columns) {
            (Some(slice), _) => slice.of,
            (None, Some((from, to))) => to - from,
            (None, None) => linear.out_features,
        }
    }
}

/// A range of the output features of a module that several nodes compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slice {
    /// The first feature.
    pub start: usize,
    /// The feature after the last.
    pub end: usize,
    /// How many features the module has.
    pub of: usize,
}

/// Where the name of a module comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NamedBy {
    /// The module path that the dynamo exporter records with the node.
    Scopes,
    /// The name of the weight.
    Weight,
    /// The name of the bias.
    Bias,
    /// The name of the node.
    Node,
    /// The name of the node's output.
    Output,
    /// The name of the result of the attention that the layer is fused with.
    Attention,
    /// The weight, compared with those of a checkpoint.
    Checkpoint,
    /// The graph, whose own names are taken.
    Graph,
}

impl NamedBy {
    /// The word for it in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            NamedBy::Scopes => "scopes",
            NamedBy::Weight => "weight",
            NamedBy::Bias => "bias",
            NamedBy::Node => "node",
            NamedBy::Output => "output",
            NamedBy::Attention => "attention",
            NamedBy::Checkpoint => "checkpoint",
            NamedBy::Graph => "graph",
        }
    }
}

/// Names of the graph that stand for those of PyTorch modules, where no PyTorch model exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GraphNames {
    /// Those of the weights.
    Weights,
    /// Those of the nodes.
    Nodes,
}

impl GraphNames {
    /// The word for them on the command line and in files.
    pub fn as_str(self) -> &'static str {
        match self {
            GraphNames::Weights => "weights",
            GraphNames::Nodes => "nodes",
        }
    }
}

/// A node with a constant operand that is not used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// Name of the node, or of its first output if it has none.
    pub node: String,
    /// Its operator type.
    pub op: String,
    /// The modules that it computes, where their names are known.
    pub modules: Vec<String>,
    /// Why it is not used.
    pub reason: Reason,
}

/// What is known of a model beside its graph.
#[derive(Clone, Copy, Default)]
pub struct Known<'a> {
    /// `model_type` of its `config.json`, for example `llama`.
    pub model_type: Option<&'a str>,
    /// The class of the whole model, for example `LlamaForCausalLM`.
    pub architecture: Option<&'a str>,
    /// The weights that it was exported from, by name.
    pub checkpoint: Option<&'a Checkpoint>,
    /// The names of the graph that stand for those of PyTorch modules, if they do.
    pub graph_names: Option<GraphNames>,
    /// Whether to accept names from the paths in the names of nodes that nothing else confirms.
    pub trust_node_names: bool,
}

/// Whether all layers compute in 16 bits.
pub fn in_half(linears: &[Linear]) -> bool {
    !linears.is_empty() && linears.iter().all(|linear| linear.weight.dtype.is_half())
}
