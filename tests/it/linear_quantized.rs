//! Quantized linear layers: where the float tensors before and after them are, on graphs that hold one form each.

use crate::support::graph::{F16, I8, I32, Net, U8, net};
use eva_onnx::linear::Linear;

/// Input, output and whether a branch can be added.
fn ends(linears: &[Linear]) -> (&str, &str, bool) {
    (&linears[0].input.tensor, &linears[0].output.tensor, linears[0].output.fused.is_none())
}

#[test]
fn quantized_weights() {
    let dequantized = net()
        .stored("onnx::MatMul_1_quantized", &[4, 6], I8)
        .weight("s", &[6])
        .node("DequantizeLinear", "", &["onnx::MatMul_1_quantized", "s"], "w")
        .node("MatMul", "/mlp/up_proj/MatMul", &["x", "w"], "y")
        .check(&["mlp.up_proj by node"], 0);
    assert_eq!(
        (dequantized[0].weight.dtype.as_str(), dequantized[0].weight.tensor.as_str()),
        ("f32", "onnx::MatMul_1_quantized")
    );
    let blocks = net()
        .stored("a.weight_Q4", &[6, 1, 16], U8)
        .stored("s", &[6, 1], F16)
        .node("com.microsoft:MatMulNBits", "n", &["x", "a.weight_Q4", "s"], "y")
        .int("K", 32)
        .int("N", 6)
        .check(&["a by weight"], 0);
    assert_eq!((blocks[0].in_features, blocks[0].out_features, blocks[0].weight.dtype.as_str()), (32, 6, "f16"));
}

/// What `quantize_dynamic` makes of `/a/MatMul`, without the multiplication of its result.
fn dynamic() -> Net {
    net()
        .stored("onnx::MatMul_1_quantized", &[4, 6], I8)
        .weight("onnx::MatMul_1_scale", &[])
        .node("DynamicQuantizeLinear", "", &["x"], "x_q x_s x_z")
        .node("MatMulInteger", "/mlp/up_proj/MatMul_quant", &["x_q", "onnx::MatMul_1_quantized", "x_z"], "i")
        .node("Cast", "/mlp/up_proj/MatMul_quant_cast", &["i"], "f")
}

#[test]
fn dynamic_quantization() {
    let both = dynamic()
        .node("Mul", "/mlp/up_proj/MatMul_quant_scales_mul", &["x_s", "onnx::MatMul_1_scale"], "s")
        .node("Mul", "/mlp/up_proj/MatMul_quant_output_scale_mul", &["f", "s"], "y")
        .weight("mlp.up_proj.bias", &[6])
        .node("Add", "/mlp/up_proj/Add", &["mlp.up_proj.bias", "y"], "z")
        .check(&["mlp.up_proj by bias"], 0);
    assert_eq!(ends(&both), ("x", "y", true));
    assert_eq!(both[0].weight.dtype.as_str(), "f32");

    let in_turn = dynamic()
        .node("Mul", "", &["f", "onnx::MatMul_1_scale"], "g")
        .node("Mul", "", &["x_s", "g"], "y")
        .weight("half", &[])
        .node("Mul", "", &["y", "half"], "z")
        .check(&["mlp.up_proj by node"], 0);
    assert_eq!(ends(&in_turn), ("x", "y", true));

    let never =
        dynamic().node("Mul", "", &["f", "onnx::MatMul_1_scale"], "g").output("g").check(&["mlp.up_proj by node"], 0);
    assert!(!ends(&never).2);
    let other = dynamic()
        .node("Mul", "", &["f", "t"], "g")
        .node("Mul", "", &["g", "x_s"], "y")
        .check(&["mlp.up_proj by node"], 0);
    assert!(!ends(&other).2);
}

#[test]
fn dynamic_quantization_fused_by_the_runtime() {
    let linears = net()
        .stored("w_quantized", &[4, 6], I8)
        .weight("s", &[])
        .weight("mlp.up_proj.bias", &[6])
        .node("com.microsoft:DynamicQuantizeMatMul", "n", &["x", "w_quantized", "s", "", "mlp.up_proj.bias"], "y")
        .check(&["mlp.up_proj by bias"], 0);
    assert_eq!(ends(&linears), ("x", "y", true));
    let linears = net()
        .stored("w_quantized", &[4, 6], I8)
        .weight("s", &[])
        .node("DynamicQuantizeLinear", "", &["x"], "x_q x_s x_z")
        .node(
            "com.microsoft:MatMulIntegerToFloat",
            "/mlp/up_proj/MatMul_quant",
            &["x_q", "w_quantized", "x_s", "s"],
            "y",
        )
        .check(&["mlp.up_proj by node"], 0);
    assert_eq!(ends(&linears), ("x", "y", true));
}

/// `QLinearMatMul` from `x_q` to `y_q`.
fn static_(net: Net) -> Net {
    let inputs = ["x_q", "s", "z", "onnx::MatMul_1_quantized", "s", "z", "s", "z"];
    net.stored("onnx::MatMul_1_quantized", &[4, 6], I8).weight("s", &[]).stored("z", &[], U8).node(
        "QLinearMatMul",
        "/mlp/up_proj/MatMul_quant",
        &inputs,
        "y_q",
    )
}

#[test]
fn static_quantization_of_operators() {
    let quantized = || static_(net().node("QuantizeLinear", "", &["x", "s", "z"], "x_q"));
    let plain = quantized().node("DequantizeLinear", "", &["y_q", "s", "z"], "y").check(&["mlp.up_proj by node"], 0);
    assert_eq!(ends(&plain), ("x", "y", true));
    let biased = quantized()
        .stored("mlp.up_proj.bias_quantized", &[6], I8)
        .node(
            "com.microsoft:QLinearAdd",
            "",
            &["mlp.up_proj.bias_quantized", "s", "z", "y_q", "s", "z", "s", "z"],
            "b_q",
        )
        .node("DequantizeLinear", "", &["b_q", "s", "z"], "y")
        .check(&["mlp.up_proj by bias"], 0);
    assert_eq!(ends(&biased), ("x", "y", true));
    let goes_on = quantized()
        .node("com.microsoft:QLinearAdd", "", &["r_q", "s", "z", "y_q", "s", "z", "s", "z"], "b_q")
        .check(&["mlp.up_proj by node"], 0);
    assert_eq!(ends(&goes_on), ("x", "y_q", false));

    let before = |net: Net| net.node("com.microsoft:QLinearAdd", "", &["u"], "x_q");
    static_(before(net())).refused("its input exists in quantized form only");
    let beside =
        static_(before(net()).node("DequantizeLinear", "", &["x_q", "s", "z"], "x")).check(&["mlp.up_proj by node"], 0);
    assert_eq!(beside[0].input.tensor, "x");
}

#[test]
fn quantized_gemms() {
    let gemm = |inputs: &[&str]| {
        net()
            .stored("a.weight_quantized", &[6, 4], I8)
            .weight("s", &[])
            .stored("z", &[], U8)
            .stored("mlp.up_proj.bias_quantized", &[6], I32)
            .node("QuantizeLinear", "", &["x", "s", "z"], "x_q")
            .node("com.microsoft:QGemm", "n", inputs, "y")
            .int("transB", 1)
            .check(&["a by weight"], 0)
    };
    let inputs = ["x_q", "s", "z", "a.weight_quantized", "s", "z", "mlp.up_proj.bias_quantized", "s", "z"];
    assert_eq!(ends(&gemm(&inputs[..7])), ("x", "y", true));
    let quantized = gemm(&inputs);
    assert_eq!(ends(&quantized), ("x", "y", false));
    assert_eq!((quantized[0].in_features, quantized[0].out_features), (4, 6));
    assert_eq!(quantized[0].weight.bias.as_deref(), Some("mlp.up_proj.bias_quantized"));
}

#[test]
fn an_activation_quantized_and_dequantized_again() {
    let linears = net()
        .weight("onnx::MatMul_1", &[4, 6])
        .weight("s", &[])
        .node("QuantizeLinear", "", &["x", "s"], "x_q")
        .node("DequantizeLinear", "", &["x_q", "s"], "x_d")
        .node("MatMul", "/mlp/up_proj/MatMul", &["x_d", "onnx::MatMul_1"], "y")
        .check(&["mlp.up_proj by node"], 0);
    assert_eq!(ends(&linears), ("x", "y", true));
}

#[test]
fn weights_in_four_bits() {
    let linears = net()
        .stored("a.weight_Bnb4", &[96], U8)
        .weight("a.weight_absmax", &[3])
        .node("com.microsoft:MatMulBnb4", "n", &["x", "a.weight_Bnb4", "a.weight_absmax"], "y")
        .int("K", 32)
        .int("N", 6)
        .check(&["a by weight"], 0);
    assert_eq!((linears[0].in_features, linears[0].out_features, linears[0].weight.dtype.as_str()), (32, 6, "f32"));
}

#[test]
fn a_gemm_fused_with_its_activation() {
    let linears = net()
        .weight("a.weight", &[6, 4])
        .weight("mlp.up_proj.bias", &[6])
        .node("com.microsoft:FusedGemm", "n", &["x", "a.weight", "mlp.up_proj.bias"], "y")
        .int("transB", 1)
        .check(&["a by weight"], 0);
    assert_eq!(ends(&linears), ("x", "y", false));
}

#[test]
fn a_product_fused_with_a_scale() {
    let linears = net()
        .weight("onnx::MatMul_1", &[4, 6])
        .node("com.microsoft:FusedMatMul", "/mlp/up_proj/MatMul/MatMulScaleFusion/", &["x", "onnx::MatMul_1"], "y")
        .float("alpha", 0.5)
        .weight("mlp.up_proj.bias", &[6])
        .node("Add", "", &["mlp.up_proj.bias", "y"], "z")
        .check(&["mlp.up_proj by bias"], 0);
    assert_eq!(ends(&linears), ("x", "y", false));
}
