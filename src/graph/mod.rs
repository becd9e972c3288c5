//! Read-only questions about the graphs of a model.

pub(crate) mod constant;
pub(crate) mod data;
pub(crate) mod decode;
pub(crate) mod logits;
pub(crate) mod routed;
