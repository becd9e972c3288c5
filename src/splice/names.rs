//! The names of an adapter's tensors in a graph.

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

/// The module whose `A` in a graph has this name.
pub(crate) fn module_of(a_name: &str) -> Option<String> {
    a_name.strip_prefix(PREFIX)?.strip_suffix("/A").map(str::to_owned)
}
