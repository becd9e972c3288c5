//! What has no gradient.

use crate::hint::Hint;
use crate::onnx::NodeView;
use std::fmt;

/// The oldest operator set whose operators the gradients are made of: sizes and axes are inputs from here on.
pub(super) const OLDEST_OPSET: i64 = 13;

/// Why a graph cannot be differentiated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Nodes between the adapter and the loss have no rule.
    #[error("{}", listed(nodes))]
    NoGradient {
        /// The nodes, from the loss to the adapter.
        nodes: Vec<NoGradient>,
    },
    /// The operator set is older than the operators that gradients are made of.
    #[error("the model uses operator set {opset}, and gradients need at least {}", OLDEST_OPSET)]
    Opset {
        /// That of the model.
        opset: i64,
    },
    /// Nodes read each other's results.
    #[error("node `{node}` reads `{tensor}`, which depends on itself")]
    Circle {
        /// The node.
        node: String,
        /// The tensor.
        tensor: String,
    },
    /// A subgraph reads a tensor that depends on the adapter.
    #[error("`{tensor}`, which depends on the adapter, is read inside an If, Loop or Scan, which has no gradient here")]
    InSubgraph {
        /// The tensor.
        tensor: String,
    },
    /// The loss does not depend on any of the tensors.
    #[error("the loss does not depend on the adapter: no tensor of `{first}` and the other modules reaches it")]
    NoPath {
        /// The first tensor whose gradient is wanted.
        first: String,
    },
}

impl Hint for Error {
    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NoGradient { .. } => {
                "leave the layers before these nodes out with --exclude-modules, or export the model with plain operators \
                 (without ONNX Runtime's transformers optimizer)"
            }
            Self::Opset { .. } => "export the model with operator set 17 or later",
            Self::Circle { .. } => "export the model again: no run of it can end",
            Self::InSubgraph { .. } => {
                "export the model without control flow (a decoder without its cache, for example)"
            }
            Self::NoPath { .. } => "use a model whose logits depend on the adapted layers",
        };
        Some(hint.to_owned())
    }
}

/// A node without a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoGradient {
    /// Its name; may be empty.
    pub node: String,
    /// Its operator, with the domain if that is not the default one.
    pub op: String,
    /// What is not supported.
    pub reason: Unsupported,
}

impl NoGradient {
    pub(super) fn new(node: NodeView<'_>, reason: Unsupported) -> Self {
        let op = match node.domain() {
            "" => node.op().to_owned(),
            domain => format!("{domain}.{}", node.op()),
        };
        Self { node: node.name().to_owned(), op, reason }
    }
}

/// What a rule does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsupported {
    /// The operator.
    Operator,
    /// A form of the operator.
    Form(&'static str),
    /// The type and shape of a tensor that it reads or produces.
    Tensor,
}

impl fmt::Display for Unsupported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Operator => f.write_str("has no gradient here"),
            Self::Form(form) => write!(f, "has no gradient {form}"),
            Self::Tensor => f.write_str("has a tensor of unknown type"),
        }
    }
}

/// How many nodes a message names.
const NAMED: usize = 5;

fn listed(nodes: &[NoGradient]) -> String {
    let named = nodes.iter().take(NAMED).map(|NoGradient { node, op, reason }| format!("{op} `{node}` {reason}"));
    let more = nodes.len().saturating_sub(NAMED);
    let rest = if more == 0 { String::new() } else { format!("; and {more} more") };
    format!("gradients do not reach the adapter: {}{rest}", named.collect::<Vec<_>>().join("; "))
}
