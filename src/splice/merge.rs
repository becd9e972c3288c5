//! Weights with the product of an adapter added: `W + scale B A`.

use super::{Error, PREFIX, Site};
use crate::dtype::DType;
use crate::graph::constant::{self, Operand};
use crate::linear::Linear;
use crate::onnx::{Change, Constant, Edit, Graph, Model, NodeView, Origin, Patch, Place, Stored};
use ndarray::{Array2, s};
use std::collections::{BTreeMap, HashSet};
use std::io::{self, Write};

/// Writes the merged weights of all sites to `out`, one after the other, and returns the edit that makes the model use
/// them from the file `location`.
///
/// A weight that nothing but these layers read keeps its name, shape and type, so the graph stays as it was. Layers
/// whose weight has other readers (an embedding, a layer without adapter) get a weight of their own. Values are added
/// in 32 bits and rounded once to the type of the weight. Memory is bounded by a block of rows, whatever the size of
/// the weights.
///
/// # Errors
/// [`Error::NotMergeable`] for weights that are not plain floats, before anything is written.
pub fn merge(model: &Model, sites: &[Site<'_>], location: &str, out: &mut dyn Write) -> Result<Patch, Error> {
    let graph = Graph::new(model);
    let layers = sites.iter().map(|site| layer(&graph, site)).collect::<Result<Vec<_>, _>>()?;
    let mut by_weight: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (index, layer) in layers.iter().enumerate() {
        let same = |other: &Layer<'_>| (other.home, other.weight.root()) == (layer.home, layer.weight.root());
        let first = layers.iter().position(same).unwrap_or(index);
        by_weight.entry(first).or_default().push(index);
    }
    let mut data = Data { location, out, at: 0 };
    let mut patch = Patch::default();
    for indices in by_weight.into_values() {
        let together: Vec<&Layer<'_>> = indices.iter().map(|index| &layers[*index]).collect();
        if is_own(&graph, &together) {
            let stored = data.write(together[0], Shape::Stored)?;
            patch.values.push((together[0].weight.root().to_owned(), stored));
            continue;
        }
        let mut made: Vec<(&Layer<'_>, String)> = Vec::new();
        for layer in together {
            let known = made.iter().find(|(other, _)| other.shares_copy(layer)).map(|(_, name)| name.clone());
            let name = match known {
                Some(name) => name,
                None => {
                    let stored = data.write(layer, Shape::Operand)?;
                    let name = format!("{PREFIX}{}/W{}", layer.site.name(), made.len());
                    patch.constants.push((name.clone(), Constant::Stored(stored)));
                    made.push((layer, name.clone()));
                    name
                }
            };
            let Linear { scope, output, .. } = layer.site.linear;
            let edit = Edit::Read { input: 1, tensor: name };
            patch.changes.push(Change { scope: scope.clone(), produces: output.clone(), edit });
        }
    }
    Ok(patch)
}

/// A site with its node and weight.
struct Layer<'a> {
    site: &'a Site<'a>,
    place: Place,
    weight: Operand<'a>,
    /// The scope that stores the weight.
    home: Option<usize>,
    /// The nodes between the stored weight and the layer.
    way: Vec<Place>,
    /// Whether the layer reads its weight as [out, in].
    reads_out_in: bool,
    dtype: DType,
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
}

fn layer<'a>(graph: &Graph<'a>, site: &'a Site<'a>) -> Result<Layer<'a>, Error> {
    let linear = site.linear;
    let fail = |reason: &str| Error::NotMergeable { module: site.name().to_owned(), reason: reason.to_owned() };
    let scope = (0..graph.scopes()).find(|scope| graph.path(*scope) == linear.scope);
    let node = scope.and_then(|scope| graph.origin(scope, &linear.output));
    let Some(Origin::Node(place)) = node else {
        return Err(fail("its node is not in the graph"));
    };
    let node: NodeView<'a> = graph.node(place);
    if !["MatMul", "Gemm", "FusedMatMul", "TransposeMatMul", "Attention"].contains(&node.op()) {
        return Err(fail(&format!("the weight of a {} is quantized, and would have to be quantized anew", linear.op)));
    }
    let weight = node.input(1).and_then(|name| constant::resolve(graph, place.scope, name));
    let weight = weight.ok_or_else(|| fail("its weight is no constant"))?;
    let mut way = Vec::new();
    let mut scope = place.scope;
    for name in &weight.names {
        let Some(Origin::Node(step)) = graph.origin(scope, name) else { continue };
        scope = step.scope;
        let op = graph.node(step).op();
        if ["QuantizeLinear", "DequantizeLinear"].contains(&op) {
            return Err(fail("its weight is quantized, and would have to be quantized anew"));
        }
        way.push(step);
    }
    let dtype = weight.tensor.dtype();
    if dtype != DType::F32 && !dtype.is_half() {
        return Err(fail(&format!("its weight has type {dtype}")));
    }
    let [_, _] = weight.tensor.dims() else {
        return Err(fail(&format!("its weight is stored with {} dimensions", weight.tensor.dims().len())));
    };
    let reads_out_in = node.int("transB").is_some_and(|value| value != 0);
    let home = graph.home(scope, weight.root());
    Ok(Layer { site, place, home, way, reads_out_in, dtype, weight })
}

/// Whether nothing but these layers reads their weight, which is an initializer of the main graph, and they agree on
/// what it should become.
fn is_own(graph: &Graph<'_>, layers: &[&Layer<'_>]) -> bool {
    let first = layers[0];
    let root = first.weight.root();
    let allowed: HashSet<Place> = layers.iter().flat_map(|l| l.way.iter().copied().chain([l.place])).collect();
    let read_by = |scope: usize, name: &str| graph.readers(scope, name).iter().all(|reader| allowed.contains(reader));
    let private = |layer: &&Layer<'_>| {
        let mut scope = layer.place.scope;
        layer.weight.names.iter().all(|name| {
            scope = graph.home(scope, name).unwrap_or(scope);
            read_by(scope, name) && !graph.is_output(scope, name)
        })
    };
    first.home == Some(0)
        && matches!(graph.origin(0, root), Some(Origin::Initializer(_)))
        && layers.iter().all(|layer| layer.same_modules(first))
        && layers.iter().all(private)
}

/// Which form of a weight is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// As it is stored.
    Stored,
    /// As the layer reads it.
    Operand,
}

/// The file that merged weights go to.
struct Data<'w> {
    location: &'w str,
    out: &'w mut dyn Write,
    at: u64,
}

/// Where a tensor may start: at a page when it is worth mapping.
const PAGE: u64 = 4096;
const SMALL: u64 = 64;
/// Bytes of a block of rows.
const BLOCK: usize = 1 << 24;

impl Data<'_> {
    fn write(&mut self, layer: &Layer<'_>, shape: Shape) -> Result<Stored, Error> {
        let tensor = layer.weight.tensor;
        let transposed = layer.weight.transposed;
        let turned = shape == Shape::Operand && transposed;
        let out_in = layer.reads_out_in != (shape == Shape::Stored && transposed);
        let (left, right) = factors(layer.site, out_in);
        let (rows, columns) = (left.nrows(), right.ncols());
        let bytes = tensor.bytes().filter(|bytes| bytes.len() == rows * columns * width(layer.dtype));
        let bytes = bytes.ok_or_else(|| Error::NotMergeable {
            module: layer.site.name().to_owned(),
            reason: format!("its weight has shape {:?}, not that of the layer", tensor.dims()),
        })?;
        let old = Old { bytes: &bytes, dtype: layer.dtype, rows, columns, turned };
        let length = bytes.len() as u64;
        let offset = self.align(if length < PAGE { SMALL } else { PAGE }).map_err(|source| Error::Write { source })?;
        let block = (BLOCK / (columns * 4)).clamp(1, rows);
        for start in (0..rows).step_by(block) {
            let range = start..(start + block).min(rows);
            let sum = old.block(range.clone()) + left.slice(s![range, ..]).dot(&right);
            let encoded = layer.dtype.encode(&sum).map(|encoded| encoded.bytes).unwrap_or_default();
            self.out.write_all(&encoded).map_err(|source| Error::Write { source })?;
        }
        tensor.release();
        self.at += length;
        let shape = vec![rows as i64, columns as i64];
        Ok(Stored { dtype: layer.dtype, shape, location: self.location.to_owned(), offset, length })
    }

    fn align(&mut self, to: u64) -> io::Result<u64> {
        let gap = self.at.next_multiple_of(to) - self.at;
        self.out.write_all(&vec![0; gap as usize])?;
        self.at += gap;
        Ok(self.at)
    }
}

/// Two matrices whose product is what the site adds to its weight, as [out, in] or as [in, out].
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

/// A stored matrix, to be read as [rows, columns].
struct Old<'b> {
    bytes: &'b [u8],
    dtype: DType,
    rows: usize,
    columns: usize,
    /// Whether it is stored as [columns, rows].
    turned: bool,
}

impl Old<'_> {
    fn block(&self, rows: std::ops::Range<usize>) -> Array2<f32> {
        let shape = (rows.len(), self.columns);
        if !self.turned {
            let width = self.columns * width(self.dtype);
            let values = self.dtype.decode(&self.bytes[rows.start * width..rows.end * width]).unwrap_or_default();
            return Array2::from_shape_vec(shape, values).unwrap_or_default();
        }
        let value =
            |(row, column)| self.dtype.read(self.bytes, column * self.rows + rows.start + row).unwrap_or_default();
        Array2::from_shape_fn(shape, value)
    }
}

fn width(dtype: DType) -> usize {
    dtype.bits().unwrap_or(32) / 8
}
