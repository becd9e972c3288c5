//! Adapters beside quantized layers, in the forms that ONNX Runtime's own tools write.

use crate::support::adapters::{adapter, bit_equal, distance, outputs};
use crate::support::graph::{F32, I8, Net, U8, listing, net, pattern};
use eva_onnx::linear;
use eva_onnx::onnx::Model;
use eva_onnx::splice::{self, Inputs, Saved};

const IN: i64 = 32;
const OUT: i64 = 12;
const WEIGHT: [i64; 2] = [IN, OUT];

fn bytes(count: i64) -> Vec<u8> {
    (0..count).map(|i| (i * 73 + 29) as u8).collect()
}

fn scales(count: i64) -> Vec<f32> {
    (0..count).map(|i| 0.002 + 0.0005 * i as f32).collect()
}

/// A model from `x` [2, 3, IN] to `y` [2, 3, OUT].
fn ends() -> Net {
    net().shaped_input("x", F32, &[2, 3, IN]).shaped_output("y", F32, &[2, 3, OUT])
}

fn evaluate(model: &Model) -> Vec<Vec<f64>> {
    outputs(model, &[2, 3, IN as usize], pattern(6 * IN as usize))
}

/// The layer is found, a zero B changes nothing and another one does, and merging is refused. Returns the spliced text.
#[track_caller]
fn form(net: Net, refusal: &str) -> String {
    let (_dir, model) = net.open();
    let (linears, skipped) = linear::find(&model, None);
    assert_eq!(linears.len(), 1, "{skipped:?}");
    let base = evaluate(&model);
    let zero = adapter(&linears, false);
    let sites = splice::fit(&linears, &zero).unwrap();
    for patch in [splice::trainable(&model, &sites), splice::adapter_inputs(&model, &sites, Inputs::Optional)] {
        bit_equal(&evaluate(&model.apply(&patch.unwrap()).unwrap()), &base, "zero B");
    }
    let trained = adapter(&linears, true);
    let sites = splice::fit(&linears, &trained).unwrap();
    let edited = model.apply(&splice::trainable(&model, &sites).unwrap()).unwrap();
    assert!(distance(&evaluate(&edited), &base) > 0.01);
    let error = splice::merge(&model, &sites, &Saved::default(), "merged.data", &mut Vec::new()).unwrap_err();
    assert_eq!(error.to_string(), format!("module `layers.0.mlp.up_proj` cannot be merged: {refusal}"));
    listing(&edited)
}

#[test]
fn four_bit_blocks() {
    let net = ends()
        .bytes("w_Q4", &[OUT, 1, 16], U8, bytes(OUT * 16))
        .values("w_scales", &[OUT], &scales(OUT))
        .node("com.microsoft:MatMulNBits", "/layers.0/mlp/up_proj/MatMul_Q4", &["x", "w_Q4", "w_scales"], "y")
        .int("K", IN)
        .int("N", OUT)
        .int("bits", 4)
        .int("block_size", 32);
    let text = form(net, "the weight of a MatMulNBits is quantized, and would have to be quantized anew");
    insta::assert_snapshot!("splice_nbits", text);
}

#[test]
fn eight_bits_dequantized() {
    let net = ends()
        .bytes("w_quantized", &WEIGHT, I8, bytes(IN * OUT))
        .values("w_scale", &[], &scales(1))
        .node("DequantizeLinear", "w_dq", &["w_quantized", "w_scale"], "w")
        .node("MatMul", "/layers.0/mlp/up_proj/MatMul", &["x", "w"], "y");
    let text = form(net, "its weight is quantized, and would have to be quantized anew");
    insta::assert_snapshot!("splice_dequantized", text);
}

#[test]
fn eight_bits_multiplied_as_integers() {
    let module = "/layers.0/mlp/up_proj/MatMul";
    let factors = ["x_quantized", "w_quantized", "x_zero_point", "w_zero_point"];
    let net = ends()
        .bytes("w_quantized", &WEIGHT, I8, bytes(IN * OUT))
        .values("w_scale", &[], &scales(1))
        .bytes("w_zero_point", &[], I8, vec![0])
        .node("DynamicQuantizeLinear", "x_QuantizeLinear", &["x"], "x_quantized x_scale x_zero_point")
        .node("Mul", &format!("{module}_quant_scales_mul"), &["x_scale", "w_scale"], "scales")
        .node("MatMulInteger", &format!("{module}_quant"), &factors, "product")
        .node("Cast", &format!("{module}_output_0_output_quantized_cast"), &["product"], "float")
        .int("to", i64::from(F32))
        .node("Mul", &format!("{module}_quant_output_scale_mul"), &["float", "scales"], "y");
    let text = form(net, "the weight of a MatMulInteger is quantized, and would have to be quantized anew");
    insta::assert_snapshot!("splice_integers", text);
}
