//! Operands that are constant: a stored tensor behind casts, transpositions, reshapes and dequantization.

use crate::dtype::DType;
use crate::onnx::{Graph, NodeId, Origin, Tensor};

/// A constant operand and how it is stored.
#[derive(Clone)]
pub(crate) struct Operand<'m> {
    /// The stored tensor.
    pub(crate) tensor: Tensor<'m>,
    /// The scope that defines it.
    pub(crate) home: usize,
    /// The nodes between the operand and the stored tensor, the nearest to the operand first.
    pub(crate) nodes: Vec<NodeId>,
    /// The names of the operand, of the results of the nodes behind it and, last, of the stored tensor.
    pub(crate) names: Vec<&'m str>,
    /// Shape of the operand; `None` if a reshape cannot be followed.
    pub(crate) dims: Option<Vec<i64>>,
    /// Element type of the operand.
    pub(crate) dtype: DType,
    /// Whether the order of its axes differs from the stored tensor's.
    pub(crate) transposed: bool,
}

impl<'m> Operand<'m> {
    /// The name of the stored tensor.
    pub(crate) fn root(&self) -> &'m str {
        self.names.last().copied().unwrap_or_default()
    }
}

/// The operand that `scope` sees as `name`, if it is constant.
pub(crate) fn resolve<'m>(graph: &Graph<'m>, scope: usize, name: &'m str) -> Option<Operand<'m>> {
    Walk::new(graph).operand(scope, name)
}

/// The operand that the node at `id` reads at `index`, if it is constant.
pub(crate) fn operand<'m>(graph: &Graph<'m>, id: NodeId, index: usize) -> Option<Operand<'m>> {
    resolve(graph, id.scope, graph.node(id).input(index)?)
}

/// Most nodes visited to resolve one operand, with the scales and shapes of the nodes behind it.
const MAX_NODES: usize = 64;

/// Operators that give a constant for a constant.
const PASSES: [&str; 6] = ["Cast", "DequantizeLinear", "Identity", "QuantizeLinear", "Reshape", "Transpose"];

/// A search for constants with one budget of nodes, so that neither cycles nor nodes that read one tensor several times
/// make it long.
pub(super) struct Walk<'g, 'm> {
    pub(super) graph: &'g Graph<'m>,
    left: usize,
}

impl<'g, 'm> Walk<'g, 'm> {
    pub(super) fn new(graph: &'g Graph<'m>) -> Self {
        Walk { graph, left: MAX_NODES }
    }

    /// The operand that `scope` sees as `name`, if it is constant.
    pub(super) fn operand(&mut self, scope: usize, name: &'m str) -> Option<Operand<'m>> {
        let mut nodes = Vec::new();
        let mut names = vec![name];
        let (mut scope, mut name) = (scope, name);
        let (tensor, home) = loop {
            let id = match self.graph.origin(scope, name)? {
                Origin::Initializer(tensor) => break (tensor, self.graph.home(scope, name)?),
                Origin::Node(id) => id,
                Origin::Input => return None,
            };
            let node = self.graph.node(id);
            if node.op() == "Constant" && node.domain().is_empty() {
                break (node.tensor("value")?, id.scope);
            }
            let is_known = ["", "com.microsoft"].contains(&node.domain()) && PASSES.contains(&node.op());
            if !is_known || node.output() != Some(name) {
                return None;
            }
            self.left = self.left.checked_sub(1)?;
            nodes.push(id);
            (scope, name) = (id.scope, node.input(0)?);
            names.push(name);
        };
        let (dims, dtype) = (Some(tensor.dims().to_vec()), tensor.dtype());
        let mut operand = Operand { tensor, home, nodes: Vec::new(), names, dims, dtype, transposed: false };
        for id in nodes.iter().rev() {
            operand = self.behind(*id, operand)?;
        }
        Some(Operand { nodes, ..operand })
    }

    /// What the node at `id` makes of `operand`.
    fn behind(&mut self, id: NodeId, operand: Operand<'m>) -> Option<Operand<'m>> {
        let node = self.graph.node(id);
        Some(match node.op() {
            "Transpose" => transpose(operand, node.ints("perm")),
            "Cast" => Operand { dtype: node.dtype("to")?, ..operand },
            "DequantizeLinear" => Operand { dtype: self.operand(id.scope, node.input(1)?)?.dtype, ..operand },
            "Reshape" => {
                let shape = node.input(1).and_then(|name| self.operand(id.scope, name));
                let shape = shape.and_then(|shape| ints(&shape.tensor));
                let dims = operand.dims.as_ref().zip(shape).and_then(|(dims, shape)| reshaped(dims, &shape));
                Operand { dims, ..operand }
            }
            _ => operand,
        })
    }
}

fn transpose<'m>(operand: Operand<'m>, perm: Option<&[i64]>) -> Operand<'m> {
    let Some(dims) = &operand.dims else {
        return operand;
    };
    let reversed: Vec<i64> = (0..dims.len() as i64).rev().collect();
    let perm = perm.unwrap_or(&reversed);
    let moved = perm.iter().map(|axis| dims.get(usize::try_from(*axis).ok()?).copied());
    let dims = moved.collect::<Option<Vec<i64>>>().filter(|moved| moved.len() == dims.len());
    let identity = perm.iter().copied().eq(0..perm.len() as i64);
    Operand { dims, transposed: operand.transposed == identity, ..operand }
}

/// The values of a stored `i64` tensor.
pub(crate) fn ints(tensor: &Tensor<'_>) -> Option<Vec<i64>> {
    if tensor.dtype() != DType::I64 {
        return None;
    }
    let bytes = tensor.bytes()?;
    let (chunks, _) = bytes.as_chunks::<8>();
    Some(chunks.iter().map(|chunk| i64::from_le_bytes(*chunk)).collect())
}

/// The shape that a `Reshape` of a tensor of shape `dims` to `shape` gives; nothing if the two do not fit.
fn reshaped(dims: &[i64], shape: &[i64]) -> Option<Vec<i64>> {
    let product = |sizes: &[i64]| sizes.iter().try_fold(1i64, |product, size| product.checked_mul(*size));
    let total = product(dims)?;
    let copied = shape.iter().enumerate().map(|(axis, size)| match size {
        0 => dims.get(axis).copied(),
        size => Some(*size),
    });
    let mut result = copied.collect::<Option<Vec<i64>>>()?;
    let known: Vec<i64> = result.iter().copied().filter(|size| *size >= 0).collect();
    let known = product(&known)?;
    for size in result.iter_mut().filter(|size| **size < 0) {
        *size = total.checked_div(known)?;
    }
    (product(&result) == Some(total)).then_some(result)
}

#[cfg(test)]
mod tests {
    use super::reshaped;

    #[test]
    fn reshape_keeps_zeros_and_infers_one_size() {
        assert_eq!(reshaped(&[4, 6], &[0, -1]), Some(vec![4, 6]));
        assert_eq!(reshaped(&[4, 6], &[-1]), Some(vec![24]));
        assert_eq!(reshaped(&[4, 6], &[5, -1]), None);
        assert_eq!(reshaped(&[4, 6], &[2, 2, 6]), Some(vec![2, 2, 6]));
    }
}
