//! What stops a training.

use super::kind::Loss;
use crate::hint::Hint;
use crate::{feeds, gradient, onnx, runtime, splice};

/// Why a model could not be trained.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The graph.
    #[error(transparent)]
    Onnx(#[from] onnx::Error),
    /// The adapter in the graph.
    #[error(transparent)]
    Splice(#[from] splice::Error),
    /// The gradient.
    #[error(transparent)]
    Gradient(#[from] gradient::Error),
    /// What the model is fed.
    #[error(transparent)]
    Feeds(#[from] feeds::Error),
    /// ONNX Runtime.
    #[error(transparent)]
    Runtime(#[from] runtime::Error),
    /// The model ends before the logits.
    #[error("the model has no output `logits` to compute a loss from; its outputs are {}", listed(outputs))]
    NoHead {
        /// Its outputs.
        outputs: Vec<String>,
    },
    /// The logits are not those that the loss takes.
    #[error("the output `{output}` is not {} of floats, which {} takes", loss.logits(), loss.as_str())]
    Logits {
        /// The output.
        output: String,
        /// The loss.
        loss: Loss,
    },
    /// Nothing says what the model was trained for.
    #[error("what the model predicts is not known: {reason}")]
    UnknownLoss {
        /// Why not.
        reason: String,
    },
    /// The model and its config.json have different numbers of classes.
    #[error("the output `{output}` has {model} classes, and config.json names {config}")]
    Classes {
        /// The output.
        output: String,
        /// Classes of the model.
        model: usize,
        /// Classes of config.json.
        config: usize,
    },
    /// The labels of the rows would be taken for an input.
    #[error("the model has an input `{input}`, which is where the labels of the rows are")]
    LabelInput {
        /// The input.
        input: &'static str,
    },
    /// No row has anything to predict.
    #[error("no row of the data has anything to predict")]
    NoTargets,
    /// The loss or the gradient is not finite.
    #[error("the {what} of step {step} is not finite")]
    NotFinite {
        /// Loss or gradient.
        what: &'static str,
        /// The step, counted from 1.
        step: usize,
    },
    /// The gradient is not that of the loss.
    #[error(
        "the gradient does not agree with the loss: along it the loss changes by {measured:.6e} a unit, and the gradient \
         says {expected:.6e}"
    )]
    Check {
        /// By finite differences.
        measured: f64,
        /// By the gradient.
        expected: f64,
    },
    /// A fused operator was not spelled out right.
    #[error("the loss is {spelled_out:.6e} with fused attentions spelled out, and {fused:.6e} as the model has them")]
    Outline {
        /// The loss with plain operators.
        spelled_out: f64,
        /// The loss with the model's operators.
        fused: f64,
    },
    /// The adapter is more than a product added to the model's weights.
    #[error("the adapter has {what}, which cannot be trained yet")]
    Adapter {
        /// What it has besides.
        what: &'static str,
    },
    /// A layer cannot be trained whole.
    #[error("`{module}` cannot be trained whole: {reason}")]
    NoHeadModule {
        /// The module, or the name that was given.
        module: String,
        /// Why not.
        reason: &'static str,
    },
    /// The step of a model in `f16` cannot be written as one graph.
    #[error("the model is in f16, whose gradients are scaled by a loop, so that its step is no graph of its own")]
    Scaled,
    /// The observer stopped before the first step.
    #[error("interrupted before the first step")]
    Interrupted,
}

impl Hint for Error {
    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Onnx(error) => return error.hint(),
            Self::Splice(error) => return error.hint(),
            Self::Gradient(error) => return error.hint(),
            Self::Feeds(error) => return error.hint(),
            Self::Runtime(error) => return error.hint(),
            Self::Interrupted => return None,
            Self::NoHead { .. } => {
                "export the model with its head, for example with `optimum-cli export onnx --task text-generation` or \
                 `text-classification`"
            }
            Self::Logits { .. } => "choose another loss with --loss, or export the model with its head",
            Self::UnknownLoss { .. } => "say it with --loss",
            Self::Classes { .. } => "put the config.json of the model that was exported beside it",
            Self::LabelInput { .. } => "export the model without its loss",
            Self::Adapter { .. } => "start from an adapter of `eva-onnx init`, or from a plain LoRA adapter of PEFT",
            Self::Scaled => "use an export in f32 or bf16",
            Self::NoTargets => {
                "give rows whose labels are not all -100; a language model needs at least two tokens a row"
            }
            Self::NoHeadModule { .. } => {
                "`eva-onnx inspect` lists the layers; --train-modules takes names of layers that are not adapted, such as `classifier` or `score`"
            }
            Self::NotFinite { .. } => "lower --lr, or use an export in f32",
            Self::Outline { .. } | Self::Check { .. } => {
                "please report the model; --no-check trains all the same, which may not lower the loss"
            }
        };
        Some(hint.to_owned())
    }
}

fn listed(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}
