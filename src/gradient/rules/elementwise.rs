//! Operators that work on each element by itself, with broadcast. `y` is the result.

use super::super::error::Unsupported;
use super::super::tape::{Operands, Tape, input};
use crate::onnx::NodeView;

/// The gradient of the only operand that varies.
fn only(gradient: String) -> Operands {
    Ok(vec![Some(gradient)])
}

/// The first result of a node.
fn result<'n>(node: NodeView<'n>) -> Result<&'n str, Unsupported> {
    node.output().ok_or(Unsupported::Form("without a result"))
}

/// `g f(x)`.
fn times(tape: &mut Tape<'_>, g: &str, factor: &str) -> Operands {
    only(tape.op("Mul", &[g, factor], &[]))
}

/// The gradients of all operands that vary, each from a gradient of the result's shape.
fn each(
    tape: &mut Tape<'_>,
    node: NodeView<'_>,
    mut gradient: impl FnMut(&mut Tape<'_>, usize) -> Result<String, Unsupported>,
) -> Operands {
    let y = result(node)?;
    let mut gradients = Vec::new();
    for (index, name) in node.inputs().iter().enumerate() {
        gradients.push(if tape.wants(node, index) {
            let whole = gradient(tape, index)?;
            Some(tape.unbroadcast(whole, name, y)?)
        } else {
            None
        });
    }
    Ok(gradients)
}

/// `g`.
pub(super) fn identity<'a>(_: &mut Tape<'a>, _: NodeView<'a>, g: &str) -> Operands {
    only(g.to_owned())
}

/// `g` for each.
pub(super) fn add<'a>(tape: &mut Tape<'a>, node: NodeView<'a>, g: &str) -> Operands {
    each(tape, node, |_, _| Ok(g.to_owned()))
}

/// `g` and `-g`.
pub(super) fn sub<'a>(tape: &mut Tape<'a>, node: NodeView<'a>, g: &str) -> Operands {
    each(tape, node, |tape, index| Ok(if index == 0 { g.to_owned() } else { tape.op("Neg", &[g], &[]) }))
}

/// `g b` and `g a`.
pub(super) fn mul<'a>(tape: &mut Tape<'a>, node: NodeView<'a>, g: &str) -> Operands {
    if let Some((index, gate)) = gated(tape, node) {
        return swish(tape, node, g, (index, gate));
    }
    let y = result(node)?;
    each(tape, node, |tape, index| {
        let factor = input(node, 1 - index)?;
        let g = tape.beside(g, factor, y);
        Ok(tape.op("Mul", &[&g, factor], &[]))
    })
}

/// Which operand of a product is `x` where it is `x sigmoid(x)`, and the sigmoid.
fn gated<'a>(tape: &Tape<'a>, node: NodeView<'a>) -> Option<(usize, &'a str)> {
    let of_other = |index: usize| {
        let gate =
            tape.producer(node.input(1 - index)?).filter(|gate| gate.domain().is_empty() && gate.op() == "Sigmoid")?;
        (gate.input(0) == node.input(index) && tape.wants(node, index)).then_some((index, gate.output()?))
    };
    of_other(0).or_else(|| of_other(1))
}

/// `y = x s` with `s = sigmoid(x)`: `g (s + y (1 - s))` for `x`, of which the part through `s` is one.
fn swish<'a>(tape: &mut Tape<'a>, node: NodeView<'a>, g: &str, (index, gate): (usize, &'a str)) -> Operands {
    let y = result(node)?;
    let one = tape.number(1.0, tape.dtype(y)?);
    let rest = tape.op("Sub", &[&one, gate], &[]);
    let weighted = tape.op("Mul", &[y, &rest], &[]);
    let slope = tape.op("Add", &[&weighted, gate], &[]);
    let mut gradients = vec![None, None];
    gradients[index] = Some(tape.op("Mul", &[g, &slope], &[]));
    Ok(gradients)
}

/// `g / b` and `-g y / b`.
pub(super) fn div<'a>(tape: &mut Tape<'a>, node: NodeView<'a>, g: &str) -> Operands {
    let y = result(node)?;
    each(tape, node, |tape, index| {
        let share = tape.op("Div", &[g, input(node, 1)?], &[]);
        if index == 0 {
            return Ok(share);
        }
        let product = tape.op("Mul", &[&share, y], &[]);
        Ok(tape.op("Neg", &[&product], &[]))
    })
}

/// `-g`.
pub(super) fn neg<'a>(tape: &mut Tape<'a>, _: NodeView<'a>, g: &str) -> Operands {
    only(tape.op("Neg", &[g], &[]))
}

/// `g e x^(e - 1)` for a frozen exponent.
pub(super) fn pow<'a>(tape: &mut Tape<'a>, node: NodeView<'a>, g: &str) -> Operands {
    if tape.wants(node, 1) {
        return Err(Unsupported::Form("for its exponent"));
    }
    let (x, y) = (input(node, 0)?, result(node)?);
    let dtype = tape.dtype(x)?;
    if tape.constant_number(input(node, 1)?) == Some(2.0) {
        // A power of 1 would be computed as any other.
        let two = tape.number(2.0, dtype);
        let twice = tape.beside(g, x, y);
        let twice = tape.op("Mul", &[&twice, &two], &[]);
        let whole = tape.op("Mul", &[&twice, x], &[]);
        return only(tape.unbroadcast(whole, x, y)?);
    }
    let mut exponent = input(node, 1)?.to_owned();
    if tape.dtype(&exponent)? != dtype {
        exponent = tape.cast(&exponent, dtype);
    }
    let one = tape.number(1.0, dtype);
    let less = tape.op("Sub", &[&exponent, &one], &[]);
    let power = tape.op("Pow", &[x, &less], &[]);
    let slope = tape.op("Mul", &[&power, &exponent], &[]);
    let whole = tape.op("Mul", &[g, &slope], &[]);
    only(tape.unbroadcast(whole, x, y)?)
}

/// `g / (2 y)`.
pub(super) fn sqrt<'a>(tape: &mut Tape<'a>, node: NodeView<'a>, g: &str) -> Operands {
    let y = result(node)?;
    let half = tape.number(0.5, tape.dtype(y)?);
    let share = tape.op("Div", &[g, y], &[]);
    times(tape, &share, &half)
}

/// `-g y^2`.
pub(super) fn reciprocal<'a>(tape: &mut Tape<'a>, node: NodeView<'a>, g: &str) -> Operands {
    let y = result(node)?;
    let square = tape.op("Mul", &[y, y], &[]);
    let product = tape.op("Mul", &[g, &square], &[]);
    only(tape.op("Neg", &[&product], &[]))
}

/// `g y`.
pub(super) fn exp<'a>(tape: &mut Tape<'a>, node: NodeView<'a>, g: &str) -> Operands {
    times(tape, g, result(node)?)
}

/// `g / x`.
pub(super) fn log<'a>(tape: &mut Tape<'a>, node: NodeView<'a>, g: &str) -> Operands {
    only(tape.op("Div", &[g, input(node, 0)?], &[]))
}

/// `g sign(x)`.
pub(super) fn abs<'a>(tape: &mut Tape<'a>, node: NodeView<'a>, g: &str) -> Operands {
    let sign = tape.op("Sign", &[input(node, 0)?], &[]);
    times(tape, g, &sign)
}

/// `g cos(x)`.
pub(super) fn sin<'a>(tape: &mut Tape<'a>, node: NodeView<'a>, g: &str) -> Operands {
    let slope = tape.op("Cos", &[input(node, 0)?], &[]);
    times(tape, g, &slope)
}

/// `-g sin(x)`.
pub(super) fn cos<'a>(tape: &mut Tape<'a>, node: NodeView<'a>, g: &str) -> Operands {
    let slope = tape.op("Sin", &[input(node, 0)?], &[]);
    let product = tape.op("Mul", &[g, &slope], &[]);
    only(tape.op("Neg", &[&product], &[]))
}

/// `g y (1 - y)`.
pub(super) fn sigmoid<'a>(tape: &mut Tape<'a>, node: NodeView<'a>, g: &str) -> Operands {
    let y = result(node)?;
    let one = tape.number(1.0, tape.dtype(y)?);
    let rest = tape.op("Sub", &[&one, y], &[]);
    let slope = tape.op("Mul", &[y, &rest], &[]);
    times(tape, g, &slope)
}

/// `g (1 - y^2)`.
pub(super) fn tanh<'a>(tape: &mut Tape<'a>, node: NodeView<'a>, g: &str) -> Operands {
    let y = result(node)?;
    let one = tape.number(1.0, tape.dtype(y)?);
    let square = tape.op("Mul", &[y, y], &[]);
    let slope = tape.op("Sub", &[&one, &square], &[]);
    times(tape, g, &slope)
}

/// `g 2 / sqrt(pi) exp(-x^2)`.
pub(super) fn erf<'a>(tape: &mut Tape<'a>, node: NodeView<'a>, g: &str) -> Operands {
    let x = input(node, 0)?;
    let square = tape.op("Mul", &[x, x], &[]);
    let exponent = tape.op("Neg", &[&square], &[]);
    let bell = tape.op("Exp", &[&exponent], &[]);
    let factor = tape.number(std::f32::consts::FRAC_2_SQRT_PI, tape.dtype(x)?);
    let slope = tape.op("Mul", &[&bell, &factor], &[]);
    times(tape, g, &slope)
}

/// `g` where `x > 0`.
pub(super) fn relu<'a>(tape: &mut Tape<'a>, node: NodeView<'a>, g: &str) -> Operands {
    let x = input(node, 0)?;
    let zero = tape.number(0.0, tape.dtype(x)?);
    let above = tape.op("Greater", &[x, &zero], &[]);
    only(tape.op("Where", &[&above, g, &zero], &[]))
}

/// `g` where `x > 0`, elsewhere `alpha g`.
pub(super) fn leaky_relu<'a>(tape: &mut Tape<'a>, node: NodeView<'a>, g: &str) -> Operands {
    let x = input(node, 0)?;
    let dtype = tape.dtype(x)?;
    let zero = tape.number(0.0, dtype);
    let alpha = tape.number(node.float("alpha").unwrap_or(0.01), dtype);
    let above = tape.op("Greater", &[x, &zero], &[]);
    let less = tape.op("Mul", &[g, &alpha], &[]);
    only(tape.op("Where", &[&above, g, &less], &[]))
}

/// `g sigmoid(x)`.
pub(super) fn softplus<'a>(tape: &mut Tape<'a>, node: NodeView<'a>, g: &str) -> Operands {
    let slope = tape.op("Sigmoid", &[input(node, 0)?], &[]);
    times(tape, g, &slope)
}

/// `g` where `x` is inside the bounds.
pub(super) fn clip<'a>(tape: &mut Tape<'a>, node: NodeView<'a>, g: &str) -> Operands {
    if tape.wants(node, 1) || tape.wants(node, 2) {
        return Err(Unsupported::Form("for its bounds"));
    }
    let x = input(node, 0)?;
    let zero = tape.number(0.0, tape.dtype(x)?);
    let mut gradient = g.to_owned();
    for (index, outside) in [(1, "Less"), (2, "Greater")] {
        if let Some(bound) = node.input(index) {
            let outside = tape.op(outside, &[x, bound], &[]);
            gradient = tape.op("Where", &[&outside, &zero, &gradient], &[]);
        }
    }
    only(gradient)
}

/// `g` for the larger operand, and for the first if they are equal.
pub(super) fn max<'a>(tape: &mut Tape<'a>, node: NodeView<'a>, g: &str) -> Operands {
    extreme(tape, node, g, "Less")
}

/// `g` for the smaller operand, and for the first if they are equal.
pub(super) fn min<'a>(tape: &mut Tape<'a>, node: NodeView<'a>, g: &str) -> Operands {
    extreme(tape, node, g, "Greater")
}

/// `loses` compares the first operand with the second.
fn extreme(tape: &mut Tape<'_>, node: NodeView<'_>, g: &str, loses: &'static str) -> Operands {
    if node.inputs().len() != 2 {
        return Err(Unsupported::Form("of other than two operands"));
    }
    let (a, b) = (input(node, 0)?, input(node, 1)?);
    let zero = tape.number(0.0, tape.dtype(a)?);
    let second = tape.op(loses, &[a, b], &[]);
    each(tape, node, |tape, index| {
        let (first, other) = if index == 0 { (zero.as_str(), g) } else { (g, zero.as_str()) };
        Ok(tape.op("Where", &[&second, first, other], &[]))
    })
}

/// `g` where the condition holds for the one, where it does not for the other.
pub(super) fn choose<'a>(tape: &mut Tape<'a>, node: NodeView<'a>, g: &str) -> Operands {
    let condition = input(node, 0)?;
    let zero = tape.number(0.0, tape.dtype(result(node)?)?);
    each(tape, node, |tape, index| {
        let (first, other) = if index == 1 { (g, zero.as_str()) } else { (zero.as_str(), g) };
        Ok(tape.op("Where", &[condition, first, other], &[]))
    })
}
