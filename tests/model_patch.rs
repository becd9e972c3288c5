//! Patches: what they add, what they refuse, and that nothing else changes.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use eva_onnx::onnx::{Attribute, Constant, ElementType, Graph, Input, Model, Node, Output, Patch};
use onnx_protobuf::{GraphProto, Message, ModelProto, NodeProto, TensorProto, ValueInfoProto};
use proptest::prelude::*;

/// `x -> Relu -> h -> MatMul(w) -> y`, with `w` too large to stay in the skeleton.
fn model(dir: &Path) -> Model {
    let value = |name: &str| ValueInfoProto { name: name.to_owned(), ..Default::default() };
    let node = |name: &str, op: &str, inputs: &[&str], output: &str| NodeProto {
        name: name.to_owned(),
        op_type: op.to_owned(),
        input: inputs.iter().map(|name| (*name).to_owned()).collect(),
        output: vec![output.to_owned()],
        ..Default::default()
    };
    let raw_data = vec![1; 32 * 32 * 4];
    let weight = TensorProto { name: "w".to_owned(), dims: vec![32, 32], data_type: 1, raw_data, ..Default::default() };
    let graph = GraphProto {
        node: vec![node("relu", "Relu", &["x"], "h"), node("product", "MatMul", &["h", "w"], "y")],
        input: vec![value("x")],
        output: vec![value("y")],
        initializer: vec![weight],
        ..Default::default()
    };
    let model = ModelProto { ir_version: 9, graph: Some(graph).into(), ..Default::default() };
    let path = dir.join("m.onnx");
    std::fs::write(&path, model.write_to_bytes().unwrap()).unwrap();
    Model::open(path).unwrap()
}

fn node(name: &str, inputs: &[&str], outputs: &[&str]) -> Node {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let attributes = vec![("axis", Attribute::Int(1)), ("axes", Attribute::Ints(vec![0, 1]))];
    Node { name: name.to_owned(), op: "Add", inputs: owned(inputs), outputs: owned(outputs), attributes }
}

fn output(name: &str) -> Output {
    Output { name: name.to_owned(), element: Some(ElementType::F32) }
}

fn sum() -> Patch {
    let input = Input { name: "eva/i".to_owned(), element: ElementType::I64, shape: vec![None, Some(3)] };
    Patch {
        nodes: vec![node("eva/a", &["h", "eva/c"], &["eva/s"]), node("eva/b", &["eva/s", "eva/i", ""], &["eva/t"])],
        constants: vec![("eva/c".to_owned(), Constant::F32(vec![2, 1], vec![1.0, 2.0]))],
        inputs: vec![input],
        outputs: vec![output("eva/t"), output("h")],
        drop_outputs: false,
    }
}

#[test]
fn a_patch_adds_what_it_says() {
    let dir = tempfile::tempdir().unwrap();
    let model = model(dir.path());
    let before = model.to_bytes().unwrap();
    let patched = model.apply(&sum()).unwrap();
    assert_eq!(model.to_bytes().unwrap(), before);

    let names = |values: Vec<eva_onnx::onnx::Value>| values.into_iter().map(|value| value.name).collect::<Vec<_>>();
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
    let dir = tempfile::tempdir().unwrap();
    let patch = Patch { drop_outputs: true, outputs: vec![output("y")], ..Patch::default() };
    assert_eq!(model(dir.path()).apply(&patch).unwrap().outputs().len(), 1);
}

#[track_caller]
fn refused(change: impl FnOnce(&mut Patch), message: &str) {
    let dir = tempfile::tempdir().unwrap();
    let mut patch = sum();
    change(&mut patch);
    let error = model(dir.path()).apply(&patch).err().unwrap();
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
        let dir = tempfile::tempdir().unwrap();
        let model = model(dir.path());
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
