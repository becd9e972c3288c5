//! What a spliced model says of its adapter, so that the adapter can be taken out again.

use super::{Form, a_name, b_name};
use crate::adapter::{Adapter, Base};
use serde::{Deserialize, Serialize};

/// The metadata entry of the model that holds the record.
pub const KEY: &str = "eva-onnx.adapter";

/// The record, JSON in the metadata of the model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The form, as on the command line.
    #[serde(rename = "as")]
    pub form: Form,
    /// `base_model_name_or_path` of PEFT.
    pub base_model: Option<String>,
    /// `task_type` of PEFT.
    pub task_type: Option<String>,
    /// Whether the modules keep their weights as [in, out].
    pub fan_in_fan_out: bool,
    /// Names that must not be adapted.
    pub exclude_modules: Vec<String>,
    /// The modules, in the order of the adapter.
    pub modules: Vec<RecordModule>,
}

/// What the record says of a module.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecordModule {
    /// Full PyTorch name.
    pub module: String,
    /// The name of `A` [in, rank] in the graph.
    #[serde(rename = "A")]
    pub a: String,
    /// The name of `B` [rank, out] in the graph.
    #[serde(rename = "B")]
    pub b: String,
    /// Rank.
    pub rank: usize,
    /// Numerator of the scale.
    pub alpha: f64,
}

impl Record {
    /// The record of `adapter` in a graph.
    pub fn new(form: Form, adapter: &Adapter, base: &Base) -> Self {
        let module = |m: &crate::adapter::AdapterModule| RecordModule {
            a: a_name(&m.module),
            b: b_name(&m.module),
            rank: m.rank(),
            alpha: m.alpha,
            module: m.module.clone(),
        };
        Self {
            form,
            base_model: base.name.clone(),
            task_type: base.task_type.clone(),
            fan_in_fan_out: adapter.modules.iter().any(|m| m.fan_in_fan_out),
            exclude_modules: adapter.reached(),
            modules: adapter.modules.iter().map(module).collect(),
        }
    }

    /// The record as one line of JSON.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}
