//! The linear layers of a model as values.

use crate::checkpoint::Checkpoint;
use crate::dtype::DType;

/// A linear layer `y = x W (+ b)` of the main graph or of a branch of an `If`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Linear {
    /// Name of the node; may be empty in files rewritten by optimizers.
    pub node: String,
    /// Its operator type.
    pub op: String,
    /// Where the node lies: empty for the main graph, else one step per subgraph.
    pub scope: Vec<String>,
    /// The tensor x, whose last axis has `in_features` entries.
    pub input: String,
    /// Whether the rows of x are the tokens that a router sent to the layer, as with the experts of a mixture: any number of
    /// them in a batch, none included, and in no known order.
    pub routed: bool,
    /// Whether x depends on the sizes of the data at most, as with relative positions: what the module reads is told by
    /// its other calls.
    pub constant: bool,
    /// The tensor x W, before a bias that a later node adds; the node's result where [`Linear::fused`] says why.
    pub output: String,
    /// Why no tensor holds x W, where none does, as a clause. The layer has an input to learn from, but a branch cannot be
    /// added to its result.
    pub fused: Option<String>,
    /// The initializer or `Constant` that stores W, before any transposition, cast or dequantization.
    pub weight: String,
    /// Width of x.
    pub in_features: usize,
    /// Width of y.
    pub out_features: usize,
    /// Element type that the product is computed in, for example `f32`.
    pub dtype: DType,
    /// The initializer that stores b.
    pub bias: Option<String>,
    /// Whether the PyTorch module stores its weight as [in, out] (the `Conv1D` of GPT-2), which PEFT must be told.
    pub fan_in_fan_out: bool,
    /// The PyTorch modules that the node computes; several when a tool packed them.
    pub modules: Vec<Part>,
    /// Where the module names come from.
    pub named_by: NamedBy,
    /// Layers with equal numbers read the same tensor.
    pub group: usize,
    /// Whether this is the output head of the model, which `all-linear` leaves out.
    ///
    /// A head is a layer whose result becomes a graph output with `logits` in its name, through nothing but a constant
    /// added, multiplied or divided, casts, tanh, quantization, slices and reshapes; or a layer that shares its weight
    /// with an embedding; or one whose module is called like a head (`lm_head`, `embed_out`, `score`, `classifier`) and
    /// is not inside a numbered block. PEFT leaves out the output embedding and, for sequence classification, `score` or
    /// `classifier`.
    pub head: bool,
}

/// One PyTorch module computed by a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Dotted path of the module.
    pub module: String,
    /// The half-open range of the node's output features that belong to it; `None` for all of them.
    pub columns: Option<(usize, usize)>,
    /// Which of the module's output features the node computes, where it computes only some; `None` for all of them.
    pub slice: Option<Slice>,
}

impl Part {
    /// Output features of the whole module, which `linear` computes.
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
        }
    }
}

/// A node with a constant operand that is not used, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// Name of the node, or of its first output when it has none.
    pub node: String,
    /// Its operator type.
    pub op: String,
    /// Why, as a clause: "its constant has 3 dimensions".
    pub reason: String,
}

/// What is known of a model beside its graph.
#[derive(Clone, Copy, Default)]
pub struct Known<'a> {
    /// The name of its architecture, as in a `config.json`.
    pub model_type: Option<&'a str>,
    /// The class of the whole model, for example `LlamaForCausalLM`.
    pub architecture: Option<&'a str>,
    /// The weights that it was exported from, by name.
    pub checkpoint: Option<&'a Checkpoint>,
    /// Whether to take names from the paths in the names of nodes where nothing else confirms them.
    pub trust_node_names: bool,
}

/// Whether all layers compute in 16 bits.
pub fn in_half(linears: &[Linear]) -> bool {
    !linears.is_empty() && linears.iter().all(|linear| linear.dtype.is_half())
}
