//! Normalizations over the last axes. Their scales and biases are frozen.

use super::super::error::Unsupported;
use super::super::tape::{Operands, Tape, axis, input};
use super::reductions::mean_over;
use crate::dtype::DType;
use crate::onnx::NodeView;

/// `(h - mean(h) - n mean(h n)) / sigma` with `h = g scale`, `n` the normalized operand and `sigma` its standard
/// deviation.
pub(super) fn layer<'a>(tape: &mut Tape<'a>, node: NodeView<'a>, g: &str) -> Operands {
    normalize(tape, node, g, true)
}

/// `(h - n mean(h n)) / sigma` with `h = g scale`, `n` the normalized operand and `sigma` the root of its mean square.
pub(super) fn rms<'a>(tape: &mut Tape<'a>, node: NodeView<'a>, g: &str) -> Operands {
    normalize(tape, node, g, false)
}

/// Those of [`layer`] or [`rms`] for the sum of the first two operands and the bias, plus the gradient of that sum, which
/// is the fourth result.
pub(super) fn skip<'a>(tape: &mut Tape<'a>, node: NodeView<'a>, results: &[Option<String>], centred: bool) -> Operands {
    let bias = if centred { 4 } else { 3 };
    if (2..node.inputs().len()).any(|index| tape.wants(node, index)) {
        return Err(Unsupported::Form("for its scale and bias"));
    }
    let (x, y) = (input(node, 0)?, node.output().ok_or(Unsupported::Form("without a result"))?);
    let [g, _, _, of_sum] = [0, 1, 2, 3].map(|index| results.get(index).cloned().flatten());
    if results.iter().flatten().count() > usize::from(g.is_some()) + usize::from(of_sum.is_some()) {
        return Err(Unsupported::Form("through its mean or its deviation"));
    }
    let gradient = match g {
        None => of_sum.ok_or(Unsupported::Operator)?,
        Some(g) => {
            let mut sum = tape.op("Add", &[x, input(node, 1)?], &[]);
            if let Some(bias) = node.input(bias) {
                sum = tape.op("Add", &[&sum, bias], &[]);
            }
            let last = tape.rank(x)? as i64 - 1;
            let epsilon = node.float("epsilon").unwrap_or(1e-12);
            let normalized = Normalized { x: &sum, scale: input(node, 2)?, dtype: tape.dtype(x)?, epsilon, centred };
            let gradient = normalized.gradient(tape, &g, &[last]);
            match of_sum {
                Some(other) => tape.op("Add", &[&gradient, &other], &[]),
                None => gradient,
            }
        }
    };
    let mut gradients = vec![None, None];
    for (index, operand) in gradients.iter_mut().enumerate() {
        if tape.wants(node, index) {
            *operand = Some(tape.unbroadcast(gradient.clone(), input(node, index)?, y)?);
        }
    }
    Ok(gradients)
}

fn normalize(tape: &mut Tape<'_>, node: NodeView<'_>, g: &str, centred: bool) -> Operands {
    if (1..node.inputs().len()).any(|index| tape.wants(node, index)) {
        return Err(Unsupported::Form("for its scale and bias"));
    }
    let x = input(node, 0)?;
    let rank = tape.rank(x)?;
    let first = axis(node.int("axis").unwrap_or(-1), rank)?;
    let axes: Vec<i64> = (first..rank).map(|axis| axis as i64).collect();
    let epsilon = node.float("epsilon").unwrap_or(1e-5);
    let normalized = Normalized { x, scale: input(node, 1)?, dtype: tape.dtype(x)?, epsilon, centred };
    Ok(vec![Some(normalized.gradient(tape, g, &axes))])
}

/// A normalization of `x`.
struct Normalized<'n> {
    x: &'n str,
    scale: &'n str,
    dtype: DType,
    epsilon: f32,
    /// Whether the mean is taken off.
    centred: bool,
}

impl Normalized<'_> {
    /// The gradient of `x`, computed in 32 bits.
    fn gradient(&self, tape: &mut Tape<'_>, g: &str, axes: &[i64]) -> String {
        let [x, g, scale] = [self.x, g, self.scale].map(|name| wide(tape, name, self.dtype));
        let epsilon = tape.number(self.epsilon, DType::F32);
        let centre = if self.centred {
            let mean = mean_over(tape, &x, axes);
            tape.op("Sub", &[&x, &mean], &[])
        } else {
            x
        };
        let square = tape.op("Mul", &[&centre, &centre], &[]);
        let variance = mean_over(tape, &square, axes);
        let shifted = tape.op("Add", &[&variance, &epsilon], &[]);
        let sigma = tape.op("Sqrt", &[&shifted], &[]);
        let normalized = tape.op("Div", &[&centre, &sigma], &[]);

        let mut h = tape.op("Mul", &[&g, &scale], &[]);
        let product = tape.op("Mul", &[&h, &normalized], &[]);
        let along = mean_over(tape, &product, axes);
        let along = tape.op("Mul", &[&normalized, &along], &[]);
        if self.centred {
            let mean = mean_over(tape, &h, axes);
            h = tape.op("Sub", &[&h, &mean], &[]);
        }
        let rest = tape.op("Sub", &[&h, &along], &[]);
        let gradient = tape.op("Div", &[&rest, &sigma], &[]);
        if self.dtype == DType::F32 { gradient } else { tape.cast(&gradient, self.dtype) }
    }
}

/// The tensor in 32 bits.
fn wide(tape: &mut Tape<'_>, tensor: &str, dtype: DType) -> String {
    if dtype == DType::F32 { tensor.to_owned() } else { tape.cast(tensor, DType::F32) }
}
