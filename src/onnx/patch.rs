//! An edit of a graph as a value, and its only `apply`.

/// Element types that graph edits can declare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElementType {
    /// 32-bit float.
    F32,
    /// 64-bit signed integer.
    I64,
}

/// A node to add, in plain terms.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Node name, unique in the graph.
    pub name: String,
    /// Operator type, for example `MatMul`.
    pub op: &'static str,
    /// Tensors read, by name; an empty name is an absent optional input.
    pub inputs: Vec<String>,
    /// Tensors produced, by name.
    pub outputs: Vec<String>,
    /// Attributes by name.
    pub attributes: Vec<(&'static str, Attribute)>,
}

/// An attribute value.
#[derive(Clone, Debug, PartialEq)]
pub enum Attribute {
    /// A single integer.
    Int(i64),
    /// A list of integers.
    Ints(Vec<i64>),
    /// A single float.
    Float(f32),
}

/// A constant tensor to add as an initializer.
#[derive(Clone, Debug, PartialEq)]
pub enum Constant {
    /// `f32` values in row-major order with their shape.
    F32(Vec<i64>, Vec<f32>),
    /// `i64` values in row-major order with their shape.
    I64(Vec<i64>, Vec<i64>),
}

/// A graph input to add.
#[derive(Clone, Debug, PartialEq)]
pub struct Input {
    /// Tensor name.
    pub name: String,
    /// Element type.
    pub element: ElementType,
    /// Dimensions; `None` is dynamic.
    pub shape: Vec<Option<i64>>,
}

/// A graph output to add.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// Tensor name.
    pub name: String,
    /// Element type; `None` when the tensor is typed by the graph already.
    pub element: Option<ElementType>,
}

/// An edit of the main graph.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Patch {
    /// Nodes appended after the existing ones, in topological order.
    pub nodes: Vec<Node>,
    /// Initializers by name.
    pub constants: Vec<(String, Constant)>,
    /// Graph inputs appended after the existing ones.
    pub inputs: Vec<Input>,
    /// Graph outputs appended after the existing ones.
    pub outputs: Vec<Output>,
    /// Drop every existing graph output, so that nodes only they need are not run.
    pub drop_outputs: bool,
}
