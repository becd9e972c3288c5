//! Sums, means and what divides by them.

use super::super::error::Unsupported;
use super::super::tape::{Operands, Tape, axis, input};
use crate::onnx::{Attribute, Dim, NodeView};

fn only(gradient: String) -> Operands {
    Ok(vec![Some(gradient)])
}

/// The operator set in which the axes of `ReduceMean` became an input.
const AXES_ARE_INPUTS: i64 = 18;

/// The axes that a node sums over; `None` for all.
fn axes<'a>(tape: &Tape<'a>, node: NodeView<'a>, rank: usize) -> Result<Option<Vec<usize>>, Unsupported> {
    let is_input = node.op() == "ReduceSum" || tape.opset() >= AXES_ARE_INPUTS;
    let axes = if !is_input {
        node.ints("axes").map(<[i64]>::to_vec)
    } else if let Some(axes) = node.input(1) {
        Some(tape.constant_ints(axes).ok_or(Unsupported::Form("with axes that are not constant"))?)
    } else {
        None
    };
    match axes.filter(|axes| !axes.is_empty()) {
        Some(axes) => axes.into_iter().map(|number| axis(number, rank)).collect::<Result<_, _>>().map(Some),
        None if node.flag("noop_with_empty_axes") => Err(Unsupported::Form("without axes")),
        None => Ok(None),
    }
}

/// `g` repeated along the axes that were summed.
fn repeated<'a>(tape: &mut Tape<'a>, node: NodeView<'a>, g: &str) -> Result<String, Unsupported> {
    let x = input(node, 0)?;
    let axes = axes(tape, node, tape.rank(x)?)?;
    let mut gradient = g.to_owned();
    if let Some(axes) = axes.filter(|_| node.int("keepdims") == Some(0)) {
        let axes: Vec<i64> = axes.into_iter().map(|axis| axis as i64).collect();
        let axes = tape.ints(&axes);
        gradient = tape.op("Unsqueeze", &[&gradient, &axes], &[]);
    }
    Ok(tape.repeated(&gradient, x))
}

/// `g` for each element.
pub(super) fn sum<'a>(tape: &mut Tape<'a>, node: NodeView<'a>, g: &str) -> Operands {
    only(repeated(tape, node, g)?)
}

/// `g / n` for each of n elements.
pub(super) fn mean<'a>(tape: &mut Tape<'a>, node: NodeView<'a>, g: &str) -> Operands {
    let x = input(node, 0)?;
    let dtype = tape.dtype(x)?;
    let dims = &tape.info(x)?.dims;
    let known = axes(tape, node, dims.len())?.and_then(|axes| {
        let sizes = axes.iter().map(|axis| match dims[*axis] {
            Dim::Fixed(size) => Some(size),
            _ => None,
        });
        sizes.product::<Option<i64>>()
    });
    let count = match known {
        Some(count) => tape.number(count as f32, dtype),
        None => {
            let sizes = [x, node.output().ok_or(Unsupported::Form("without a result"))?];
            let [all, left] = sizes.map(|tensor| tape.op("Size", &[tensor], &[]));
            let count = tape.op("Div", &[&all, &left], &[]);
            tape.cast(&count, dtype)
        }
    };
    let share = tape.op("Div", &[g, &count], &[]);
    only(repeated(tape, node, &share)?)
}

/// The last axis, which a softmax is over here.
fn last_axis(tape: &Tape<'_>, node: NodeView<'_>) -> Result<i64, Unsupported> {
    let rank = tape.rank(input(node, 0)?)?;
    Ok(axis(node.int("axis").unwrap_or(-1), rank)? as i64)
}

/// `y g - y sum(y g)`.
pub(super) fn softmax<'a>(tape: &mut Tape<'a>, node: NodeView<'a>, g: &str) -> Operands {
    let y = node.output().ok_or(Unsupported::Form("without a result"))?;
    let axis = last_axis(tape, node)?;
    let product = tape.op("Mul", &[g, y], &[]);
    let total = tape.sum(&product, &[axis], true);
    let share = tape.op("Mul", &[y, &total], &[]);
    only(tape.op("Sub", &[&product, &share], &[]))
}

/// `g - exp(y) sum(g)`.
pub(super) fn log_softmax<'a>(tape: &mut Tape<'a>, node: NodeView<'a>, g: &str) -> Operands {
    let y = node.output().ok_or(Unsupported::Form("without a result"))?;
    let axis = last_axis(tape, node)?;
    let probability = tape.op("Exp", &[y], &[]);
    let total = tape.sum(g, &[axis], true);
    let share = tape.op("Mul", &[&probability, &total], &[]);
    only(tape.op("Sub", &[g, &share], &[]))
}

/// The mean over some axes, which keep the size 1.
pub(super) fn mean_over(tape: &mut Tape<'_>, tensor: &str, axes: &[i64]) -> String {
    let keep = ("keepdims", Attribute::Int(1));
    if tape.opset() < AXES_ARE_INPUTS {
        return tape.op("ReduceMean", &[tensor], &[keep, ("axes", Attribute::Ints(axes.to_vec()))]);
    }
    let axes = tape.ints(axes);
    tape.op("ReduceMean", &[tensor, &axes], &[keep])
}
