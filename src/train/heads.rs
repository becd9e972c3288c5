//! Layers that are trained whole, such as the head of a classifier: PEFT's `modules_to_save`.

use super::error::Error;
use crate::dtype::DType;
use crate::graph::{constant, decode};
use crate::linear::module::{ancestors, is_suffix};
use crate::linear::{Linear, Part};
use crate::onnx::{Builder, Change, Edit, Graph, Model, NodeId, Origin, Patch};
use crate::splice::SavedParameter;
use ndarray::{Array2, ArrayD};

/// The parameters of layers that are trained whole.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heads {
    parameters: Vec<HeadParameter>,
}

/// A weight or a bias, as the node of its layer reads it.
#[derive(Clone, Debug)]
struct HeadParameter {
    module: String,
    /// `weight` or `bias`.
    parameter: &'static str,
    /// Its dimensions in the graph.
    shape: Vec<usize>,
    /// Whether the graph has the axes in the other order than PyTorch.
    turned: bool,
    /// Its values in the graph's order.
    start: Vec<f32>,
    /// The type that the layer computes in.
    dtype: DType,
    /// Where nodes read it.
    readers: Vec<Reader>,
}

/// A node, by what it produces, and which of its inputs the parameter is.
#[derive(Clone, Debug)]
struct Reader {
    produces: String,
    input: usize,
}

impl HeadParameter {
    fn name(&self) -> String {
        format!("train/{}/{}", self.module, self.parameter)
    }
}

impl Heads {
    /// The layers that `names` stand for, as PEFT's `modules_to_save` does: modules of these names or name endings, and
    /// those inside them. They begin at the values in `saved`, and else at those of the model.
    ///
    /// # Errors
    /// [`Error::NoHeadModule`] when a name is of no layer, or its parameters cannot be trained.
    pub(crate) fn find(
        model: &Model,
        linears: &[Linear],
        names: &[String],
        saved: &[SavedParameter],
    ) -> Result<Self, Error> {
        let graph = Graph::new(model);
        let mut heads = Self::default();
        for name in names {
            let is_meant = |part: &Part| ancestors(&part.module).any(|module| is_suffix(module, name));
            let layers: Vec<&Linear> = linears.iter().filter(|linear| linear.modules.iter().any(is_meant)).collect();
            if layers.is_empty() {
                let reason = "no layer of the model has this name, or is inside a module that has it";
                return Err(Error::NoHeadModule { module: name.clone(), reason });
            }
            for layer in layers {
                let [Part { module, columns: None, slice: None }] = &layer.modules[..] else {
                    return Err(refused(name, "it shares a node with other modules"));
                };
                heads.add(&graph, layer, module).map_err(|reason| refused(module, reason))?;
            }
        }
        for parameter in saved {
            heads.begin(parameter)?;
        }
        Ok(heads)
    }

    /// Adds the weight and the bias of a layer.
    fn add(&mut self, graph: &Graph<'_>, linear: &Linear, module: &str) -> Result<(), &'static str> {
        if !linear.at.subgraph.is_empty() {
            return Err("it is inside an If");
        }
        let Some(Origin::Node(id)) = graph.origin(0, &linear.output.tensor) else { return Err("it has no node") };
        let node = graph.node(id);
        let is_one = |name: &str| node.float(name).is_none_or(|value| value == 1.0);
        let is_plain = matches!(node.op(), "MatMul" | "Gemm") && node.domain().is_empty();
        if !is_plain || !is_one("alpha") || !is_one("beta") || linear.output.fused.is_some() {
            return Err("it is no plain MatMul or Gemm");
        }
        let dtype = linear.weight.dtype;
        if dtype != DType::F32 && !dtype.is_half() {
            return Err("its weight is no float");
        }
        let values = decode::weight(graph, id).ok_or("its weight is not constant, or stored in an unknown way")?;
        let (inside, outside) = (linear.in_features, linear.out_features);
        if !values.is(inside, outside) {
            return Err("its weight has another shape than its result");
        }
        let turned = node.flag("transB") == linear.weight.fan_in_fan_out;
        let out_first = node.flag("transB");
        let weight =
            Array2::from_shape_fn(if out_first { (outside, inside) } else { (inside, outside) }, |(row, column)| {
                if out_first { values.at(column, row) } else { values.at(row, column) }
            });
        let reader = Reader { produces: linear.output.tensor.clone(), input: 1 };
        let shape = weight.shape().to_vec();
        let start = weight.iter().copied().collect();
        self.put(HeadParameter {
            module: module.to_owned(),
            parameter: "weight",
            shape,
            turned,
            start,
            dtype,
            readers: vec![reader],
        })?;
        let Some(root) = &linear.weight.bias else { return Ok(()) };
        let (at, input) = bias(graph, id, &linear.output.tensor, root).ok_or("its bias is not read beside it")?;
        let operand = constant::operand(graph, at, input).filter(|operand| operand.nodes.is_empty());
        let tensor = operand.ok_or("its bias is not stored as it is read")?.tensor;
        let start = tensor.bytes().and_then(|bytes| tensor.dtype().decode(&bytes)).ok_or("its bias is no float")?;
        if start.len() != outside {
            return Err("its bias has another size than its result");
        }
        let produces = graph.node(at).output().ok_or("its bias is not read beside it")?.to_owned();
        let readers = vec![Reader { produces, input }];
        let module = module.to_owned();
        self.put(HeadParameter {
            module,
            parameter: "bias",
            shape: vec![outside],
            turned: false,
            start,
            dtype,
            readers,
        })
    }

    /// Adds a parameter, or the place where a module that is called again reads it.
    fn put(&mut self, new: HeadParameter) -> Result<(), &'static str> {
        let known = self.parameters.iter_mut().find(|known| known.name() == new.name());
        match known {
            None => self.parameters.push(new),
            Some(known) if known.shape == new.shape && known.turned == new.turned && known.start == new.start => {
                let is_new = |reader: &Reader| known.readers.iter().all(|other| other.produces != reader.produces);
                if new.readers.iter().all(is_new) {
                    known.readers.extend(new.readers);
                }
            }
            Some(_) => return Err("its calls have different weights"),
        }
        Ok(())
    }

    /// Takes the values that a parameter has in the adapter.
    fn begin(&mut self, saved: &SavedParameter) -> Result<(), Error> {
        let SavedParameter { module, parameter, values } = saved;
        let is_it = |known: &&mut HeadParameter| known.module == *module && known.parameter == parameter;
        let known = self.parameters.iter_mut().find(is_it);
        let known = known.ok_or_else(|| refused(module, "the model has no such parameter, and the adapter has"))?;
        let values = if known.turned { values.t() } else { values.view() };
        if values.shape() != known.shape {
            return Err(refused(module, "it has another shape in the adapter"));
        }
        known.start = values.iter().copied().collect();
        Ok(())
    }

    /// The modules, each once, in their order.
    pub(crate) fn modules(&self) -> Vec<&str> {
        let mut modules: Vec<&str> = self.parameters.iter().map(|parameter| parameter.module.as_str()).collect();
        modules.dedup();
        modules
    }

    /// The name in the graph and the dimensions of each parameter, in order.
    pub(super) fn shapes(&self) -> impl Iterator<Item = (String, Vec<usize>)> {
        self.parameters.iter().map(|parameter| (parameter.name(), parameter.shape.clone()))
    }

    /// The values that the parameters begin at, one after the other.
    pub(super) fn start(&self) -> impl Iterator<Item = f32> {
        self.parameters.iter().flat_map(|parameter| parameter.start.iter().copied())
    }

    /// The parameters with the values of a vector, as PyTorch has them.
    pub(super) fn saved(&self, vector: &[f32]) -> Vec<SavedParameter> {
        let mut rest = vector;
        let saved = self.parameters.iter().map(|parameter| {
            let (values, after) = rest.split_at(parameter.start.len());
            rest = after;
            let shape = parameter.shape.clone();
            let values =
                ArrayD::from_shape_vec(shape.clone(), values.to_vec()).unwrap_or_else(|_| ArrayD::zeros(shape));
            let values = if parameter.turned { values.reversed_axes() } else { values };
            let (module, name) = (parameter.module.clone(), parameter.parameter.to_owned());
            SavedParameter { module, parameter: name, values }
        });
        saved.collect()
    }

    /// Makes the nodes of the layers read tensors of the parameters' names, cast to the type that they compute in.
    pub(super) fn connect(&self, nodes: &mut Builder, patch: &mut Patch) {
        for parameter in &self.parameters {
            let mut tensor = parameter.name();
            if parameter.dtype != DType::F32 {
                tensor = nodes.cast(&tensor, parameter.dtype).output(&format!("{tensor}/cast"));
            }
            for Reader { produces, input } in &parameter.readers {
                let edit = Edit::Read { input: *input, tensor: tensor.clone() };
                patch.changes.push(Change { subgraph: Vec::new(), produces: produces.clone(), edit });
            }
        }
    }
}

fn refused(module: &str, reason: &'static str) -> Error {
    Error::NoHeadModule { module: module.to_owned(), reason }
}

/// The node that reads the bias stored as `root`, the layer's own or one after it, and at which input.
fn bias(graph: &Graph<'_>, id: NodeId, output: &str, root: &str) -> Option<(NodeId, usize)> {
    let after = graph.readers(id.scope, output).iter().copied();
    [id].into_iter().chain(after).find_map(|at| {
        let reads = |input: &usize| constant::operand(graph, at, *input).is_some_and(|operand| operand.root() == root);
        Some((at, (0..graph.node(at).inputs().len()).find(reads)?))
    })
}
