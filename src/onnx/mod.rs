//! ONNX files: the only owner of protobuf types.

mod patch;

pub use patch::{Attribute, Constant, ElementType, Node, Output, Input, Patch};
