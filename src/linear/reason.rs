//! Why a node that looks like a linear layer is not used, or not as one.

use crate::dtype::DType;

/// Why a node with a constant operand is not used. Displayed as a clause about the node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// It computes `W x`.
    #[error("its constant is on the left")]
    ConstantLeft,
    /// It multiplies something other than floats.
    #[error("it multiplies values of type {dtype}")]
    NotFloat {
        /// The element type.
        dtype: DType,
    },
    /// The shape of the constant is not known.
    #[error("its constant passes through a reshape that cannot be followed")]
    UnknownShape,
    /// The constant is a vector or a batch of matrices.
    #[error("its constant has {axes} {}", if *axes == 1 { "dimension" } else { "dimensions" })]
    NotMatrix {
        /// Number of axes.
        axes: usize,
    },
    /// The constant has no elements.
    #[error("its constant has shape {dims:?}")]
    Empty {
        /// The shape.
        dims: Vec<i64>,
    },
    /// It computes `x^T W`.
    #[error("it transposes its input")]
    TransposesInput,
    /// Its input is not a float tensor, nor is one quantized to it.
    #[error("its input exists in quantized form only")]
    QuantizedInput,
    /// The scale of a quantized weight is computed.
    #[error("the scale of its weight is not constant")]
    ScaleNotConstant,
    /// A `MatMulNBits` or `MatMulBnb4` without sizes.
    #[error("its attributes K and N are missing")]
    NoSizes,
    /// A fused mixture of experts.
    #[error("it computes all experts of a layer in one operator")]
    Experts,
    /// It is in a loop or a local function, whose tensors are computed several times in a run.
    #[error("it is inside the {kind} `{path}`, and only layers of the main graph and of `If` branches are used")]
    Repeated {
        /// `loop` or `local function`.
        kind: &'static str,
        /// The path to it.
        path: String,
    },
    /// Its branch may not run.
    #[error("it is inside the branch `{path}`, and what the model computes decides whether that runs")]
    Conditional {
        /// The path to it.
        path: String,
    },
    /// Its input is computed from constants and shapes alone.
    #[error("its input does not depend on the data")]
    ConstantInput,
    /// Its weight is a bare parameter or part of a packed projection.
    #[error("its weight is not the weight of a PyTorch linear module")]
    BareParameter,
    /// It belongs to a module such as a router.
    #[error("its module is not a linear layer but of a class that may do more")]
    OtherClass,
    /// PyTorch reads its weight without calling the module.
    #[error(
        "PyTorch never calls its module, as with `out_proj` of nn.MultiheadAttention: the module around it reads the \
         weight, so that PEFT's LoRA has no effect and does not train"
    )]
    Bypassed,
    /// Nothing in the file names it.
    #[error("the file does not record its PyTorch module; --checkpoint can find the name by comparing weights")]
    Unnamed,
    /// The graph gives its node no name, and is asked for one.
    #[error("its node has no name; --names weights takes that of its weight")]
    NodeWithoutName,
    /// Only a path names it, and nothing confirms the path.
    #[error(
        "only the path in its node's name names it, and paths may leave out containers; --checkpoint can find the name, \
         --trust-node-names accepts the path"
    )]
    Uncertain,
    /// The genai builder made the file, and the architecture is not known.
    #[error(
        "the builder gives modules of all architectures the same names; genai_config.json or config.json beside the \
         model, or --checkpoint, are needed for the original names"
    )]
    UnknownArchitecture,
    /// Packed projections of unknown widths.
    #[error("it packs q, k and v, and their widths are not recorded")]
    UnknownWidths,
    /// Packed projections of unknown names.
    #[error("it packs the projections of `{parent}`, whose names are not in the file; --checkpoint can find them")]
    UnknownProjections {
        /// The module around them.
        parent: String,
    },
    /// It is part of a LoRA branch.
    #[error("it belongs to an adapter that is already in the graph")]
    Adapter,
    /// Its name would not be unique.
    #[error("several layers with different weights would be called `{module}`")]
    ClaimedTwice {
        /// The name.
        module: String,
    },
    /// The checkpoint has its weight several times.
    #[error("its weight is that of `{}` in the checkpoint, and which of them is unknown", modules.join("` and of `"))]
    SeveralInCheckpoint {
        /// Their names.
        modules: Vec<String>,
    },
    /// The checkpoint has its weight as an embedding.
    #[error("its weight is that of the embedding `{module}`, and the checkpoint has no name for the layer itself")]
    EmbeddingInCheckpoint {
        /// The embedding.
        module: String,
    },
    /// The checkpoint has its weight as a parameter that is not called `weight`.
    #[error("its weight is the parameter `{name}`, which is not the weight of a linear module")]
    ParameterInCheckpoint {
        /// Name of the parameter.
        name: String,
    },
}

/// Why the product of a layer is not a tensor of the graph. Displayed as a clause about the layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fused {
    /// An `Attention` node computes the projections of q, k and v itself.
    #[error("its projections are fused with the attention, so their result is not a tensor of the graph")]
    Attention,
    /// A `FusedGemm` applies an activation function.
    #[error("it is fused with an activation function, so its own result is not a tensor of the graph")]
    Activation,
    /// A factor `alpha`.
    #[error("it scales its result, so the unscaled one is not a tensor of the graph")]
    Scaled,
    /// The next node reads integers.
    #[error("its result is used in quantized form and is not a float tensor of the graph")]
    Quantized,
    /// The scales of a product of integers are applied later.
    #[error("the scales of its result are not applied right after it")]
    LateScales,
}
