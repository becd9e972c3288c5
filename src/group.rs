//! Modules that read the same tensors share one statistic.

use serde::{Deserialize, Serialize};
use std::collections::HashMap;

use crate::linear::{LayerInput, Linear, Part};

/// A module that gets an adapter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Module {
    /// Full PyTorch name.
    pub name: String,
    /// Features of its input.
    pub in_features: usize,
    /// Features of its output.
    pub out_features: usize,
    /// Whether it stores its weight as [in, out] (GPT-2's Conv1D).
    pub fan_in_fan_out: bool,
    /// Index of its group in [`Grouping::groups`].
    pub group: usize,
}

/// The tensors whose rows are analysed together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Tensor names; more than one if the modules are called repeatedly.
    pub tensors: Vec<String>,
    /// Features of the last axis.
    pub features: usize,
    /// Whether the rows are the tokens that a router chose: padding is not distinguishable from tokens, so all rows
    /// count.
    pub routed: bool,
}

/// The modules that get adapters, and their groups.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grouping {
    /// The modules, in graph order.
    pub modules: Vec<Module>,
    /// The groups, in the order of their first module.
    pub groups: Vec<Group>,
}

impl Grouping {
    /// The index of the group of every module, by name.
    pub fn ids(&self) -> HashMap<&str, usize> {
        self.modules.iter().map(|module| (module.name.as_str(), module.group)).collect()
    }
}

/// A tensor: the path to the subgraph that defines it, and its name there.
type TensorKey<'a> = (&'a [String], &'a str);

/// The tensors that one module reads.
#[derive(Default)]
struct Inputs<'a> {
    tensors: Vec<TensorKey<'a>>,
    routed: bool,
}

impl<'a> Inputs<'a> {
    fn add(&mut self, input: &'a LayerInput) {
        let key = (&input.subgraph[..], input.tensor.as_str());
        if !input.constant && !self.tensors.contains(&key) {
            self.tensors.push(key);
        }
        self.routed |= input.routed;
    }
}

/// Collects the given parts of layers as modules, in graph order, and groups the modules by the tensors they read.
///
/// Layers that name one module several times (ALBERT's shared layers) become one module whose group has all their
/// inputs.
pub fn group<'a>(layers: impl IntoIterator<Item = (&'a Linear, Vec<&'a Part>)>) -> Grouping {
    let mut modules: Vec<Module> = Vec::new();
    let mut inputs: Vec<Inputs<'a>> = Vec::new();
    let mut known: HashMap<&str, usize> = HashMap::new();
    for (linear, parts) in layers {
        for part in parts {
            let index = *known.entry(&part.module).or_insert(modules.len());
            if index == modules.len() {
                modules.push(module(linear, part));
                inputs.push(Inputs::default());
            }
            inputs[index].add(&linear.input);
        }
    }
    let mut groups: Vec<Group> = Vec::new();
    let mut by_tensors: HashMap<Vec<TensorKey<'a>>, usize> = HashMap::new();
    for (module, Inputs { tensors, routed }) in modules.iter_mut().zip(inputs) {
        let names = tensors.iter().map(|(_, name)| (*name).to_owned()).collect();
        module.group = *by_tensors.entry(tensors).or_insert(groups.len());
        if module.group == groups.len() {
            groups.push(Group { tensors: names, features: module.in_features, routed: false });
        }
        groups[module.group].routed |= routed;
    }
    Grouping { modules, groups }
}

/// The module of a part, before its group is known.
fn module(linear: &Linear, part: &Part) -> Module {
    Module {
        name: part.module.clone(),
        in_features: linear.in_features,
        out_features: part.out_features(linear),
        fan_in_fan_out: linear.weight.fan_in_fan_out,
        group: 0,
    }
}
