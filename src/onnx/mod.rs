//! ONNX files: the only owner of protobuf types.
//!
//! [`Model::open`] reads the structure of a file and leaves its weights where they are; [`Patch`] is the only way a
//! model changes.

mod apply;
mod attributes;
mod builder;
mod check;
mod edits;
mod error;
mod external;
mod extract;
mod fingerprint;
mod graph;
mod inline_if;
mod model;
mod patch;
mod protos;
mod schema;
mod tensor;
mod wire;

pub use builder::{Builder, Names, NewNode};
pub use error::{Error, Violation};
pub use extract::Part;
pub use graph::{Graph, NodeId, NodeView, Origin};
pub use model::{Dim, FileState, Model, Place, ValueInfo};
pub use patch::{
    Attribute, Change, Constant, Copied, Edit, Input, Node, OptionalInput, Output, Patch, Stored, Takeover,
};
pub use tensor::Tensor;
pub(crate) use tensor::map;
