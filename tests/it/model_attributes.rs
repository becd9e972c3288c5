//! Attributes whose value is zero stay explicit, as readers with the proto2 schema expect.

use crate::support::graph::{Net, net};
use eva_onnx::onnx::{Attribute, Change, Edit, Model, Patch};
use onnx_protobuf::AttributeProto;
use onnx_protobuf::attribute_proto::AttributeType;

// Tags of the fields of AttributeProto, and of the type with its value.
const I: &[u8] = &[0x18];
const F: &[u8] = &[0x15];
const S: &[u8] = &[0x22];
const INT: &[u8] = &[0xa0, 0x01, 2];
const FLOAT: &[u8] = &[0xa0, 0x01, 1];
const STRING: &[u8] = &[0xa0, 0x01, 3];

fn with(mut net: Net, attribute: AttributeProto) -> Net {
    net.graph.node.last_mut().unwrap().attribute.push(attribute);
    net
}

/// How often the model holds an attribute of this type and value, in the order that they are written.
fn count(model: &Model, parts: &[&[u8]]) -> usize {
    let (bytes, wanted) = (model.to_bytes().unwrap(), parts.concat());
    bytes.windows(wanted.len()).filter(|window| *window == wanted).count()
}

#[test]
fn zeros_are_written() {
    let text = AttributeProto { name: "mode".into(), type_: AttributeType::STRING.into(), ..Default::default() };
    let inner = net().node("Neg", "n", &["x"], "y").int("zero", 0).output("y");
    let net = with(net().node("Op", "op", &["x"], "a"), text)
        .int("axis", 0)
        .int("other", 3)
        .float("alpha", 0.0)
        .node("If", "if", &["c"], "b")
        .branch("then_branch", inner.clone())
        .branch("else_branch", inner.clone())
        .output("b");
    let (_dir, model) = net.function("f", "g", &["x"], inner).open();
    let expected = |model: &Model| {
        assert_eq!(count(model, &[INT, I, &[0]]), 4, "the node, both branches, the function");
        assert_eq!(count(model, &[INT, I, &[3]]), 1);
        assert_eq!(count(model, &[FLOAT, F, &0f32.to_le_bytes()]), 1);
        assert_eq!(count(model, &[STRING, S, &[0]]), 1);
    };
    expected(&model);
    // Once more from what was written, where they are there already.
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("m.onnx"), model.to_bytes().unwrap()).unwrap();
    expected(&Model::open(dir.path().join("m.onnx")).unwrap());
}

#[test]
fn new_zeros_are_written_and_references_have_no_value() {
    let reference = AttributeProto {
        name: "axis".into(),
        ref_attr_name: "axis".into(),
        type_: AttributeType::INT.into(),
        ..Default::default()
    };
    let inner = with(net().node("Op", "op", &["x"], "y"), reference);
    let (_dir, model) = net().node("Op", "op", &["x"], "y").output("y").function("f", "g", &["x"], inner).open();
    assert_eq!(count(&model, &[INT, I, &[0]]), 0);
    let edit = |value| Edit::Set("axis", value);
    let change = |value| Change { subgraph: Vec::new(), produces: "y".to_owned(), edit: edit(value) };
    let zero = Patch { changes: vec![change(Attribute::Int(0))], ..Patch::default() };
    let model = model.apply(&zero).unwrap();
    assert_eq!(count(&model, &[INT, I, &[0]]), 1);
    let negative = Patch { changes: vec![change(Attribute::Float(-0.0))], ..Patch::default() };
    assert_eq!(count(&model.apply(&negative).unwrap(), &[FLOAT, F, &(-0f32).to_le_bytes()]), 1);
    let one = Patch { changes: vec![change(Attribute::Int(1))], ..Patch::default() };
    let model = model.apply(&one).unwrap();
    assert_eq!((count(&model, &[INT, I, &[0]]), count(&model, &[INT, I, &[1]])), (0, 1));
}
