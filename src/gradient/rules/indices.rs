//! Operators that select elements by index, and that put elements at an index.

use super::super::error::Unsupported;
use super::super::tape::{Operands, Tape, axis, input};
use crate::dtype::DType;
use crate::onnx::{Attribute, NodeView};

/// The operator set in which scattered elements can be added.
const SCATTER_ADDS: i64 = 16;

/// Zeros of `shape` with `updates` added by `op` at `indices`, in 32 bits: ONNX Runtime's CPU kernels add no 16-bit
/// floats.
fn scattered(
    tape: &mut Tape<'_>,
    op: &'static str,
    [shape, indices, updates]: [&str; 3],
    dtype: DType,
    attributes: &[(&'static str, Attribute)],
) -> Result<String, Unsupported> {
    if tape.opset() < SCATTER_ADDS {
        return Err(Unsupported::Form("below operator set 16"));
    }
    let adds = [("reduction", Attribute::Text("add"))];
    let attributes: Vec<_> = attributes.iter().cloned().chain(adds).collect();
    if !dtype.is_half() {
        let zeros = tape.zeros(shape, dtype);
        return Ok(tape.op(op, &[&zeros, indices, updates], &attributes));
    }
    let zeros = tape.zeros(shape, DType::F32);
    let wide = tape.cast(updates, DType::F32);
    let sum = tape.op(op, &[&zeros, indices, &wide], &attributes);
    Ok(tape.cast(&sum, dtype))
}

/// `g` added up by index.
pub(super) fn gather<'a>(tape: &mut Tape<'a>, node: NodeView<'a>, g: &str) -> Operands {
    let (x, indices) = (input(node, 0)?, input(node, 1)?);
    let (rank, extra) = (tape.rank(x)?, tape.rank(indices)?);
    let at = axis(node.int("axis").unwrap_or(0), rank)?;
    let wide = tape.cast(indices, DType::I64);
    let last = tape.ints(&[-1]);
    let places = tape.op("Unsqueeze", &[&wide, &last], &[]);
    if at == 0 {
        let (shape, dtype) = (tape.op("Shape", &[x], &[]), tape.dtype(x)?);
        return Ok(vec![Some(scattered(tape, "ScatterND", [&shape, &places, g], dtype, &[])?)]);
    }
    // The axis of the indices comes first, there and back.
    let first: Vec<i64> = (at..at + extra).chain(0..at).chain(at + extra..rank - 1 + extra).map(|a| a as i64).collect();
    let order: Vec<i64> = std::iter::once(at).chain(0..at).chain(at + 1..rank).map(|a| a as i64).collect();
    let back: Vec<i64> = (1..=at).chain([0]).chain(at + 1..rank).map(|a| a as i64).collect();
    let perm = |order: Vec<i64>| [("perm", Attribute::Ints(order))];
    let moved = tape.op("Transpose", &[g], &perm(first));
    let (shape, order) = (tape.op("Shape", &[x], &[]), tape.ints(&order));
    let shape = tape.op("Gather", &[&shape, &order], &[]);
    let sum = scattered(tape, "ScatterND", [&shape, &places, &moved], tape.dtype(x)?, &[])?;
    Ok(vec![Some(tape.op("Transpose", &[&sum], &perm(back)))])
}

/// `g` added up by index.
pub(super) fn gather_elements<'a>(tape: &mut Tape<'a>, node: NodeView<'a>, g: &str) -> Operands {
    let along = [("axis", Attribute::Int(node.int("axis").unwrap_or(0)))];
    let x = input(node, 0)?;
    let (shape, dtype) = (tape.op("Shape", &[x], &[]), tape.dtype(x)?);
    Ok(vec![Some(scattered(tape, "ScatterElements", [&shape, input(node, 1)?, g], dtype, &along)?)])
}

/// `g` added up by index.
pub(super) fn gather_nd<'a>(tape: &mut Tape<'a>, node: NodeView<'a>, g: &str) -> Operands {
    if node.flag("batch_dims") {
        return Err(Unsupported::Form("with batch dimensions"));
    }
    let x = input(node, 0)?;
    let (shape, dtype) = (tape.op("Shape", &[x], &[]), tape.dtype(x)?);
    Ok(vec![Some(scattered(tape, "ScatterND", [&shape, input(node, 1)?, g], dtype, &[])?)])
}

/// Whether the updates are added to the data rather than put in their place.
fn adds(node: NodeView<'_>) -> Result<bool, Unsupported> {
    match node.text("reduction").unwrap_or("none") {
        "none" => Ok(false),
        "add" => Ok(true),
        _ => Err(Unsupported::Form("with this reduction")),
    }
}

/// `g` with zeros at the indices for the data, and `g` at the indices for the updates.
pub(super) fn scatter_elements<'a>(tape: &mut Tape<'a>, node: NodeView<'a>, g: &str) -> Operands {
    let (indices, updates) = (input(node, 1)?, input(node, 2)?);
    let along = [("axis", Attribute::Int(node.int("axis").unwrap_or(0)))];
    let data = if adds(node)? {
        g.to_owned()
    } else {
        let zeros = tape.zeros_like(updates)?;
        tape.op("ScatterElements", &[g, indices, &zeros], &along)
    };
    let given = tape.op("GatherElements", &[g, indices], &along);
    Ok(vec![tape.wants(node, 0).then_some(data), None, tape.wants(node, 2).then_some(given)])
}

/// `g` with zeros at the indices for the data, and `g` at the indices for the updates.
pub(super) fn scatter_nd<'a>(tape: &mut Tape<'a>, node: NodeView<'a>, g: &str) -> Operands {
    let (indices, updates) = (input(node, 1)?, input(node, 2)?);
    let data = if adds(node)? {
        g.to_owned()
    } else {
        let zeros = tape.zeros_like(updates)?;
        tape.op("ScatterND", &[g, indices, &zeros], &[])
    };
    let given = tape.op("GatherND", &[g, indices], &[]);
    Ok(vec![tape.wants(node, 0).then_some(data), None, tape.wants(node, 2).then_some(given)])
}

/// `g` at the indices that were found.
pub(super) fn top_k<'a>(tape: &mut Tape<'a>, node: NodeView<'a>, g: &str) -> Operands {
    let x = input(node, 0)?;
    let indices = node.outputs().get(1).filter(|name| !name.is_empty());
    let indices = indices.ok_or(Unsupported::Form("without its indices"))?;
    let zeros = tape.zeros_like(x)?;
    let along = [("axis", Attribute::Int(node.int("axis").unwrap_or(-1)))];
    Ok(vec![Some(tape.op("ScatterElements", &[&zeros, indices, g], &along))])
}
