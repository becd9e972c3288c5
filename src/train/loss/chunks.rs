//! The loss of a large vocabulary, a few of the rows that have a target at a time: the logits of all of them, and what is
//! computed from them, would be the largest tensors of a step.

use super::head::Head;
use super::names::{SCALE, TARGETS, WEIGHT};
use super::rows::rows;
use super::terms;
use crate::dtype::DType;
use crate::onnx::{Attribute, Builder, Constant};

/// Parts that the rows are divided into.
const PARTS: i64 = 4;
/// Rows of a part that are scored together in any case: the last parts of a small batch are empty.
const FEWEST: i64 = 256;
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
    let axis = nodes.constant("rows_axis", Constant::ints(vec![0]));
    let count = nodes.op("Shape", &[TARGETS]).output("count");
    let size = part_size(nodes, &count);
    let weight = late(nodes, &head.weight, &count);
    // In 32 bits the gradient of the hidden states, which is smaller, is weighted instead of that of the logits.
    let is_wide = dtype == DType::F32 && !scaled;
    let factor = if scaled { nodes.op("Mul", &[WEIGHT, SCALE]).output("factor") } else { WEIGHT.to_owned() };
    let (mut chosen, mut gradients) = (Vec::new(), Vec::new());
    for part in 0..PARTS {
        let name = |suffix: &str| format!("part{part}/{suffix}");
        let [from, to] = [part, part + 1].map(|index| {
            let times = nodes.constant(&name(&format!("times{index}")), Constant::ints(vec![index]));
            nodes.op("Mul", &[&size, &times]).output(&name(&format!("at{index}")))
        });
        let own = nodes.op("Slice", &[&hidden, &from, &to, &axis]).output(&name("hidden"));
        let targets = nodes.op("Slice", &[TARGETS, &from, &to, &axis]).output(&name("targets"));
        let mut logits = nodes.op("MatMul", &[&own, &weight]).output(&name("logits"));
        if dtype != DType::F32 {
            logits = nodes.cast(&logits, DType::F32).output(&name("wide"));
        }
        let (of_targets, mut gradient) = terms::cross_entropy(nodes, &name(""), &logits, &targets);
        if !is_wide {
            gradient = nodes.op("Mul", &[&gradient, &factor]).output(&name("gradient"));
        }
        if dtype != DType::F32 {
            gradient = nodes.cast(&gradient, dtype).output(&name("narrow"));
        }
        // A Transpose of the frozen weight would be folded into a second copy of it.
        let back = nodes.op("Gemm", &[&gradient, &weight]).with("transB", Attribute::Int(1));
        gradients.push(back.output(&name("hidden_gradient")));
        chosen.push(of_targets);
    }
    // Of all parts at once, since ONNX Runtime sums no axis of size 0.
    let chosen: Vec<&str> = chosen.iter().map(String::as_str).collect();
    let chosen = nodes.op("Concat", &chosen).int("axis", 0).output("chosen");
    terms::negative_sum(nodes, &chosen);
    let gradients: Vec<&str> = gradients.iter().map(String::as_str).collect();
    let mut gradient = nodes.op("Concat", &gradients).int("axis", 0).output("hidden_gradient");
    if is_wide {
        gradient = nodes.op("Mul", &[&gradient, &factor]).output("hidden_gradient_weighted");
    }
    (hidden, gradient)
}

/// Rows of a part: a share of all, or the fewest.
fn part_size(nodes: &mut Builder, count: &str) -> String {
    let parts = nodes.constant("parts", Constant::ints(vec![PARTS]));
    let most = nodes.constant("parts_less", Constant::ints(vec![PARTS - 1]));
    let fewest = nodes.constant("part_fewest", Constant::ints(vec![FEWEST]));
    let more = nodes.op("Add", &[count, &most]).output("count_more");
    let share = nodes.op("Div", &[&more, &parts]).output("part_share");
    nodes.op("Max", &[&share, &fewest]).output("part_size")
}

/// A frozen weight as it is, but not as a constant: ONNX Runtime lays a constant out anew for each product that reads it,
/// which would be a copy a part and direction.
fn late(nodes: &mut Builder, weight: &str, count: &str) -> String {
    let nothing = nodes.op("Sub", &[count, count]).output("count_less");
    let same = nodes.constant("weight_same", Constant::ints(vec![0, 0]));
    let shape = nodes.op("Add", &[&same, &nothing]).output("weight_shape");
    // Zeros keep the sizes.
    nodes.op("Reshape", &[weight, &shape]).output("head_weight")
}
