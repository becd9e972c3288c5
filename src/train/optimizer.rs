//! AdamW (Loshchilov and Hutter 2019, algorithm 2) with the gradient clipped by its norm, as a model of its own.

use super::loss::LOSS;
use crate::dtype::DType;
use crate::onnx::{Builder, Constant, Error, Input, Model, Output, Patch};

/// Operator set of the model.
const OPSET: i64 = 15;

/// What does not change from step to step; the defaults are PyTorch's, but for the weight decay.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    /// Decay of the mean of the gradients.
    pub beta1: f32,
    /// Decay of the mean of their squares.
    pub beta2: f32,
    /// Added to the root of that mean.
    pub epsilon: f32,
    /// Share of each parameter that a step takes away, times the learning rate.
    pub weight_decay: f32,
    /// Largest norm of a gradient; longer ones are shortened to it. 0 for none.
    pub clip: f32,
}

impl Default for AdamW {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.0, clip: 1.0 }
    }
}

/// Inputs and outputs of the model of [`AdamW::model`]. All but [`SETTINGS`](names::SETTINGS) are vectors as long as
/// the parameters.
pub(crate) mod names {
    /// The parameters.
    pub(crate) const THETA: &str = "step/theta";
    /// Mean of the gradients.
    pub(crate) const MEAN: &str = "step/mean";
    /// Mean of the squares.
    pub(crate) const SQUARE: &str = "step/square";
    /// The gradient.
    pub(crate) const GRADIENT: &str = "step/gradient";
    /// The learning rate, `1 - beta1^t` and `1 - beta2^t` for step t, which starts at 1.
    pub(crate) const SETTINGS: [&str; 3] = ["step/rate", "step/bias1", "step/bias2"];
    /// The parameters, the mean and the mean of the squares after the step, and the norm of the gradient before it was
    /// clipped, as outputs in this order.
    pub(crate) const OUTPUTS: [&str; 4] = ["step/theta_next", "step/mean_next", "step/square_next", "step/norm"];
}

impl AdamW {
    /// One step as a model: from parameters, moments and a gradient to the next ones.
    pub(super) fn model(&self) -> Result<Model, Error> {
        use names::{GRADIENT, MEAN, OUTPUTS, SETTINGS, SQUARE, THETA};
        let vectors = [THETA, MEAN, SQUARE, GRADIENT].map(|name| vector(name, None));
        let mut patch = Patch {
            inputs: vectors.into_iter().chain(SETTINGS.map(number)).collect(),
            outputs: OUTPUTS.map(output).into(),
            ..Patch::default()
        };
        self.nodes(OPSET).add_to(&mut patch);
        Model::empty(OPSET).apply(&patch)
    }

    /// The graph of a step with its optimizer: from parameters of this length and moments to the next ones.
    pub(super) fn behind(&self, step: &Model, length: usize) -> Result<Model, Error> {
        use names::{MEAN, OUTPUTS, SETTINGS, SQUARE};
        let length = Some(length as i64);
        let mut patch = Patch {
            inputs: [MEAN, SQUARE].map(|name| vector(name, length)).into_iter().chain(SETTINGS.map(number)).collect(),
            outputs: [LOSS].into_iter().chain(OUTPUTS).map(output).collect(),
            drop_outputs: true,
            ..Patch::default()
        };
        self.nodes(step.opset()).add_to(&mut patch);
        step.apply(&patch)
    }

    /// The nodes of one step.
    fn nodes(&self, opset: i64) -> Builder {
        use names::{GRADIENT, MEAN, OUTPUTS, SETTINGS, SQUARE, THETA};
        let [rate, bias1, bias2] = SETTINGS;
        let mut graph = Builder::new("adamw", opset);
        let number = |graph: &mut Builder, part: &str, value: f32| graph.constant(part, Constant::scalar(value));

        let squares = graph.op("Mul", &[GRADIENT, GRADIENT]).output("squares");
        let sum = graph.reduce_sum(&squares, &[0], "axis").output("sum");
        graph.op("Sqrt", &[&sum]).to(OUTPUTS[3]);
        let mut gradient = GRADIENT.to_owned();
        if self.clip > 0.0 {
            // As torch.nn.utils.clip_grad_norm_ does.
            let (small, one) = (number(&mut graph, "small", 1e-6), number(&mut graph, "one", 1.0));
            let clip = number(&mut graph, "clip", self.clip);
            let length = graph.op("Add", &[OUTPUTS[3], &small]).output("length");
            let ratio = graph.op("Div", &[&clip, &length]).output("ratio");
            let factor = graph.op("Min", &[&ratio, &one]).output("factor");
            gradient = graph.op("Mul", &[GRADIENT, &factor]).output("clipped");
        }
        let moment = |graph: &mut Builder, part: &str, before: &str, new: &str, beta: f32, to: &str| {
            let beta_name = graph.constant(&format!("{part}/beta"), Constant::scalar(beta));
            let rest = graph.constant(&format!("{part}/rest"), Constant::scalar(1.0 - beta));
            let kept = graph.op("Mul", &[before, &beta_name]).output(&format!("{part}/kept"));
            let added = graph.op("Mul", &[new, &rest]).output(&format!("{part}/added"));
            graph.op("Add", &[&kept, &added]).to(to);
        };
        moment(&mut graph, "mean", MEAN, &gradient, self.beta1, OUTPUTS[1]);
        let squares = graph.op("Mul", &[&gradient, &gradient]).output("clipped_squares");
        moment(&mut graph, "square", SQUARE, &squares, self.beta2, OUTPUTS[2]);

        let mean = graph.op("Div", &[OUTPUTS[1], bias1]).output("mean_unbiased");
        let square = graph.op("Div", &[OUTPUTS[2], bias2]).output("square_unbiased");
        let root = graph.op("Sqrt", &[&square]).output("root");
        let epsilon = number(&mut graph, "epsilon", self.epsilon);
        let root = graph.op("Add", &[&root, &epsilon]).output("root_above");
        let direction = graph.op("Div", &[&mean, &root]).output("direction");
        let decay = number(&mut graph, "decay", self.weight_decay);
        let decayed = graph.op("Mul", &[THETA, &decay]).output("decayed");
        let direction = graph.op("Add", &[&direction, &decayed]).output("direction_decayed");
        let change = graph.op("Mul", &[&direction, rate]).output("change");
        graph.op("Sub", &[THETA, &change]).to(OUTPUTS[0]);
        graph
    }
}

/// A vector of floats that is read.
fn vector(name: &str, length: Option<i64>) -> Input {
    Input { name: name.to_owned(), dtype: DType::F32, shape: vec![length] }
}

/// A float that is read.
fn number(name: &str) -> Input {
    Input { name: name.to_owned(), dtype: DType::F32, shape: Vec::new() }
}

fn output(name: &str) -> Output {
    Output { name: name.to_owned(), dtype: Some(DType::F32) }
}

/// The sum of two vectors, `a` and `b`, as `sum`.
pub(super) fn sum() -> Result<Model, Error> {
    let mut graph = Builder::new("sum", OPSET);
    graph.op("Add", &["a", "b"]).to("sum");
    let mut patch = Patch {
        inputs: ["a", "b"].map(|name| vector(name, None)).into(),
        outputs: vec![output("sum")],
        ..Patch::default()
    };
    graph.add_to(&mut patch);
    Model::empty(OPSET).apply(&patch)
}
