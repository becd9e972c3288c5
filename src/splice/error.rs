//! Why an adapter cannot go into a model.

use crate::onnx;
use std::fmt::Write;
use std::io;

/// Why an adapter cannot go into a model.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Modules of the adapter are not in the model, or have other sizes there.
    #[error("{}", misfit(unknown, shapes, *modules))]
    Misfit {
        /// Modules that the model does not have.
        unknown: Vec<String>,
        /// Modules with other sizes: "`q`: 64 to 64 in the adapter, 64 to 32 in the model".
        shapes: Vec<String>,
        /// Number of modules of the adapter.
        modules: usize,
    },
    /// The layer is in a local function, which sees no tensors of the graph.
    #[error("module `{module}` lies in the {scope} of the model, which cannot hold an adapter")]
    InFunction {
        /// The module.
        module: String,
        /// `function domain::name`.
        scope: String,
    },
    /// No tensor holds the result of the layer.
    #[error("module `{module}` cannot get a branch: {reason}")]
    Fused {
        /// The module.
        module: String,
        /// Why, as a clause.
        reason: String,
    },
    /// The model has been spliced before.
    #[error("the model holds an adapter of eva-onnx already")]
    Spliced,
    /// The operator set is too old for the new nodes.
    #[error("the model uses operator set {opset}, and the adapter needs {needed} or later")]
    Opset {
        /// What the model imports.
        opset: i64,
        /// The least that works.
        needed: i64,
    },
    /// The weight of a module cannot take the product.
    #[error("module `{module}` cannot be merged: {reason}")]
    NotMergeable {
        /// The module.
        module: String,
        /// Why, as a clause.
        reason: String,
    },
    /// ONNX Runtime Training would not take the graph.
    #[error("ONNX Runtime Training 1.19.2 cannot train this model: {}", reasons.join("; "))]
    NotTrainable {
        /// Why, one clause each.
        reasons: Vec<String>,
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

impl Error {
    /// What the user can do about it, when there is something.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Misfit { unknown, .. } if !unknown.is_empty() => {
                "`eva-onnx inspect` lists the modules of the model; --rename, --strip-prefix and --add-prefix adjust \
                 their names to the adapter's"
            }
            Self::Misfit { .. } => "the adapter belongs to another model, or to another size of it",
            Self::InFunction { .. } => "inline the local functions of the model, for example with onnx.inliner",
            Self::Fused { .. } => {
                "use the model as it was exported, before ONNX Runtime's optimizer fused its nodes, or --as merged; PEFT \
                 and the other readers of the adapter are not concerned"
            }
            Self::Spliced => "splice the model that this one was made from",
            Self::Opset { .. } => "export the model again with a later operator set",
            Self::NotMergeable { .. } => "use --as trainable or --as adapter-inputs, which leave the weights alone",
            Self::NotTrainable { .. } => {
                "export the model in f32 with operator set 18, without optimizations of ONNX Runtime and without \
                 quantization; or leave out --ort-training and train the adapter with PEFT"
            }
            Self::Write { .. } => "free some space, or give an --out on another disk",
            Self::Onnx(error) => return error.hint(),
        };
        Some(hint.to_owned())
    }
}

/// Most names that a message lists.
const LISTED: usize = 12;

fn misfit(unknown: &[String], shapes: &[String], modules: usize) -> String {
    let mut text = "the adapter does not fit the model".to_owned();
    let mut list = |what: &str, entries: &[String]| {
        if entries.is_empty() {
            return;
        }
        let _ = write!(text, "; {} of its {modules} modules {what}: ", entries.len());
        text += &entries.iter().take(LISTED).cloned().collect::<Vec<_>>().join(", ");
        if entries.len() > LISTED {
            let _ = write!(text, " and {} more", entries.len() - LISTED);
        }
    };
    list("are not in it", unknown);
    list("have other sizes there", shapes);
    text
}
