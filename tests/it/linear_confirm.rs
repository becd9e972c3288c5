//! When the path in a node's name is the name of its module: a weight that lost its own name, in graphs with one trap each.

use crate::support::graph::{Net, net};
use eva_onnx::linear::{Known, find_knowing};

const UNCERTAIN: &str = "only the path in its node's name names it, and paths may leave out containers; --checkpoint can \
                         find the name, --trust-node-names accepts the path";

/// A layer without a bias whose weight was folded.
fn layer(net: Net, path: &str) -> Net {
    let at = net.graph.node.len();
    let weight = format!("onnx::MatMul_{at}");
    net.weight(&weight, &[4, 4]).node("MatMul", &format!("/{path}/MatMul"), &["x", &weight], &format!("y{at}"))
}

/// A norm, whose weight kept its name.
fn norm(net: Net, path: &str, module: &str) -> Net {
    let (weight, at) = (format!("{module}.weight"), net.graph.node.len());
    net.weight(&weight, &[4]).node("Mul", &format!("/{path}/Mul"), &["x", &weight], &format!("y{at}"))
}

#[track_caller]
fn refused(net: Net) {
    net.refused(UNCERTAIN);
}

#[test]
fn a_module_dict_is_missing_in_the_path() {
    // `blocks.0.experts.a_b`
    let dict = || layer(norm(net(), "blocks.0/norm", "blocks.0.norm"), "blocks.0/a_b");
    refused(dict());
    refused(layer(norm(net(), "block.0/norm", "block.0.norm"), "block.0/mlp/expert_0/wi"));
    let (_dir, model) = dict().open();
    let note = "1 layer is left out because its name is uncertain; `inspect` lists it";
    assert_eq!(find_knowing(&model, &Known::default()).notes, [note]);
    let trusting = find_knowing(&model, &Known { trust_node_names: true, ..Known::default() });
    assert_eq!(trusting.linears[0].modules[0].module, "blocks.0.a_b");
    assert_eq!(trusting.skipped, []);
}

#[test]
fn a_bare_parameter_looks_like_a_layer() {
    refused(layer(net(), "raw"));
    refused(layer(norm(net(), "model/layers.0/norm", "model.layers.0.norm"), "model/layers.0/raw"));
}

#[test]
fn parameters_confirm_how_a_path_begins() {
    refused(layer(net(), "inner/tower/self_attn/q_proj"));
    layer(norm(net(), "inner/tower/norm", "inner.tower.norm"), "inner/tower/self_attn/q_proj")
        .check(&["inner.tower.self_attn.q_proj by node"], 0);
    layer(norm(net(), "0/auto_model/norm", "0.auto_model.norm"), "0/auto_model/layer.1/attention/self/query")
        .check(&["0.auto_model.layer.1.attention.self.query by node"], 0);
    // An embedding is what remains of Gemma's parameters: its norms are folded.
    norm(layer(net(), "model/layers.1/mlp/up_proj"), "model/embed_tokens", "model.embed_tokens")
        .check(&["model.layers.1.mlp.up_proj by node"], 0);
}

#[test]
fn parameters_tell_which_containers_a_path_leaves_out() {
    let dict = || norm(net(), "h.0/ln_1", "transformer.h.0.ln_1");
    layer(dict(), "h.0/attn/c_attn").check(&["transformer.h.0.attn.c_attn by node"], 0);
    let decoder = || norm(net(), "decoder/layers.0/norm", "model.decoder.layers.0.norm");
    layer(layer(decoder(), "decoder/project_in"), "lm_head")
        .check(&["model.decoder.project_in by node", "lm_head by node"], 0);
    // A model inside that of PEFT.
    let peft = norm(net(), "peft/model/model/layers.0/norm", "peft.base_model.model.model.layers.0.norm");
    layer(peft, "peft/model/model/layers.0/self_attn/q_proj/base_layer")
        .check(&["peft.base_model.model.model.layers.0.self_attn.q_proj by node"], 0);
    // Two modules could be meant.
    let twice = norm(net(), "model/norm", "model.model.norm");
    refused(layer(twice, "model/mlp/fc1"));
    refused(layer(norm(decoder(), "decoder/norm", "decoder.norm"), "decoder/project_in"));
    // Paths that are there in full are another module's.
    refused(layer(norm(net(), "aux/tower/norm", "aux.tower.norm"), "tower/mlp/fc1"));
}

#[test]
fn a_container_that_is_left_out_may_hold_other_layers() {
    let dict = || norm(net(), "layers.0/norm", "layers.0.parts.norm");
    refused(layer(dict(), "layers.0/self_attn/q_proj"));
    refused(layer(norm(net(), "layers.0/norm", "layers.0.parts.inner.norm"), "layers.0/self_attn/q_proj"));
    norm(layer(dict(), "layers.0/self_attn/q_proj"), "layers.0/self_attn/q_norm", "layers.0.parts.self_attn.q_norm")
        .check(&["layers.0.parts.self_attn.q_proj by node"], 0);
    // Nothing says where the head is, or the blocks.
    refused(layer(norm(net(), "model/norm", "inner.model.norm"), "lm_head"));
    refused(layer(norm(net(), "wte", "transformer.wte"), "h.0/attn/c_attn"));
}

#[test]
fn a_router_is_no_linear_layer() {
    let other = "its module is not a linear layer but of a class that may do more";
    let router = net().weight("router.weight", &[6, 4]).node("Transpose", "/router/Transpose", &["router.weight"], "t");
    let router = router.node("MatMul", "/router/MatMul", &["x", "t"], "y");
    router.node("Softmax", "/router/Softmax", &["y"], "p").refused(other);
}

#[test]
fn a_bias_of_another_module_names_nobody() {
    let sum = layer(net(), "mlp/fc1").weight("mlp.bias", &[4]);
    sum.node("Add", "/mlp/Add", &["y0", "mlp.bias"], "z").check(&["mlp.fc1 by node"], 0);
    let sum = layer(net(), "fc").weight("blocks.bias", &[4]);
    refused(sum.node("Add", "/Add", &["y0", "blocks.bias"], "z"));
    let lost = norm(net(), "", "blocks.norm").weight("w", &[4, 4]).weight("blocks.bias", &[4]);
    let lost = lost.node("MatMul", "", &["x", "w"], "y").node("Add", "", &["y", "blocks.bias"], "z");
    assert_eq!(lost.find(None).0, []);
}
