//! A read-only index over the main graph, its subgraphs and the local functions.

use std::collections::{HashMap, HashSet};

use onnx_protobuf::attribute_proto::AttributeType;
use onnx_protobuf::{AttributeProto, GraphProto, NodeProto, TensorProto, ValueInfoProto};

use super::model::{entry, value};
use super::tensor::{Files, Tensor};
use super::{Model, ValueInfo};
use crate::dtype::DType;

/// An index of every graph of a model.
///
/// Scope 0 is the main graph. Every branch or body of an `If`, `Loop` or `Scan` node is a scope of its own, which also
/// sees the names of the scopes around it; local functions are scopes that see nothing else.
pub struct Graph<'m> {
    model: &'m Model,
    scopes: Vec<Scope<'m>>,
}

struct Scope<'m> {
    path: Vec<String>,
    /// The node that holds the graph, for a subgraph.
    owner: Option<NodeId>,
    function: bool,
    nodes: &'m [NodeProto],
    produced: HashMap<&'m str, usize>,
    stored: HashMap<&'m str, &'m TensorProto>,
    inputs: HashSet<&'m str>,
    outputs: Vec<&'m str>,
    values: HashMap<&'m str, &'m ValueInfoProto>,
    readers: HashMap<&'m str, Vec<NodeId>>,
}

/// Identifies a node by its scope and its index there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId {
    /// Index of the scope.
    pub scope: usize,
    /// Index of the node in the scope.
    pub node: usize,
}

/// Where a tensor comes from.
#[derive(Clone, Copy)]
pub enum Origin<'m> {
    /// A node produces it.
    Node(NodeId),
    /// It is stored with the graph.
    Initializer(Tensor<'m>),
    /// It is an input of the graph, of a loop's body or of a local function.
    Input,
}

/// A node of the model.
#[derive(Clone, Copy)]
pub struct NodeView<'m> {
    proto: &'m NodeProto,
    files: &'m Files,
}

impl<'m> Graph<'m> {
    /// Indexes every graph of `model`.
    pub fn new(model: &'m Model) -> Graph<'m> {
        let mut graph = Graph { model, scopes: Vec::new() };
        graph.add(model.graph(), Vec::new(), None);
        for function in &model.proto.functions {
            let path = vec![format!("function {}::{}", function.domain, function.name)];
            let mut scope = Scope::new(path, None, &function.node);
            scope.function = true;
            scope.inputs = function.input.iter().map(String::as_str).collect();
            scope.outputs = function.output.iter().map(String::as_str).collect();
            graph.push(scope);
        }
        graph.find_readers();
        graph
    }

    /// The model that was indexed.
    pub fn model(&self) -> &'m Model {
        self.model
    }

    /// Number of scopes; the main graph is scope 0.
    pub fn scopes(&self) -> usize {
        self.scopes.len()
    }

    /// The path of a scope: one `node.attribute` per subgraph, or one `function domain::name`; empty for the main
    /// graph.
    pub fn path(&self, scope: usize) -> &[String] {
        &self.scopes[scope].path
    }

    /// The node that holds the scope; nothing for the main graph and local functions.
    pub fn owner(&self, scope: usize) -> Option<NodeId> {
        self.scopes[scope].owner
    }

    /// Whether the scope is a local function or is in one.
    pub fn in_function(&self, scope: usize) -> bool {
        let scope = &self.scopes[scope];
        scope.function || scope.owner.is_some_and(|owner| self.in_function(owner.scope))
    }

    /// The nodes of a scope, in order.
    pub fn nodes(&self, scope: usize) -> impl Iterator<Item = (NodeId, NodeView<'m>)> {
        let files = self.model.files();
        let nodes = self.scopes[scope].nodes.iter().enumerate();
        nodes.map(move |(node, proto)| (NodeId { scope, node }, NodeView { proto, files }))
    }

    /// The node at `place`.
    pub fn node(&self, place: NodeId) -> NodeView<'m> {
        NodeView { proto: &self.scopes[place.scope].nodes[place.node], files: self.model.files() }
    }

    /// The scope that defines `name` as seen from `scope`, innermost first.
    pub fn home(&self, scope: usize, name: &str) -> Option<usize> {
        let mut at = Some(scope);
        while let Some(index) = at.filter(|_| !name.is_empty()) {
            let scope = &self.scopes[index];
            if scope.produced.contains_key(name) || scope.stored.contains_key(name) || scope.inputs.contains(name) {
                return Some(index);
            }
            at = scope.owner.map(|owner| owner.scope);
        }
        None
    }

    /// Where the tensor that `scope` sees as `name` comes from; stored values win over inputs of the same name.
    pub fn origin(&self, scope: usize, name: &str) -> Option<Origin<'m>> {
        let home = self.home(scope, name)?;
        let scope = &self.scopes[home];
        if let Some(&node) = scope.produced.get(name) {
            return Some(Origin::Node(NodeId { scope: home, node }));
        }
        let stored = scope.stored.get(name);
        Some(stored.map_or(Origin::Input, |proto| Origin::Initializer(Tensor::new(proto, self.model.files()))))
    }

    /// The nodes that read the tensor that `scope` sees as `name`, those of inner scopes included.
    pub fn readers(&self, scope: usize, name: &str) -> &[NodeId] {
        let home = self.home(scope, name);
        home.and_then(|home| self.scopes[home].readers.get(name)).map_or(&[], Vec::as_slice)
    }

    /// Whether `name` is an output of the scope.
    pub fn is_output(&self, scope: usize, name: &str) -> bool {
        self.scopes[scope].outputs.contains(&name)
    }

    /// The outputs of the scope, in order; those of a subgraph may be tensors of the graphs around it.
    pub fn outputs(&self, scope: usize) -> &[&'m str] {
        &self.scopes[scope].outputs
    }

    /// The declared type of the tensor that `scope` sees as `name`.
    pub fn value(&self, scope: usize, name: &str) -> Option<ValueInfo> {
        let home = self.home(scope, name)?;
        self.scopes[home].values.get(name).map(|info| value(info))
    }

    /// The value of a metadata entry of the main graph.
    pub fn metadata(&self, key: &str) -> Option<&'m str> {
        entry(&self.model.graph().metadata_props, key)
    }

    fn add(&mut self, graph: &'m GraphProto, path: Vec<String>, owner: Option<NodeId>) {
        let mut scope = Scope::new(path, owner, &graph.node);
        scope.inputs = graph.input.iter().map(|input| input.name.as_str()).collect();
        scope.outputs = graph.output.iter().map(|output| output.name.as_str()).collect();
        scope.stored = graph.initializer.iter().map(|tensor| (tensor.name.as_str(), tensor)).collect();
        let values = graph.value_info.iter().chain(&graph.input).chain(&graph.output);
        scope.values = values.map(|info| (info.name.as_str(), info)).collect();
        self.push(scope);
    }

    /// Adds the scope and those of its subgraphs.
    fn push(&mut self, scope: Scope<'m>) {
        let index = self.scopes.len();
        let (nodes, path) = (scope.nodes, scope.path.clone());
        self.scopes.push(scope);
        for (at, node) in nodes.iter().enumerate() {
            for attribute in &node.attribute {
                let steps = steps(&node.name, &node.op_type, attribute);
                for (step, graph) in steps.into_iter().zip(attribute.g.iter().chain(&attribute.graphs)) {
                    let mut path = path.clone();
                    path.push(step);
                    self.add(graph, path, Some(NodeId { scope: index, node: at }));
                }
            }
        }
    }

    fn find_readers(&mut self) {
        for scope in 0..self.scopes.len() {
            for (node, proto) in self.scopes[scope].nodes.iter().enumerate() {
                let mut seen = HashSet::new();
                for name in proto.input.iter().filter(|name| seen.insert(name.as_str())) {
                    if let Some(home) = self.home(scope, name) {
                        self.scopes[home].readers.entry(name).or_default().push(NodeId { scope, node });
                    }
                }
            }
        }
    }
}

/// The steps to the graphs that an attribute of a node holds.
pub(super) fn steps(name: &str, op: &str, attribute: &AttributeProto) -> Vec<String> {
    let node = if name.is_empty() { op } else { name };
    let one = attribute.g.iter().map(|_| format!("{node}.{}", attribute.name));
    one.chain((0..attribute.graphs.len()).map(|number| format!("{node}.{}[{number}]", attribute.name))).collect()
}

impl<'m> Scope<'m> {
    fn new(path: Vec<String>, owner: Option<NodeId>, nodes: &'m [NodeProto]) -> Self {
        let mut produced = HashMap::new();
        for (index, node) in nodes.iter().enumerate() {
            produced.extend(node.output.iter().filter(|name| !name.is_empty()).map(|name| (name.as_str(), index)));
        }
        Scope {
            path,
            owner,
            function: false,
            nodes,
            produced,
            stored: HashMap::new(),
            inputs: HashSet::new(),
            outputs: Vec::new(),
            values: HashMap::new(),
            readers: HashMap::new(),
        }
    }
}

impl<'m> NodeView<'m> {
    /// Its name; may be empty.
    pub fn name(&self) -> &'m str {
        &self.proto.name
    }

    /// Its operator type, for example `MatMul`.
    pub fn op(&self) -> &'m str {
        &self.proto.op_type
    }

    /// Its operator's domain; empty for the default one.
    pub fn domain(&self) -> &'m str {
        if self.proto.domain == "ai.onnx" { "" } else { &self.proto.domain }
    }

    /// The tensors it reads; an empty name is an absent optional input.
    pub fn inputs(&self) -> &'m [String] {
        &self.proto.input
    }

    /// The tensor it reads at `index`, unless absent.
    pub fn input(&self, index: usize) -> Option<&'m str> {
        self.proto.input.get(index).map(String::as_str).filter(|name| !name.is_empty())
    }

    /// The tensors it produces; an empty name is an unused output.
    pub fn outputs(&self) -> &'m [String] {
        &self.proto.output
    }

    /// Its first output, or nothing if that is unused.
    pub fn output(&self) -> Option<&'m str> {
        self.proto.output.first().map(String::as_str).filter(|name| !name.is_empty())
    }

    /// An integer attribute.
    pub fn int(&self, name: &str) -> Option<i64> {
        self.attribute(name, AttributeType::INT).map(|attribute| attribute.i)
    }

    /// Whether an integer attribute is there and not 0.
    pub fn flag(&self, name: &str) -> bool {
        self.int(name).is_some_and(|value| value != 0)
    }

    /// An attribute that is a list of integers.
    pub fn ints(&self, name: &str) -> Option<&'m [i64]> {
        self.attribute(name, AttributeType::INTS).map(|attribute| attribute.ints.as_slice())
    }

    /// A float attribute.
    pub fn float(&self, name: &str) -> Option<f32> {
        self.attribute(name, AttributeType::FLOAT).map(|attribute| attribute.f)
    }

    /// A text attribute.
    pub fn text(&self, name: &str) -> Option<&'m str> {
        self.attribute(name, AttributeType::STRING).and_then(|attribute| str::from_utf8(&attribute.s).ok())
    }

    /// An attribute that is the number of an element type, for example the `to` of a `Cast`; [`DType::Undefined`] for a
    /// type that this version does not know.
    pub fn dtype(&self, name: &str) -> Option<DType> {
        self.int(name).map(DType::from_onnx)
    }

    /// A tensor attribute, for example the `value` of a `Constant`.
    pub fn tensor(&self, name: &str) -> Option<Tensor<'m>> {
        let attribute = self.attribute(name, AttributeType::TENSOR)?;
        attribute.t.as_ref().map(|proto| Tensor::new(proto, self.files))
    }

    /// The value of a metadata entry of the node.
    pub fn metadata(&self, key: &str) -> Option<&'m str> {
        entry(&self.proto.metadata_props, key)
    }

    fn attribute(&self, name: &str, kind: AttributeType) -> Option<&'m AttributeProto> {
        let mut attributes = self.proto.attribute.iter();
        attributes.find(|attribute| attribute.name == name && attribute.type_.enum_value() == Ok(kind))
    }
}
