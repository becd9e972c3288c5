//! Operators that move elements without changing them.

use super::super::error::Unsupported;
use super::super::tape::{Operands, Span, Tape, axis, input};
use super::super::values::TensorInfo;
use crate::dtype::DType;
use crate::onnx::{Attribute, Dim, NodeView};

fn only(gradient: String) -> Operands {
    Ok(vec![Some(gradient)])
}

/// `g` in the shape of the operand.
pub(super) fn reshape<'a>(tape: &mut Tape<'a>, node: NodeView<'a>, g: &str) -> Operands {
    let y = node.output().ok_or(Unsupported::Form("without a result"))?;
    only(tape.reshaped(g, y, input(node, 0)?))
}

/// `g` in the other order of axes.
pub(super) fn transpose<'a>(tape: &mut Tape<'a>, node: NodeView<'a>, g: &str) -> Operands {
    let rank = tape.rank(input(node, 0)?)?;
    let mut back: Vec<i64> = (0..rank as i64).rev().collect();
    for (to, from) in (0..).zip(node.ints("perm").unwrap_or_default()) {
        back[axis(*from, rank)?] = to;
    }
    only(tape.op("Transpose", &[g], &[("perm", Attribute::Ints(back))]))
}

/// The sum of `g` over the copies.
pub(super) fn expand<'a>(tape: &mut Tape<'a>, node: NodeView<'a>, g: &str) -> Operands {
    let y = node.output().ok_or(Unsupported::Form("without a result"))?;
    only(tape.unbroadcast(g.to_owned(), input(node, 0)?, y)?)
}

/// The size of a tensor along an axis, [1].
fn size(tape: &mut Tape<'_>, tensor: &str, axis: usize) -> String {
    let shape = tape.op("Shape", &[tensor], &[]);
    let index = tape.ints(&[axis as i64]);
    tape.op("Gather", &[&shape, &index], &[])
}

/// The size of a tensor along an axis, if it is the same in every batch.
fn fixed_size(tape: &Tape<'_>, tensor: &str, axis: usize) -> Option<i64> {
    match tape.info(tensor).ok()?.dims.get(axis)? {
        Dim::Fixed(size) => Some(*size),
        _ => None,
    }
}

/// The part of `g` that each operand gave.
pub(super) fn concat<'a>(tape: &mut Tape<'a>, node: NodeView<'a>, g: &str) -> Operands {
    let axis = axis(node.int("axis").unwrap_or(0), tape.rank(input(node, 0)?)?)?;
    let known: Option<Vec<i64>> = node.inputs().iter().map(|name| fixed_size(tape, name, axis)).collect();
    let sizes = match known {
        Some(sizes) => tape.ints(&sizes),
        None => {
            let sizes: Vec<String> = node.inputs().iter().map(|name| size(tape, name, axis)).collect();
            let sizes: Vec<&str> = sizes.iter().map(String::as_str).collect();
            tape.op("Concat", &sizes, &[("axis", Attribute::Int(0))])
        }
    };
    let parts = tape.op_with("Split", &[g, &sizes], axis as i64, node.inputs().len());
    Ok(parts.into_iter().enumerate().map(|(index, part)| tape.wants(node, index).then_some(part)).collect())
}

/// The gradients of all parts joined, zeros for parts that nothing depends on.
pub(super) fn split(tape: &mut Tape<'_>, node: NodeView<'_>, results: &[Option<String>]) -> Operands {
    let rank = tape.rank(input(node, 0)?)?;
    let axis = axis(node.int("axis").unwrap_or(0), rank)?;
    let mut parts = Vec::new();
    for (gradient, name) in results.iter().zip(node.outputs()) {
        parts.push(match gradient {
            Some(gradient) => gradient.clone(),
            None => tape.zeros_like(name)?,
        });
    }
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    only(tape.op("Concat", &parts, &[("axis", Attribute::Int(axis as i64))]))
}

/// `g` with zeros where the operand was cut off.
pub(super) fn slice<'a>(tape: &mut Tape<'a>, node: NodeView<'a>, g: &str) -> Operands {
    let x = input(node, 0)?;
    let starts = input(node, 1)?;
    let rank = tape.rank(x)?;
    let axes = slice_axes(tape, node, rank)?;
    if let Some(span) = fixed_span(tape, node, &axes, rank) {
        return only(tape.part(g, span));
    }
    let indices: Vec<i64> = axes.iter().map(|axis| *axis as i64).collect();
    let indices = tape.ints(&indices);
    let shape = tape.op("Shape", &[x], &[]);
    let whole = tape.op("Gather", &[&shape, &indices], &[]);
    let shape = tape.op("Shape", &[g], &[]);
    let kept = tape.op("Gather", &[&shape, &indices], &[]);
    let before = match tape.constant_ints(starts) {
        Some(starts) if starts.iter().all(|start| *start == 0) => starts_at_zero(tape, axes.len()),
        _ => first_kept(tape, starts, &whole),
    };
    let rest = tape.op("Sub", &[&whole, &before], &[]);
    let after = tape.op("Sub", &[&rest, &kept], &[]);
    only(padded(tape, g, &axes, rank, [&before, &after])?)
}

/// What a `Slice` along one axis keeps, if that is the same in every batch.
fn fixed_span<'a>(tape: &Tape<'a>, node: NodeView<'a>, axes: &[usize], rank: usize) -> Option<Span> {
    let [axis] = *axes else { return None };
    let size = fixed_size(tape, node.input(0)?, axis)?;
    let bound = |index: usize| match tape.constant_ints(node.input(index)?)?[..] {
        [place] if place < 0 => Some((place.saturating_add(size)).clamp(0, size)),
        [place] => Some(place.min(size)),
        _ => None,
    };
    let (start, end) = (bound(1)?, bound(2)?);
    (start < end).then_some(Span { axis, rank, start, end, size })
}

fn starts_at_zero(tape: &mut Tape<'_>, axes: usize) -> String {
    tape.ints(&vec![0; axes])
}

/// The axes of a `Slice`; its steps must be 1.
fn slice_axes<'a>(tape: &Tape<'a>, node: NodeView<'a>, rank: usize) -> Result<Vec<usize>, Unsupported> {
    let unknown = Unsupported::Form("with axes that are not constant");
    if let Some(steps) = node.input(4) {
        let steps = tape.constant_ints(steps).ok_or(Unsupported::Form("with steps that are not constant"))?;
        if steps.iter().any(|step| *step != 1) {
            return Err(Unsupported::Form("with steps other than 1"));
        }
    }
    let axes = match node.input(3) {
        Some(axes) => tape.constant_ints(axes).ok_or(unknown)?,
        None => (0..fixed(tape.info(input(node, 1)?)?).ok_or(unknown)?).collect(),
    };
    axes.into_iter().map(|number| axis(number, rank)).collect()
}

/// The length of a vector, if it is known.
fn fixed(vector: &TensorInfo) -> Option<i64> {
    match vector.dims.as_slice() {
        [Dim::Fixed(length)] => Some(*length),
        _ => None,
    }
}

/// The first index that a `Slice` from `starts` keeps: negative starts count from the end, and all are clamped.
fn first_kept(tape: &mut Tape<'_>, starts: &str, whole: &str) -> String {
    let zero = tape.ints(&[0]);
    let wide = tape.cast(starts, DType::I64);
    let counted = tape.op("Add", &[&wide, whole], &[]);
    let is_negative = tape.op("Less", &[&wide, &zero], &[]);
    let start = tape.op("Where", &[&is_negative, &counted, &wide], &[]);
    let start = tape.op("Max", &[&start, &zero], &[]);
    tape.op("Min", &[&start, whole], &[])
}

/// The tensor with zeros before and after it along some axes; the numbers of zeros are vectors as long as `axes`.
fn padded(
    tape: &mut Tape<'_>,
    tensor: &str,
    axes: &[usize],
    rank: usize,
    [before, after]: [&str; 2],
) -> Result<String, Unsupported> {
    let places = axes.iter().map(|axis| *axis as i64).chain(axes.iter().map(|axis| (axis + rank) as i64));
    let places: Vec<i64> = places.collect();
    let amounts = tape.op("Concat", &[before, after], &[("axis", Attribute::Int(0))]);
    let none = tape.ints(&vec![0; 2 * rank]);
    let places = tape.ints(&places);
    let pads = tape.op("ScatterElements", &[&none, &places, &amounts], &[]);
    Ok(tape.op("Pad", &[tensor, &pads], &[]))
}

/// The part of `g` that the operand gave.
pub(super) fn pad<'a>(tape: &mut Tape<'a>, node: NodeView<'a>, g: &str) -> Operands {
    if node.text("mode").is_some_and(|mode| mode != "constant") || node.input(3).is_some() {
        return Err(Unsupported::Form("in this mode, or with axes"));
    }
    let x = input(node, 0)?;
    let rank = tape.rank(x)? as i64;
    let pads = input(node, 1)?;
    let (first, last) = (tape.ints(&[0]), tape.ints(&[rank]));
    let starts = tape.op("Slice", &[pads, &first, &last], &[]);
    let shape = tape.op("Shape", &[x], &[]);
    let ends = tape.op("Add", &[&starts, &shape], &[]);
    only(tape.op("Slice", &[g, &starts, &ends], &[]))
}
