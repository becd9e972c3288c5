//! A model with the branches that run while a graph input is false.

use crate::support::eva;
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

/// A layer `up_proj`, and a layer `gate_proj` that runs where the largest of its results is more than a half.
fn gated() -> Net {
    let branch = net()
        .node("Sqrt", "", &["h"], "s")
        .node("MatMul", "/mlp/gate_proj/MatMul", &["s", "onnx::MatMul_2"], "g")
        .output("g");
    let otherwise = net().node("Identity", "", &["y"], "i").output("i");
    net()
        .shaped_input("x", F32, &[-1, 4])
        .floats("onnx::MatMul_1", &[4, 4], F32)
        .floats("onnx::MatMul_2", &[4, 4], F32)
        .values("half", &[], &[0.5])
        .node("Abs", "", &["x"], "h")
        .node("MatMul", "/mlp/up_proj/MatMul", &["h", "onnx::MatMul_1"], "y")
        .node("ReduceMax", "", &["y"], "most")
        .int("keepdims", 0)
        .node("Greater", "", &["most", "half"], "is")
        .node("If", "choose", &["is"], "z")
        .branch("then_branch", branch)
        .branch("else_branch", otherwise)
        .output("z")
}

#[test]
fn layers_that_may_not_run_get_no_ranks() {
    let dir = tempfile::tempdir().unwrap();
    gated().save(dir.path());
    let rows = ["[1, 2, 3, 4]", "[0.5, -1, 2, 0]", "[3, 1, 0, 1]"].map(|x| format!("{{\"x\": {x}}}\n"));
    std::fs::write(dir.path().join("rows.jsonl"), rows.concat()).unwrap();
    let init = |options: &[&str]| {
        let mut command = eva::eva();
        command.current_dir(dir.path()).args(["init", "m.onnx", "--data", "rows.jsonl", "--rank", "1"]);
        let output = command.args(["--json", "--device", "cpu"]).args(options).output().unwrap();
        let [said, report] = [&output.stderr, &output.stdout].map(|bytes| eva::text(bytes));
        (output.status.success(), said, report)
    };
    let (done, said, report) = init(&[]);
    assert!(done && said.contains("note: `init` gives no ranks to `mlp.gate_proj`: what the model computes"), "{said}");
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    let modules: Vec<_> = report["layers"].as_array().unwrap().iter().map(|layer| layer["module"].as_str()).collect();
    assert_eq!(modules, [Some("mlp.up_proj")]);
    let (done, said, _) = init(&["--target-modules", "gate_proj", "--force"]);
    assert!(!done && said.contains("inside the branch `choose.then_branch`"), "{said}");
}
