//! Operands that are constant: a stored tensor behind casts, transpositions and dequantization.

use crate::dtype::DType;
use crate::onnx::{Graph, NodeId, NodeView, Origin, Tensor};

/// A constant operand and how it is stored.
#[derive(Clone)]
pub(crate) struct Operand<'m> {
    /// The stored tensor.
    pub(crate) tensor: Tensor<'m>,
    /// The scope that holds it.
    pub(crate) home: usize,
    /// Every name on the way from the operand to the stored tensor, the latter's name last.
    pub(crate) names: Vec<&'m str>,
    /// Shape of the operand; `None` when a reshape in between is not understood.
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

/// Longest way from an operand to its stored tensor.
const MAX_STEPS: usize = 32;

/// The operand that `scope` sees as `name`, if it is constant.
pub(crate) fn resolve<'m>(graph: &Graph<'m>, scope: usize, name: &'m str) -> Option<Operand<'m>> {
    walk(graph, scope, name, MAX_STEPS)
}

/// The operand that the node at `place` reads at `index`, if it is constant.
pub(crate) fn operand<'m>(graph: &Graph<'m>, place: NodeId, index: usize) -> Option<Operand<'m>> {
    resolve(graph, place.scope, graph.node(place).input(index)?)
}

fn walk<'m>(graph: &Graph<'m>, scope: usize, name: &'m str, steps: usize) -> Option<Operand<'m>> {
    let place = match graph.origin(scope, name)? {
        Origin::Initializer(tensor) => return Some(stored(tensor, graph.home(scope, name)?, name)),
        Origin::Node(place) => place,
        Origin::Input => return None,
    };
    let node = graph.node(place);
    if node.op() == "Constant" && node.domain().is_empty() {
        return node.tensor("value").map(|tensor| stored(tensor, place.scope, name));
    }
    let domain = ["", "com.microsoft"].contains(&node.domain());
    if !domain || node.output() != Some(name) || steps == 0 {
        return None;
    }
    let inner = || walk(graph, place.scope, node.input(0)?, steps - 1);
    let mut operand = match node.op() {
        "Identity" | "QuantizeLinear" => inner()?,
        "Transpose" => transpose(inner()?, node.ints("perm")),
        "Cast" => Operand { dtype: cast_to(node)?, ..inner()? },
        "DequantizeLinear" => {
            let scale = walk(graph, place.scope, node.input(1)?, steps - 1)?;
            Operand { dtype: scale.dtype, ..inner()? }
        }
        "Reshape" => reshape(graph, node, place.scope, inner()?),
        _ => return None,
    };
    operand.names.insert(0, name);
    Some(operand)
}

/// The type that a `Cast` gives.
fn cast_to(node: NodeView<'_>) -> Option<DType> {
    let code = i32::try_from(node.int("to")?).ok();
    Some(code.and_then(DType::from_onnx).unwrap_or(DType::Undefined))
}

fn stored<'m>(tensor: Tensor<'m>, home: usize, name: &'m str) -> Operand<'m> {
    Operand {
        tensor,
        home,
        names: vec![name],
        dims: Some(tensor.dims().to_vec()),
        dtype: tensor.dtype(),
        transposed: false,
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

fn reshape<'m>(graph: &Graph<'m>, node: NodeView<'m>, scope: usize, operand: Operand<'m>) -> Operand<'m> {
    let shape = node.input(1).and_then(|name| resolve(graph, scope, name)).and_then(|shape| ints(&shape.tensor));
    let dims = operand.dims.as_ref().zip(shape).and_then(|(dims, shape)| reshaped(dims, &shape));
    Operand { dims, ..operand }
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
