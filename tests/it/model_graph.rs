//! The index of graphs: names are resolved scope by scope.

use crate::support::graph::{BOOL, F32, Net, net};
use eva_onnx::onnx::{Graph, NodeId, Origin};

/// A branch that computes `h` and `y` with nodes of the same names, as merged decoders do.
fn branch(op: &str) -> Net {
    net().node(op, "/first", &["x"], "h").node("MatMul", "/last", &["h", "w"], "y").output("y")
}

fn model() -> Net {
    net()
        .input("x", F32)
        .input("c", BOOL)
        .input("w", F32)
        .output("out")
        .weight("w", &[2, 2])
        .node("Identity", "", &["w"], "w2")
        .node("If", "choose", &["c"], "out")
        .branch("then_branch", branch("Relu"))
        .branch("else_branch", branch("Tanh"))
        .function("local", "f", &["x"], net().node("Neg", "", &["x"], "w"))
}

fn with_graph(check: impl FnOnce(&Graph<'_>)) {
    let (_dir, model) = model().open();
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

#[test]
fn what_no_output_depends_on_is_left_out() {
    let branch = |op: &str| net().node(op, "/only", &["kept"], "y").output("y");
    let net = net()
        .input("x", F32)
        .input("c", BOOL)
        .input("unused", F32)
        .weight("w", &[2, 2])
        .weight("dropped", &[2, 2])
        .node("MatMul", "product", &["x", "w"], "kept")
        .node("Add", "dead", &["kept", "dropped"], "nowhere")
        .node("Add", "dead too", &["nowhere", "unused"], "end")
        .node("If", "choose", &["c"], "out")
        .branch("then_branch", branch("Relu"))
        .branch("else_branch", branch("Tanh"))
        .output("out");
    let (_dir, model) = net.open();
    let needed = model.needed().unwrap();
    let graph = Graph::new(&needed);
    assert_eq!(graph.nodes(0).map(|(_, node)| node.name().to_owned()).collect::<Vec<_>>(), ["product", "choose"]);
    assert_eq!(needed.inputs().iter().map(|input| input.name.as_str()).collect::<Vec<_>>(), ["x", "c"]);
    assert_eq!(needed.tensors().map(|tensor| tensor.name().to_owned()).collect::<Vec<_>>(), ["w"]);
}
