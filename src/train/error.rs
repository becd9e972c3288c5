//! What stops a training.

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
    /// The logits are not those of a language model.
    #[error("the output `{output}` is not [batch, length, vocabulary] of floats, as that of a language model is")]
    Logits {
        /// The output.
        output: String,
    },
    /// No row has a token to predict.
    #[error("no row of the data has a token to predict")]
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
    /// The model has an encoder and a decoder.
    #[error("the model is the decoder of an encoder-decoder, which cannot be trained yet")]
    EncoderDecoder,
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
                "export the model with its head, for example with `optimum-cli export onnx --task text-generation`"
            }
            Self::Logits { .. } | Self::EncoderDecoder => "only causal language models can be trained so far",
            Self::Adapter { .. } => "start from an adapter of `eva-onnx init`, or from a plain LoRA adapter of PEFT",
            Self::NoTargets => "give rows of at least two tokens whose labels are not all -100",
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
