//! What the dynamo exporter records: the module path of every node and the parameter behind every placeholder.

use std::collections::HashMap;
use std::sync::LazyLock;

use regex::Regex;

use crate::linear::module::is_inside;
use crate::onnx::{Graph, NodeView};

/// What the metadata of a node says about its module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Recorded {
    /// The module it was traced in, and that module's class if recorded.
    Module(String, Option<String>),
    /// The module whose `.weight` it reads, if it was traced in a module around that one.
    Parameter(String),
    /// Its weight is that of a module that is not a linear layer, such as a router.
    OtherModule,
    /// It was not traced in a module with the weight as its own: a bare parameter or a packed projection.
    NoModule,
    /// There is no metadata.
    Nothing,
}

const SCOPES: &str = "pkg.torch.onnx.name_scopes";
const CLASSES: &str = "pkg.torch.onnx.class_hierarchy";
const CALL: &str = "pkg.torch.onnx.fx_node";
const NOWHERE: &str = "_empty_nn_module_stack_from_metadata_hook";
const SIGNATURE: &str = "pkg.torch.export.ExportedProgram.graph_signature";

/// The parameters of the exported program, each as often as it has names, in the order of PyTorch's modules.
#[derive(Default)]
pub(crate) struct Signature<'m> {
    /// Names by placeholder.
    names: HashMap<&'m str, &'m str>,
    /// Positions by name.
    positions: HashMap<&'m str, usize>,
}

impl<'m> Signature<'m> {
    fn new(parameters: impl Iterator<Item = (&'m str, &'m str)>) -> Signature<'m> {
        let mut signature = Signature::default();
        for (position, (placeholder, name)) in parameters.enumerate() {
            signature.names.insert(placeholder, name);
            signature.positions.insert(name, position);
        }
        signature
    }

    /// The names of all parameters, in no order.
    pub(crate) fn names(&self) -> impl Iterator<Item = &'m str> {
        self.names.values().copied()
    }

    /// The position of a parameter among all.
    pub(crate) fn position(&self, name: &str) -> Option<usize> {
        self.positions.get(name).copied()
    }
}

/// The parameters in the signature of the exported program.
pub(crate) fn signature<'m>(graph: &Graph<'m>) -> Signature<'m> {
    static TORCH_2_15: LazyLock<Option<Regex>> =
        LazyLock::new(|| Regex::new(r"(?m)^(\w+): PARAMETER target='([^']*)'").ok());
    static TORCH_2_6: LazyLock<Option<Regex>> = LazyLock::new(|| {
        Regex::new(r"InputKind\.PARAMETER: \d+>, arg=TensorArgument\(name='(\w+)'\), target='([^']*)'").ok()
    });
    let text = graph.metadata(SIGNATURE).unwrap_or_default();
    let patterns = [&TORCH_2_15, &TORCH_2_6].into_iter().filter_map(|pattern| pattern.as_ref());
    let found = patterns.flat_map(|pattern| pattern.captures_iter(text));
    Signature::new(found.filter_map(|found| Some((found.get(1)?.as_str(), found.get(2)?.as_str()))))
}

/// What the metadata of `node` says about its module.
///
/// For modules that share a weight, the traced module is right and the parameter may be the other module's. The
/// parameter wins only if it is inside the traced module, which then does not call the parameter's module.
pub(crate) fn recorded(node: NodeView<'_>, signature: &Signature<'_>) -> Recorded {
    let Some(Traced { module, class }) = traced(node) else {
        return Recorded::Nothing;
    };
    let parameter = weight_owner(&parameters(node, signature));
    if let Some(inner) = parameter.filter(|inner| is_inside(inner, &module)) {
        return Recorded::Parameter(inner.to_owned());
    }
    let known = class.as_ref().is_none_or(|class| class.ends_with("Linear") || class.ends_with("Conv1D"));
    match known {
        true if !module.is_empty() => Recorded::Module(module, class),
        false if parameter == Some(&module) => Recorded::OtherModule,
        _ => Recorded::NoModule,
    }
}

/// The module that a node was traced in.
pub(crate) struct Traced {
    /// Its path; empty for the whole model.
    pub(crate) module: String,
    /// Its class, if recorded.
    pub(crate) class: Option<String>,
}

/// The module whose code was running when `node` was traced, if that is recorded.
pub(crate) fn traced(node: NodeView<'_>) -> Option<Traced> {
    let scopes = node.metadata(SCOPES).map(strings)?;
    let [.., module, _] = &scopes[..] else { return None };
    let classes = node.metadata(CLASSES).map(strings).unwrap_or_default();
    let class = classes.len().checked_sub(2).map(|index| classes[index].clone());
    // Passes of the exporter add nodes that belong nowhere.
    (module != NOWHERE).then(|| Traced { module: module.clone(), class })
}

/// The parameters that the traced call reads.
pub(crate) fn parameters<'m>(node: NodeView<'_>, signature: &Signature<'m>) -> Vec<&'m str> {
    node.metadata(CALL).map_or_else(Vec::new, |call| arguments(call, signature))
}

fn arguments<'m>(call: &str, signature: &Signature<'m>) -> Vec<&'m str> {
    static PLACEHOLDER: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"%(p_\w+)").ok());
    let found = PLACEHOLDER.iter().flat_map(|placeholder| placeholder.captures_iter(call));
    found.filter_map(|found| signature.names.get(found.get(1)?.as_str()).copied()).collect()
}

/// The module whose weight is among the parameters, if there is exactly one.
fn weight_owner<'m>(parameters: &[&'m str]) -> Option<&'m str> {
    let mut owners: Vec<_> = parameters.iter().filter_map(|parameter| parameter.strip_suffix(".weight")).collect();
    owners.dedup();
    if let [owner] = owners[..] { Some(owner) } else { None }
}

/// The items of a Python list of strings, as its `repr` prints them.
fn strings(text: &str) -> Vec<String> {
    static ITEM: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r#"'([^']*)'|"([^"]*)""#).ok());
    let items = ITEM.iter().flat_map(|item| item.captures_iter(text));
    items.filter_map(|found| Some(found.get(1).or(found.get(2))?.as_str().to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn python_lists() {
        assert_eq!(strings("['', 'model', \"it's\", 'linear_1']"), ["", "model", "it's", "linear_1"]);
        assert_eq!(strings("[]"), Vec::<String>::new());
    }

    #[test]
    fn the_weight_of_a_traced_call() {
        let signature =
            Signature::new([("p_a_weight", "a.weight"), ("p_b_c_bias", "b.c.bias"), ("p_a_b", "a_b")].into_iter());
        let owner = |call| weight_owner(&arguments(call, &signature));
        assert_eq!(owner("%l : call_function[target=x](args = (%mul_4, %p_a_weight, %p_b_c_bias))"), Some("a"));
        assert_eq!(owner("(args = (%mul_4, %p_a_b))"), None);
        assert_eq!(owner("(args = (%mul_4, %p_unknown_weight))"), None);
    }
}
