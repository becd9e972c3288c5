//! What is known of a model's linear layers without running it.

use crate::dtype::DType;
use crate::error::Error;
use crate::linear::{Linear, NamedBy, Part, Skipped};
use crate::named::{Chosen, NamedModel, Naming, Selection, choose};
use crate::onnx::ValueInfo;
use serde::{Serialize, Serializer};
use std::collections::HashMap;
use std::path::Path;

/// The linear layers of a model, their PyTorch names, and which of them `init` would choose.
///
/// Serialises as the document of `eva-onnx inspect --json`.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Inspection {
    /// The model.
    pub model: ModelInfo,
    /// The layers, in graph order.
    #[serde(rename = "linears")]
    pub layers: Vec<LayerInfo>,
    /// Nodes that look like linear layers but cannot be used.
    pub skipped: Vec<SkippedNode>,
    /// Remarks on the names, as sentences.
    pub notes: Vec<String>,
    /// Number of modules chosen.
    #[serde(skip)]
    pub targeted_modules: usize,
    /// Number of groups of modules that share an input.
    #[serde(skip)]
    pub groups: usize,
}

/// What a model file says of itself.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct ModelInfo {
    /// Name and version of the exporter.
    pub producer: String,
    /// Version of the default operator set.
    pub opset: i64,
    /// Version of the file format.
    pub ir_version: i64,
    /// What the graph must be fed.
    pub inputs: Vec<ValueInfo>,
    /// Whether weights are in files of their own.
    pub external_data: bool,
}

/// A linear layer.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct LayerInfo {
    /// Name of the node; may be empty.
    pub node: String,
    /// Operator type.
    pub op: String,
    /// The subgraph that holds the node, one step each; empty for the main graph.
    pub scope: Vec<String>,
    /// The tensor x of `y = x W`.
    pub input: String,
    /// The tensor x W.
    pub output: String,
    /// Why no LoRA branch can be added to the layer, if so.
    pub fused: Option<String>,
    /// The tensor that stores W.
    pub weight: String,
    /// Width of x.
    pub in_features: usize,
    /// Width of y.
    pub out_features: usize,
    /// Element type of the product.
    pub dtype: DType,
    /// The tensor that stores the bias.
    pub bias: Option<String>,
    /// Whether the PyTorch module stores its weight as [in, out].
    pub fan_in_fan_out: bool,
    /// The PyTorch modules that the node computes.
    pub modules: Vec<ModuleInfo>,
    /// Where the names come from.
    #[serde(serialize_with = "as_word")]
    pub named_by: NamedBy,
    /// Number of the group of its first chosen module, as in eva.json.
    pub group: Option<usize>,
    /// Whether any of the modules is chosen.
    pub targeted: bool,
}

/// A PyTorch module that a node computes.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct ModuleInfo {
    /// Dotted name.
    pub module: String,
    /// The node's output features that belong to it, as [start, end); `None` for all.
    pub columns: Option<[usize; 2]>,
    /// The module's output features that the node computes, as [start, end) and their whole number; `None` for all.
    pub slice: Option<[usize; 3]>,
    /// Output features of the whole module.
    #[serde(skip)]
    pub out_features: usize,
    /// Number of its group, as in eva.json, if it is chosen.
    #[serde(skip)]
    pub group: Option<usize>,
    /// Whether it is chosen.
    #[serde(skip)]
    pub targeted: bool,
}

/// A node that cannot be used.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct SkippedNode {
    /// Its name, or that of its first output.
    pub node: String,
    /// Operator type.
    pub op: String,
    /// The modules that it computes, where their names are known.
    pub modules: Vec<String>,
    /// Why, as a clause.
    pub reason: String,
}

/// Lists the linear layers of the model at `path`, which is its file or the folder that stands for it.
///
/// # Errors
/// When the model or the checkpoint cannot be read, or `selection` matches no module. A model without linear layers is
/// no error.
pub fn inspect(path: impl AsRef<Path>, naming: &Naming, selection: &Selection) -> Result<Inspection, Error> {
    let NamedModel { model, layers, .. } = NamedModel::open(path.as_ref(), naming)?;
    let chosen =
        choose(&layers.linears, &layers.skipped, selection, true).map_err(|e| Error::from(e).in_file(model.path()))?;
    let groups = chosen.grouping.ids();
    let skipped = |Skipped { node, op, modules, reason }| SkippedNode { node, op, modules, reason: reason.to_string() };
    Ok(Inspection {
        model: ModelInfo {
            producer: format!("{} {}", model.producer(), model.producer_version()).trim().to_owned(),
            opset: model.opset(),
            ir_version: model.ir_version(),
            inputs: model.inputs(),
            external_data: model.external_data(),
        },
        layers: layers.linears.iter().enumerate().map(|(i, linear)| layer(i, linear, &chosen, &groups)).collect(),
        skipped: layers.skipped.into_iter().map(skipped).collect(),
        notes: layers.notes,
        targeted_modules: chosen.grouping.modules.len(),
        groups: chosen.grouping.groups.len(),
    })
}

fn layer(index: usize, linear: &Linear, chosen: &Chosen, groups: &HashMap<&str, usize>) -> LayerInfo {
    let group = |part: &Part| groups.get(part.module.as_str()).copied();
    let targeted = |part: usize| chosen.targeted.contains(&(index, part));
    let module = |(number, part): (usize, &Part)| ModuleInfo {
        module: part.module.clone(),
        columns: part.columns.map(|(start, end)| [start, end]),
        slice: part.slice.map(|slice| [slice.start, slice.end, slice.of]),
        out_features: part.out_features(linear),
        group: group(part),
        targeted: targeted(number),
    };
    LayerInfo {
        node: linear.at.node.clone(),
        op: linear.at.op.clone(),
        scope: linear.at.subgraph.clone(),
        input: linear.input.tensor.clone(),
        output: linear.output.tensor.clone(),
        fused: linear.output.fused.map(|fused| fused.to_string()),
        weight: linear.weight.tensor.clone(),
        in_features: linear.in_features,
        out_features: linear.out_features,
        dtype: linear.weight.dtype,
        bias: linear.weight.bias.clone(),
        fan_in_fan_out: linear.weight.fan_in_fan_out,
        modules: linear.modules.iter().enumerate().map(module).collect(),
        named_by: linear.named_by,
        group: linear.modules.iter().find_map(group),
        targeted: (0..linear.modules.len()).any(targeted),
    }
}

fn as_word<S: Serializer>(named_by: &NamedBy, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(named_by.as_str())
}
