//! What a node that multiplies by a constant matrix is, before it has a name.

use super::layer::Skipped;
use crate::graph::constant::Operand;
use crate::onnx::{NodeView, Place};

/// A node that multiplies by a constant matrix.
#[derive(Clone)]
pub(crate) struct Candidate<'m> {
    pub(crate) place: Place,
    pub(crate) node: NodeView<'m>,
    pub(crate) input: &'m str,
    /// The float tensor that holds the result before a bias of a later node.
    pub(crate) output: &'m str,
    /// Where the search for a bias of a later node starts.
    pub(crate) product: &'m str,
    /// Why no float tensor holds the result alone; `output` is then what the node returns.
    pub(crate) fused: Option<&'static str>,
    pub(crate) weight: Operand<'m>,
    /// Index of the node's own bias input.
    pub(crate) bias_input: Option<usize>,
    pub(crate) in_features: usize,
    pub(crate) out_features: usize,
    /// Whether the stored matrix is [in, out].
    pub(crate) stored_in_out: bool,
}

/// A node that is a layer, one that is none, or why it cannot be used.
pub(crate) type Found<'m> = Result<Option<Candidate<'m>>, String>;

/// The entry for a node that is not used.
pub(crate) fn skip(node: NodeView<'_>, reason: String) -> Skipped {
    let name = Some(node.name()).filter(|name| !name.is_empty()).or(node.output()).unwrap_or_default();
    Skipped { node: name.to_owned(), op: node.op().to_owned(), reason }
}

/// Rows and columns of an operand that must be a matrix.
pub(crate) fn matrix(weight: &Operand<'_>) -> Result<(usize, usize), String> {
    let dims = weight.dims.as_ref().ok_or("its constant passes through a reshape that cannot be followed")?;
    let [rows, columns] = dims[..] else {
        return Err(format!("its constant has {} dimensions", dims.len()));
    };
    let size = |size: i64| usize::try_from(size).ok().filter(|size| *size > 0);
    size(rows).zip(size(columns)).ok_or_else(|| format!("its constant has shape {dims:?}"))
}
