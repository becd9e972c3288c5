//! Adapters beside quantized layers, in the forms that ONNX Runtime's own tools write.

use crate::support::adapters;
use crate::support::graphs;

use adapters::{OPTIONS, adapter, bit_equal, distance, runtime};
use eva_onnx::linear;
use eva_onnx::onnx::{Graph, Model};
use eva_onnx::runtime::{Session, Value};
use eva_onnx::splice;
use graphs::{Net, int, node, value};
use onnx_protobuf::TensorProto;

const IN: i64 = 32;
const OUT: i64 = 12;

fn bytes(name: &str, dims: &[i64], data_type: i32) -> TensorProto {
    let raw_data = (0..dims.iter().product::<i64>()).map(|i| (i * 73 + 29) as u8).collect();
    TensorProto { name: name.to_owned(), dims: dims.to_vec(), data_type, raw_data, ..Default::default() }
}

fn scales(name: &str, dims: &[i64]) -> TensorProto {
    let values = (0..dims.iter().product::<i64>()).map(|i| 0.002 + 0.0005 * i as f32);
    let raw_data = values.flat_map(f32::to_le_bytes).collect();
    TensorProto { name: name.to_owned(), dims: dims.to_vec(), data_type: 1, raw_data, ..Default::default() }
}

fn net() -> Net {
    let mut net = Net::empty(17);
    net.graph.input = vec![value("x", 1, &[2, 3, IN])];
    net.graph.output = vec![value("y", 1, &[2, 3, OUT])];
    net
}

fn evaluate(model: &Model) -> Vec<Vec<f64>> {
    let mut session = Session::load(&runtime(), model, OPTIONS).unwrap();
    let x = (0..6 * IN).map(|i| ((i * 37 + 11) % 101) as f32 / 50.0 - 1.0).collect();
    let x = Value::f32(&[2, 3, IN as usize], x).unwrap();
    session.run([("x", &x)]).unwrap().iter().map(|output| output.to_f64().unwrap().1).collect()
}

/// The layer is found, a zero B changes nothing and another one does, and merging is refused. Returns the spliced text.
#[track_caller]
fn form(net: &Net, refusal: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let model = net.save(dir.path());
    let (linears, skipped) = linear::find(&model, None);
    assert_eq!(linears.len(), 1, "{skipped:?}");
    let base = evaluate(&model);
    let zero = adapter(&linears, false);
    let sites = splice::fit(&linears, &zero).unwrap();
    for patch in [splice::trainable(&model, &sites), splice::adapter_inputs(&model, &sites)] {
        bit_equal(&evaluate(&model.apply(&patch.unwrap()).unwrap()), &base, "zero B");
    }
    let trained = adapter(&linears, true);
    let sites = splice::fit(&linears, &trained).unwrap();
    let edited = model.apply(&splice::trainable(&model, &sites).unwrap()).unwrap();
    assert!(distance(&evaluate(&edited), &base) > 0.01);
    let error = splice::merge(&model, &sites, "merged.data", &mut Vec::new()).unwrap_err();
    assert_eq!(error.to_string(), format!("module `layers.0.mlp.up_proj` cannot be merged: {refusal}"));
    let graph = Graph::new(&edited);
    let line =
        |n: eva_onnx::onnx::NodeView<'_>| format!("{} = {}({})", n.outputs().join(", "), n.op(), n.inputs().join(", "));
    graph.nodes(0).map(|(_, n)| line(n)).collect::<Vec<_>>().join("\n")
}

#[test]
fn four_bit_blocks() {
    let mut net = net();
    let mut product = node("/layers.0/mlp/up_proj/MatMul_Q4", "MatMulNBits", &["x", "w_Q4", "w_scales"], &["y"]);
    product.domain = "com.microsoft".to_owned();
    product.attribute = vec![int("K", IN), int("N", OUT), int("bits", 4), int("block_size", 32)];
    net.graph.node = vec![product];
    net.graph.initializer = vec![bytes("w_Q4", &[OUT, 1, 16], 2), scales("w_scales", &[OUT])];
    let text = form(&net, "the weight of a MatMulNBits is quantized, and would have to be quantized anew");
    insta::assert_snapshot!("splice_nbits", text);
}

#[test]
fn eight_bits_dequantized() {
    let mut net = net();
    net.graph.node = vec![
        node("w_dq", "DequantizeLinear", &["w_quantized", "w_scale"], &["w"]),
        node("/layers.0/mlp/up_proj/MatMul", "MatMul", &["x", "w"], &["y"]),
    ];
    net.graph.initializer = vec![bytes("w_quantized", &[IN, OUT], 3), scales("w_scale", &[])];
    let text = form(&net, "its weight is quantized, and would have to be quantized anew");
    insta::assert_snapshot!("splice_dequantized", text);
}

#[test]
fn eight_bits_multiplied_as_integers() {
    let mut net = net();
    let mut to_float =
        node("/layers.0/mlp/up_proj/MatMul_output_0_output_quantized_cast", "Cast", &["product"], &["float"]);
    to_float.attribute = vec![int("to", 1)];
    net.graph.node = vec![
        node("x_QuantizeLinear", "DynamicQuantizeLinear", &["x"], &["x_quantized", "x_scale", "x_zero_point"]),
        node("/layers.0/mlp/up_proj/MatMul_quant_scales_mul", "Mul", &["x_scale", "w_scale"], &["scales"]),
        node(
            "/layers.0/mlp/up_proj/MatMul_quant",
            "MatMulInteger",
            &["x_quantized", "w_quantized", "x_zero_point", "w_zero_point"],
            &["product"],
        ),
        to_float,
        node("/layers.0/mlp/up_proj/MatMul_quant_output_scale_mul", "Mul", &["float", "scales"], &["y"]),
    ];
    let zero = TensorProto { name: "w_zero_point".to_owned(), data_type: 3, raw_data: vec![0], ..Default::default() };
    net.graph.initializer = vec![bytes("w_quantized", &[IN, OUT], 3), scales("w_scale", &[]), zero];
    let text = form(&net, "the weight of a MatMulInteger is quantized, and would have to be quantized anew");
    insta::assert_snapshot!("splice_integers", text);
}
