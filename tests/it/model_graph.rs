//! The index of graphs: names are resolved scope by scope.

use eva_onnx::onnx::{Graph, Model, NodeId, Origin};
use onnx_protobuf::attribute_proto::AttributeType;
use onnx_protobuf::{
    AttributeProto, FunctionProto, GraphProto, Message, ModelProto, NodeProto, TensorProto, ValueInfoProto,
};

fn node(op: &str, name: &str, inputs: &[&str], output: &str) -> NodeProto {
    NodeProto {
        op_type: op.to_owned(),
        name: name.to_owned(),
        input: inputs.iter().map(|name| (*name).to_owned()).collect(),
        output: vec![output.to_owned()],
        ..Default::default()
    }
}

fn value(name: &str) -> ValueInfoProto {
    ValueInfoProto { name: name.to_owned(), ..Default::default() }
}

/// A branch that computes `h` and `y` with nodes of the same names, as merged decoders do.
fn branch(op: &str) -> GraphProto {
    GraphProto {
        node: vec![node(op, "/first", &["x"], "h"), node("MatMul", "/last", &["h", "w"], "y")],
        output: vec![value("y")],
        ..Default::default()
    }
}

fn model() -> ModelProto {
    let attribute = |name: &str, graph| AttributeProto {
        name: name.to_owned(),
        g: Some(graph).into(),
        type_: AttributeType::GRAPH.into(),
        ..Default::default()
    };
    let mut choose = node("If", "choose", &["c"], "out");
    choose.attribute = vec![attribute("then_branch", branch("Relu")), attribute("else_branch", branch("Tanh"))];
    let graph = GraphProto {
        node: vec![node("Identity", "", &["w"], "w2"), choose],
        input: vec![value("x"), value("c"), value("w")],
        output: vec![value("out")],
        initializer: vec![TensorProto { name: "w".to_owned(), dims: vec![2, 2], ..Default::default() }],
        ..Default::default()
    };
    let function = FunctionProto {
        name: "f".to_owned(),
        domain: "local".to_owned(),
        input: vec!["x".to_owned()],
        node: vec![node("Neg", "", &["x"], "w")],
        ..Default::default()
    };
    ModelProto { graph: Some(graph).into(), functions: vec![function], ..Default::default() }
}

fn with_graph(check: impl FnOnce(&Graph<'_>)) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.onnx");
    std::fs::write(&path, model().write_to_bytes().unwrap()).unwrap();
    let model = Model::open(&path).unwrap();
    check(&Graph::new(&model));
}

#[test]
fn scopes_have_paths() {
    with_graph(|graph| {
        let paths: Vec<_> = (0..graph.scopes()).map(|scope| graph.path(scope).join("/")).collect();
        assert_eq!(paths, ["", "choose.then_branch", "choose.else_branch", "function local::f"]);
        assert_eq!((0..4).map(|scope| graph.in_function(scope)).collect::<Vec<_>>(), [false, false, false, true]);
    });
}

#[test]
fn equal_names_in_two_branches_are_two_tensors() {
    with_graph(|graph| {
        let producer = |scope| match graph.origin(scope, "h") {
            Some(Origin::Node(place)) => graph.node(place).op(),
            _ => "",
        };
        assert_eq!(producer(1), "Relu");
        assert_eq!(producer(2), "Tanh");
        assert!(graph.origin(0, "h").is_none());
        assert_eq!(graph.readers(1, "h"), [NodeId { scope: 1, node: 1 }]);
        assert!(graph.is_output(1, "y"));
    });
}

#[test]
fn branches_see_the_graph_around_them_and_functions_do_not() {
    with_graph(|graph| {
        assert!(matches!(graph.origin(2, "w"), Some(Origin::Initializer(tensor)) if tensor.dims() == [2, 2]));
        assert_eq!(graph.home(2, "w"), Some(0));
        let readers = [(0, 0), (1, 1), (2, 1)].map(|(scope, node)| NodeId { scope, node });
        assert_eq!(graph.readers(0, "w"), readers);
        assert!(matches!(graph.origin(1, "x"), Some(Origin::Input)));
        assert!(matches!(graph.origin(3, "x"), Some(Origin::Input)));
        assert!(matches!(graph.origin(3, "w"), Some(Origin::Node(_))));
        assert!(graph.origin(3, "w2").is_none());
        assert!(graph.origin(0, "").is_none());
    });
}
