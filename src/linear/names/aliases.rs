//! Modules with several names. PyTorch lists a module by the first of them, and PEFT knows no other; dynamo records the
//! name that a call used.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::dynamo::{self, Recorded, Signature};
use crate::linear::module::parent;
use crate::onnx::NodeView;

/// The names of one module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Names {
    /// The one that PyTorch lists.
    pub(crate) first: String,
    /// The others that the file shows.
    pub(crate) others: Vec<String>,
}

/// The names of the modules that have several, by each of them.
///
/// Calls that read the same weight, and no bias of their own, are taken for calls of one module: modules that only share
/// their weights look the same if they have no biases, and are rare.
pub(crate) fn find<'m>(nodes: impl Iterator<Item = NodeView<'m>>, signature: &Signature<'_>) -> HashMap<String, Names> {
    // By the module that the parameters are recorded of: their names in PyTorch's order.
    let mut modules: BTreeMap<&str, BTreeSet<(usize, String)>> = BTreeMap::new();
    for node in nodes {
        let Recorded::Module(called, _) = dynamo::recorded(node, signature) else { continue };
        let mut owners: Vec<&str> = dynamo::parameters(node, signature).into_iter().map(parent).collect();
        owners.dedup();
        let [owner] = owners[..] else { continue };
        for name in [called.as_str(), owner] {
            let place = signature.position(&format!("{name}.weight"));
            let entry = modules.entry(owner).or_default();
            entry.extend(place.map(|place| (place, name.to_owned())));
        }
    }
    let mut found = HashMap::new();
    for names in modules.into_values().filter(|names| names.len() > 1) {
        let mut names = names.into_iter().map(|(_, name)| name);
        let names = Names { first: names.next().unwrap_or_default(), others: names.collect() };
        for name in names.others.iter().chain([&names.first]) {
            found.insert(name.clone(), names.clone());
        }
    }
    found
}
