//! The loss of a model as part of its graph.

use super::{Error, PREFIX};
use crate::dtype::DType;
use crate::onnx::{Attribute, Constant, Dim, Input, Model, Node, Output, Patch};

/// What a model is trained for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Each position predicts the next token: logits [batch, sequence, vocabulary].
    CausalLm,
    /// Each row has one class: logits [batch, classes].
    Classification,
}

impl Task {
    /// The word for it on the command line and in files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CausalLm => "causal-lm",
            Self::Classification => "classification",
        }
    }
}

/// Names that the loss adds to a graph.
pub const LOSS: &str = "loss";
/// The input for the right answers.
pub const LABELS: &str = "labels";
/// Labels that do not count.
pub const IGNORED: i64 = -100;

/// The edit that adds the mean cross entropy of the logits as output 0, with an input `labels` as the last one, and
/// drops all other outputs but the logits; with it the task and the name of the logits.
///
/// For a language model, labels are those of transformers: [batch, sequence], one a token, shifted in the graph; for a
/// classifier `[batch]`. Labels of -100 do not count. `classes` is used when the graph does not tell the width of its
/// logits.
///
/// # Errors
/// [`Error::NotTrainable`] when there are no logits of 32-bit floats with two or three dimensions.
pub fn loss(model: &Model, task: Option<Task>, classes: Option<usize>) -> Result<(Patch, Task, String), Error> {
    let fail = |reason: String| Err(Error::NotTrainable { reasons: vec![reason] });
    let outputs = model.outputs();
    let Some(logits) = outputs.iter().find(|output| output.name == "logits").or(outputs.first()) else {
        return fail("it has no output".to_owned());
    };
    if logits.dtype != DType::F32 {
        return fail(format!("its output `{}` has type {}, and the loss needs f32", logits.name, logits.dtype));
    }
    let rank = logits.shape.as_ref().map(Vec::len);
    let task = match (task, rank) {
        (Some(task), _) => task,
        (None, Some(3)) => Task::CausalLm,
        (None, Some(2)) => Task::Classification,
        (None, rank) => {
            let rank = rank.map_or_else(|| "no known shape".to_owned(), |rank| format!("{rank} dimensions"));
            return fail(format!("its output `{}` has {rank}, and --loss says what it means", logits.name));
        }
    };
    let wide = match logits.shape.as_ref().and_then(|shape| shape.last()) {
        Some(Dim::Fixed(size)) => Some(*size),
        _ => classes.and_then(|classes| i64::try_from(classes).ok()),
    };
    let mut patch = match (task, wide) {
        (Task::Classification, _) => entropy(&logits.name, LABELS),
        (Task::CausalLm, Some(wide)) => next_token(&logits.name, wide),
        (Task::CausalLm, None) => return fail(format!("the width of its output `{}` is not known", logits.name)),
    };
    let shape = vec![None; if task == Task::CausalLm { 2 } else { 1 }];
    patch.inputs = vec![Input { name: LABELS.to_owned(), dtype: DType::I64, shape }];
    patch.drop_outputs = true;
    patch.types = vec![(LOSS.to_owned(), DType::F32, Vec::new())];
    patch.outputs = [LOSS, &logits.name].map(|name| Output { name: name.to_owned(), dtype: None }).into();
    Ok((patch, task, logits.name.clone()))
}

fn name(part: &str) -> String {
    format!("{PREFIX}{LOSS}/{part}")
}

/// Position i is scored by label i + 1: both are cut and flattened, because the operator takes the classes in axis 1.
fn next_token(logits: &str, wide: i64) -> Patch {
    let mut patch = entropy(&name("flat_logits"), &name("flat_labels"));
    let int = |part: &str, values: Vec<i64>| (name(part), Constant::I64(vec![values.len() as i64], values));
    patch.constants = vec![
        int("zero", vec![0]),
        int("one", vec![1]),
        int("last", vec![-1]),
        int("end", vec![i64::MAX]),
        int("logits_shape", vec![-1, wide]),
    ];
    let node = |part: &str, op, inputs: Vec<String>, output: &str| Node {
        name: name(part),
        op,
        inputs,
        outputs: vec![name(output)],
        attributes: Vec::new(),
    };
    let cut = |of: &str, from: &str, to: &str| vec![of.to_owned(), name(from), name(to), name("one")];
    let before = vec![
        node("Slice_logits", "Slice", cut(logits, "zero", "last"), "shifted_logits"),
        node("Slice_labels", "Slice", cut(LABELS, "one", "end"), "shifted_labels"),
        node("Reshape_logits", "Reshape", vec![name("shifted_logits"), name("logits_shape")], "flat_logits"),
        node("Reshape_labels", "Reshape", vec![name("shifted_labels"), name("last")], "flat_labels"),
    ];
    patch.nodes.splice(0..0, before);
    patch
}

fn entropy(logits: &str, labels: &str) -> Patch {
    let node = Node {
        name: name("SoftmaxCrossEntropyLoss"),
        op: "SoftmaxCrossEntropyLoss",
        inputs: vec![logits.to_owned(), labels.to_owned()],
        outputs: vec![LOSS.to_owned(), name("log_probabilities")],
        attributes: vec![("ignore_index", Attribute::Int(IGNORED))],
    };
    Patch { nodes: vec![node], ..Patch::default() }
}
