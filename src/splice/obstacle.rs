//! What keeps ONNX Runtime Training from training a graph.

use crate::dtype::DType;

/// Why ONNX Runtime Training cannot train a graph, as a clause.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Obstacle {
    /// There is nothing to compute a loss of.
    #[error("it has no output")]
    NoOutput,
    /// An output that may hold anything.
    #[error("its output `{output}` is not known to be the logits of an output head")]
    NoHead {
        /// The output.
        output: String,
    },
    /// The model is trained with another loss.
    #[error("its class {architecture} is trained with another loss than those known here")]
    OtherLoss {
        /// Its class in transformers.
        architecture: String,
    },
    /// The logits do not have the shape that the loss needs.
    #[error("its output `{output}` has {}, which is not the shape of logits for the loss {task}", rank_text(Some(*.rank)))]
    LossRank {
        /// The output.
        output: String,
        /// The number of its dimensions.
        rank: usize,
        /// The loss.
        task: &'static str,
    },
    /// The cross entropy of one class is always zero.
    #[error("its output `{output}` has one class, whose cross entropy is always zero")]
    OneClass {
        /// The output.
        output: String,
    },
    /// The output does not depend on the adapter.
    #[error("no module of the adapter has an effect on its output `{output}`")]
    NoModule {
        /// The output.
        output: String,
    },
    /// The logits are not `f32`.
    #[error("its output `{output}` has type {dtype}, and the loss needs f32")]
    LogitsType {
        /// The output.
        output: String,
        /// Its type.
        dtype: DType,
    },
    /// The shape of the logits does not say what the loss is.
    #[error("its output `{output}` has {}, and --loss says what it means", rank_text(*.rank))]
    LogitsRank {
        /// The output.
        output: String,
        /// The number of its dimensions, where known.
        rank: Option<usize>,
    },
    /// The number of classes is not known.
    #[error("the width of its output `{output}` is not known")]
    LogitsWidth {
        /// The output.
        output: String,
    },
    /// The operator set is unknown to ONNX Runtime Training.
    #[error("it uses operator set {opset}, and only {first} to {last} are known there")]
    Opset {
        /// What the model imports.
        opset: i64,
        /// The oldest that is known.
        first: i64,
        /// The newest that is known.
        last: i64,
    },
    /// A normalization without a bias whose width is not known.
    #[error("the scale of the normalization `{node}` is not a constant")]
    NormalizationScale {
        /// The node.
        node: String,
    },
    /// A transposition that gives no order of axes, of a tensor whose rank is not known.
    #[error("the order of the axes of `{node}` is not given")]
    TransposeOrder {
        /// The node.
        node: String,
    },
    /// A slice with a negative step.
    #[error("`{node}` slices backwards, which has no gradient there")]
    SlicesBackwards {
        /// The node.
        node: String,
    },
    /// A split with unused results, whose sizes are not known.
    #[error("`{node}` splits into parts of unknown sizes, of which some are unused")]
    SplitSizes {
        /// The node.
        node: String,
    },
    /// An operator without gradient between the adapter and the loss.
    #[error("the operator {op} (`{node}`{}) has no gradient there", more_text(*.more))]
    NoGradient {
        /// The operator, with its domain unless that is the default one.
        op: String,
        /// The first node with it.
        node: String,
        /// How many more there are.
        more: usize,
    },
    /// A subgraph reads what depends on the adapter.
    #[error("the subgraph `{path}` depends on the adapter, and has no gradient there")]
    Subgraph {
        /// The path of the subgraph.
        path: String,
    },
}

/// What to do about them.
pub(super) fn training_hint(obstacles: &[Obstacle]) -> &'static str {
    match obstacles.first() {
        Some(Obstacle::NoHead { .. }) => {
            "export the model with its head, for example as its class ForCausalLM or ForSequenceClassification; if that \
             output does hold logits, say with --loss of what; or leave out --ort-training and train the adapter with PEFT"
        }
        Some(Obstacle::OtherLoss { .. } | Obstacle::LossRank { .. }) => {
            "choose with --loss the one that fits the labels, if one does; or leave out --ort-training and train the \
             adapter with PEFT"
        }
        Some(Obstacle::LogitsRank { .. }) => "give --loss",
        Some(Obstacle::OneClass { .. } | Obstacle::NoModule { .. } | Obstacle::NoOutput) => {
            "leave out --ort-training and train the adapter with PEFT"
        }
        _ => {
            "export the model in f32 with operator set 18, without optimizations of ONNX Runtime and without \
             quantization; or leave out --ort-training and train the adapter with PEFT"
        }
    }
}

fn rank_text(rank: Option<usize>) -> String {
    rank.map_or_else(|| "no known shape".to_owned(), |rank| format!("{rank} dimensions"))
}

fn more_text(more: usize) -> String {
    if more == 0 { String::new() } else { format!(" and {more} more") }
}
