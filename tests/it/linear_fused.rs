//! Projections that an optimizer fused with the attention: one node, three modules, no tensor for the result.

use crate::support::graph::{I8, Net, net};
use eva_onnx::linear::{Linear, Reason, Skipped};

fn attention(weight: &str, output: &str) -> Net {
    net().weight(weight, &[8, 24]).weight("Attention_0_qkv_bias", &[24]).node(
        "com.microsoft:Attention",
        "Attention_0",
        &["x", weight, "Attention_0_qkv_bias"],
        output,
    )
}

fn names(found: (Vec<Linear>, Vec<Skipped>)) -> Vec<String> {
    let parts = found.0.into_iter().flat_map(|linear| linear.modules);
    parts.map(|part| format!("{}{:?}", part.module, part.columns.unwrap_or_default())).collect()
}

#[test]
fn projections_are_named_after_the_result_of_the_attention() {
    let found = attention("Attention_0_qkv_weight", "/encoder/layer.0/attention/self/Reshape_3_output_0").find(None);
    let linear = &found.0[0];
    assert_eq!((linear.input.tensor.as_str(), linear.in_features, linear.out_features), ("x", 8, 24));
    assert_eq!(linear.named_by.as_str(), "attention");
    assert_eq!(
        linear.output.fused.map(|fused| fused.to_string()).as_deref(),
        Some("its projections are fused with the attention, so their result is not a tensor of the graph")
    );
    assert_eq!(linear.weight.bias.as_deref(), Some("Attention_0_qkv_bias"));
    let parent = "encoder.layer.0.attention.self";
    assert_eq!(
        names(found),
        [format!("{parent}.query(0, 8)"), format!("{parent}.key(8, 16)"), format!("{parent}.value(16, 24)")]
    );
    let modules = |output: &str| names(attention("Attention_0_qkv_weight", output).find(None));
    assert_eq!(modules("/model/layers.1/self_attn/Reshape_output_0")[0], "model.layers.1.self_attn.q_proj(0, 8)");
    let distilbert = attention("Attention_0_qkv_weight", "/distilbert/transformer/layer.1/attention/Reshape_output_0")
        .weight("distilbert.transformer.layer.1.ffn.lin2.bias", &[8])
        .node("Add", "", &["y", "distilbert.transformer.layer.1.ffn.lin2.bias"], "z");
    assert_eq!(names(distilbert.find(None))[2], "distilbert.transformer.layer.1.attention.v_lin(16, 24)");
}

#[test]
fn projections_with_unknown_names() {
    let refused = |net: Net| {
        let (linears, skipped) = net.find(None);
        assert_eq!(linears, []);
        skipped[0].reason.to_string()
    };
    let reason = refused(attention("Attention_0_qkv_weight", "/layers.1/attention/Reshape_output_0"));
    assert!(reason.contains("--checkpoint"), "{reason}");
    refused(attention("Attention_0_qkv_weight", "val_7"));
    // The weight of a module that packs q, k and v itself.
    refused(attention("onnx::MatMul_7", "/h.0/self_attn/Reshape_output_0"));
    assert_eq!(names(attention("h.0.attn.c_attn.weight", "y").find(None)), ["h.0.attn.c_attn(0, 0)"]);
}

#[test]
fn projections_of_different_widths() {
    let mut net = attention("Attention_0_qkv_weight", "/layer.0/attention/self/Reshape_3_output_0");
    net = net.ints("qkv_hidden_sizes", &[10, 10, 4]);
    assert_eq!(
        names(net.find(None)),
        [
            "layer.0.attention.self.query(0, 10)",
            "layer.0.attention.self.key(10, 20)",
            "layer.0.attention.self.value(20, 24)"
        ]
    );
    let net = attention("Attention_0_qkv_weight", "/layer.0/attention/self/Reshape_3_output_0");
    let (_, skipped) = net.ints("qkv_hidden_sizes", &[10, 10, 10]).find(None);
    assert_eq!(skipped[0].reason, Reason::UnknownWidths);
}

#[test]
fn quantized_projections() {
    let inputs = ["x_q", "w", "b", "x_s", "s"];
    let (linears, _) = net()
        .stored("Attention_0_qkv_weight_quantized", &[8, 24], I8)
        .node("Identity", "", &["Attention_0_qkv_weight_quantized"], "w")
        .weight("s", &[])
        .node("DynamicQuantizeLinear", "", &["x"], "x_q x_s x_z")
        .node("com.microsoft:QAttention", "", &inputs, "/layer.0/attention/self/Reshape_3_output_0")
        .find(None);
    assert_eq!(
        (linears[0].input.tensor.as_str(), linears[0].modules.len(), linears[0].weight.dtype.as_str()),
        ("x", 3, "f32")
    );
}
