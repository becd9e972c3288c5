//! Merging an adapter into the weights: `W + scale B A`.

use super::error::{Error, Unmergeable};
use super::fit::Site;
use super::names::PREFIX;
use super::saved::{Replaced, Saved};
use super::weight;
use super::weight_file::{NewMatrix, OldMatrix, WeightFile};
use crate::dtype::DType;
use crate::graph::constant::{self, Operand};
use crate::linear::Linear;
use crate::onnx::{Change, Constant, Edit, Graph, Model, NodeId, NodeView, Origin, Patch, Stored};
use std::collections::{BTreeMap, HashSet};
use std::io::Write;

/// Writes the merged weights of all sites and the saved parameters to `out`, one after the other, and returns the edit
/// that makes the model use them from the file `location`.
///
/// A weight that only these layers read keeps its name, shape and type, so the graph stays as it was. Layers whose
/// weight has other readers (an embedding, a layer without adapter) get a copy. Values are added in 32 bits and rounded
/// once to the type of the weight. Memory is bounded by a block of rows, whatever the size of the weights.
///
/// # Errors
/// [`Error::NotMergeable`] for weights that are not `f32`, `f16` or `bf16`, before anything is written.
pub fn merge(
    model: &Model,
    sites: &[Site<'_>],
    saved: &Saved<'_>,
    location: &str,
    out: &mut dyn Write,
) -> Result<Patch, Error> {
    let graph = Graph::new(model);
    let merged = sites.iter().map(|site| layer(&graph, site, None));
    let replaced = saved.weights.iter().map(|new| layer(&graph, &new.site, Some(new)));
    let layers = merged.chain(replaced).collect::<Result<Vec<_>, _>>();
    let layers = layers.map_err(|error| with_other_forms(error, sites))?;
    let mut file = WeightFile::new(location, out);
    let mut patch = Patch::default();
    for layers in by_weight(&layers) {
        if is_private(&graph, &layers) {
            let stored = write(layers[0], AxisOrder::Stored, &mut file)?;
            patch.values.push((layers[0].weight.root().to_owned(), stored));
        } else {
            copy(&layers, &mut file, &mut patch)?;
        }
    }
    saved.put(model, &mut file, &mut patch)?;
    Ok(patch)
}

/// Checks that the adapter can be merged into the weights of all sites, without reading them.
///
/// # Errors
/// As [`merge`].
pub fn check_merge(model: &Model, sites: &[Site<'_>]) -> Result<(), Error> {
    let graph = Graph::new(model);
    let checked = sites.iter().try_for_each(|site| layer(&graph, site, None).map(drop));
    checked.map_err(|error| with_other_forms(error, sites))
}

/// The error, which knows whether all sites of the adapter can have a branch.
fn with_other_forms(error: Error, sites: &[Site<'_>]) -> Error {
    match error {
        Error::NotMergeable { module, reason, .. } => {
            Error::NotMergeable { module, reason, has_branch: sites.iter().all(has_branch) }
        }
        other => other,
    }
}

fn has_branch(site: &Site<'_>) -> bool {
    let is_product = site.modules.iter().flatten().all(|module| module.magnitude.is_none());
    is_product && site.linear.output.fused.is_none()
}

/// The layers that share a weight, weight by weight.
fn by_weight<'l, 'a>(layers: &'l [Layer<'a>]) -> Vec<Vec<&'l Layer<'a>>> {
    let mut groups: BTreeMap<usize, Vec<&Layer<'_>>> = BTreeMap::new();
    for (index, layer) in layers.iter().enumerate() {
        let shares = |other: &Layer<'_>| (other.home, other.weight.root()) == (layer.home, layer.weight.root());
        let first = layers.iter().position(shares).unwrap_or(index);
        groups.entry(first).or_default().push(layer);
    }
    groups.into_values().collect()
}

/// Gives each layer a merged copy of its weight; layers with the same modules share one.
fn copy(layers: &[&Layer<'_>], file: &mut WeightFile<'_>, patch: &mut Patch) -> Result<(), Error> {
    let mut made: Vec<(&Layer<'_>, String)> = Vec::new();
    for layer in layers {
        let known = made.iter().find(|(other, _)| other.shares_copy(layer)).map(|(_, name)| name.clone());
        let name = match known {
            Some(name) => name,
            None => {
                let stored = write(layer, AxisOrder::AsRead, file)?;
                let name = format!("{PREFIX}{}/W{}", layer.name(), made.len());
                patch.constants.push((name.clone(), Constant::Stored(stored)));
                made.push((layer, name.clone()));
                name
            }
        };
        let Linear { at, output, .. } = layer.site.linear;
        let edit = Edit::Read { input: 1, tensor: name };
        patch.changes.push(Change { subgraph: at.subgraph.clone(), produces: output.tensor.clone(), edit });
    }
    Ok(())
}

/// A site with its node and weight.
struct Layer<'a> {
    site: &'a Site<'a>,
    /// What its weight becomes, if not the sum with the adapter.
    replaced: Option<&'a Replaced<'a>>,
    place: NodeId,
    weight: Operand<'a>,
    /// The scope that stores the weight.
    home: Option<usize>,
    /// The nodes between the stored weight and the layer.
    between: Vec<NodeId>,
    /// Whether the layer reads its weight as [out, in].
    reads_out_in: bool,
}

impl Layer<'_> {
    fn same_modules(&self, other: &Layer<'_>) -> bool {
        self.site.modules == other.site.modules
            && self.site.linear.modules == other.site.linear.modules
            && self.replaced.map(|new| new.module) == other.replaced.map(|new| new.module)
    }

    fn shares_copy(&self, other: &Layer<'_>) -> bool {
        self.same_modules(other)
            && self.reads_out_in == other.reads_out_in
            && self.weight.transposed == other.weight.transposed
    }

    fn name(&self) -> &str {
        self.replaced.map_or(self.site.name(), |replaced| replaced.module)
    }

    fn refused(&self, reason: Unmergeable) -> Error {
        refused(self.site, self.name(), reason)
    }
}

fn refused(site: &Site<'_>, module: &str, reason: Unmergeable) -> Error {
    Error::NotMergeable { module: module.to_owned(), reason, has_branch: has_branch(site) }
}

fn layer<'a>(graph: &Graph<'a>, site: &'a Site<'a>, replaced: Option<&'a Replaced<'a>>) -> Result<Layer<'a>, Error> {
    let found = mergeable(graph, site);
    let found = found.map_err(|reason| refused(site, replaced.map_or(site.name(), |new| new.module), reason))?;
    Ok(Layer { replaced, ..found })
}

/// Writes what becomes of the weight of a layer.
fn write(layer: &Layer<'_>, order: AxisOrder, file: &mut WeightFile<'_>) -> Result<Stored, Error> {
    let tensor = layer.weight.tensor;
    let (transposed, out_in) = match order {
        AxisOrder::Stored => (false, layer.reads_out_in != layer.weight.transposed),
        AxisOrder::AsRead => (layer.weight.transposed, layer.reads_out_in),
    };
    let values = layer.replaced.and_then(|replaced| replaced.weight().ok());
    let new = match values {
        Some(values) if out_in => NewMatrix::Values(values),
        Some(values) => NewMatrix::Values(values.reversed_axes()),
        None => NewMatrix::sum_of(layer.site, out_in),
    };
    let old = OldMatrix::new(tensor, new.shape(), transposed).map_err(|reason| layer.refused(reason))?;
    let stored = file.matrix(&old, &new)?;
    tensor.release();
    Ok(stored)
}

fn mergeable<'a>(graph: &Graph<'a>, site: &'a Site<'a>) -> Result<Layer<'a>, Unmergeable> {
    let linear = site.linear;
    let place = weight::node(graph, site)?;
    let node: NodeView<'a> = graph.node(place);
    if !["MatMul", "Gemm", "FusedMatMul", "TransposeMatMul", "Attention"].contains(&node.op()) {
        return Err(Unmergeable::QuantizedOperator { op: linear.at.op.clone() });
    }
    let weight = node.input(1).and_then(|name| constant::resolve(graph, place.scope, name));
    let weight = weight.ok_or(Unmergeable::NotConstant)?;
    let mut between = Vec::new();
    let mut scope = place.scope;
    for name in &weight.names {
        let Some(Origin::Node(step)) = graph.origin(scope, name) else { continue };
        scope = step.scope;
        if ["QuantizeLinear", "DequantizeLinear"].contains(&graph.node(step).op()) {
            return Err(Unmergeable::Quantized);
        }
        between.push(step);
    }
    let dtype = weight.tensor.dtype();
    if dtype != DType::F32 && !dtype.is_half() {
        return Err(Unmergeable::Type { dtype });
    }
    let dimensions = weight.tensor.dims().len();
    if dimensions != 2 {
        return Err(Unmergeable::NotMatrix { dimensions });
    }
    let reads_out_in = node.int("transB").is_some_and(|value| value != 0);
    let home = graph.home(scope, weight.root());
    Ok(Layer { site, replaced: None, place, home, between, reads_out_in, weight })
}

/// Whether only these layers read their weight, an initializer of the main graph, and all of them have the same
/// modules.
fn is_private(graph: &Graph<'_>, layers: &[&Layer<'_>]) -> bool {
    let first = layers[0];
    let root = first.weight.root();
    let readers: HashSet<NodeId> = layers.iter().flat_map(|l| l.between.iter().copied().chain([l.place])).collect();
    let read_by_them = |scope: usize, name: &str| graph.readers(scope, name).iter().all(|id| readers.contains(id));
    let private = |layer: &&Layer<'_>| {
        let mut scope = layer.place.scope;
        layer.weight.names.iter().all(|name| {
            scope = graph.home(scope, name).unwrap_or(scope);
            read_by_them(scope, name) && !graph.is_output(scope, name)
        })
    };
    first.home == Some(0)
        && matches!(graph.origin(0, root), Some(Origin::Initializer(_)))
        && layers.iter().all(|layer| layer.same_modules(first))
        && layers.iter().all(private)
}

/// The order of the axes that a weight is written with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum AxisOrder {
    /// As it is stored in the model.
    Stored,
    /// As the layer reads it.
    AsRead,
}
