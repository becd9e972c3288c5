//! The gradient of fused and quantized operators, against finite differences on ONNX Runtime.

use crate::gradient::{check, of, values};
use crate::support::adapters::{OPTIONS, runtime};
use crate::support::graph::{F32, Net, net, pattern};
use crate::support::tolerance::within;
use eva_onnx::dtype::DType;
use eva_onnx::gradient::{backward, path};
use eva_onnx::onnx::{Constant, Graph, Output, Patch};
use eva_onnx::runtime::Value;
use eva_onnx::train::measure;

#[test]
fn products_with_blocks_of_few_bits() {
    let scales: Vec<f32> = pattern(9).into_iter().map(|value| value / 64.0).collect();
    let packed = |count: usize| (0..count).map(|i| (i * 53 + 7) as u8).collect::<Vec<u8>>();
    for (bits, zero_points) in [(4, true), (4, false), (8, true), (8, false)] {
        // W [3, 48] in blocks of 16: three blocks a row, so that a row of zero points of 4 bits ends inside a byte.
        let (blob, row) = if bits == 4 { (8, 2) } else { (16, 3) };
        let net = of(&[2, 48]).opset(21).bytes("w", &[3, 3, blob], 2, packed(9 * blob as usize));
        let net = net.values("scales", &[9], &scales).bytes("z", &[3 * row], 2, packed(3 * row as usize));
        let inputs: &[&str] = if zero_points { &["p", "w", "scales", "z"] } else { &["p", "w", "scales"] };
        let net = net.node("com.microsoft:MatMulNBits", "n", inputs, "y");
        check(&[2, 48], net.int("K", 48).int("N", 3).int("bits", bits).int("block_size", 16));
    }
}

#[test]
fn products_with_blocks_below_operator_set_21() {
    let scales: Vec<f32> = pattern(9).into_iter().map(|value| value / 64.0).collect();
    let packed = |count: usize| (0..count).map(|i| (i * 53 + 7) as u8).collect::<Vec<u8>>();
    // W [3, K] in blocks of 16; with 40 columns, the last block of a row is longer than the row.
    for (bits, k, opset) in [(4, 48, 18), (8, 48, 18), (4, 40, 18), (4, 40, 21), (8, 40, 14)] {
        let (blob, row) = if bits == 4 { (8, 2) } else { (16, 3) };
        let net = of(&[2, k]).opset(opset).bytes("w", &[3, 3, blob], 2, packed(9 * blob as usize));
        let net = net.values("scales", &[9], &scales).bytes("z", &[3 * row], 2, packed(3 * row as usize));
        let net = net.node("com.microsoft:MatMulNBits", "n", &["p", "w", "scales", "z"], "y");
        check(&[2, k], net.int("K", k).int("N", 3).int("bits", bits).int("block_size", 16));
    }
}

#[test]
fn products_with_the_floats_of_bitsandbytes() {
    let codes: Vec<u8> = (0..72).map(|i| (i * 53 + 7) as u8).collect();
    for kind in [0, 1] {
        let net = of(&[2, 48]).bytes("w", &[72], 2, codes.clone()).values("most", &[9], &pattern(9));
        let net = net.node("com.microsoft:MatMulBnb4", "n", &["p", "w", "most"], "y");
        check(&[2, 48], net.int("K", 48).int("N", 3).int("block_size", 16).int("quant_type", kind));
    }
}

#[test]
fn forms_of_gelu() {
    check(&[2, 3], of(&[2, 3]).node("com.microsoft:Gelu", "n", &["p"], "y"));
    check(&[2, 3], of(&[2, 3]).node("com.microsoft:QuickGelu", "n", &["p"], "y").float("alpha", 1.5));
    check(&[2, 3], of(&[2, 3]).node("com.microsoft:FastGelu", "n", &["p"], "y"));
    for op in ["com.microsoft:BiasGelu", "com.microsoft:FastGelu"] {
        check(&[2, 3], of(&[2, 3]).floats("b", &[3], F32).node(op, "n", &["p", "b"], "y"));
        check(&[3], of(&[3]).floats("x", &[2, 3], F32).node(op, "n", &["x", "p"], "y"));
    }
}

#[test]
fn attention_in_one_operator() {
    // Where one operand varies, the others are fixed; then all three are the same.
    let fixed = |shape: &[i64]| net().opset(18).shaped_input("p", F32, shape);
    let frozen = |shape: &[i64]| {
        let more = |name: &str, net: Net| net.floats(name, shape, F32);
        more("v", more("k", more("q", fixed(shape))))
    };
    let masked =
        |net: Net| net.bytes("mask", &[2, 3], 6, [1i32, 1, 1, 1, 1, 0].iter().flat_map(|i| i.to_le_bytes()).collect());
    for operands in [["p", "k", "v"], ["q", "p", "v"], ["q", "k", "p"], ["p", "p", "p"]] {
        let fused = masked(frozen(&[2, 3, 4]).floats("bias", &[1, 2, 3, 3], F32));
        let all = [&operands[..], &["", "mask", "bias"]].concat();
        let fused = fused.node("com.microsoft:MultiHeadAttention", "n", &all, "y").int("num_heads", 2);
        check(&[2, 3, 4], fused.clone());
        check(&[2, 3, 4], fused.int("unidirectional", 1).float("scale", 0.3));
        let plain = frozen(&[2, 3, 4]).opset(23).bytes("mask", &[3, 3], 9, vec![1, 0, 0, 1, 1, 0, 1, 1, 1]);
        let all = [&operands[..], &["mask"]].concat();
        let plain = plain.node("Attention", "n", &all, "y").int("q_num_heads", 2).int("kv_num_heads", 2);
        check(&[2, 3, 4], plain);
        let apart = frozen(&[1, 2, 3, 2]).opset(23).node("Attention", "n", &operands, "y").int("is_causal", 1);
        check(&[1, 2, 3, 2], apart);
    }
    let shared = fixed(&[1, 3, 2]).opset(23).floats("q", &[1, 3, 4], F32).floats("k", &[1, 3, 2], F32);
    for operands in [["q", "p", "k"], ["q", "k", "p"]] {
        let node = shared.clone().node("Attention", "n", &operands, "y").int("q_num_heads", 2).int("kv_num_heads", 1);
        check(&[1, 3, 2], node);
    }
    let packed = masked(fixed(&[2, 3, 4])).floats("w", &[4, 12], F32).floats("b", &[12], F32);
    let packed = packed.node("com.microsoft:Attention", "n", &["p", "w", "b", "mask"], "y").int("num_heads", 2);
    check(&[2, 3, 4], packed.clone());
    check(&[2, 3, 4], packed.int("unidirectional", 1));
}

#[test]
fn rotated_positions() {
    let tables = |shape: &[i64]| of(shape).floats("cos", &[5, 2], F32).floats("sin", &[5, 2], F32);
    for interleaved in [0, 1] {
        let net = tables(&[2, 3, 8]).integers("at", &[2, 3], &[0, 1, 2, 4, 3, 2]);
        let fused = net.clone().node("com.microsoft:RotaryEmbedding", "n", &["p", "at", "cos", "sin"], "y");
        check(&[2, 3, 8], fused.int("interleaved", interleaved).int("num_heads", 2));
        let plain = net.opset(23).node("RotaryEmbedding", "n", &["p", "cos", "sin", "at"], "y");
        check(&[2, 3, 8], plain.int("interleaved", interleaved).int("num_heads", 2));
        let heads = tables(&[1, 2, 3, 6]).integers("at", &[1, 3], &[0, 1, 2]).opset(23);
        let heads = heads.node("RotaryEmbedding", "n", &["p", "cos", "sin", "at"], "y");
        check(&[1, 2, 3, 6], heads.int("interleaved", interleaved).int("rotary_embedding_dim", 4));
    }
}

/// Integers instead of rounded floats: where nothing is lost, the straight-through gradient is that of the difference.
#[test]
fn rounding_is_passed_straight_through() {
    runtime();
    let of_sum = |net: Net| {
        let (_dir, model) = net.output("y").open();
        let at = vec![0.5, -1.0, 0.25, 2.0, 0.75, -0.5];
        let feeds = vec![("p".to_owned(), Value::f32(&[2, 3], at).unwrap())];
        let graph = Graph::new(&model);
        let wanted = ["p".to_owned()];
        let path = path(&graph, &wanted, &["y".to_owned()]).unwrap();
        let known = measure(&runtime(), OPTIONS, &model, &path, &feeds).unwrap();
        let found = backward(&graph, &path, &known, &[("y".to_owned(), "seed".to_owned())], &wanted).unwrap();
        assert_eq!(found.rounded.len(), 1);
        let output = Output { name: found.gradients["p"].clone(), dtype: Some(DType::F32) };
        let mut patch = Patch { outputs: vec![output], drop_outputs: true, ..Patch::default() };
        patch.constants.push(("seed".to_owned(), Constant::F32(vec![2, 2], vec![1.0, 2.0, -1.0, 0.5])));
        found.graph.add_to(&mut patch);
        values(&model.apply(&patch).unwrap(), &feeds).remove(0).to_f64().unwrap().1
    };
    // W [3, 2] = (B - 3) / 4 with B = 1, 2, ..., 6.
    let stored =
        || of(&[2, 3]).opset(17).bytes("b", &[3, 2], 2, vec![1, 2, 3, 4, 5, 6]).bytes("three", &[], 2, vec![3]);
    let expected: Vec<f64> = [[1.0, 2.0], [-1.0, 0.5]]
        .iter()
        .flat_map(|g| (0..3).map(move |row| (g[0] * f64::from(2 * row - 2) + g[1] * f64::from(2 * row - 1)) / 4.0))
        .collect();
    let dynamic = stored()
        .values("quarter", &[], &[0.25])
        .node("DynamicQuantizeLinear", "q", &["p"], "pq scale zero")
        .node("MatMulInteger", "m", &["pq", "b", "zero", "three"], "mi")
        .node("Cast", "c", &["mi"], "mf")
        .int("to", 1)
        .node("Mul", "s", &["scale", "quarter"], "both")
        .node("Mul", "n", &["mf", "both"], "y");
    let pairs = stored()
        .values("s", &[], &[0.25])
        .bytes("z", &[], 2, vec![128])
        .node("QuantizeLinear", "q", &["p", "s", "z"], "pq")
        .node("DequantizeLinear", "d", &["pq", "s", "z"], "pd")
        .node("DequantizeLinear", "w", &["b", "s", "three"], "wd")
        .node("MatMul", "n", &["pd", "wd"], "y");
    for net in [dynamic, pairs] {
        for (got, want) in of_sum(net).iter().zip(&expected) {
            within(got - want, f64::from(8.0 * f32::EPSILON) * 4.0, "straight through");
        }
    }
}
