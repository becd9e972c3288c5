//! Matrix products.

use super::super::error::Unsupported;
use super::super::tape::{Operands, Tape, input};
use crate::onnx::{Attribute, Dim, NodeView};

fn transposed(index: usize) -> (&'static str, Attribute) {
    (["transA", "transB"][index], Attribute::Int(1))
}

/// `y = a b`: `g b^T` and `a^T g`. Where `b` has two axes, the rows of all other axes of `a` are one matrix.
pub(super) fn matmul<'a>(tape: &mut Tape<'a>, node: NodeView<'a>, g: &str) -> Operands {
    let (a, b) = (input(node, 0)?, input(node, 1)?);
    let y = node.output().ok_or(Unsupported::Form("without a result"))?;
    let (rank_a, rank_b) = (tape.rank(a)?, tape.rank(b)?);
    if rank_a < 2 || rank_b < 2 {
        return Err(Unsupported::Form("of a vector"));
    }
    let mut gradients = vec![None, None];
    if rank_b == 2 {
        let rows = flat(tape, g, rank_a);
        if tape.wants(node, 0) {
            // A Transpose of a frozen weight would be folded into a second copy of it.
            let product = tape.op("Gemm", &[&rows, b], &[transposed(1)]);
            gradients[0] = Some(if rank_a == 2 { product } else { tape.like(&product, a) });
        }
        if tape.wants(node, 1) {
            let a = flat(tape, a, rank_a);
            gradients[1] = Some(tape.op("Gemm", &[&a, &rows], &[transposed(0)]));
        }
        return Ok(gradients);
    }
    if tape.wants(node, 0) {
        let turned = swap_last(tape, b, rank_b);
        let whole = tape.op("MatMul", &[g, &turned], &[]);
        gradients[0] = Some(unbatch(tape, whole, a, y)?);
    }
    if tape.wants(node, 1) {
        let turned = swap_last(tape, a, rank_a);
        let whole = tape.op("MatMul", &[&turned, g], &[]);
        gradients[1] = Some(unbatch(tape, whole, b, y)?);
    }
    Ok(gradients)
}

/// The tensor [.., n] as a matrix [rows, n].
pub(super) fn flat(tape: &mut Tape<'_>, tensor: &str, rank: usize) -> String {
    if rank == 2 {
        return tensor.to_owned();
    }
    tape.op("Flatten", &[tensor], &[("axis", Attribute::Int(rank as i64 - 1))])
}

/// The tensor with its last two axes exchanged.
fn swap_last(tape: &mut Tape<'_>, tensor: &str, rank: usize) -> String {
    let mut order: Vec<i64> = (0..rank as i64).collect();
    order.swap(rank - 2, rank - 1);
    tape.op("Transpose", &[tensor], &[("perm", Attribute::Ints(order))])
}

/// The sum over the axes before the last two along which `operand` was broadcast.
fn unbatch(tape: &mut Tape<'_>, gradient: String, operand: &str, result: &str) -> Result<String, Unsupported> {
    let (own, whole) = (&tape.info(operand)?.dims, &tape.info(result)?.dims);
    let batch = &own[..own.len() - 2];
    let same = own.len() == whole.len() && batch.iter().zip(whole).all(|(a, b)| a == b && *a != Dim::Unknown);
    if same { Ok(gradient) } else { tape.unbatch(gradient, operand, whole.len()) }
}

/// `y = alpha a b + beta c`, `a` and `b` transposed or not.
pub(super) fn gemm<'a>(tape: &mut Tape<'a>, node: NodeView<'a>, g: &str) -> Operands {
    let (a, b) = (input(node, 0)?, input(node, 1)?);
    let y = node.output().ok_or(Unsupported::Form("without a result"))?;
    let (turned_a, turned_b) = (node.flag("transA"), node.flag("transB"));
    let alpha = ("alpha", Attribute::Float(node.float("alpha").unwrap_or(1.0)));
    let beta = node.float("beta").unwrap_or(1.0);
    let product = |tape: &mut Tape<'_>, left: (&str, bool), right: (&str, bool)| {
        let turned = [("transA", left.1), ("transB", right.1)].map(|(name, on)| (name, Attribute::Int(on.into())));
        let [first, second] = turned;
        tape.op("Gemm", &[left.0, right.0], &[alpha.clone(), first, second])
    };
    let mut gradients = vec![None; node.inputs().len()];
    if tape.wants(node, 0) {
        let gradient =
            if turned_a { product(tape, (b, turned_b), (g, true)) } else { product(tape, (g, false), (b, !turned_b)) };
        gradients[0] = Some(gradient);
    }
    if tape.wants(node, 1) {
        let gradient =
            if turned_b { product(tape, (g, true), (a, turned_a)) } else { product(tape, (a, !turned_a), (g, false)) };
        gradients[1] = Some(gradient);
    }
    if tape.wants(node, 2) {
        let c = input(node, 2)?;
        let factor = tape.number(beta, tape.dtype(c)?);
        let scaled = tape.op("Mul", &[g, &factor], &[]);
        gradients[2] = Some(tape.unbroadcast(scaled, c, y)?);
    }
    Ok(gradients)
}
