//! What ONNX Runtime knows of the tensors between the adapter and the loss.

use super::error::Error;
use crate::gradient::{Path, TensorInfo, Values};
use crate::onnx::{Dim, Graph, Model, Origin, Output, Patch, ValueInfo};
use crate::runtime::{Runtime, Session, SessionOptions, Value};
use std::collections::BTreeSet;

/// The element types and dimensions of all tensors that the nodes of `path` read and produce.
///
/// Types and fixed or named dimensions are those that ONNX Runtime infers; the number of dimensions and the sizes are
/// measured by one run over `feeds`.
///
/// # Errors
/// When ONNX Runtime refuses the model or fails.
pub fn measure(
    runtime: &Runtime,
    options: SessionOptions,
    model: &Model,
    path: &Path,
    feeds: &[(String, Value)],
) -> Result<Values, Error> {
    let graph = Graph::new(model);
    let inputs = model.inputs();
    let mut values = Values::default();
    let mut produced = BTreeSet::new();
    for id in &path.nodes {
        let node = graph.node(*id);
        for name in node.inputs().iter().chain(node.outputs()).filter(|name| !name.is_empty()) {
            match graph.origin(0, name) {
                Some(Origin::Initializer(tensor)) => {
                    let dims = tensor.dims().iter().map(|size| Dim::Fixed(*size)).collect();
                    values.insert(name, TensorInfo { dtype: tensor.dtype(), dims });
                }
                Some(Origin::Input) => {
                    let declared = inputs.iter().find(|input| input.name == *name);
                    if let Some(ValueInfo { dtype, shape: Some(dims), .. }) = declared {
                        values.insert(name, TensorInfo { dtype: *dtype, dims: dims.clone() });
                    }
                }
                _ => {
                    produced.insert(name.clone());
                }
            }
        }
    }
    let outputs = produced.into_iter().map(|name| Output { name, dtype: None }).collect();
    let probe = model.apply(&Patch { outputs, drop_outputs: true, ..Patch::default() })?.needed()?;
    let mut session = Session::load(runtime, &probe, options)?;
    let inferred = session.outputs();
    let needed: BTreeSet<String> = probe.inputs().into_iter().map(|input| input.name).collect();
    let feeds = feeds.iter().filter(|(name, _)| needed.contains(name)).map(|(name, value)| (name.as_str(), value));
    let measured = session.run(feeds)?;
    for (ValueInfo { name, dtype, shape }, value) in inferred.into_iter().zip(measured) {
        let sizes = value.shape();
        let rank = sizes.len();
        values.insert_sizes(name.clone(), sizes);
        let dims = shape.filter(|dims| dims.len() == rank).unwrap_or_else(|| vec![Dim::Unknown; rank]);
        values.insert(name, TensorInfo { dtype, dims });
    }
    Ok(values)
}
