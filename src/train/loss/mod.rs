//! The loss and its gradient at the logits, in plain operators.
//!
//! Only what has a target is scored. Where the output head is a plain product of tokens, it sees only those.

mod chunks;
mod head;
mod names;
mod rows;
mod terms;

pub(crate) use names::{LOSS, ROWS, SCALE, TARGETS, WEIGHT};

use super::error::Error;
use super::kind::{Loss, Term};
use crate::dtype::DType;
use crate::linear::Linear;
use crate::onnx::{Builder, Constant, Dim, Graph, Input, Model, Output, Patch, ValueInfo};
use head::head;
use rows::rows;

/// The edit that adds a loss.
pub(super) struct LossEdit {
    pub(super) patch: Patch,
    /// The tensor that the backward pass starts at, and its gradient.
    pub(super) seed: (String, String),
}

/// The output that the loss is computed from: `logits`, or the only output of a model whose loss was asked for.
///
/// # Errors
/// [`Error::NoHead`].
pub(crate) fn logits(model: &Model, asked: bool) -> Result<ValueInfo, Error> {
    let outputs = model.outputs();
    let named = outputs.iter().find(|output| output.name == "logits");
    let only = if let [only] = &outputs[..] { Some(only) } else { None };
    let found = named.or(only.filter(|_| asked)).cloned();
    found.ok_or_else(|| Error::NoHead { outputs: outputs.into_iter().map(|output| output.name).collect() })
}

/// The edit that makes the sum of the losses of all targets, times the weight, the only output. With `scaled`, the gradient
/// is multiplied by [`SCALE`] while it has 32 bits.
///
/// # Errors
/// [`Error::Logits`] when the logits are not of the shape that the loss takes.
pub(super) fn add(
    model: &Model,
    linears: &[Linear],
    (loss, logits): (Loss, &ValueInfo),
    scaled: bool,
) -> Result<LossEdit, Error> {
    let rank: i64 = if loss.is_per_token() { 3 } else { 2 };
    if logits.shape.as_ref().is_some_and(|shape| shape.len() as i64 != rank) || !logits.dtype.is_float() {
        return Err(Error::Logits { output: logits.name.clone(), loss });
    }
    let graph = Graph::new(model);
    let mut nodes = Builder::new("loss", model.opset());
    let mut takeovers = Vec::new();
    // The head's rows are another number than the model's tokens, which a shape that is fixed does not allow.
    let is_fixed = |shape: &Vec<Dim>| matches!(shape[..2], [Dim::Fixed(_), _] | [_, Dim::Fixed(_)]);
    let dynamic = rank == 3 && !logits.shape.as_ref().is_some_and(is_fixed);
    let found = head(&graph, linears, &logits.name).filter(|_| dynamic && loss.term() == Term::CrossEntropy);
    let seed = match found {
        Some(head) if chunks::is_worth_it(&head) => chunks::add(&mut nodes, &head, logits.dtype, scaled),
        found => {
            let scored = match found {
                Some(head) => {
                    takeovers.push(head.of_rows(model.opset()));
                    nodes.constant("front", Constant::ints(vec![0]));
                    nodes.op("Flatten", &[&logits.name]).int("axis", 2).output("logits")
                }
                None => rows(&mut nodes, &logits.name, "logits", rank),
            };
            let is_wide = logits.dtype == DType::F32;
            let scored = if is_wide { scored } else { nodes.cast(&scored, DType::F32).output("wide") };
            let gradient = terms::add(&mut nodes, loss.term(), &scored);
            (scored, terms::scaled(&mut nodes, gradient, scaled))
        }
    };
    let input = |name: &str, dtype, shape| Input { name: name.to_owned(), dtype, shape };
    let targets = match loss.term() {
        Term::CrossEntropy => input(TARGETS, DType::I64, vec![None]),
        Term::BinaryCrossEntropy | Term::SquaredError => input(TARGETS, DType::F32, vec![None, None]),
    };
    let mut inputs = vec![input(ROWS, DType::I64, vec![None]), targets, input(WEIGHT, DType::F32, Vec::new())];
    inputs.extend(scaled.then(|| input(SCALE, DType::F32, Vec::new())));
    let mut patch = Patch {
        inputs,
        outputs: vec![Output { name: LOSS.to_owned(), dtype: Some(DType::F32) }],
        drop_outputs: true,
        takeovers,
        ..Patch::default()
    };
    nodes.add_to(&mut patch);
    Ok(LossEdit { patch, seed })
}
