//! A node that multiplies by a constant matrix, before it has a name.

use super::layer::Skipped;
use super::reason::{Fused, Reason};
use crate::graph::constant::Operand;
use crate::onnx::{NodeId, NodeView};

/// A node that multiplies by a constant matrix.
#[derive(Clone)]
pub(crate) struct Candidate<'m> {
    pub(crate) id: NodeId,
    pub(crate) node: NodeView<'m>,
    pub(crate) input: &'m str,
    /// The float tensor with the result before a bias of a later node.
    pub(crate) output: &'m str,
    /// Where the search for a bias of a later node starts.
    pub(crate) product: &'m str,
    /// Why the result alone is not a float tensor of the graph; `output` is then what the node returns.
    pub(crate) fused: Option<Fused>,
    pub(crate) weight: Operand<'m>,
    /// Index of the node's own bias input.
    pub(crate) bias_input: Option<usize>,
    pub(crate) in_features: usize,
    pub(crate) out_features: usize,
    /// Whether the stored matrix is [in, out].
    pub(crate) stored_in_out: bool,
}

/// A node that is a layer, one that is none, or why it cannot be used.
pub(crate) type Recognised<'m> = Result<Option<Candidate<'m>>, Reason>;

impl<'m> Candidate<'m> {
    /// The product of `input` and `weight`, or its transpose if `trans_b`, with no bias of its own.
    pub(crate) fn new(
        id: NodeId,
        node: NodeView<'m>,
        input: &'m str,
        output: &'m str,
        weight: Operand<'m>,
        trans_b: bool,
    ) -> Result<Candidate<'m>, Reason> {
        let (rows, columns) = matrix(&weight)?;
        let (in_features, out_features) = if trans_b { (columns, rows) } else { (rows, columns) };
        Ok(Candidate {
            id,
            node,
            input,
            output,
            product: output,
            fused: None,
            stored_in_out: weight.transposed == trans_b,
            weight,
            bias_input: None,
            in_features,
            out_features,
        })
    }

    /// The same layer with the bias that the node reads at `index`, if it reads any there.
    pub(crate) fn with_bias(self, index: usize) -> Candidate<'m> {
        Candidate { bias_input: self.node.input(index).map(|_| index), ..self }
    }
}

/// The entry for a node that is not used and computes `modules`, as far as their names are known.
pub(crate) fn skip(node: NodeView<'_>, modules: Vec<String>, reason: Reason) -> Skipped {
    let name = if node.name().is_empty() { node.output().unwrap_or_default() } else { node.name() };
    tracing::debug!(node = name, op = node.op(), %reason, "not used");
    Skipped { node: name.to_owned(), op: node.op().to_owned(), modules, reason }
}

/// Rows and columns of an operand that must be a matrix.
pub(crate) fn matrix(weight: &Operand<'_>) -> Result<(usize, usize), Reason> {
    let dims = weight.dims.as_ref().ok_or(Reason::UnknownShape)?;
    let [rows, columns] = dims[..] else {
        return Err(Reason::NotMatrix { axes: dims.len() });
    };
    let size = |size: i64| usize::try_from(size).ok().filter(|size| *size > 0);
    size(rows).zip(size(columns)).ok_or_else(|| Reason::Empty { dims: dims.clone() })
}
