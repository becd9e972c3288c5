//! Modules that PyTorch does not call: PEFT cannot train LoRA there.

use crate::support::eva::{eva, succeeded, text};
use crate::support::graph::{Net, net};
use eva_onnx::linear::{Known, Reason, find_knowing};

/// Modules that are used, and those that are left out because they are not called.
fn found(net: Net, known: &Known<'_>) -> (Vec<String>, Vec<String>) {
    let (_dir, model) = net.open();
    let layers = find_knowing(&model, known);
    let used = layers.linears.iter().flat_map(|linear| &linear.modules).map(|part| part.module.clone());
    let bypassed = layers.skipped.iter().filter(|skipped| skipped.reason == Reason::Bypassed);
    (used.collect(), bypassed.flat_map(|skipped| skipped.modules.clone()).collect())
}

#[track_caller]
fn check(net: Net, used: &[&str], bypassed: &[&str]) {
    let found = found(net, &Known::default());
    assert_eq!(
        (found.0, found.1),
        (used.iter().map(|n| (*n).to_owned()).collect(), bypassed.iter().map(|n| (*n).to_owned()).collect())
    );
}

/// A product with the weight of `module`.
fn product(net: Net, node: &str, module: &str) -> Net {
    let (weight, at) = (format!("{module}.weight"), net.graph.node.len());
    net.weight(&weight, &[4, 4]).node("Gemm", node, &["x", &weight], &format!("y{at}")).int("transB", 1)
}

/// As dynamo records it, in the code of `scope`.
fn traced(net: Net, scope: &str, class: &str, module: &str) -> Net {
    let placeholder = format!("p_{}_weight", module.replace('.', "_"));
    let mut net = product(net, "", module).traced(scope, class, &placeholder);
    let line = format!("{placeholder}: PARAMETER target='{module}.weight'\n");
    match net.graph.metadata_props.first_mut() {
        Some(signature) => signature.value += &line,
        None => net = net.metadata("pkg.torch.export.ExportedProgram.graph_signature", &line),
    }
    net
}

const LINEAR: &str = "torch.nn.modules.linear.Linear";
const ATTENTION: &str = "torch.nn.modules.activation.MultiheadAttention";

#[test]
fn calls_that_dynamo_records() {
    let layer = || traced(net(), "enc.fc", LINEAR, "enc.fc");
    check(traced(layer(), "enc.attn", ATTENTION, "enc.attn.out_proj"), &["enc.fc"], &["enc.attn.out_proj"]);
    // Any module that multiplies by the weight of one inside it.
    check(traced(layer(), "enc", "timm.models.beit.Attention", "enc.qkv"), &["enc.fc"], &["enc.qkv"]);
    check(traced(layer(), "", "Model", "head"), &["enc.fc"], &["head"]);
    check(traced(layer(), "enc.out_proj", LINEAR, "enc.out_proj"), &["enc.fc", "enc.out_proj"], &[]);
    // One call that counts and one that does not.
    let twice = traced(traced(net(), "enc.kv", LINEAR, "enc.kv"), "enc", "Attention", "enc.kv");
    check(twice, &["enc.kv"], &["enc.kv"]);
}

#[test]
fn the_fast_path_of_an_encoder_layer_is_for_inference_alone() {
    let layer = "torch.nn.modules.transformer.TransformerEncoderLayer";
    let fast = traced(traced(net(), "l.0", layer, "l.0.linear1"), "l.0", layer, "l.0.self_attn.out_proj");
    check(
        fast.weight("l.0.self_attn.in_proj_bias", &[12]).node("Add", "", &["x", "l.0.self_attn.in_proj_bias"], "z"),
        &["l.0.linear1"],
        &["l.0.self_attn.out_proj"],
    );
}

#[test]
fn a_program_that_was_traced_without_its_modules_records_no_calls() {
    let flat = traced(traced(net(), "", "torch.fx.GraphModule", "enc.fc"), "", "torch.fx.GraphModule", "head");
    check(flat, &["enc.fc", "head"], &[]);
}

#[test]
fn calls_in_the_names_of_nodes() {
    let layer = |net: Net| product(net, "/enc/fc/Gemm", "enc.fc");
    check(layer(product(net(), "/enc/attn/Gemm", "enc.attn.out_proj")), &["enc.fc"], &["enc.attn.out_proj"]);
    check(
        layer(product(net(), "/enc/attn_1/Gemm_quant", "m.enc.attn.out_proj")),
        &["enc.fc"],
        &["m.enc.attn.out_proj"],
    );
    check(layer(product(net(), "/Gemm", "head")), &["enc.fc"], &["head"]);
    check(product(net(), "/Gemm", "head"), &["head"], &[]);
    check(layer(product(net(), "/enc/attn/out_proj/Gemm", "enc.attn.out_proj")), &["enc.attn.out_proj", "enc.fc"], &[]);
    check(layer(product(net(), "/enc/out_proj_1/Gemm", "enc.attn.out_proj")), &["enc.attn.out_proj", "enc.fc"], &[]);
    // Tools name what they fuse after one of its nodes.
    check(layer(product(net(), "/enc/attn/Add", "enc.attn.q_proj")), &["enc.attn.q_proj", "enc.fc"], &[]);
}

#[test]
fn parameters_beside_it_give_an_attention_away() {
    let attention = |parameter: &str| {
        let net = product(net(), "", "enc.attn.out_proj").weight(parameter, &[12]);
        net.node("Add", "", &["x", parameter], "z")
    };
    for parameter in ["enc.attn.in_proj_bias", "enc.attn.in_proj_weight_quantized", "enc.attn.q_proj_weight"] {
        check(attention(parameter), &[], &["enc.attn.out_proj"]);
    }
    check(attention("enc.in_proj_bias"), &["enc.attn.out_proj"], &[]);
    check(attention("enc.attn.q_proj.weight"), &["enc.attn.out_proj"], &[]);
    // A class of one's own that has the parameter and calls the module.
    let own = product(net(), "/enc/attn/out_proj/Gemm", "enc.attn.out_proj").weight("enc.attn.in_proj_bias", &[12]);
    check(own.node("Add", "", &["x", "enc.attn.in_proj_bias"], "z"), &["enc.attn.out_proj"], &[]);
}

#[test]
fn commands_say_why_it_is_left_out() {
    let layer = product(net().input("x", 1), "/enc/fc/Gemm", "enc.fc");
    let (dir, _) = product(layer, "/enc/attn/Gemm", "enc.attn.out_proj").output("y1").open();
    let inspect = |more: &[&str]| eva().arg("inspect").arg(dir.path().join("m.onnx")).args(more).output().unwrap();
    let all = inspect(&[]);
    assert!(succeeded(&all).contains("    Gemm /enc/attn/Gemm (enc.attn.out_proj)\n"));
    assert!(
        text(&all.stderr).contains("`enc.attn.out_proj` left out: PyTorch reads the weight without calling the module")
    );
    let named = inspect(&["--target-modules", "fc,out_proj"]);
    assert_eq!(named.status.code(), Some(1));
    let message = text(&named.stderr);
    assert!(message.contains("`enc.attn.out_proj`, which is left out: PyTorch never calls its module"), "{message}");
    assert!(message.contains("leave `out_proj` out of --target-modules"), "{message}");
    succeeded(&inspect(&["--target-modules", "fc"]));
    let renamed = inspect(&["--strip-prefix", "enc", "--target-modules", "attn.out_proj"]);
    assert!(text(&renamed.stderr).contains("`attn.out_proj`, which is left out"), "{}", text(&renamed.stderr));
}
