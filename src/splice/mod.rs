//! Adapters in graphs: low-rank branches to train or to feed, or weights with the product merged in.
//!
//! [`fit`] finds where the modules of an adapter are in a model. [`trainable`], [`adapter_inputs`] and [`merge`] make
//! the [`Patch`](crate::onnx::Patch) that puts them there.

mod error;
mod fit;
mod gradient;
mod lora;
mod loss;
mod merge;
mod record;
mod training;

pub use error::{Error, Obstacle, OtherShape, Unmergeable};
pub use fit::{Site, fit};
pub use lora::{adapter_inputs, check_branches, trainable};
pub use loss::{IGNORED, LABELS, LOSS, LossEdit, Task, loss};
pub use merge::merge;
pub use record::{KEY, Record, RecordModule};
pub use training::prepare;

use crate::adapter::Adapter;
use ndarray::Array2;
use serde::{Deserialize, Serialize};

/// How an adapter is in a graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// `A` and `B` are initializers.
    Trainable,
    /// `A` and `B` are inputs that may be left out.
    AdapterInputs,
    /// The weights hold the product.
    Merged,
}

impl Form {
    /// The word for it on the command line and in files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trainable => "trainable",
            Self::AdapterInputs => "adapter-inputs",
            Self::Merged => "merged",
        }
    }
}

/// Start of every name that a splice adds to a graph.
pub const PREFIX: &str = "lora/";

/// The name of `A` [in_features, rank] of a module in a graph.
pub fn a_name(module: &str) -> String {
    format!("{PREFIX}{module}/A")
}

/// The name of `B` [rank, out_features] of a module in a graph.
pub fn b_name(module: &str) -> String {
    format!("{PREFIX}{module}/B")
}

/// The name of the scale of a module in a trainable graph.
pub fn scale_name(module: &str) -> String {
    format!("{PREFIX}{module}/scale")
}

/// The matrices as a graph with [`adapter_inputs`] takes them, by name: `A` [in, rank] and `B` [rank, out] times the
/// scale.
pub fn parameters(adapter: &Adapter) -> Vec<(String, Array2<f32>)> {
    let mut all = Vec::with_capacity(2 * adapter.modules.len());
    for module in &adapter.modules {
        let scale = module.scale() as f32;
        all.push((a_name(&module.module), module.a.t().to_owned()));
        all.push((b_name(&module.module), module.b().t().mapv(|value| value * scale)));
    }
    all
}
