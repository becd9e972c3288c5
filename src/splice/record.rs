//! The record of an adapter in the metadata of a spliced model, by which the adapter can be extracted again.

use super::names::{a_name, b_name};
use super::saved::SavedParameter;
use crate::adapter::{Adapter, AdapterModule, Base};
use crate::linear::GraphNames;
use serde::{Deserialize, Serialize};

/// How an adapter is in a graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Form {
    /// `A` and `B` are initializers.
    Trainable,
    /// `A` and `B` are optional graph inputs.
    AdapterInputs,
    /// The weights include the product.
    Merged,
}

impl Form {
    /// Its name on the command line and in files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trainable => "trainable",
            Self::AdapterInputs => "adapter-inputs",
            Self::Merged => "merged",
        }
    }
}

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
    /// The names of the graph by which the modules are called, if those are not the names of PyTorch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub names: Option<GraphNames>,
    /// Whether the modules store their weights as [in, out].
    pub fan_in_fan_out: bool,
    /// PEFT's `exclude_modules`.
    pub exclude_modules: Vec<String>,
    /// The modules, in the order of the adapter.
    pub modules: Vec<RecordModule>,
    /// Modules whose own weights in the graph are the adapter's: PEFT's `modules_to_save`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub saved: Vec<String>,
}

/// A module in the record.
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
        let module = |m: &AdapterModule| RecordModule {
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
            names: base.names,
            fan_in_fan_out: adapter.modules.iter().any(|m| m.fan_in_fan_out),
            exclude_modules: adapter.exclude_modules(),
            modules: adapter.modules.iter().map(module).collect(),
            saved: Vec::new(),
        }
    }

    /// The record beside parameters of the adapter that replace those of the model.
    #[must_use]
    pub fn with_saved(mut self, parameters: &[SavedParameter]) -> Self {
        self.saved = parameters.iter().map(|parameter| parameter.module.clone()).collect();
        self.saved.dedup();
        self
    }

    /// The record as one line of JSON.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}
