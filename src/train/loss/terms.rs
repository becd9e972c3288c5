//! The loss of the rows that have a target, and its gradient there. `x` are their logits [targets, classes], `w` the
//! weight.

use super::names::{LOSS, SCALE, TARGETS, WEIGHT};
use crate::onnx::{Builder, Constant};
use crate::train::kind::Term;

/// Adds the loss of `logits`, and returns its gradient there.
pub(super) fn add(nodes: &mut Builder, term: Term, logits: &str) -> String {
    match term {
        Term::CrossEntropy => {
            let (chosen, error) = cross_entropy(nodes, "", logits, TARGETS);
            negative_sum(nodes, &chosen);
            nodes.op("Mul", &[&error, WEIGHT]).output("gradient")
        }
        Term::BinaryCrossEntropy => binary_cross_entropy(nodes, logits),
        Term::SquaredError => squared_error(nodes, logits),
    }
}

/// The gradient times [`SCALE`], if that is wanted.
pub(super) fn scaled(nodes: &mut Builder, gradient: String, is_wanted: bool) -> String {
    if !is_wanted {
        return gradient;
    }
    nodes.op("Mul", &[&gradient, SCALE]).output("scaled")
}

/// `log softmax(x)[target]` of each row, [targets, 1], and the gradient of the sum of their negatives, `softmax(x) - target`.
/// The names of the nodes' parts start with `stem`.
pub(super) fn cross_entropy(nodes: &mut Builder, stem: &str, logits: &str, targets: &str) -> (String, String) {
    let name = |suffix: &str| format!("{stem}{suffix}");
    let last = nodes.constant(&name("last"), Constant::ints(vec![-1]));
    let one = nodes.constant(&name("one"), Constant::scalar(1.0));
    let target = nodes.op("Unsqueeze", &[targets, &last]).output(&name("target"));
    let log = nodes.op("LogSoftmax", &[logits]).int("axis", -1).output(&name("log_probabilities"));
    let chosen = nodes.op("GatherElements", &[&log, &target]).int("axis", 1).output(&name("chosen"));

    let probabilities = nodes.op("Exp", &[&log]).output(&name("probabilities"));
    let of_target = nodes.op("Exp", &[&chosen]).output(&name("of_target"));
    let less = nodes.op("Sub", &[&of_target, &one]).output(&name("of_target_less"));
    let error = nodes.op("ScatterElements", &[&probabilities, &target, &less]).int("axis", 1).output(&name("error"));
    (chosen, error)
}

/// `-w sum(chosen)`, of logarithms [targets, 1].
pub(super) fn negative_sum(nodes: &mut Builder, chosen: &str) {
    let total = nodes.reduce_sum(chosen, &[0, 1], "axes").output("total");
    let weighted = nodes.op("Mul", &[&total, WEIGHT]).output("weighted");
    nodes.op("Neg", &[&weighted]).to(LOSS);
}

/// `w sum(log(1 + exp(x)) - x target)`; the gradient is `w (sigmoid(x) - target)`.
fn binary_cross_entropy(nodes: &mut Builder, logits: &str) -> String {
    let whole = nodes.op("Softplus", &[logits]).output("softplus");
    let product = nodes.op("Mul", &[logits, TARGETS]).output("product");
    let terms = nodes.op("Sub", &[&whole, &product]).output("terms");
    weighted_sum(nodes, &terms);
    let probabilities = nodes.op("Sigmoid", &[logits]).output("probabilities");
    let error = nodes.op("Sub", &[&probabilities, TARGETS]).output("error");
    nodes.op("Mul", &[&error, WEIGHT]).output("gradient")
}

/// `w sum((x - target)^2)`; the gradient is `2 w (x - target)`.
fn squared_error(nodes: &mut Builder, logits: &str) -> String {
    let error = nodes.op("Sub", &[logits, TARGETS]).output("error");
    let terms = nodes.op("Mul", &[&error, &error]).output("terms");
    weighted_sum(nodes, &terms);
    let two = nodes.constant("two", Constant::scalar(2.0));
    let twice = nodes.op("Mul", &[&error, &two]).output("error_twice");
    nodes.op("Mul", &[&twice, WEIGHT]).output("gradient")
}

/// The loss as the sum of terms [targets, classes], times the weight.
fn weighted_sum(nodes: &mut Builder, terms: &str) {
    let total = nodes.reduce_sum(terms, &[0, 1], "axes").output("total");
    nodes.op("Mul", &[&total, WEIGHT]).to(LOSS);
}
