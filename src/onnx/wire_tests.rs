use onnx_protobuf::{AttributeProto, FunctionProto, GraphProto, Message, ModelProto, NodeProto, TensorProto};
use proptest::prelude::*;

use super::super::tensor;
use super::*;

/// A tensor of `count` values in one of the encodings that exporters use.
fn stored(seed: u32, count: usize, encoding: u8) -> TensorProto {
    let values: Vec<f32> = (0..count).map(|index| seed as f32 + index as f32).collect();
    let mut tensor = TensorProto { name: format!("t{seed}"), dims: vec![count as i64], ..Default::default() };
    tensor.data_type = 1;
    match encoding % 4 {
        0 => tensor.raw_data = values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        1 => tensor.float_data = values,
        2 => {
            tensor.data_type = 11;
            tensor.double_data = values.iter().map(|value| f64::from(*value)).collect();
        }
        _ => {
            tensor.data_type = 7;
            tensor.int64_data = values.iter().map(|value| *value as i64).collect();
        }
    }
    if seed.is_multiple_of(3) {
        tensor.special_fields.mut_unknown_fields().add_length_delimited(900 + seed, vec![1, 2, 3]);
    }
    tensor
}

fn graph(depth: u32) -> impl Strategy<Value = GraphProto> {
    let tensor = || (any::<u16>(), 0usize..700, any::<u8>()).prop_map(|(seed, n, kind)| stored(seed.into(), n, kind));
    let leaf = (prop::collection::vec(tensor(), 0..4), prop::collection::vec(tensor(), 0..3)).prop_map(
        |(initializers, constants)| {
            let node = |value: TensorProto| NodeProto {
                op_type: "Constant".to_owned(),
                attribute: vec![AttributeProto { t: Some(value).into(), ..Default::default() }],
                ..Default::default()
            };
            let nodes = constants.into_iter().map(node).collect();
            GraphProto { node: nodes, initializer: initializers, ..Default::default() }
        },
    );
    leaf.prop_recursive(depth, 8, 2, |inner| {
        (inner.clone(), inner).prop_map(|(mut outer, branch)| {
            let attribute = AttributeProto { g: Some(branch).into(), ..Default::default() };
            outer.node.push(NodeProto { op_type: "If".to_owned(), attribute: vec![attribute], ..Default::default() });
            outer.special_fields.mut_unknown_fields().add_varint(77, 5);
            outer
        })
    })
}

fn model() -> impl Strategy<Value = ModelProto> {
    (graph(3), graph(1)).prop_map(|(graph, body)| {
        let function = FunctionProto { name: "f".to_owned(), node: body.node, ..Default::default() };
        let mut model = ModelProto { ir_version: 10, graph: Some(graph).into(), ..Default::default() };
        model.functions.push(function);
        model.special_fields.mut_unknown_fields().add_fixed64(4000, 9);
        model
    })
}

/// The model with its floats as bytes and with external data read back from `file`.
fn inlined(mut model: ModelProto, file: &[u8]) -> ModelProto {
    let visited = tensor::visit_tensors(&mut model, &mut |tensor| {
        if tensor::is_external(tensor) {
            let (location, offset, length) = tensor::external_entries(tensor)?;
            assert_eq!(location, "m.onnx");
            let start = offset as usize;
            tensor.raw_data = file[start..start + length.unwrap() as usize].to_vec();
            tensor.external_data.clear();
            tensor.data_location = Default::default();
        }
        let floats = std::mem::take(&mut tensor.float_data);
        tensor.raw_data.extend(floats.iter().flat_map(|value| value.to_le_bytes()));
        let doubles = std::mem::take(&mut tensor.double_data);
        tensor.raw_data.extend(doubles.iter().flat_map(|value| value.to_le_bytes()));
        Ok(())
    });
    visited.unwrap();
    model
}

proptest! {
    #[test]
    fn nothing_is_lost(model in model()) {
        let file = model.write_to_bytes().unwrap();
        let short = skeleton(&file, "m.onnx").unwrap();
        let parsed = ModelProto::parse_from_bytes(&short).unwrap();
        let mut large = 0;
        let visited = tensor::visit_tensors(&mut parsed.clone(), &mut |tensor| {
            large += tensor.raw_data.len().max(4 * tensor.float_data.len()).max(8 * tensor.double_data.len()) / (LARGE + 1);
            Ok(())
        });
        visited.unwrap();
        prop_assert_eq!(large, 0);
        prop_assert_eq!(inlined(parsed, &file), inlined(model, &file));
    }

    #[test]
    fn damage_is_an_error_or_harmless(model in model(), edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6), keep in 0.0f64..1.0, cut in any::<bool>()) {
        let mut file = model.write_to_bytes().unwrap();
        for (at, byte) in edits {
            *at.get_mut(&mut file) = byte;
        }
        if cut {
            file.truncate((file.len() as f64 * keep) as usize);
        }
        if let Ok(short) = skeleton(&file, "m.onnx") {
            prop_assert!(short.len() <= file.len());
            let _ = ModelProto::parse_from_bytes(&short);
        }
    }

    #[test]
    fn noise_is_an_error_or_harmless(file in prop::collection::vec(any::<u8>(), 0..400)) {
        if let Ok(short) = skeleton(&file, "m.onnx") {
            let _ = ModelProto::parse_from_bytes(&short);
        }
    }
}

#[track_caller]
fn check(file: &[u8], message: &str) {
    assert_eq!(skeleton(file, "m.onnx").unwrap_err().to_string(), message);
}

#[test]
fn errors_say_where() {
    check(
        &[0x08, 10, 0x3a, 200, 1, 0],
        "malformed ONNX data at byte 2 while reading the model: field 7 needs 200 bytes, 1 are left",
    );
    check(
        &[0x3a, 3, 0x0a, 9, 0],
        "malformed ONNX data at byte 2 while reading a graph: field 1 needs 9 bytes, 1 are left",
    );
    check(&[0x80], "malformed ONNX data at byte 0 while reading the model: a field's tag is cut short or too long");
    check(&[0x00, 0], "malformed ONNX data at byte 0 while reading the model: not a field number");
    check(&[0x0f, 0], "malformed ONNX data at byte 0 while reading the model: not a wire type");
    check(
        &[0x08, 10, 0xa3, 6],
        "malformed ONNX data at byte 2 while reading the model: a protobuf group, which ONNX does not have",
    );
}

#[test]
fn groups_are_refused_at_every_level() {
    let group = delimited(7, &delimited(11, &delimited(2, &delimited(1, &[0x0b, 0x0c]))));
    assert!(matches!(skeleton(&group, "m.onnx"), Err(Error::Malformed { reading: "a type", .. })));
}

#[test]
fn nesting_is_bounded() {
    let mut graph = Vec::new();
    for _ in 0..40 {
        graph = delimited(1, &delimited(5, &delimited(6, &graph)));
    }
    let message = skeleton(&delimited(7, &graph), "m.onnx").unwrap_err().to_string();
    assert!(message.contains("nested deeper than 90 levels"), "{message}");
}

#[test]
fn small_and_typed_tensors_stay() {
    let keep = |tensor: TensorProto| {
        let graph = GraphProto { initializer: vec![tensor], ..Default::default() };
        let file = ModelProto { graph: Some(graph).into(), ..Default::default() }.write_to_bytes().unwrap();
        assert_eq!(skeleton(&file, "m.onnx").unwrap(), file);
    };
    keep(stored(1, 256, 0));
    keep(stored(1, 2000, 3));
    let mut odd = stored(1, 2000, 1);
    odd.data_type = 10;
    keep(odd);
    let mut both = stored(1, 2000, 0);
    both.float_data = vec![0.0; 2000];
    keep(both);
}
