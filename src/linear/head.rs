//! Output heads, by the rule that [`Linear::head`](super::Linear::head) states.

use super::candidate::Candidate;
use super::module::{is_index, leaf};
use crate::graph::logits;
use crate::hub::conventions;
use crate::onnx::Graph;

/// Whether the layer is an output head; `tied` says whether its weight is also that of an embedding.
pub(crate) fn is_head(graph: &Graph<'_>, candidate: &Candidate<'_>, module: &str, tied: bool) -> bool {
    tied || conventions::is_output_embedding(leaf(module))
        || is_classifier(module)
        || logits::reaches_logits(graph, candidate.id.scope, candidate.output)
}

/// Whether the module is a classification head: called like one, and not inside a numbered block.
fn is_classifier(module: &str) -> bool {
    let is_in_block = module.split('.').skip(1).any(is_index);
    conventions::is_classifier(leaf(module)) && !is_in_block
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_by_name() {
        assert!(is_classifier("classifier"));
        assert!(is_classifier("inner.score"));
        assert!(!is_classifier("encoder.block.1.layer.1.mlp.router.classifier"));
        assert!(!is_classifier("classifier.dense"));
        assert!(!is_classifier("pooler.dense"));
    }
}
