//! Why an adapter cannot go into a model.

use crate::dtype::DType;
use crate::hint::Hint;
use crate::linear::Fused;
use crate::onnx;
use std::fmt::{self, Write};
use std::io;

/// Why an adapter cannot go into a model.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Modules of the adapter are not in the model, or have other sizes there.
    #[error("{}", misfit(unknown, shapes, *modules))]
    Misfit {
        /// Modules that the model does not have.
        unknown: Vec<String>,
        /// Modules with other sizes.
        shapes: Vec<OtherShape>,
        /// Number of modules of the adapter.
        modules: usize,
    },
    /// The layer is in a local function, which sees no tensors of the graph.
    #[error("module `{module}` is in the {function} of the model, which cannot hold an adapter")]
    InFunction {
        /// The module.
        module: String,
        /// `function domain::name`.
        function: String,
    },
    /// No tensor holds the result of the layer.
    #[error("module `{module}` cannot get a branch: {reason}")]
    Fused {
        /// The module.
        module: String,
        /// Why.
        reason: Fused,
    },
    /// The model has been spliced before.
    #[error("the model holds an adapter of eva-onnx already")]
    Spliced,
    /// The operator set is too old for the new nodes.
    #[error("the model uses operator set {opset}, and the adapter needs {needed} or later")]
    Opset {
        /// What the model imports.
        opset: i64,
        /// The oldest that works.
        needed: i64,
    },
    /// `B A` cannot be added to the weight of a module.
    #[error("module `{module}` cannot be merged: {reason}")]
    NotMergeable {
        /// The module.
        module: String,
        /// Why.
        reason: Unmergeable,
        /// Whether a branch beside the layer is possible.
        has_branch: bool,
    },
    /// A trained parameter of the adapter's file has no place in the model.
    #[error("the adapter's file has `{parameter}` of module `{module}`, which cannot be put into the model: {reason}")]
    NotPlaced {
        /// The module.
        module: String,
        /// The parameter.
        parameter: String,
        /// Why.
        reason: Box<Unplaceable>,
    },
    /// DoRA scales the whole weight.
    #[error("module `{module}` has DoRA, which scales the whole weight and is no branch beside it")]
    Dora {
        /// The module.
        module: String,
    },
    /// The weights that the adapter belongs to cannot be computed.
    #[error(
        "the adapter belongs to weights that `init_lora_weights` {init} changed, and that of module `{module}` cannot be \
         computed: {reason}"
    )]
    NoBase {
        /// The module.
        module: String,
        /// How the adapter began.
        init: &'static str,
        /// Why.
        reason: Unmergeable,
    },
    /// The adapter's file holds the weight of a module, and it is not the model's.
    #[error(
        "the adapter was trained with another weight of module `{module}` than the model's: its file holds that weight"
    )]
    OtherWeight {
        /// The module.
        module: String,
    },
    /// Merged weights could not be written.
    #[error("cannot write merged weights: {source}")]
    Write {
        /// Why.
        source: io::Error,
    },
    /// The edit was refused.
    #[error(transparent)]
    Onnx(#[from] onnx::Error),
}

/// A module with other sizes in the adapter than in the model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtherShape {
    /// The module.
    pub module: String,
    /// Input and output features in the adapter.
    pub in_adapter: (usize, usize),
    /// Input and output features in the model.
    pub in_model: (usize, usize),
}

impl fmt::Display for OtherShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (adapter_in, adapter_out) = self.in_adapter;
        let (model_in, model_out) = self.in_model;
        let module = &self.module;
        write!(f, "`{module}` ({adapter_in} to {adapter_out} in the adapter, {model_in} to {model_out} in the model)")
    }
}

/// Why a weight cannot be merged, as a clause.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unmergeable {
    /// The graph does not have the node of the layer.
    #[error("its node is not in the graph")]
    NoNode,
    /// The operator takes quantized weights.
    #[error("the weight of a {op} is quantized, and would have to be quantized anew")]
    QuantizedOperator {
        /// The operator.
        op: String,
    },
    /// The weight is the result of a dequantization.
    #[error("its weight is quantized, and would have to be quantized anew")]
    Quantized,
    /// The weight is computed.
    #[error("its weight is not a constant")]
    NotConstant,
    /// The weight is stored as something else than `f32`, `f16` or `bf16`.
    #[error("its weight has type {dtype}")]
    Type {
        /// The type.
        dtype: DType,
    },
    /// The weight is not stored as a matrix.
    #[error("its weight is stored with {dimensions} dimensions")]
    NotMatrix {
        /// Number of dimensions.
        dimensions: usize,
    },
    /// An embedding has the same weight.
    #[error("its weight is also that of an embedding, and PEFT changes both")]
    Tied,
    /// The scale of the adapter is zero.
    #[error("its alpha is 0")]
    NoScale,
    /// The weight has values that are not finite.
    #[error("its weight is not finite")]
    NotFinite,
    /// The weight is not as large as the layer needs.
    #[error("its weight has shape {shape:?}, not that of the layer")]
    Shape {
        /// The shape it is stored with.
        shape: Vec<i64>,
    },
}

/// Why a trained parameter has no place, as a clause.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unplaceable {
    /// Nothing of that name is known.
    #[error("the model has no such module")]
    Unknown,
    /// The module is a part of a node.
    #[error("its node computes other modules or functions too")]
    Packed,
    /// Other nodes read the same tensor.
    #[error("other parts of the model read the same tensor")]
    Shared,
    /// The model has another shape.
    #[error("its shape is {saved:?}, and {model:?} in the model")]
    Shape {
        /// In the adapter's file.
        saved: Vec<usize>,
        /// In the model.
        model: Vec<usize>,
    },
    /// The model stores it in another type than `f32`, `f16` or `bf16`.
    #[error("the model stores it as {dtype}")]
    Type {
        /// The type.
        dtype: DType,
    },
}

impl Hint for Error {
    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Misfit { unknown, .. } if !unknown.is_empty() => {
                "`eva-onnx inspect` lists the modules of the model; --rename, --strip-prefix and --add-prefix adjust \
                 their names to the adapter's"
            }
            Self::Misfit { .. } => "the adapter belongs to another model, or to another size of it",
            Self::InFunction { .. } => "inline the local functions of the model, for example with onnx.inliner",
            Self::Fused { .. } => {
                "use the model as it was exported, before ONNX Runtime's optimizer fused its nodes; the adapter for PEFT \
                 does not need the branch, nor does a merged model, if no weight is quantized"
            }
            Self::Spliced => "splice the model that this one was made from",
            Self::Opset { .. } => "export the model again with a later operator set",
            Self::NotPlaced { reason, .. } if **reason == Unplaceable::Unknown => {
                "`eva-onnx inspect` shows whether the model has it under another name, or without one: --rename, \
                 --checkpoint and --trust-node-names adjust the names; or merge the adapter into its model with PEFT and \
                 export the model again"
            }
            Self::NotPlaced { .. } | Self::NotMergeable { has_branch: false, .. } => {
                "merge the adapter into its model with PEFT and export the model again"
            }
            Self::Dora { .. } => "splice it with --as merged",
            Self::NotMergeable { .. } => {
                "splice the adapter as trainable or as adapter-inputs, which leave the weights unchanged"
            }
            Self::NoBase { reason: Unmergeable::Tied, .. } => {
                "merge the adapter into its model with PEFT and export the model again"
            }
            Self::NoBase { .. } => {
                "splice the adapter into the export of the original model in f32 or f16; or give PEFT's \
                 `save_pretrained` the adapter as it was before the training, as \
                 `path_initial_model_for_weight_conversion`, and splice the plain adapter that it then saves"
            }
            Self::OtherWeight { .. } => {
                "the vocabulary or the head was changed before the training: merge the adapter into its model with PEFT \
                 and export the model again"
            }
            Self::Write { .. } => "free some space, or give an output on another disk",
            Self::Onnx(error) => return error.hint(),
        };
        Some(hint.to_owned())
    }
}

/// Most names that a message lists.
const LISTED: usize = 12;

fn misfit(unknown: &[String], shapes: &[OtherShape], modules: usize) -> String {
    let mut text = "the adapter does not fit the model".to_owned();
    let mut list = |what: &str, entries: Vec<String>| {
        if entries.is_empty() {
            return;
        }
        let _ = write!(text, "; {} of its {modules} modules {what}: ", entries.len());
        text += &entries.iter().take(LISTED).cloned().collect::<Vec<_>>().join(", ");
        if entries.len() > LISTED {
            let _ = write!(text, " and {} more", entries.len() - LISTED);
        }
    };
    list("are not in it", unknown.iter().map(|name| format!("`{name}`")).collect());
    list("have other sizes there", shapes.iter().map(OtherShape::to_string).collect());
    text
}
