//! The loss of a model as part of its graph.

use super::error::Error;
use super::names::PREFIX;
use super::obstacle::Obstacle;
use crate::dtype::DType;
use crate::graph::logits;
use crate::hub::conventions;
use crate::linear::Linear;
use crate::onnx::{Builder, Constant, Dim, Graph, Input, Model, Output, Patch};

/// What a model is trained for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Each position predicts the next token: logits [batch, sequence, vocabulary].
    CausalLm,
    /// Each row has one class: logits [batch, classes].
    Classification,
}

impl Task {
    /// Its name on the command line and in files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CausalLm => "causal-lm",
            Self::Classification => "classification",
        }
    }

    /// Number of dimensions of its logits.
    fn rank(self) -> usize {
        match self {
            Self::CausalLm => 3,
            Self::Classification => 2,
        }
    }
}

/// The output that holds the loss.
pub const LOSS: &str = "loss";
/// The input for the labels.
pub const LABELS: &str = "labels";
/// The label of positions and rows that are ignored.
pub const IGNORED: i64 = -100;

/// An edit that adds a loss to a graph.
#[derive(Clone, Debug, PartialEq)]
pub struct LossEdit {
    /// The edit.
    pub patch: Patch,
    /// The task that the loss is for.
    pub task: Task,
    /// The output that the loss is computed from.
    pub logits: String,
}

/// The edit that adds the mean cross entropy of the logits as output 0 and an input `labels` after the others, and
/// drops all other outputs but the logits.
///
/// Labels are those of transformers. For a language model they are the token ids [batch, sequence], which the graph
/// shifts by one position; for a classifier `[batch]`. Labels of -100 are ignored. `linears` are the layers of the
/// model, and `architecture` its class in transformers, where they are known.
///
/// # Errors
/// [`Error::NotTrainable`] when there are no logits of 32-bit floats with two or three dimensions. Without a `task`, an
/// output is taken for logits if it is called so or comes from an output head, and the class of the model must be one
/// that is trained with one of the two losses.
pub fn loss(
    model: &Model,
    task: Option<Task>,
    linears: &[Linear],
    architecture: Option<&str>,
) -> Result<LossEdit, Error> {
    edit(model, task, linears, architecture).map_err(|obstacle| Error::NotTrainable { obstacles: vec![obstacle] })
}

fn edit(
    model: &Model,
    task: Option<Task>,
    linears: &[Linear],
    architecture: Option<&str>,
) -> Result<LossEdit, Obstacle> {
    let outputs = model.outputs();
    let logits = outputs.iter().find(|output| output.name == "logits").or(outputs.first());
    let logits = logits.ok_or(Obstacle::NoOutput)?;
    let output = || logits.name.clone();
    if task.is_none() {
        if let Some(architecture) = architecture.filter(|name| conventions::has_other_loss(name)) {
            return Err(Obstacle::OtherLoss { architecture: architecture.to_owned() });
        }
        if !is_of_a_head(model, linears, &logits.name) {
            return Err(Obstacle::NoHead { output: output() });
        }
    }
    if logits.dtype != DType::F32 {
        return Err(Obstacle::LogitsType { output: output(), dtype: logits.dtype });
    }
    let task = match (task, logits.shape.as_ref().map(Vec::len)) {
        (Some(task), Some(rank)) if rank != task.rank() => {
            return Err(Obstacle::LossRank { output: output(), rank, task: task.as_str() });
        }
        (Some(task), _) => task,
        (None, Some(3)) => Task::CausalLm,
        (None, Some(2)) => Task::Classification,
        (None, rank) => return Err(Obstacle::LogitsRank { output: output(), rank }),
    };
    let classes = linears.iter().find(|linear| linear.head).map(|linear| linear.out_features);
    if let Some([.., Dim::Fixed(1)]) = logits.shape.as_deref() {
        return Err(Obstacle::OneClass { output: output() });
    }
    let mut graph = Builder::new(format!("{PREFIX}{LOSS}"), model.opset());
    match task {
        Task::Classification => cross_entropy(&mut graph, &logits.name, LABELS),
        Task::CausalLm => {
            let width = match logits.shape.as_ref().and_then(|shape| shape.last()) {
                Some(Dim::Fixed(size)) => Some(*size),
                _ => classes.and_then(|classes| i64::try_from(classes).ok()),
            };
            let width = width.ok_or_else(|| Obstacle::LogitsWidth { output: output() })?;
            next_token(&mut graph, &logits.name, width);
        }
    }
    let labels = vec![None; if task == Task::CausalLm { 2 } else { 1 }];
    let mut patch = Patch {
        inputs: vec![Input { name: LABELS.to_owned(), dtype: DType::I64, shape: labels }],
        outputs: [LOSS, &logits.name].map(|name| Output { name: name.to_owned(), dtype: None }).into(),
        drop_outputs: true,
        types: vec![(LOSS.to_owned(), DType::F32, Vec::new())],
        ..Patch::default()
    };
    graph.add_to(&mut patch);
    Ok(LossEdit { patch, task, logits: output() })
}

/// Whether an output is called logits, or is the result of an output head.
fn is_of_a_head(model: &Model, linears: &[Linear], output: &str) -> bool {
    let graph = Graph::new(model);
    let reaches = |head: &Linear| {
        let scope = (0..graph.scopes()).find(|scope| graph.path(*scope) == head.at.subgraph);
        scope.is_some_and(|scope| logits::reaches(&graph, scope, &head.output.tensor, |name| name == output))
    };
    output.contains("logits") || linears.iter().any(|linear| linear.head && reaches(linear))
}

/// Position i is scored by label i + 1. Both are flattened, because the operator takes the classes in axis 1.
fn next_token(graph: &mut Builder, logits: &str, width: i64) {
    let zero = graph.constant("zero", Constant::ints(vec![0]));
    let one = graph.constant("one", Constant::ints(vec![1]));
    let last = graph.constant("last", Constant::ints(vec![-1]));
    let end = graph.constant("end", Constant::ints(vec![i64::MAX]));
    let shape = graph.constant("logits_shape", Constant::ints(vec![-1, width]));
    let slice_logits = graph.op("Slice", &[logits, &zero, &last, &one]).named("Slice_logits");
    let shifted_logits = slice_logits.output("shifted_logits");
    let slice_labels = graph.op("Slice", &[LABELS, &one, &end, &one]).named("Slice_labels");
    let shifted_labels = slice_labels.output("shifted_labels");
    let flat_logits = graph.op("Reshape", &[&shifted_logits, &shape]).named("Reshape_logits").output("flat_logits");
    let flat_labels = graph.op("Reshape", &[&shifted_labels, &last]).named("Reshape_labels").output("flat_labels");
    cross_entropy(graph, &flat_logits, &flat_labels);
}

fn cross_entropy(graph: &mut Builder, logits: &str, labels: &str) {
    let outputs = vec![LOSS.to_owned(), graph.name("log_probabilities")];
    let loss = graph.op("SoftmaxCrossEntropyLoss", &[logits, labels]).int("ignore_index", IGNORED);
    loss.named("SoftmaxCrossEntropyLoss").outputs(outputs);
}
