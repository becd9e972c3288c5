//! What is known of the tensors of a graph.

use crate::dtype::DType;
use crate::onnx::Dim;
use std::collections::HashMap;

/// The element type and the dimensions of a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Element type.
    pub dtype: DType,
    /// Its dimensions, as many as it has; equal symbols stand for equal sizes.
    pub dims: Vec<Dim>,
}

/// The tensors of a graph by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Values {
    by_name: HashMap<String, TensorInfo>,
}

impl Values {
    /// What is known of a tensor.
    pub fn get(&self, name: &str) -> Option<&TensorInfo> {
        self.by_name.get(name)
    }

    /// Adds a tensor.
    pub fn insert(&mut self, name: impl Into<String>, info: TensorInfo) {
        self.by_name.insert(name.into(), info);
    }
}
