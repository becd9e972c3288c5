//! Merging an adapter into the weights: `W + scale B A`.

use super::error::{Error, Unmergeable};
use super::fit::Site;
use super::names::PREFIX;
use super::weight;
use crate::dtype::DType;
use crate::graph::constant::{self, Operand};
use crate::linear::Linear;
use crate::onnx::{Change, Constant, Edit, Graph, Model, NodeId, NodeView, Origin, Patch, Stored};
use ndarray::{Array2, s};
use std::collections::{BTreeMap, HashSet};
use std::io::{self, Write};
use std::ops::Range;

/// Writes the merged weights of all sites to `out`, one after the other, and returns the edit that makes the model use
/// them from the file `location`.
///
/// A weight that only these layers read keeps its name, shape and type, so the graph stays as it was. Layers whose
/// weight has other readers (an embedding, a layer without adapter) get a copy. Values are added in 32 bits and rounded
/// once to the type of the weight. Memory is bounded by a block of rows, whatever the size of the weights.
///
/// # Errors
/// [`Error::NotMergeable`] for weights that are not `f32`, `f16` or `bf16`, before anything is written.
pub fn merge(model: &Model, sites: &[Site<'_>], location: &str, out: &mut dyn Write) -> Result<Patch, Error> {
    let graph = Graph::new(model);
    let layers = sites.iter().map(|site| layer(&graph, site)).collect::<Result<Vec<_>, _>>()?;
    let mut file = WeightFile { location, out, at: 0 };
    let mut patch = Patch::default();
    for layers in by_weight(&layers) {
        if is_private(&graph, &layers) {
            let stored = file.write(layers[0], AxisOrder::Stored)?;
            patch.values.push((layers[0].weight.root().to_owned(), stored));
        } else {
            copy(&layers, &mut file, &mut patch)?;
        }
    }
    Ok(patch)
}

/// Checks that the adapter can be merged into the weights of all sites, without reading them.
///
/// # Errors
/// As [`merge`].
pub fn check_merge(model: &Model, sites: &[Site<'_>]) -> Result<(), Error> {
    let graph = Graph::new(model);
    sites.iter().try_for_each(|site| layer(&graph, site).map(drop))
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
                let stored = file.write(layer, AxisOrder::AsRead)?;
                let name = format!("{PREFIX}{}/W{}", layer.site.name(), made.len());
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
        self.site.modules == other.site.modules && self.site.linear.modules == other.site.linear.modules
    }

    fn shares_copy(&self, other: &Layer<'_>) -> bool {
        self.same_modules(other)
            && self.reads_out_in == other.reads_out_in
            && self.weight.transposed == other.weight.transposed
    }

    fn refused(&self, reason: Unmergeable) -> Error {
        Error::NotMergeable { module: self.site.name().to_owned(), reason }
    }
}

fn layer<'a>(graph: &Graph<'a>, site: &'a Site<'a>) -> Result<Layer<'a>, Error> {
    mergeable(graph, site).map_err(|reason| Error::NotMergeable { module: site.name().to_owned(), reason })
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
    Ok(Layer { site, place, home, between, reads_out_in, weight })
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

/// The file of the merged weights.
struct WeightFile<'w> {
    location: &'w str,
    out: &'w mut dyn Write,
    at: u64,
}

/// Large weights start at a page, so that they can be mapped.
const PAGE: u64 = 4096;
/// Weights below a page are aligned to this.
const SMALL: u64 = 64;
/// Bytes of a block of rows.
const BLOCK: usize = 1 << 24;

impl WeightFile<'_> {
    fn write(&mut self, layer: &Layer<'_>, order: AxisOrder) -> Result<Stored, Error> {
        let tensor = layer.weight.tensor;
        let dtype = tensor.dtype();
        let (transposed, out_in) = match order {
            AxisOrder::Stored => (false, layer.reads_out_in != layer.weight.transposed),
            AxisOrder::AsRead => (layer.weight.transposed, layer.reads_out_in),
        };
        let (left, right) = factors(layer.site, out_in);
        let (rows, columns) = (left.nrows(), right.ncols());
        let bytes = tensor.bytes().filter(|bytes| bytes.len() == rows * columns * width(dtype));
        let bytes = bytes.ok_or_else(|| layer.refused(Unmergeable::Shape { shape: tensor.dims().to_vec() }))?;
        let old = StoredMatrix { bytes: &bytes, dtype, rows, columns, transposed };
        let length = bytes.len() as u64;
        let failed = |source| Error::Write { source };
        let offset = self.align(if length < PAGE { SMALL } else { PAGE }).map_err(failed)?;
        let block = (BLOCK / (columns * 4)).clamp(1, rows);
        for start in (0..rows).step_by(block) {
            let range = start..(start + block).min(rows);
            let sum = old.rows(range.clone()) + left.slice(s![range, ..]).dot(&right);
            let encoded = dtype.encode(&sum).map(|encoded| encoded.bytes).unwrap_or_default();
            self.out.write_all(&encoded).map_err(failed)?;
        }
        tensor.release();
        self.at += length;
        let shape = vec![rows as i64, columns as i64];
        Ok(Stored { dtype, shape, location: self.location.to_owned(), offset, length })
    }

    fn align(&mut self, to: u64) -> io::Result<u64> {
        let gap = self.at.next_multiple_of(to) - self.at;
        self.out.write_all(&vec![0; gap as usize])?;
        self.at += gap;
        Ok(self.at)
    }
}

/// Two matrices whose product is `scale B A` of all modules of the site: [out, in], or [in, out].
fn factors(site: &Site<'_>, out_in: bool) -> (Array2<f32>, Array2<f32>) {
    let linear = site.linear;
    let ranks: usize = site.modules.iter().flatten().map(|module| module.rank()).sum();
    let mut a = Array2::zeros((ranks, linear.in_features));
    let mut b = Array2::zeros((linear.out_features, ranks));
    let mut at = 0;
    for (part, module) in linear.modules.iter().zip(&site.modules) {
        let Some(module) = module else { continue };
        let (from, to) = part.columns.unwrap_or((0, linear.out_features));
        let rank = at..at + module.rank();
        a.slice_mut(s![rank.clone(), ..]).assign(&module.a);
        let rows = part.slice.map_or(0..module.out_features, |slice| slice.start..slice.end);
        b.slice_mut(s![from..to, rank]).assign(&(module.b().slice(s![rows, ..]).to_owned() * module.scale() as f32));
        at += module.rank();
    }
    if out_in { (b, a) } else { (a.reversed_axes(), b.reversed_axes()) }
}

/// The values of a weight as a matrix [rows, columns].
struct StoredMatrix<'b> {
    bytes: &'b [u8],
    dtype: DType,
    rows: usize,
    columns: usize,
    /// Whether it is stored as [columns, rows].
    transposed: bool,
}

impl StoredMatrix<'_> {
    fn rows(&self, rows: Range<usize>) -> Array2<f32> {
        let shape = (rows.len(), self.columns);
        if !self.transposed {
            let width = self.columns * width(self.dtype);
            let values = self.dtype.decode(&self.bytes[rows.start * width..rows.end * width]).unwrap_or_default();
            return Array2::from_shape_vec(shape, values).unwrap_or_default();
        }
        Array2::from_shape_fn(shape, |(row, column)| {
            self.dtype.read(self.bytes, column * self.rows + rows.start + row).unwrap_or_default()
        })
    }
}

/// Bytes of an element.
fn width(dtype: DType) -> usize {
    dtype.bits().unwrap_or(32) / 8
}
