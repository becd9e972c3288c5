//! `x` times how much of it passes: GELU (Hendrycks and Gimpel 2016) in its forms.

use super::super::error::Unsupported;
use super::super::tape::{Operands, Tape, input};
use crate::onnx::NodeView;
use std::f32::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};

/// The sum of the operand and a bias that may follow it, which [`Slope`]s are taken at.
fn sum<'a>(tape: &mut Tape<'a>, node: NodeView<'a>) -> Result<String, Unsupported> {
    let x = input(node, 0)?;
    Ok(match node.input(1) {
        Some(bias) => tape.op("Add", &[x, bias], &[]),
        None => x.to_owned(),
    })
}

/// `g` times the slope at the sum, for the operand and the bias.
fn times<'a>(tape: &mut Tape<'a>, node: NodeView<'a>, g: &str, slope: &str) -> Operands {
    let whole = tape.op("Mul", &[g, slope], &[]);
    let y = node.output().ok_or(Unsupported::Form("without a result"))?;
    let mut gradients = Vec::new();
    for (index, name) in node.inputs().iter().enumerate() {
        let wanted = tape.wants(node, index);
        gradients.push(if wanted { Some(tape.unbroadcast(whole.clone(), name, y)?) } else { None });
    }
    Ok(gradients)
}

/// `y = x P(x)` with the distribution `P` and the density `p` of the standard normal distribution: `g (P(x) + x p(x))`.
pub(super) fn exact<'a>(tape: &mut Tape<'a>, node: NodeView<'a>, g: &str) -> Operands {
    if node.text("approximate").is_some_and(|form| form == "tanh") {
        return by_tanh(tape, node, g);
    }
    let dtype = tape.dtype(input(node, 0)?)?;
    let x = sum(tape, node)?;
    let [half, one, root] = [0.5, 1.0, FRAC_1_SQRT_2].map(|value| tape.number(value, dtype));
    let scaled = tape.op("Mul", &[&x, &root], &[]);
    let erf = tape.op("Erf", &[&scaled], &[]);
    let above = tape.op("Add", &[&erf, &one], &[]);
    let distribution = tape.op("Mul", &[&above, &half], &[]);
    let square = tape.op("Mul", &[&scaled, &scaled], &[]);
    let exponent = tape.op("Neg", &[&square], &[]);
    let bell = tape.op("Exp", &[&exponent], &[]);
    let height = tape.number(0.5 * FRAC_2_SQRT_PI * FRAC_1_SQRT_2, dtype);
    let density = tape.op("Mul", &[&bell, &height], &[]);
    let weighted = tape.op("Mul", &[&x, &density], &[]);
    let slope = tape.op("Add", &[&distribution, &weighted], &[]);
    times(tape, node, g, &slope)
}

/// `y = x / 2 (1 + t)` with `t = tanh(c (x + d x^3))`: `g / 2 (1 + t + x (1 - t^2) c (1 + 3 d x^2))`.
pub(super) fn by_tanh<'a>(tape: &mut Tape<'a>, node: NodeView<'a>, g: &str) -> Operands {
    const CUBE: f32 = 0.044_715;
    let scale = FRAC_2_SQRT_PI * FRAC_1_SQRT_2;
    let dtype = tape.dtype(input(node, 0)?)?;
    let x = sum(tape, node)?;
    let numbers = [0.5, 1.0, scale, scale * CUBE, 3.0 * scale * CUBE];
    let [half, one, first, third, bent] = numbers.map(|value| tape.number(value, dtype));
    let square = tape.op("Mul", &[&x, &x], &[]);
    let cubic = tape.op("Mul", &[&square, &third], &[]);
    let inner = tape.op("Add", &[&cubic, &first], &[]);
    let inner = tape.op("Mul", &[&inner, &x], &[]);
    let tanh = tape.op("Tanh", &[&inner], &[]);
    let squared = tape.op("Mul", &[&tanh, &tanh], &[]);
    let rest = tape.op("Sub", &[&one, &squared], &[]);
    let bent = tape.op("Mul", &[&square, &bent], &[]);
    let steep = tape.op("Add", &[&bent, &first], &[]);
    let change = tape.op("Mul", &[&rest, &steep], &[]);
    let change = tape.op("Mul", &[&change, &x], &[]);
    let share = tape.op("Add", &[&tanh, &one], &[]);
    let twice = tape.op("Add", &[&share, &change], &[]);
    let slope = tape.op("Mul", &[&twice, &half], &[]);
    times(tape, node, g, &slope)
}

/// `y = x s` with `s = sigmoid(a x)`: `g s (1 + a x (1 - s))`.
pub(super) fn by_sigmoid<'a>(tape: &mut Tape<'a>, node: NodeView<'a>, g: &str) -> Operands {
    let x = input(node, 0)?;
    let dtype = tape.dtype(x)?;
    let [alpha, one] = [node.float("alpha").unwrap_or(1.702), 1.0].map(|value| tape.number(value, dtype));
    let scaled = tape.op("Mul", &[x, &alpha], &[]);
    let passing = tape.op("Sigmoid", &[&scaled], &[]);
    let rest = tape.op("Sub", &[&one, &passing], &[]);
    let weighted = tape.op("Mul", &[&scaled, &rest], &[]);
    let inner = tape.op("Add", &[&weighted, &one], &[]);
    let slope = tape.op("Mul", &[&passing, &inner], &[]);
    times(tape, node, g, &slope)
}
