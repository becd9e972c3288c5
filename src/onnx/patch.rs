//! An edit of a model as a value; [`Model::apply`](super::Model::apply) carries it out.

use super::{Dim, Tensor};
use crate::dtype::DType;

/// A node to add.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Node name, unique in the graph.
    pub name: String,
    /// Operator type, for example `MatMul`; outside the default domain, after the domain and a colon.
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
    /// A text.
    Text(&'static str),
}

/// A constant tensor to add as an initializer.
#[derive(Clone, Debug, PartialEq)]
pub enum Constant {
    /// `f32` values in row-major order with their shape.
    F32(Vec<i64>, Vec<f32>),
    /// `i64` values in row-major order with their shape.
    I64(Vec<i64>, Vec<i64>),
    /// Values of any type as little-endian bytes, with their shape.
    Bytes(DType, Vec<i64>, Vec<u8>),
    /// Values in a file in the folder of the edited model.
    Stored(Stored),
}

impl Constant {
    /// A vector of integers.
    pub fn ints(values: Vec<i64>) -> Constant {
        Constant::I64(vec![values.len() as i64], values)
    }

    /// The bytes of a stored tensor under another type and shape, in their file if they are in one; `None` if they do not
    /// fill the shape.
    pub(crate) fn reinterpreted(tensor: &Tensor<'_>, dtype: DType, shape: Vec<i64>) -> Option<Constant> {
        let bytes = tensor.bytes()?;
        let count = shape.iter().try_fold(1usize, |count, dim| count.checked_mul(usize::try_from(*dim).ok()?))?;
        if count.checked_mul(dtype.bits()?)?.div_ceil(8) != bytes.len() {
            return None;
        }
        Some(match tensor.place() {
            None => Constant::Bytes(dtype, shape, bytes.into_owned()),
            Some((location, offset)) => {
                let (location, length) = (location.to_owned(), bytes.len() as u64);
                Constant::Stored(Stored { dtype, shape, location, offset, length })
            }
        })
    }

    /// A float without dimensions.
    pub fn scalar(value: f32) -> Constant {
        Constant::F32(Vec::new(), vec![value])
    }
}

/// A tensor whose values are in a file beside the model, little-endian and in row-major order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Element type.
    pub dtype: DType,
    /// Dimensions.
    pub shape: Vec<i64>,
    /// Name of the file, relative to the folder of the model.
    pub location: String,
    /// First byte.
    pub offset: u64,
    /// Number of bytes.
    pub length: u64,
}

/// A graph input to add.
#[derive(Clone, Debug, PartialEq)]
pub struct Input {
    /// Tensor name.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Dimensions; `None` is dynamic.
    pub shape: Vec<Option<i64>>,
}

/// A graph output to add.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// Tensor name.
    pub name: String,
    /// Element type; `None` when the tensor is typed by the graph already.
    pub dtype: Option<DType>,
}

/// A graph input with a default value (an initializer of the same name), which may be left out when the model is run.
#[derive(Clone, Debug, PartialEq)]
pub struct OptionalInput {
    /// Tensor name.
    pub name: String,
    /// Dimensions that may vary have a symbol; equal symbols stand for equal sizes.
    pub shape: Vec<Dim>,
    /// The default value.
    pub default: Constant,
}

/// Nodes directly after an existing one that take over a tensor it produces.
///
/// The output of the existing node is renamed to `raw`, and one of the new nodes produces `tensor`. So every reader,
/// graph outputs and subgraphs included, reads the new result under the old name.
#[derive(Clone, Debug, PartialEq)]
pub struct Takeover {
    /// Where the tensor is produced: empty for the main graph, else one step per subgraph as in [`Graph::path`].
    ///
    /// [`Graph::path`]: super::Graph::path
    pub subgraph: Vec<String>,
    /// The tensor taken over.
    pub tensor: String,
    /// The new name of the output of the existing node.
    pub raw: String,
    /// The new nodes, in topological order. They may read what is produced up to and including the existing node.
    pub nodes: Vec<Node>,
}

/// A change to an existing node.
#[derive(Clone, Debug, PartialEq)]
pub struct Change {
    /// Where the node is, as in [`Takeover::subgraph`].
    pub subgraph: Vec<String>,
    /// A tensor that the node produces.
    pub produces: String,
    /// What changes.
    pub edit: Edit,
}

/// What changes about a node.
#[derive(Clone, Debug, PartialEq)]
pub enum Edit {
    /// It reads `tensor` as input number `input`, which may be one past its last.
    Read {
        /// Index of the input.
        input: usize,
        /// The tensor.
        tensor: String,
    },
    /// It has one more output.
    Produce(String),
    /// An attribute gets a value.
    Set(&'static str, Attribute),
    /// It gets a name, because its own is empty or another node's too.
    Name(String),
}

/// A new node that takes operator, domain and attributes from an existing one of the main graph; inputs and outputs are
/// its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copied {
    /// The name of the new node, whose `op` does not count.
    pub node: String,
    /// A tensor that the existing node produces.
    pub produces: String,
}

/// An edit of a model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Patch {
    /// Nodes put before the existing ones, in topological order; they read new inputs and constants.
    pub leading: Vec<Node>,
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
    /// Graph inputs with a default, appended after `inputs`.
    pub optional_inputs: Vec<OptionalInput>,
    /// Results of existing nodes that new nodes take over.
    pub takeovers: Vec<Takeover>,
    /// Nodes of `nodes` that do what an existing node does.
    pub copies: Vec<Copied>,
    /// Changes to existing nodes.
    pub changes: Vec<Change>,
    /// New values of existing initializers of the main graph, which keep their shape and element type.
    pub values: Vec<(String, Stored)>,
    /// Declared types of new tensors.
    pub types: Vec<(String, DType, Vec<Dim>)>,
    /// Metadata entries of the model, added or replaced.
    pub metadata: Vec<(String, String)>,
    /// Another version of the file format.
    pub ir_version: Option<i64>,
    /// Another version of the default operator set.
    pub opset: Option<i64>,
}

impl Patch {
    /// Adds what another edit adds and changes; versions, outputs and metadata stay as they are here.
    pub fn extend(&mut self, other: Patch) {
        let Patch { nodes, constants, inputs, optional_inputs, takeovers, copies, changes, values, types, .. } = other;
        self.nodes.extend(nodes);
        self.copies.extend(copies);
        self.constants.extend(constants);
        self.inputs.extend(inputs);
        self.optional_inputs.extend(optional_inputs);
        self.takeovers.extend(takeovers);
        self.changes.extend(changes);
        self.values.extend(values);
        self.types.extend(types);
    }
}
