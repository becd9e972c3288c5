//! A model with the branches that run while a graph input is false.

use crate::support::graph::{BOOL, F32, Net, net};
use eva_onnx::linear::find;
use eva_onnx::onnx::Graph;

/// `y, z = If(switch)`: both branches read `x`, and the other one `past` too.
fn model(else_branch: Net) -> Net {
    let then_branch = net()
        .node("Add", "/b/Add", &["x", "past"], "h")
        .node("MatMul", "/mlp/up_proj/MatMul", &["h", "onnx::MatMul_1"], "y")
        .output("y")
        .output("h");
    net()
        .input("x", F32)
        .input("past", F32)
        .input("switch", BOOL)
        .weight("onnx::MatMul_1", &[4, 4])
        .node("If", "choose", &["switch"], "y z")
        .branch("then_branch", then_branch)
        .branch("else_branch", else_branch)
        .node("Relu", "last", &["z"], "r")
        .output("y")
        .output("r")
}

fn without_past() -> Net {
    net()
        .node("Sqrt", "/b/Sqrt", &["x"], "h")
        .node("MatMul", "/mlp/up_proj/MatMul", &["h", "onnx::MatMul_1"], "y")
        .output("y")
        .output("h")
}

#[test]
fn both_branches_are_found_and_one_of_them_runs() {
    let (_dir, model) = model(without_past()).open();
    let (linears, skipped) = find(&model, None);
    let scopes: Vec<_> = linears.iter().map(|linear| linear.at.subgraph.join("/")).collect();
    assert_eq!(scopes, ["choose.then_branch", "choose.else_branch"]);
    assert!(linears.iter().all(|linear| linear.modules[0].module == "mlp.up_proj"));
    assert_ne!(linears[0].input, linears[1].input);
    assert!(skipped.is_empty());

    let running = model.assuming_false(&["switch"]).unwrap().unwrap();
    let graph = Graph::new(&running);
    let nodes = graph.nodes(0).map(|(_, node)| (node.op(), node.outputs().join(" ")));
    let nodes: Vec<_> = nodes.collect();
    let nodes: Vec<_> = nodes.iter().map(|(op, outputs)| (*op, outputs.as_str())).collect();
    assert_eq!(nodes, [("Sqrt", "h"), ("MatMul", "y"), ("Identity", "z"), ("Relu", "r")]);
    assert_eq!(running.inputs().iter().map(|input| input.name.as_str()).collect::<Vec<_>>(), ["x"]);
    let (linears, _) = find(&running, None);
    assert_eq!((linears.len(), linears[0].at.subgraph.len(), linears[0].input.tensor.as_str()), (1, 0, "h"));
}

#[test]
fn other_conditions_stay() {
    let (_dir, model) = model(without_past()).open();
    assert!(model.assuming_false(&["x"]).unwrap().is_none());
    assert!(model.assuming_false(&[]).unwrap().is_none());
}

#[test]
fn a_branch_that_shadows_a_tensor_is_refused() {
    let shadowing = net().node("Sqrt", "", &["x"], "r").output("r").output("x");
    let (_dir, model) = model(shadowing).open();
    let error = model.assuming_false(&["switch"]).err().unwrap().to_string();
    assert!(error.contains("`r` is a tensor of the branch of `choose` and of the graph around it"), "{error}");
}
