//! What ONNX Runtime Training 1.19.2 needs of a graph, beyond being valid.
//!
//! That is the last release of those packages. Each rule here was seen to fail without and to pass with.

use super::error::Error;
use super::fit::Site;
use super::gradient;
use super::lora;
use super::loss::{LOSS, LossEdit};
use super::names::{PREFIX, a_name};
use super::obstacle::Obstacle;
use crate::adapter::Adapter;
use crate::dtype::DType;
use crate::graph::constant;
use crate::onnx::{Attribute, Change, Constant, Edit, Graph, Model, NodeView, Origin, Patch, Tensor};
use std::collections::{HashMap, HashSet};
use std::ops::RangeInclusive;

/// The operator sets that it knows and that have the loss.
const OPSETS: RangeInclusive<i64> = 12..=21;
/// The last version of the file format that it reads.
const IR_VERSION: i64 = 10;

/// The edit that makes a trainable graph with a loss acceptable to ONNX Runtime Training. `trainable` are the names of
/// the initializers that get gradients.
///
/// Layer normalizations get all their outputs and a bias, and no two normalizations share a scale or bias; every
/// transposition gives its order; every node has a name of its own; exponents are floats; a `Split` with results that
/// the loss does not need becomes slices. None of this changes what the graph computes.
///
/// # Errors
/// [`Error::NotTrainable`] lists what cannot be adjusted: operator sets above 21 or below 12, and operators between the
/// adapter and the loss that have no gradient there.
pub fn prepare(model: &Model, trainable: &[String], loss: &str) -> Result<Patch, Error> {
    edit(model, trainable, loss).map_err(|obstacles| Error::NotTrainable { obstacles })
}

/// The modules of `adapter` that have no effect on the logits of `loss`. Those in subgraphs are not among them.
///
/// # Errors
/// As [`trainable`](super::trainable); [`Error::NotTrainable`] when that holds for all modules.
pub fn without_gradient(
    model: &Model,
    sites: &[Site<'_>],
    adapter: &Adapter,
    loss: &LossEdit,
) -> Result<Vec<String>, Error> {
    let model = model.apply(&lora::trainable(model, sites)?)?.apply(&loss.patch)?;
    let graph = Graph::new(&model);
    let names: Vec<String> = adapter.modules.iter().map(|module| a_name(&module.module)).collect();
    let unreached: HashSet<&String> = gradient::unreached(&graph, &names, LOSS).into_iter().collect();
    let in_subgraph = |name: &String| graph.readers(0, name).iter().any(|reader| reader.scope > 0);
    let pairs = adapter.modules.iter().zip(&names);
    let without = pairs.filter(|(_, name)| unreached.contains(name) && !in_subgraph(name));
    let without: Vec<String> = without.map(|(module, _)| module.module.clone()).collect();
    if without.len() == adapter.modules.len() {
        let obstacles = vec![Obstacle::NoModule { output: loss.logits.clone() }];
        return Err(Error::NotTrainable { obstacles });
    }
    Ok(without)
}

fn edit(model: &Model, trainable: &[String], loss: &str) -> Result<Patch, Vec<Obstacle>> {
    let opset = model.opset();
    if !OPSETS.contains(&opset) {
        return Err(vec![Obstacle::Opset { opset, first: *OPSETS.start(), last: *OPSETS.end() }]);
    }
    let graph = Graph::new(model);
    let path = gradient::find(&graph, trainable, loss);
    if !path.obstacles.is_empty() {
        return Err(path.obstacles);
    }
    let mut patch = Patch { takeovers: path.takeovers, constants: path.constants, ..Patch::default() };
    patch.ir_version = (model.ir_version() > IR_VERSION).then_some(IR_VERSION);
    unshare(&graph, &mut patch);
    let mut names: HashSet<&str> = HashSet::new();
    for (id, node) in graph.nodes(0) {
        match (node.domain(), node.op()) {
            ("", "LayerNormalization") => complete_normalization(&graph, node, &mut patch).map_err(|o| vec![o])?,
            ("", "Transpose") => give_order(&graph, node, &mut patch).map_err(|o| vec![o])?,
            ("", "Pow") => make_exponent_float(&graph, node, &mut patch),
            _ => {}
        }
        if node.name().is_empty() || !names.insert(node.name()) {
            let name = format!("{PREFIX}node/{}", id.node);
            patch.changes.extend(change(node, Edit::Name(name)));
        }
    }
    Ok(patch)
}

fn change(node: NodeView<'_>, edit: Edit) -> Option<Change> {
    let produces = node.outputs().iter().find(|name| !name.is_empty())?;
    Some(Change { subgraph: Vec::new(), produces: produces.clone(), edit })
}

/// The gradient of a `LayerNormalization` needs its mean and its inverse standard deviation, and a bias.
fn complete_normalization(graph: &Graph<'_>, node: NodeView<'_>, patch: &mut Patch) -> Result<(), Obstacle> {
    let output = node.output().unwrap_or_default();
    for number in node.outputs().len()..3 {
        patch.changes.extend(change(node, Edit::Produce(format!("{PREFIX}{output}/statistic{number}"))));
    }
    if node.input(2).is_some() {
        return Ok(());
    }
    let scale = node.input(1).and_then(|name| constant::resolve(graph, 0, name));
    let Some(dims) = scale.and_then(|scale| scale.dims) else {
        return Err(Obstacle::NormalizationScale { node: node.name().to_owned() });
    };
    let name = format!("{PREFIX}{output}/bias");
    let zeros = vec![0.0; dims.iter().product::<i64>().max(0) as usize];
    patch.constants.push((name.clone(), Constant::F32(dims, zeros)));
    patch.changes.extend(change(node, Edit::Read { input: 2, tensor: name }));
    Ok(())
}

/// The gradient of a `Transpose`, and folding it for a frozen weight, needs the order of the axes.
fn give_order(graph: &Graph<'_>, node: NodeView<'_>, patch: &mut Patch) -> Result<(), Obstacle> {
    if node.ints("perm").is_some() {
        return Ok(());
    }
    let input = node.input(0).unwrap_or_default();
    let stored = constant::resolve(graph, 0, input).and_then(|operand| operand.dims).map(|dims| dims.len());
    let declared = || graph.value(0, input).and_then(|value| value.shape).map(|shape| shape.len());
    let Some(rank) = stored.or_else(declared) else {
        return Err(Obstacle::TransposeOrder { node: node.name().to_owned() });
    };
    let order = Attribute::Ints((0..rank as i64).rev().collect());
    patch.changes.extend(change(node, Edit::Set("perm", order)));
    Ok(())
}

/// The gradient of a `Pow` subtracts 1 from the exponent in the type of the base.
fn make_exponent_float(graph: &Graph<'_>, node: NodeView<'_>, patch: &mut Patch) {
    let is_integer = |dtype| matches!(dtype, DType::I64 | DType::I32);
    let exponent = node.input(1).and_then(|name| constant::resolve(graph, 0, name));
    let exponent = exponent.filter(|found| is_integer(found.dtype) && is_integer(found.tensor.dtype()));
    let Some(values) = exponent.and_then(|found| found.tensor.to_f32()) else {
        return;
    };
    let name = format!("{PREFIX}{}/exponent", node.output().unwrap_or_default());
    let dims = if values.len() == 1 { Vec::new() } else { vec![values.len() as i64] };
    patch.constants.push((name.clone(), Constant::F32(dims, values)));
    patch.changes.extend(change(node, Edit::Read { input: 1, tensor: name }));
}

/// Gives the second use of a scale or bias a copy. The gradient of a normalization is named after its scale, frozen or
/// not, so that two uses of one scale collide. Products and sums count, because they are fused into normalizations
/// first.
fn unshare(graph: &Graph<'_>, patch: &mut Patch) {
    let mut uses: HashMap<&str, usize> = HashMap::new();
    for (_, node) in graph.nodes(0) {
        if !node.domain().is_empty() || !["LayerNormalization", "Mul", "Add"].contains(&node.op()) {
            continue;
        }
        for (index, input) in node.inputs().iter().enumerate() {
            let Some(tensor) = vector(graph, input) else { continue };
            let count = uses.entry(tensor.name()).or_default();
            *count += 1;
            if *count == 1 {
                continue;
            }
            let Some(values) = tensor.to_f32() else { continue };
            let name = format!("{PREFIX}{}/use{count}", tensor.name());
            patch.constants.push((name.clone(), Constant::F32(tensor.dims().to_vec(), values)));
            patch.changes.extend(change(node, Edit::Read { input: index, tensor: name }));
        }
    }
}

/// The initializer behind `name`, if it is a vector of 32-bit floats.
fn vector<'m>(graph: &Graph<'m>, name: &'m str) -> Option<Tensor<'m>> {
    match graph.origin(0, name)? {
        Origin::Initializer(tensor) => {
            let long = tensor.dims().iter().filter(|dim| **dim != 1).count();
            (tensor.dtype() == DType::F32 && !tensor.dims().is_empty() && long <= 1).then_some(tensor)
        }
        Origin::Node(id) if graph.node(id).op() == "Identity" => vector(graph, graph.node(id).input(0)?),
        _ => None,
    }
}
