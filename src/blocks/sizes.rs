//! How much memory tensors take for each token, as far as the graph tells.

use super::flow::Flow;
use crate::dtype::DType;
use crate::linear::Linear;
use crate::onnx::{Dim, Graph, NodeView, Origin};
use std::collections::HashMap;

/// Most axes of a tensor that grow with the batch: sequences and tokens.
const GROWING: usize = 2;

/// Bytes for each token, or each sequence where there are no tokens, of what the stages return.
pub(super) struct Sizes<'m> {
    known: HashMap<&'m str, Row>,
    largest: u64,
}

/// What there is of a tensor for each token.
#[derive(Clone, Copy)]
struct Row {
    features: u64,
    dtype: DType,
}

impl Row {
    fn bytes(self) -> u64 {
        (self.features * self.dtype.bits().unwrap_or(32) as u64).div_ceil(8)
    }
}

impl<'m> Sizes<'m> {
    /// Follows the widths of the layers through the stages of `flow`.
    pub(super) fn new(flow: &Flow<'m>, linears: &[Linear]) -> Self {
        let products: HashMap<&str, Row> = linears
            .iter()
            .filter(|linear| linear.at.subgraph.is_empty())
            .map(|linear| {
                let (features, dtype) = (linear.out_features as u64, linear.weight.dtype);
                (linear.output.tensor.as_str(), Row { features, dtype })
            })
            .collect();
        let mut known: HashMap<&str, Row> = HashMap::new();
        for (place, &stage) in flow.stages.iter().enumerate() {
            let node = flow.node(place);
            for name in node.outputs().iter().map(String::as_str).filter(|name| !name.is_empty()) {
                let by_graph = || declared(flow.graph, name).or_else(|| products.get(name).copied());
                let by_inputs = || passed(node, flow.reads(stage), &known);
                let row = if flow.is_shape(place) {
                    Some(Row { features: 0, dtype: DType::I64 })
                } else {
                    by_graph().or_else(by_inputs).or_else(|| embedded(flow.graph, node))
                };
                known.extend(row.map(|row| (name, row)));
            }
        }
        let largest = known.values().map(|row| row.bytes()).max().unwrap_or(1).max(1);
        Self { known, largest }
    }

    /// Bytes of a tensor for each token; `None` where the graph does not tell.
    pub(super) fn bytes(&self, name: &str) -> Option<u64> {
        self.known.get(name).map(|row| row.bytes())
    }

    /// What it costs to hand a tensor on: one of unknown size is taken for a large one, as attention scores are.
    pub(super) fn cost(&self, name: &str) -> u64 {
        self.bytes(name).unwrap_or(4 * self.largest)
    }
}

/// What the graph declares.
fn declared(graph: &Graph<'_>, name: &str) -> Option<Row> {
    let info = graph.value(0, name)?;
    let shape = info.shape?;
    let growing = shape.iter().filter(|dim| !matches!(dim, Dim::Fixed(_))).count();
    let sizes = shape.iter().map(|dim| if let Dim::Fixed(size) = dim { u64::try_from(*size).unwrap_or(1) } else { 1 });
    let last = matches!(shape.last(), Some(Dim::Fixed(_)));
    let fits = growing <= GROWING && last && info.dtype != DType::Undefined;
    fits.then(|| Row { features: sizes.product(), dtype: info.dtype })
}

/// What operators pass on that change no size.
fn passed(node: NodeView<'_>, reads: &[&str], known: &HashMap<&str, Row>) -> Option<Row> {
    let mut rows = reads.iter().filter_map(|name| known.get(name).copied());
    match node.op() {
        "Cast" => Some(Row { dtype: node.dtype("to")?, ..rows.next()? }),
        "QuantizeLinear" | "DynamicQuantizeLinear" => Some(Row { dtype: DType::U8, ..rows.next()? }),
        "DequantizeLinear" => Some(Row { dtype: DType::F32, ..rows.next()? }),
        "Add" | "Sub" | "Mul" | "Div" | "Pow" | "Where" => rows.max_by_key(|row| row.features),
        "Identity"
        | "Relu"
        | "Gelu"
        | "FastGelu"
        | "BiasGelu"
        | "QuickGelu"
        | "Erf"
        | "Sigmoid"
        | "Tanh"
        | "Sqrt"
        | "Dropout"
        | "LayerNormalization"
        | "RMSNormalization"
        | "SimplifiedLayerNormalization"
        | "SkipLayerNormalization"
        | "SkipSimplifiedLayerNormalization"
        | "MultiHeadAttention"
        | "GroupQueryAttention" => rows.next(),
        _ => None,
    }
}

/// The rows of a table that a `Gather` takes.
fn embedded(graph: &Graph<'_>, node: NodeView<'_>) -> Option<Row> {
    let table = node.input(0).filter(|_| node.op() == "Gather")?;
    let Some(Origin::Initializer(table)) = graph.origin(0, table) else { return None };
    let features = table.dims().get(1..)?.iter().map(|size| u64::try_from(*size).unwrap_or(1)).product();
    Some(Row { features, dtype: table.dtype() })
}
