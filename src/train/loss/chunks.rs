//! The loss of a large vocabulary, a few of the rows that have a target at a time: the logits of all of them, and what is
//! computed from them, would be the largest tensors of a step.

use super::head::Head;
use super::names::{LOSS, TARGETS};
use super::rows::rows;
use super::terms;
use crate::dtype::DType;
use crate::onnx::{Attribute, Builder, Constant};

/// Parts that the rows are divided into.
const PARTS: i64 = 4;
/// The fewest tokens of a vocabulary that is worth it.
const LARGE: i64 = 8192;

/// Whether the logits of a head are computed in parts.
pub(super) fn is_worth_it(head: &Head) -> bool {
    head.vocabulary.is_some_and(|tokens| tokens >= LARGE)
}

/// Adds the loss of a frozen head without an adapter; returns what it reads of the rows with a target, and the gradient
/// there, `scaled` or not.
pub(super) fn add(nodes: &mut Builder, head: &Head, dtype: DType, scaled: bool) -> (String, String) {
    let hidden = rows(nodes, &head.hidden, "hidden", 3);
    let parts = nodes.constant("parts", Constant::ints(vec![PARTS]));
    let axis = nodes.constant("rows_axis", Constant::ints(vec![0]));
    let most = nodes.constant("parts_less", Constant::ints(vec![PARTS - 1]));
    let count = nodes.op("Shape", &[TARGETS]).output("count");
    let more = nodes.op("Add", &[&count, &most]).output("count_more");
    let size = nodes.op("Div", &[&more, &parts]).output("part_size");
    let (mut losses, mut gradients) = (Vec::new(), Vec::new());
    for part in 0..PARTS {
        let name = |suffix: &str| format!("part{part}/{suffix}");
        let [from, to] = [part, part + 1].map(|index| {
            let times = nodes.constant(&name(&format!("times{index}")), Constant::ints(vec![index]));
            nodes.op("Mul", &[&size, &times]).output(&name(&format!("at{index}")))
        });
        let own = nodes.op("Slice", &[&hidden, &from, &to, &axis]).output(&name("hidden"));
        let targets = nodes.op("Slice", &[TARGETS, &from, &to, &axis]).output(&name("targets"));
        let mut logits = nodes.op("MatMul", &[&own, &head.weight]).output(&name("logits"));
        if dtype != DType::F32 {
            logits = nodes.cast(&logits, DType::F32).output(&name("wide"));
        }
        let (loss, gradient) = terms::cross_entropy(nodes, &name(""), &logits, &targets);
        let mut gradient = terms::scaled(nodes, &name(""), gradient, scaled);
        if dtype != DType::F32 {
            gradient = nodes.cast(&gradient, dtype).output(&name("narrow"));
        }
        // A Transpose of the frozen weight would be folded into a second copy of it.
        let back = nodes.op("Gemm", &[&gradient, &head.weight]).with("transB", Attribute::Int(1));
        gradients.push(back.output(&name("hidden_gradient")));
        losses.push(loss);
    }
    let losses: Vec<&str> = losses.iter().map(String::as_str).collect();
    nodes.op("Sum", &losses).to(LOSS);
    let gradients: Vec<&str> = gradients.iter().map(String::as_str).collect();
    let gradient = nodes.op("Concat", &gradients).int("axis", 0).output("hidden_gradient");
    (hidden, gradient)
}
