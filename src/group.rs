//! Linear layers that read the same tensors share one statistic.

use crate::linear::{Linear, Part};
use std::collections::BTreeMap;

/// A module that gets an adapter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// Full PyTorch name.
    pub name: String,
    /// Features of its input.
    pub in_features: usize,
    /// Features of its output.
    pub out_features: usize,
    /// Whether it keeps its weight as [in, out] (GPT-2's Conv1D).
    pub fan_in_fan_out: bool,
    /// Number of its group.
    pub group: usize,
}

/// The tensors whose rows are analysed together, and who reads them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Tensor names; more than one when the modules are called repeatedly.
    pub tensors: Vec<String>,
    /// Features of the last axis.
    pub features: usize,
    /// Whether the rows are the tokens that a router chose, which cannot be told apart: all of them count.
    pub routed: bool,
}

/// The modules that get adapters and the groups they fall into.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grouping {
    /// The modules, in graph order.
    pub modules: Vec<Module>,
    /// The groups, in the order of their first module.
    pub groups: Vec<Group>,
}

/// Collects the named parts of the layers as modules, in graph order, and groups them by the tensors they read.
///
/// Layers that name one module several times (ALBERT's shared layers) make one module whose group has all their
/// inputs.
pub fn group<'a>(layers: impl IntoIterator<Item = (&'a Linear, Vec<&'a Part>)>) -> Grouping {
    let mut order: Vec<Module> = Vec::new();
    let mut inputs: Vec<Vec<String>> = Vec::new();
    let mut routed: Vec<bool> = Vec::new();
    let mut known: BTreeMap<String, usize> = BTreeMap::new();
    for (linear, parts) in layers {
        for part in parts {
            let at = *known.entry(part.module.clone()).or_insert_with(|| {
                order.push(Module {
                    name: part.module.clone(),
                    in_features: linear.in_features,
                    out_features: part.out_features(linear),
                    fan_in_fan_out: linear.fan_in_fan_out,
                    group: 0,
                });
                inputs.push(Vec::new());
                routed.push(false);
                order.len() - 1
            });
            routed[at] |= linear.routed;
            if !linear.constant && !inputs[at].contains(&linear.input) {
                inputs[at].push(linear.input.clone());
            }
        }
    }
    let mut groups: Vec<Group> = Vec::new();
    let mut by_tensors: BTreeMap<Vec<String>, usize> = BTreeMap::new();
    for ((module, tensors), routed) in order.iter_mut().zip(inputs).zip(routed) {
        module.group = *by_tensors.entry(tensors.clone()).or_insert_with(|| {
            groups.push(Group { tensors, features: module.in_features, routed });
            groups.len() - 1
        });
    }
    Grouping { modules: order, groups }
}
