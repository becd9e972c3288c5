//! Modules that an adapter's file holds whole, such as the head of a classifier: PEFT's `modules_to_save`.

use super::error::{Error, Unplaceable};
use super::fit::Site;
use super::names::PREFIX;
use super::weight;
use super::weight_file::WeightFile;
use crate::dtype::DType;
use crate::graph::constant;
use crate::linear::{Linear, Part};
use crate::onnx::{Builder, Change, Constant, Edit, Graph, Model, NodeId, Origin, Patch, Takeover};
use ndarray::{ArrayD, ArrayView2, Ix2};

/// A trained parameter of a module.
#[derive(Clone, Debug, PartialEq)]
pub struct SavedParameter {
    /// Full PyTorch name of the module.
    pub module: String,
    /// The name of the parameter in it, for example `weight`.
    pub parameter: String,
    /// Its values, in the shape that PyTorch keeps them in.
    pub values: ArrayD<f32>,
}

/// A layer whose weight becomes another one.
pub(super) struct Replaced<'a> {
    /// The layer, without modules of an adapter.
    pub(super) site: Site<'a>,
    /// The module.
    pub(super) module: &'a str,
    values: &'a ArrayD<f32>,
}

impl Replaced<'_> {
    /// Its weight [out, in].
    pub(super) fn weight(&self) -> Result<ArrayView2<'_, f32>, Unplaceable> {
        let (inside, outside) = (self.site.linear.in_features, self.site.linear.out_features);
        let other_shape = || other_shape(self.values, &[outside, inside]);
        let values = self.values.view().into_dimensionality::<Ix2>().map_err(|_| other_shape())?;
        let values = if self.site.linear.weight.fan_in_fan_out { values.reversed_axes() } else { values };
        if values.dim() == (outside, inside) { Ok(values) } else { Err(other_shape()) }
    }
}

/// Where trained parameters belong in a model.
#[derive(Default)]
pub struct Saved<'a> {
    pub(super) weights: Vec<Replaced<'a>>,
    vectors: Vec<(VectorPlace<'a>, &'a SavedParameter)>,
}

/// Where a parameter that is not the weight of a layer is.
enum VectorPlace<'a> {
    /// It is the value of this initializer of the main graph, of this type.
    Initializer(String, DType),
    /// A node reads it, and others read it too.
    Input(Change, DType),
    /// The layer has no bias.
    NoBias(&'a Linear),
}

impl<'a> Saved<'a> {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.weights.is_empty() && self.vectors.is_empty()
    }

    /// Finds the place of every parameter among the layers of the model and its initializers.
    ///
    /// # Errors
    /// [`Error::NotPlaced`].
    pub fn find(model: &Model, linears: &'a [Linear], parameters: &'a [SavedParameter]) -> Result<Self, Error> {
        let graph = Graph::new(model);
        let mut saved = Self::default();
        for parameter in parameters {
            let SavedParameter { module, parameter: name, .. } = parameter;
            saved.place(&graph, linears, parameter).map_err(|reason| Error::NotPlaced {
                module: module.clone(),
                parameter: name.clone(),
                reason: Box::new(reason),
            })?;
        }
        Ok(saved)
    }

    fn place(
        &mut self,
        graph: &Graph<'_>,
        linears: &'a [Linear],
        parameter: &'a SavedParameter,
    ) -> Result<(), Unplaceable> {
        let SavedParameter { module, parameter: name, values } = parameter;
        let is_at = |linear: &&Linear| linear.modules.iter().any(|part| part.module == *module);
        let layers: Vec<&Linear> = linears.iter().filter(is_at).collect();
        if layers.iter().any(|linear| linear.modules != [Part::whole(module.as_str())]) {
            return Err(Unplaceable::Packed);
        }
        if layers.is_empty() || !["weight", "bias"].contains(&name.as_str()) {
            let place = initializer(graph, &format!("{module}.{name}"), values.shape())?;
            self.vectors.push((place, parameter));
            return Ok(());
        }
        for linear in layers {
            let outside = linear.out_features;
            if name == "weight" {
                let replaced = Replaced { site: Site { linear, modules: vec![None] }, module, values };
                replaced.weight()?;
                self.weights.push(replaced);
            } else if values.shape() == [outside] {
                self.vectors.push((bias(graph, linear)?, parameter));
            } else {
                return Err(other_shape(values, &[outside]));
            }
        }
        Ok(())
    }

    /// Writes the parameters that are not weights of layers, and adds the edit that makes the model use them.
    pub(super) fn put(&self, model: &Model, file: &mut WeightFile<'_>, patch: &mut Patch) -> Result<(), Error> {
        for (place, parameter) in &self.vectors {
            let values: Vec<f32> = parameter.values.iter().copied().collect();
            let shape: Vec<i64> = parameter.values.shape().iter().map(|size| *size as i64).collect();
            let name = format!("{PREFIX}{}/{}", parameter.module, parameter.parameter);
            match place {
                VectorPlace::Initializer(tensor, dtype) => {
                    patch.values.push((tensor.clone(), file.values(&values, *dtype, shape)?));
                }
                VectorPlace::Input(change, dtype) => {
                    let name = format!("{name}{}", patch.changes.len());
                    patch.constants.push((name.clone(), Constant::Stored(file.values(&values, *dtype, shape)?)));
                    let Change { subgraph, produces, edit } = change.clone();
                    let Edit::Read { input, .. } = edit else { continue };
                    patch.changes.push(Change { subgraph, produces, edit: Edit::Read { input, tensor: name } });
                }
                VectorPlace::NoBias(linear) => {
                    let stem = format!("{name}{}", patch.takeovers.len());
                    let mut graph = Builder::new(stem, model.opset());
                    let stored = file.values(&values, linear.weight.dtype, shape)?;
                    let (raw, bias) = (graph.name("base"), graph.constant("value", Constant::Stored(stored)));
                    graph.op("Add", &[&raw, &bias]).named("Add").to(&linear.output.tensor);
                    let (nodes, constants) = graph.finish();
                    patch.constants.extend(constants);
                    let (subgraph, tensor) = (linear.at.subgraph.clone(), linear.output.tensor.clone());
                    patch.takeovers.push(Takeover { subgraph, tensor, raw, nodes });
                }
            }
        }
        Ok(())
    }
}

fn other_shape(values: &ArrayD<f32>, model: &[usize]) -> Unplaceable {
    Unplaceable::Shape { saved: values.shape().to_vec(), model: model.to_vec() }
}

/// The initializer `name` of the main graph, if it has this shape and one reader.
fn initializer<'a>(graph: &Graph<'_>, name: &str, shape: &[usize]) -> Result<VectorPlace<'a>, Unplaceable> {
    let tensor = graph.model().tensor(name).ok_or(Unplaceable::Unknown)?;
    let dims: Vec<usize> = tensor.dims().iter().map(|size| usize::try_from(*size).unwrap_or(0)).collect();
    if dims != shape {
        return Err(Unplaceable::Shape { saved: shape.to_vec(), model: dims });
    }
    if graph.readers(0, tensor.name()).len() != 1 || graph.is_output(0, tensor.name()) {
        return Err(Unplaceable::Shared);
    }
    Ok(VectorPlace::Initializer(name.to_owned(), written(tensor.dtype())?))
}

/// Where the bias of a layer is.
fn bias<'a>(graph: &Graph<'_>, linear: &'a Linear) -> Result<VectorPlace<'a>, Unplaceable> {
    let Some(root) = &linear.weight.bias else {
        return if linear.output.fused.is_none() { Ok(VectorPlace::NoBias(linear)) } else { Err(Unplaceable::Packed) };
    };
    let site = Site { linear, modules: Vec::new() };
    let place = weight::node(graph, &site).map_err(|_| Unplaceable::Unknown)?;
    let after = graph.readers(place.scope, &linear.output.tensor).iter().copied();
    let mut found = [place].into_iter().chain(after).filter_map(|id| Some((id, reads(graph, id, root)?)));
    let (id, input) = found.next().ok_or(Unplaceable::Shared)?;
    let operand = constant::operand(graph, id, input).ok_or(Unplaceable::Unknown)?;
    let dtype = written(operand.tensor.dtype())?;
    let alone = graph.readers(operand.home, operand.root()) == [id] && !graph.is_output(operand.home, operand.root());
    let is_initializer = matches!(graph.origin(0, operand.root()), Some(Origin::Initializer(_)));
    if alone && is_initializer && operand.home == 0 {
        return Ok(VectorPlace::Initializer(root.clone(), dtype));
    }
    let produces = graph.node(id).output().ok_or(Unplaceable::Unknown)?.to_owned();
    let edit = Edit::Read { input, tensor: String::new() };
    Ok(VectorPlace::Input(Change { subgraph: linear.at.subgraph.clone(), produces, edit }, written(operand.dtype)?))
}

/// The input at which a node reads the stored tensor `root`.
fn reads(graph: &Graph<'_>, id: NodeId, root: &str) -> Option<usize> {
    (0..graph.node(id).inputs().len())
        .find(|input| constant::operand(graph, id, *input).is_some_and(|o| o.root() == root))
}

/// The type, if new values can be written in it.
fn written(dtype: DType) -> Result<DType, Unplaceable> {
    if dtype == DType::F32 || dtype.is_half() { Ok(dtype) } else { Err(Unplaceable::Type { dtype }) }
}
