//! Activations that are rounded to integers. Rounding has no slope; its gradient is passed straight through, as if there
//! were none (Bengio et al. 2013, "straight-through estimator").
//!
//! The gradient of a tensor of integers is that of a float in its place, and has the type of the floats.

use super::super::error::Unsupported;
use super::super::tape::{Operands, Tape, input};
use super::products::flat;
use crate::dtype::DType;
use crate::onnx::{Attribute, Constant, Dim, NodeView};

const SEVERAL: Unsupported = Unsupported::Form("with a scale for each channel of an activation");

/// Whether a tensor holds one number.
fn is_number(tape: &Tape<'_>, tensor: &str) -> Result<bool, Unsupported> {
    Ok(tape.info(tensor)?.dims.iter().all(|dim| *dim == Dim::Fixed(1)))
}

/// `y = round(x / s) + z`: `g / s`.
pub(super) fn quantize<'a>(tape: &mut Tape<'a>, node: NodeView<'a>, g: &str) -> Operands {
    let scale = input(node, 1)?;
    if !is_number(tape, scale)? {
        return Err(SEVERAL);
    }
    Ok(vec![Some(tape.op("Div", &[g, scale], &[]))])
}

/// `y = (x - z) s`: `g s`.
pub(super) fn dequantize<'a>(tape: &mut Tape<'a>, node: NodeView<'a>, g: &str) -> Operands {
    let scale = input(node, 1)?;
    if !is_number(tape, scale)? {
        return Err(SEVERAL);
    }
    Ok(vec![Some(tape.op("Mul", &[g, scale], &[]))])
}

/// `y = round(x / s) + z` with `s` and `z` from the range of `x`, which counts as fixed: `g / s`.
pub(super) fn dynamic_quantize<'a>(tape: &mut Tape<'a>, node: NodeView<'a>, results: &[Option<String>]) -> Operands {
    let Some(g) = results.first().cloned().flatten() else { return Ok(vec![None]) };
    let scale = node.outputs().get(1).filter(|name| !name.is_empty()).ok_or(Unsupported::Form("without its scale"))?;
    Ok(vec![Some(tape.op("Div", &[&g, scale], &[]))])
}

/// `y = (a - za) (b - zb)` with a frozen `b` [k, n]: `g (b - zb)^T`.
pub(super) fn matmul_integer<'a>(tape: &mut Tape<'a>, node: NodeView<'a>, g: &str) -> Operands {
    let (a, b) = (input(node, 0)?, input(node, 1)?);
    let unusual = Unsupported::Form("in this form");
    if tape.wants(node, 1) || tape.rank(b)? != 2 {
        return Err(unusual);
    }
    // A scale of 1 makes floats of the integers where they are used; a Cast would be folded into a copy of them.
    let shape = match node.input(3) {
        Some(points) if !is_number(tape, points)? => match tape.info(points)?.dims[..] {
            [Dim::Fixed(columns)] => vec![columns],
            _ => return Err(unusual),
        },
        Some(points) if tape.rank(points)? > 0 => vec![1],
        _ => Vec::new(),
    };
    let count = shape.iter().product::<i64>() as usize;
    let ones = tape.constant("ones", Constant::F32(shape, vec![1.0; count]));
    let operands: Vec<&str> = [b, &ones].into_iter().chain(node.input(3)).collect();
    let weight = tape.op("DequantizeLinear", &operands, &[("axis", Attribute::Int(1))]);
    let rank = tape.rank(a)?;
    let rows = flat(tape, g, rank);
    let product = tape.op("Gemm", &[&rows, &weight], &[("transB", Attribute::Int(1))]);
    Ok(vec![Some(if rank == 2 { product } else { tape.like(&product, a) })])
}

/// `g`, in the type of the operand unless that is of integers.
pub(super) fn cast<'a>(tape: &mut Tape<'a>, node: NodeView<'a>, g: &str) -> Operands {
    let dtype = tape.dtype(input(node, 0)?)?;
    let wide = if dtype.is_float() { dtype } else { DType::F32 };
    let given = tape.dtype(node.output().ok_or(Unsupported::Form("without a result"))?)?;
    Ok(vec![Some(if given == wide { g.to_owned() } else { tape.cast(g, wide) })])
}
