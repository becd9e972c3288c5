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
    sizes: HashMap<String, Vec<usize>>,
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

    /// The bytes of a tensor in a batch of another size; 0 if its sizes were not measured.
    pub fn bytes(&self, name: &str, growth: &Growth) -> f64 {
        let (Some(sizes), Some(info)) = (self.sizes.get(name), self.get(name)) else { return 0.0 };
        let count: f64 = sizes.iter().map(|size| growth.of(*size)).product();
        count * info.dtype.bits().unwrap_or(0) as f64 / 8.0
    }

    /// Adds the sizes that a tensor had in a run.
    pub fn insert_sizes(&mut self, name: impl Into<String>, sizes: Vec<usize>) {
        self.sizes.insert(name.into(), sizes);
    }
}

/// Sequences and tokens of each in the batch that was measured, and in the one that is asked about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Growth {
    /// Of the batch that was measured.
    pub from: [usize; 2],
    /// Of the other.
    pub to: [usize; 2],
}

impl Growth {
    /// What becomes of an axis of this size: those of the measured batch become those of the other.
    fn of(&self, size: usize) -> f64 {
        let ([sequences, tokens], [more, longer]) = (self.from, self.to);
        let grown = match size {
            size if size == sequences * tokens => more * longer,
            size if size == tokens => longer,
            size if size == sequences => more,
            size => size,
        };
        grown as f64
    }
}
