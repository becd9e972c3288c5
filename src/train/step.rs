//! The graph of a step: the model with an adapter whose matrices are inputs, the loss, and the gradient.

use super::error::Error;
use super::kind::Loss;
use super::loss::{self, LOSS, LossEdit};
use super::measure::measure;
use super::optimizer::names::{GRADIENT, THETA};
use super::parameters::Parameters;
use crate::adapter::Adapter;
use crate::dtype::DType;
use crate::gradient::{self, backward, outline, unrounded};
use crate::linear::Linear;
use crate::onnx::{Builder, Graph, Input, Model, Output, Patch, ValueInfo};
use crate::runtime::{Runtime, Session, SessionOptions, Value};
use crate::splice;

/// The graph of a step. Its inputs are those of the model, the parameters [`THETA`] and those of the loss; its outputs
/// the loss and the gradient with respect to the parameters.
pub(crate) struct Step {
    pub(crate) model: Model,
    /// Modules that the loss does not depend on.
    pub(crate) unreached: Vec<String>,
    /// Operators that round activations, which the gradient passes straight through.
    pub(crate) rounded: Vec<String>,
}

/// The model with an adapter of these shapes whose matrices come from [`THETA`], and a loss.
pub(crate) struct Forward {
    model: Model,
    /// The same with its fused operators, where they were spelled out in `model`.
    fused: Option<Model>,
    seed: (String, String),
}

impl Forward {
    /// Puts the branches of the adapter and the loss into a model.
    ///
    /// # Errors
    /// When the adapter does not fit the model, a layer cannot have a branch, or the model has no head.
    pub(crate) fn new(
        model: &Model,
        linears: &[Linear],
        (loss, logits): (Loss, &ValueInfo),
        adapter: &Adapter,
        parameters: &Parameters,
    ) -> Result<Self, Error> {
        let sites = splice::fit(linears, adapter)?;
        splice::check_products(&sites)?;
        let mut patch = splice::branches(model, &sites)?;
        let mut graph = Builder::new("step", model.opset());
        parameters.take_apart(THETA, &mut graph);
        parameters.heads.connect(&mut graph, &mut patch);
        let (nodes, constants) = graph.finish();
        patch.leading = nodes;
        patch.constants.extend(constants);
        let shape = vec![Some(parameters.len() as i64)];
        patch.inputs.push(Input { name: THETA.to_owned(), dtype: DType::F32, shape });
        let mut model = model.apply(&patch)?;
        if let Some(patch) = unrounded(&model) {
            model = model.apply(&patch)?;
        }
        let mut fused = None;
        if let Some(outlined) = outline(&model) {
            let LossEdit { patch, .. } = loss::add(&model, linears, loss, logits)?;
            fused = Some(model.apply(&patch)?);
            model = model.apply(&outlined)?;
        }
        let LossEdit { patch, seed } = loss::add(&model, linears, loss, logits)?;
        Ok(Self { model: model.apply(&patch)?, fused, seed })
    }

    /// The loss of the model with its fused operators; nothing if it has none.
    ///
    /// # Errors
    /// When ONNX Runtime refuses the model or fails.
    pub(crate) fn fused_loss(
        &self,
        runtime: &Runtime,
        options: SessionOptions,
        feeds: &[(String, Value)],
    ) -> Result<Option<f64>, Error> {
        let Some(model) = &self.fused else { return Ok(None) };
        let mut session = Session::load(runtime, model, options)?;
        let needed = session.inputs();
        let feeds = feeds.iter().filter(|(name, _)| needed.contains(name)).map(|(name, value)| (name.as_str(), value));
        let outputs = session.run(feeds)?;
        let loss = outputs.first().map(Value::as_f32).transpose()?.and_then(|(_, values)| values.first().copied());
        Ok(loss.map(f64::from))
    }

    /// Adds the gradient. `feeds` are values for one small batch.
    ///
    /// # Errors
    /// When an operator on the way has no gradient, or ONNX Runtime refuses the model.
    pub(crate) fn with_gradient(
        &self,
        parameters: &Parameters,
        runtime: &Runtime,
        options: SessionOptions,
        feeds: &[(String, Value)],
    ) -> Result<Step, Error> {
        let graph = Graph::new(&self.model);
        let wanted = parameters.names();
        let path = gradient::path(&graph, &wanted, std::slice::from_ref(&self.seed.0))?;
        let values = measure(runtime, options, &self.model, &path, feeds)?;
        let found = backward(&graph, &path, &values, std::slice::from_ref(&self.seed), &wanted)?;
        let mut nodes = Builder::new("step", self.model.opset());
        parameters.join(|name| found.gradients.get(name), GRADIENT, &mut nodes);
        let output = |name: &str| Output { name: name.to_owned(), dtype: Some(DType::F32) };
        let mut patch = Patch { outputs: vec![output(LOSS), output(GRADIENT)], drop_outputs: true, ..Patch::default() };
        found.graph.add_to(&mut patch);
        nodes.add_to(&mut patch);
        let is_missing = |name: &&String| !found.gradients.contains_key(*name);
        let unreached = wanted.iter().filter(is_missing).filter_map(|name| splice::module_of(name)).collect();
        Ok(Step { model: self.model.apply(&patch)?, unreached, rounded: found.rounded.into_iter().collect() })
    }
}
