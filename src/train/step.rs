//! The graph of a step: the model with an adapter whose matrices are inputs, the loss, and the gradient.

use super::error::Error;
use super::kind::Loss;
use super::loss::{self, LOSS, LossEdit, SCALE};
use super::measure::measure;
use super::optimizer::AdamW;
use super::optimizer::names::{GRADIENT, THETA};
use super::parameters::Parameters;
use super::recompute::Recompute;
use crate::adapter::Adapter;
use crate::dtype::DType;
use crate::gradient::{self, Backward, Growth, Path, Values, backward, outline, recompute, unrounded};
use crate::linear::Linear;
use crate::onnx::{Builder, Graph, Input, Model, Output, Patch, ValueInfo};
use crate::runtime::{Runtime, Session, SessionOptions, Value};
use crate::splice;
use std::collections::HashMap;

/// The graph of a step. Its inputs are those of the model, the parameters [`THETA`] and those of the loss; its outputs
/// the loss and the gradient with respect to the parameters.
pub(crate) struct Step {
    pub(crate) model: Model,
    /// The same, for when memory runs out.
    pub(crate) spare: Option<Model>,
    /// The loss without its gradient.
    pub(crate) loss: Model,
    /// Whether `model` computes activations again.
    pub(crate) again: bool,
    /// Modules that the loss does not depend on.
    pub(crate) unreached: Vec<String>,
    /// Operators that round activations, which the gradient passes straight through.
    pub(crate) rounded: Vec<String>,
}

impl Step {
    /// The same with its optimizer: the parameters and moments after the step are outputs, the gradient is none.
    ///
    /// # Errors
    /// [`Error::Scaled`] when gradients are scaled on their way, which needs a loop that knows what overflows.
    pub(crate) fn with_optimizer(&self, adamw: &AdamW, parameters: &Parameters) -> Result<Model, Error> {
        if self.model.inputs().iter().any(|input| input.name == SCALE) {
            return Err(Error::Scaled);
        }
        Ok(adamw.behind(&self.model, parameters.len())?)
    }
}

/// The model with an adapter of these shapes whose matrices come from [`THETA`], and a loss.
pub(crate) struct Forward {
    model: Model,
    /// The same with its fused operators, where they were spelled out in `model`.
    fused: Option<Model>,
    seed: (String, String),
    /// Whether gradients are multiplied by [`SCALE`] on their way.
    scaled: bool,
}

impl Forward {
    /// Puts the branches of the adapter and the loss into a model.
    ///
    /// # Errors
    /// When the adapter does not fit the model, a layer cannot have a branch, or the model has no head.
    pub(crate) fn new(
        model: &Model,
        linears: &[Linear],
        loss: (Loss, &ValueInfo),
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
        let scaled = linears.iter().any(|linear| linear.weight.dtype == DType::F16);
        let mut fused = None;
        if let Some(outlined) = outline(&model) {
            let LossEdit { patch, .. } = loss::add(&model, linears, loss, scaled)?;
            fused = Some(model.apply(&patch)?.needed()?);
            model = model.apply(&outlined)?;
        }
        let LossEdit { patch, seed } = loss::add(&model, linears, loss, scaled)?;
        Ok(Self { model: model.apply(&patch)?, fused, seed, scaled })
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
        memory: Memory,
    ) -> Result<Step, Error> {
        let graph = Graph::new(&self.model);
        let path = gradient::path(&graph, &parameters.names(), std::slice::from_ref(&self.seed.0))?;
        let values = measure(runtime, options, &self.model, &path, feeds)?;
        let pass = Pass { forward: self, graph: &graph, path: &path, values: &values, parameters };
        let found = pass.backward()?;
        let again = memory.recompute.applies(found.kept(&values, &memory.growth), options.device);
        let spare = memory.recompute.is_spare(options.device).then(|| pass.model(pass.backward()?, true));
        let is_missing = |name: &String| !found.gradients.contains_key(name);
        let missing = parameters.names().into_iter().filter(is_missing);
        let unreached = missing.filter_map(|name| splice::module_of(&name)).collect();
        let rounded = found.rounded.iter().cloned().collect();
        // The loss is the only output yet.
        let (model, loss) = (pass.model(found, again)?, self.model.needed()?);
        Ok(Step { model, spare: spare.transpose()?, loss, again, unreached, rounded })
    }
}

/// What is done about the memory of activations.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    pub(crate) recompute: Recompute,
    /// The sizes of the batch that is measured, and of the largest one.
    pub(crate) growth: Growth,
}

/// The backward pass while it is being made.
struct Pass<'a> {
    forward: &'a Forward,
    graph: &'a Graph<'a>,
    path: &'a Path,
    values: &'a Values,
    parameters: &'a Parameters,
}

impl Pass<'_> {
    /// The gradients of the matrices.
    fn backward(&self) -> Result<Backward, Error> {
        let seed = std::slice::from_ref(&self.forward.seed);
        Ok(backward(self.graph, self.path, self.values, seed, &self.parameters.names())?)
    }

    /// The graph of a step.
    fn model(&self, found: Backward, again: bool) -> Result<Model, Error> {
        let mut nodes = Builder::new("step", self.graph.model().opset());
        let joined = if self.forward.scaled { nodes.name("scaled") } else { GRADIENT.to_owned() };
        let made = found.graph.nodes().iter().enumerate();
        let made = made.flat_map(|(index, node)| node.outputs.iter().map(move |name| (name.as_str(), index)));
        let places: HashMap<&str, usize> = made.collect();
        let gradient = |name: &str| found.gradients.get(name);
        self.parameters.join(gradient, |name| places.get(name).copied(), &joined, &mut nodes);
        if self.forward.scaled {
            nodes.op("Div", &[&joined, SCALE]).to(GRADIENT);
        }
        let outputs = [LOSS, GRADIENT].map(|name| Output { name: name.to_owned(), dtype: Some(DType::F32) }).into();
        let mut patch = Patch { outputs, drop_outputs: true, ..Patch::default() };
        if again {
            patch.extend(recompute(
                self.graph,
                self.path,
                self.values,
                std::slice::from_ref(&self.forward.seed.0),
                found,
            ));
        } else {
            found.graph.add_to(&mut patch);
        }
        nodes.add_to(&mut patch);
        Ok(self.forward.model.apply(&patch)?.needed()?)
    }
}
