//! Patches: what they add, what they refuse, and that nothing else changes.

use crate::support::graph::{BOOL, F32, net};
use eva_onnx::dtype::DType;
use eva_onnx::onnx::{
    Attribute, Change, Constant, Dim, Edit, Graph, Input, Model, Node, OptionalInput, Output, Patch, Stored, Takeover,
};
use onnx_protobuf::{Message, ModelProto};
use proptest::prelude::*;
use tempfile::TempDir;

/// `x -> Relu -> h -> MatMul(w) -> y`, with `w` too large to stay in the skeleton.
fn model() -> (TempDir, Model) {
    let weight = vec![1; 32 * 32 * 4];
    net()
        .ir_version(9)
        .input("x", F32)
        .output("y")
        .bytes("w", &[32, 32], F32, weight)
        .node("Relu", "relu", &["x"], "h")
        .node("MatMul", "product", &["h", "w"], "y")
        .open()
}

fn node(name: &str, inputs: &[&str], outputs: &[&str]) -> Node {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let attributes = vec![("axis", Attribute::Int(1)), ("axes", Attribute::Ints(vec![0, 1]))];
    Node { name: name.to_owned(), op: "Add", inputs: owned(inputs), outputs: owned(outputs), attributes }
}

fn output(name: &str) -> Output {
    Output { name: name.to_owned(), dtype: Some(DType::F32) }
}

fn sum() -> Patch {
    let input = Input { name: "eva/i".to_owned(), dtype: DType::I64, shape: vec![None, Some(3)] };
    Patch {
        nodes: vec![node("eva/a", &["h", "eva/c"], &["eva/s"]), node("eva/b", &["eva/s", "eva/i", ""], &["eva/t"])],
        constants: vec![("eva/c".to_owned(), Constant::F32(vec![2, 1], vec![1.0, 2.0]))],
        inputs: vec![input],
        outputs: vec![output("eva/t"), output("h")],
        ..Patch::default()
    }
}

#[test]
fn a_patch_adds_what_it_says() {
    let (_dir, model) = model();
    let before = model.to_bytes().unwrap();
    let patched = model.apply(&sum()).unwrap();
    assert_eq!(model.to_bytes().unwrap(), before);

    let names = |values: Vec<eva_onnx::onnx::ValueInfo>| values.into_iter().map(|value| value.name).collect::<Vec<_>>();
    assert_eq!(names(patched.inputs()), ["x", "eva/i"]);
    assert_eq!(names(patched.outputs()), ["y", "eva/t", "h"]);
    assert_eq!(patched.ir_version(), 9);
    let constant = patched.tensor("eva/c").unwrap();
    assert_eq!(constant.dims(), [2, 1]);
    assert_eq!(constant.bytes().unwrap().as_ref(), [1.0f32.to_le_bytes(), 2.0f32.to_le_bytes()].concat());
    assert_eq!(patched.tensor("w").unwrap().bytes().unwrap().as_ref(), vec![1; 32 * 32 * 4]);

    let graph = Graph::new(&patched);
    let nodes: Vec<_> = graph.nodes(0).map(|(_, node)| node.name()).collect();
    assert_eq!(nodes, ["relu", "product", "eva/a", "eva/b"]);
    let (_, last) = graph.nodes(0).last().unwrap();
    assert_eq!(last.int("axis"), Some(1));
    assert_eq!(last.ints("axes"), Some(&[0, 1][..]));
    assert_eq!(last.input(2), None);
}

#[test]
fn outputs_can_be_replaced() {
    let patch = Patch { drop_outputs: true, outputs: vec![output("y")], ..Patch::default() };
    assert_eq!(model().1.apply(&patch).unwrap().outputs().len(), 1);
}

#[track_caller]
fn refused(change: impl FnOnce(&mut Patch), message: &str) {
    let mut patch = sum();
    change(&mut patch);
    let error = model().1.apply(&patch).err().unwrap();
    assert_eq!(error.to_string(), message);
}

#[test]
fn bad_nodes_are_refused() {
    refused(|patch| patch.nodes[0].name = "relu".to_owned(), "the name `relu` is taken");
    refused(|patch| patch.nodes[1].name = "eva/a".to_owned(), "the name `eva/a` is taken");
    refused(|patch| patch.nodes[1].name.clear(), "the new node `` has no name");
    refused(|patch| patch.nodes[1].op = "", "the new node `eva/b` has no operator type");
    refused(|patch| patch.nodes[1].outputs.clear(), "the new node `eva/b` has no output");
    refused(|patch| patch.nodes[1].outputs[0] = "h".to_owned(), "the name `h` is taken");
    refused(|patch| patch.nodes.swap(0, 1), "node `eva/b` reads `eva/s`, which nothing before it produces");
}

#[test]
fn bad_tensors_are_refused() {
    refused(|patch| patch.constants[0].0 = "w".to_owned(), "the name `w` is taken");
    refused(|patch| patch.inputs[0].name = "eva/c".to_owned(), "the name `eva/c` is taken");
    refused(
        |patch| patch.constants[0].1 = Constant::I64(vec![3], vec![1]),
        "`eva/c` has shape [3], which does not hold 1 values",
    );
}

#[test]
fn bad_outputs_are_refused() {
    let to = |name: &'static str| move |patch: &mut Patch| patch.outputs[0].name = name.to_owned();
    refused(to("gone"), "the graph has no tensor `gone` to make an output of");
    refused(to("x"), "`x` is a graph input and cannot be an output");
    refused(to("eva/i"), "`eva/i` is a graph input and cannot be an output");
    refused(to("y"), "`y` is a graph output already");
    let none = |patch: &mut Patch| {
        patch.drop_outputs = true;
        patch.outputs.clear();
    };
    refused(none, "the edited graph has no output");
}

proptest! {
    /// Whatever a patch says, the model it is applied to stays, and success means that the additions are all there.
    #[test]
    fn a_patch_applies_whole_or_not_at_all(
        nodes in prop::collection::vec((0usize..6, 0usize..8, 0usize..8), 0..5),
        outputs in prop::collection::vec(0usize..8, 0..4),
        drop_outputs in any::<bool>(),
    ) {
        let names = ["x", "h", "y", "w", "eva/0", "eva/1", "eva/2", "gone"];
        let made = |(name, read, made): &(usize, usize, usize)| node(&format!("eva/n{name}"), &[names[*read]], &[names[*made]]);
        let nodes = nodes.iter().map(made).collect();
        let outputs = outputs.iter().map(|name| output(names[*name])).collect();
        let patch = Patch { nodes, outputs, drop_outputs, ..Patch::default() };
        let (_dir, model) = model();
        let before = model.to_bytes().unwrap();
        let patched = model.apply(&patch);
        prop_assert_eq!(model.to_bytes().unwrap(), before);
        if let Ok(patched) = patched {
            prop_assert_eq!(Graph::new(&patched).nodes(0).count(), 2 + patch.nodes.len());
            let kept = if drop_outputs { 0 } else { 1 };
            prop_assert_eq!(patched.outputs().len(), kept + patch.outputs.len());
        }
    }
}

/// Renames what `relu` produces and lets a new node produce `h` from it.
fn takeover() -> Takeover {
    let nodes = vec![node("lora/n", &["lora/raw", "lora/c"], &["h"])];
    Takeover { subgraph: Vec::new(), tensor: "h".to_owned(), raw: "lora/raw".to_owned(), nodes }
}

fn with_takeover(change: impl FnOnce(&mut Takeover)) -> Patch {
    let mut takeover = takeover();
    change(&mut takeover);
    let constants = vec![("lora/c".to_owned(), Constant::F32(vec![], vec![1.0]))];
    Patch { constants, takeovers: vec![takeover], ..Patch::default() }
}

fn nodes(model: &Model, scope: usize) -> Vec<(String, Vec<String>, Vec<String>)> {
    let graph = Graph::new(model);
    let plain =
        |node: eva_onnx::onnx::NodeView<'_>| (node.name().to_owned(), node.inputs().to_vec(), node.outputs().to_vec());
    graph.nodes(scope).map(|(_, node)| plain(node)).collect()
}

fn row(name: &str, inputs: &[&str], outputs: &[&str]) -> (String, Vec<String>, Vec<String>) {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    (name.to_owned(), owned(inputs), owned(outputs))
}

#[test]
fn new_nodes_take_over_a_tensor_and_its_readers_stay() {
    let patched = model().1.apply(&with_takeover(|_| ())).unwrap();
    let expected = [
        row("relu", &["x"], &["lora/raw"]),
        row("lora/n", &["lora/raw", "lora/c"], &["h"]),
        row("product", &["h", "w"], &["y"]),
    ];
    assert_eq!(nodes(&patched, 0), expected);
}

#[test]
fn a_graph_output_keeps_its_name() {
    let patch = with_takeover(|takeover| {
        takeover.tensor = "y".to_owned();
        takeover.nodes[0].outputs[0] = "y".to_owned();
    });
    let patched = model().1.apply(&patch).unwrap();
    assert_eq!(patched.outputs()[0].name, "y");
    assert_eq!(nodes(&patched, 0)[1], row("product", &["h", "w"], &["lora/raw"]));
}

#[test]
fn bad_takeovers_are_refused() {
    let refused = |patch: Patch, message: &str| {
        assert_eq!(model().1.apply(&patch).err().unwrap().to_string(), message);
    };
    refused(with_takeover(|t| t.raw = "w".to_owned()), "the name `w` is taken");
    refused(with_takeover(|t| t.nodes[0].name = "relu".to_owned()), "the name `relu` is taken");
    refused(
        with_takeover(|t| t.nodes[0].outputs[0] = "other".to_owned()),
        "none of the new nodes that take over `h` produces it",
    );
    let gone = |t: &mut Takeover| {
        t.tensor = "gone".to_owned();
        t.nodes[0].outputs[0] = "gone".to_owned();
    };
    refused(with_takeover(gone), "no node of the graph produces `gone`");
    refused(
        with_takeover(|t| t.nodes[0].inputs[1] = "y".to_owned()),
        "the edited graph is invalid: `y` is read by `lora/n` before anything produces it",
    );
    refused(
        with_takeover(|t| t.subgraph = vec!["if.then_branch".to_owned()]),
        "the graph has no subgraph `if.then_branch`",
    );
}

/// `cond -> If(then: h -> Neg -> t, else: h -> Abs -> e) -> y`.
fn branching() -> (TempDir, Model) {
    let branch = |op: &str, output: &str| net().node(op, op, &["h"], output).output(output);
    net()
        .input("x", F32)
        .input("cond", BOOL)
        .output("y")
        .node("Relu", "relu", &["x"], "h")
        .node("If", "if", &["cond"], "y")
        .branch("then_branch", branch("Neg", "t"))
        .branch("else_branch", branch("Abs", "e"))
        .open()
}

#[test]
fn a_takeover_reaches_into_a_subgraph() {
    let patch = with_takeover(|takeover| {
        takeover.subgraph = vec!["if.else_branch".to_owned()];
        takeover.tensor = "e".to_owned();
        takeover.nodes[0].outputs[0] = "e".to_owned();
    });
    let (_dir, model) = branching();
    let patched = model.apply(&patch).unwrap();
    assert_eq!(nodes(&patched, 1), nodes(&model, 1));
    let expected = [row("Abs", &["h"], &["lora/raw"]), row("lora/n", &["lora/raw", "lora/c"], &["e"])];
    assert_eq!(nodes(&patched, 2), expected);
    // A branch does not see what the other one makes.
    let mut other = patch.clone();
    other.takeovers[0].nodes[0].inputs[1] = "t".to_owned();
    let error = model.apply(&other).err().unwrap().to_string();
    assert_eq!(error, "the edited graph is invalid: `t` is read by `lora/n` before anything produces it");
}

#[test]
fn existing_nodes_change() {
    let change = |produces: &str, edit: Edit| Change { subgraph: Vec::new(), produces: produces.to_owned(), edit };
    let changes = vec![
        change("h", Edit::Produce("lora/extra".to_owned())),
        change("h", Edit::Set("axis", Attribute::Int(3))),
        change("y", Edit::Read { input: 1, tensor: "lora/c".to_owned() }),
        change("y", Edit::Read { input: 3, tensor: "x".to_owned() }),
        change("y", Edit::Name("again".to_owned())),
    ];
    let constants = vec![("lora/c".to_owned(), Constant::F32(vec![], vec![1.0]))];
    let metadata = vec![("k".to_owned(), "v".to_owned())];
    let patch = Patch { changes, constants, metadata, ir_version: Some(10), ..Patch::default() };
    let patched = model().1.apply(&patch).unwrap();
    let expected = [row("relu", &["x"], &["h", "lora/extra"]), row("again", &["h", "lora/c", "", "x"], &["y"])];
    assert_eq!(nodes(&patched, 0), expected);
    let graph = Graph::new(&patched);
    assert_eq!(graph.nodes(0).next().unwrap().1.int("axis"), Some(3));
    assert_eq!((patched.metadata("k"), patched.ir_version()), (Some("v"), 10));

    let refused = |edit: Edit, message: &str| {
        let patch = Patch { changes: vec![change("y", edit)], ..Patch::default() };
        assert_eq!(model().1.apply(&patch).err().unwrap().to_string(), message);
    };
    refused(Edit::Produce("h".to_owned()), "the name `h` is taken");
    refused(Edit::Name("relu".to_owned()), "the name `relu` is taken");
    refused(
        Edit::Read { input: 0, tensor: "gone".to_owned() },
        "the edited graph is invalid: `gone` is read by `product` before anything produces it",
    );
}

#[test]
fn values_are_replaced_by_those_of_a_file() {
    let stored = |dtype, shape: &[i64]| Stored {
        dtype,
        shape: shape.to_vec(),
        location: "new.data".to_owned(),
        offset: 64,
        length: 4096,
    };
    let patch = |name: &str, value| Patch { values: vec![(name.to_owned(), value)], ..Patch::default() };
    let apply = |patch: &Patch| model().1.apply(patch);
    let patched = apply(&patch("w", stored(DType::F32, &[32, 32]))).unwrap();
    let mut seen = Vec::new();
    let bytes = patched
        .to_bytes_elsewhere(&mut |place| {
            seen.push((place.location.to_owned(), place.offset, place.length));
            ("there.data".to_owned(), 128)
        })
        .unwrap();
    assert_eq!(seen, [("new.data".to_owned(), 64, 4096)]);
    let proto = ModelProto::parse_from_bytes(&bytes).unwrap();
    let entries = &proto.graph.initializer[0].external_data;
    let entries: Vec<_> = entries.iter().map(|entry| (entry.key.as_str(), entry.value.as_str())).collect();
    assert_eq!(entries, [("location", "there.data"), ("offset", "128"), ("length", "4096")]);

    let message = |patch: &Patch| apply(patch).err().unwrap().to_string();
    assert_eq!(message(&patch("gone", stored(DType::F32, &[32, 32]))), "the graph has no initializer `gone`");
    let differs = "the new values of `w` have another shape or element type";
    assert_eq!(message(&patch("w", stored(DType::F16, &[32, 32]))), differs);
    assert_eq!(message(&patch("w", stored(DType::F32, &[16, 64]))), differs);
}

#[test]
fn a_parameter_is_an_input_with_a_default() {
    let shape = vec![Dim::Fixed(32), Dim::Symbol("r".to_owned())];
    let parameter = OptionalInput { name: "lora/p".to_owned(), shape, default: Constant::F32(vec![32, 0], Vec::new()) };
    let nodes = vec![node("lora/n", &["h", "lora/p"], &["lora/o"])];
    let patched = model().1.apply(&Patch { nodes, optional_inputs: vec![parameter], ..Patch::default() }).unwrap();
    assert_eq!(patched.inputs().len(), 1);
    assert_eq!(patched.tensor("lora/p").unwrap().dims(), [32, 0]);
    let proto = ModelProto::parse_from_bytes(&patched.to_bytes().unwrap()).unwrap();
    let input = &proto.graph.input[1];
    let dims = &input.type_.tensor_type().shape.dim;
    assert_eq!((input.name.as_str(), dims[0].dim_value(), dims[1].dim_param()), ("lora/p", 32, "r"));
}
