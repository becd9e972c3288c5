//! Which nodes are linear layers and what they are called, on graphs that hold one trap each.

use crate::support::graph::{I64, Net, net};
use eva_onnx::group::group;
use eva_onnx::linear::{Part, Slice};

const UNNAMED: &str =
    "the file does not record its PyTorch module; --checkpoint can find the name by comparing weights";
const OTHER: &str = "its module is not a linear layer but of a class that may do more";
const RAW: &str = "its weight is not the weight of a PyTorch linear module";

#[test]
fn names_of_nodes() {
    let linears = net()
        .weight("onnx::MatMul_1", &[4, 6])
        .node("MatMul", "/model/layers.0/mlp/up_proj/MatMul", &["x", "onnx::MatMul_1"], "y")
        .check(&["model.layers.0.mlp.up_proj by node"], 0);
    assert_eq!((linears[0].in_features, linears[0].out_features), (4, 6));
    assert_eq!(linears[0].weight.bias, None);
}

#[test]
fn names_of_biases() {
    let linears = net()
        .weight("onnx::MatMul_1", &[4, 6])
        .weight("d.fc.bias", &[6])
        .node("MatMul", "/fc/MatMul", &["x", "onnx::MatMul_1"], "y")
        .node("Add", "/fc/Add", &["d.fc.bias", "y"], "z")
        .check(&["d.fc by bias"], 0);
    assert_eq!(linears[0].weight.bias.as_deref(), Some("d.fc.bias"));
}

#[test]
fn a_bias_kept_by_a_fused_node() {
    let fused = |op: &str, inputs: &[&str]| {
        net()
            .weight("w", &[4, 6])
            .weight("fc.bias", &[6])
            .node("MatMul", "", &["x", "w"], "y")
            .node(op, "", inputs, "z")
            .check(&["fc by bias"], 0);
    };
    fused("com.microsoft:SkipLayerNormalization", &["y", "r", "g", "b", "fc.bias"]);
    fused("com.microsoft:BiasGelu", &["y", "fc.bias"]);
}

#[test]
fn merged_biases_name_nobody() {
    net()
        .weight("w", &[4, 6])
        .weight("norm.bias", &[6])
        .node("MatMul", "/mlp/fc1/MatMul", &["x", "w"], "y")
        .node("Add", "", &["y", "norm.bias"], "z")
        .node("LayerNormalization", "", &["z", "g", "norm.bias"], "n")
        .check(&["mlp.fc1 by node"], 0);
}

#[test]
fn an_identity_keeps_the_name_of_a_merged_bias() {
    net()
        .weight("w", &[4, 6])
        .weight("norm.bias", &[6])
        .node("Identity", "", &["norm.bias"], "fc.bias")
        .node("MatMul", "", &["x", "w"], "y")
        .node("Add", "", &["y", "fc.bias"], "z")
        .node("LayerNormalization", "", &["z", "g", "norm.bias"], "n")
        .check(&["fc by bias"], 0);
}

#[test]
fn a_bias_of_the_module_around_the_layer() {
    net()
        .weight("w", &[4, 6])
        .weight("cls.predictions.bias", &[6])
        .node("MatMul", "/cls/predictions/decoder/MatMul", &["x", "w"], "y")
        .node("Add", "", &["y", "cls.predictions.bias"], "z")
        .check(&["cls.predictions.decoder by node"], 0);
}

#[test]
fn names_of_weights() {
    let gemm = |name: &str| net().weight(name, &[6, 4]).node("Gemm", "g", &["x", name, ""], "y").int("transB", 1);
    gemm("pooler.dense.weight").check(&["pooler.dense by weight"], 0);
    gemm("mha.in_proj_weight").refused(RAW);
    gemm("onnx::Gemm_12").refused(UNNAMED);
    gemm("proj").refused(UNNAMED);
}

#[test]
fn conv1d_keeps_its_weight_as_it_is() {
    let stored = |name: &str, trans_b: i64| {
        let net = net().weight(name, &[4, 6]).node("Gemm", "/h.0/attn/c_attn/Gemm", &["x", name], "y");
        net.int("transB", trans_b).find(None).0[0].weight.fan_in_fan_out
    };
    assert!(stored("h.0.attn.c_attn.weight", 0));
    assert!(stored("h.0.attn.c_attn.weight_quantized", 0));
    assert!(!stored("h.0.attn.c_attn.weight", 1));
    assert!(!stored("onnx::Gemm_1", 0));
    assert!(!stored("h.0.attn.c_attn.weight_transposed", 0));
    assert!(!stored("h.0.attn.c_attn.MatMul.weight", 0));
}

#[test]
fn repeated_calls_are_one_module() {
    let linears = net()
        .weight("w", &[4, 4])
        .weight("v", &[4, 4])
        .node("Identity", "", &["w"], "w2")
        .node("MatMul", "/mlp/wi/MatMul", &["x", "w"], "y")
        .node("MatMul", "/mlp/wi_1/MatMul", &["y", "w2"], "z")
        .node("MatMul", "/mlp/wi_1/MatMul_1", &["z", "v"], "out")
        .check(&["mlp.wi by node", "mlp.wi by node", "mlp.wi_1 by node"], 0);
    assert_eq!(linears[0].weight.tensor, linears[1].weight.tensor);
    net()
        .weight("w", &[4, 4])
        .weight("v", &[4, 4])
        .node("MatMul", "/mlp/wi_0/MatMul", &["x", "w"], "y")
        .node("MatMul", "/mlp/wi_1/MatMul", &["x", "v"], "z")
        .check(&["mlp.wi_0 by node", "mlp.wi_1 by node"], 0);
}

#[test]
fn two_layers_cannot_have_one_name() {
    net()
        .weight("w", &[4, 4])
        .weight("v", &[4, 4])
        .node("MatMul", "/mix/MatMul", &["x", "w"], "y")
        .node("MatMul", "/mix/MatMul_1", &["y", "v"], "z")
        .check(&[], 2);
}

#[test]
fn a_module_that_does_more_is_no_layer() {
    net()
        .weight("onnx::MatMul_1", &[4, 12])
        .weight("attn.out_proj.weight", &[4, 4])
        .node("MatMul", "/attn/MatMul", &["x", "onnx::MatMul_1"], "qkv")
        .node("Softmax", "/attn/Softmax", &["qkv"], "p")
        .node("Gemm", "/attn/Gemm", &["p", "attn.out_proj.weight"], "y")
        .int("transB", 1)
        .check(&[], 2);
}

fn traced(scope: &str, class: &str, placeholder: &str) -> Net {
    let signature = "\n# inputs\np_q_weight: PARAMETER target='attn.q.weight'\np_attn: PARAMETER target='attn.w'\n";
    net()
        .metadata("pkg.torch.export.ExportedProgram.graph_signature", signature)
        .weight("val_1", &[4, 6])
        .node("MatMul", "node_linear", &["x", "val_1"], "y")
        .traced(scope, class, placeholder)
}

#[test]
fn scopes_of_the_dynamo_exporter() {
    let linear = "torch.nn.modules.linear.Linear";
    traced("attn.q", linear, "p_q_weight").check(&["attn.q by scopes"], 0);
    traced("attn.twin", linear, "p_q_weight").check(&["attn.twin by scopes"], 0);
    traced("attn", "torch.nn.MultiheadAttention", "p_attn").refused(RAW);
    traced("attn.q", "a.Router", "p_q_weight").refused(OTHER);
    assert!(!traced("attn.q", linear, "p_q_weight").find(None).0[0].weight.fan_in_fan_out);
    assert!(traced("attn.q", "transformers.pytorch_utils.Conv1D", "p").find(None).0[0].weight.fan_in_fan_out);
}

#[test]
fn signatures_of_older_versions() {
    let mut net = traced("attn", "torch.nn.modules.transformer.TransformerEncoderLayer", "p_q_weight");
    net.graph.metadata_props[0].value = "ExportGraphSignature(input_specs=[InputSpec(kind=<InputKind.PARAMETER: 2>, \
        arg=TensorArgument(name='p_q_weight'), target='attn.q.weight', persistent=None)"
        .to_owned();
    net.check(&["attn.q by weight"], 0);
}

#[test]
fn a_weight_shared_with_the_embedding() {
    let tied = |node: &str| {
        net()
            .weight("model.embed_tokens.weight", &[9, 4])
            .node("Gather", "", &["model.embed_tokens.weight", "ids"], "x")
            .node("Transpose", "", &["model.embed_tokens.weight"], "t")
            .node("MatMul", node, &["x", "t"], "y")
    };
    assert!(tied("/lm_head/MatMul").check(&["lm_head by node"], 0)[0].head);
    tied("node_linear").refused(UNNAMED);
}

#[test]
fn heads_reach_the_logits() {
    let through = |op: &str, output: &str| {
        let net = net().weight("w", &[4, 6]).weight("out.bias", &[6]).node("MatMul", "/out/MatMul", &["x", "w"], "y");
        net.node("Add", "", &["y", "out.bias"], "z").node(op, "", &["z"], output).output(output).find(None).0[0].head
    };
    assert!(through("Cast", "logits"));
    assert!(through("Tanh", "start_logits"));
    assert!(!through("Tanh", "pooler_output"));
    assert!(!through("Relu", "logits"));
}

/// The q|k|v projection of the genai builder, with 4 query and 2 key-value heads of size 8.
fn genai(leaf: &str, model_type: Option<&str>) -> Vec<Part> {
    let weight = format!("model.layers.0.attn.{leaf}.MatMul.weight");
    let net = net()
        .producer("onnxruntime-genai")
        .weight(&weight, &[32, 64])
        .node("MatMul", &format!("/model/layers.0/attn/{leaf}/MatMul"), &["x", &weight], "y")
        .node("com.microsoft:GroupQueryAttention", "/model/layers.0/attn/GroupQueryAttention", &["y"], "z")
        .int("num_heads", 4)
        .int("kv_num_heads", 2);
    let linears = net.find(model_type).0;
    linears.into_iter().flat_map(|linear| linear.modules).collect()
}

#[test]
fn projections_packed_by_the_genai_builder() {
    let part = |leaf: &str, columns| Part { module: format!("model.layers.0.self_attn.{leaf}"), columns, slice: None };
    let split = [part("q_proj", Some((0, 32))), part("k_proj", Some((32, 48))), part("v_proj", Some((48, 64)))];
    assert_eq!(genai("qkv_proj", None), []);
    assert_eq!(genai("qkv_proj", Some("llama")), split);
    assert_eq!(genai("qkv_proj", Some("phi3")), [part("qkv_proj", None)]);
    assert_eq!(genai("o_proj", Some("Llama")), [part("o_proj", None)]);
    // Phi-2 calls it `dense`.
    assert_eq!(genai("o_proj", Some("phi")), []);
    assert_eq!(genai("o_proj", None), []);
    let half = |start, end| {
        let slice = Some(Slice { start, end, of: 128 });
        Part { module: "model.layers.0.self_attn.gate_up_proj".to_owned(), columns: None, slice }
    };
    assert_eq!(genai("gate_proj", Some("phi3")), [half(0, 64)]);
    assert_eq!(genai("up_proj", Some("phi3")), [half(64, 128)]);
    assert_eq!(genai("q_proj.lora_A", Some("llama")), []);
}

#[test]
fn adapters_in_the_graph_are_left_alone() {
    let product = |net: Net, node: &str, weight: &str| {
        net.weight(weight, &[4, 4]).node("MatMul", node, &["x", weight], &format!("{weight}_y"))
    };
    let net = product(net(), "/model/self_attn/q_proj/base_layer/MatMul", "onnx::1");
    let net = product(net, "/model/self_attn/q_proj/default/MatMul", "onnx::2");
    let net = product(net, "/model/self_attn/q_proj/default_1/MatMul", "onnx::3");
    let net = product(net, "lora/model.self_attn.k_proj/a", "model.self_attn.k_proj.lora_A.weight");
    product(net, "/model/self_attn/k_proj/MatMul", "onnx::4")
        .check(&["model.self_attn.q_proj by node", "model.self_attn.k_proj by node"], 3);
}

#[test]
fn what_cannot_be_used() {
    let product = |op: &str, dims: &[i64]| net().weight("w", dims).node(op, "/a/MatMul", &["x", "w"], "y");
    product("MatMul", &[1, 4, 6]).refused("its constant has 3 dimensions");
    product("MatMul", &[4]).refused("its constant has 1 dimension");
    product("Gemm", &[4, 6]).int("transA", 1).refused("it transposes its input");
    product("MatMulInteger", &[4, 6]).refused("its input exists in quantized form only");
    net().weight("w", &[4, 6]).node("MatMul", "", &["w", "x"], "y").refused("its constant is on the left");
    net().stored("w", &[4, 6], I64).node("MatMul", "", &["x", "w"], "y").refused("it multiplies values of type i64");
    net().node("MatMul", "/attn/MatMul", &["q", "k"], "y").check(&[], 0);
}

#[test]
fn layers_in_loops() {
    let body = net().weight("w", &[4, 4]).node("MatMul", "/a/MatMul", &["x", "w"], "y");
    let outer = net().node("Loop", "repeat", &["n", "c"], "y").branch("body", body);
    outer.refused(
        "it is inside the loop `repeat.body`, and only layers of the main graph and of `If` branches are used",
    );
}

#[test]
fn experts_read_the_tokens_that_a_router_chose() {
    let routed = |indices: Net| {
        let linears = indices
            .node("Mul", "/norm/Mul", &["h", "scale"], "x")
            .node("Gather", "/mlp/Gather", &["x", "indices"], "chosen")
            .weight("onnx::MatMul_1", &[4, 6])
            .weight("onnx::MatMul_2", &[6, 4])
            .node("MatMul", "/mlp/experts.0/up_proj/MatMul", &["chosen", "onnx::MatMul_1"], "u")
            .node("Sigmoid", "/mlp/experts.0/act/Sigmoid", &["u"], "s")
            .node("MatMul", "/mlp/experts.0/down_proj/MatMul", &["s", "onnx::MatMul_2"], "d")
            .node("ScatterND", "/mlp/ScatterND", &["x", "indices", "d"], "moe")
            .node("Add", "/Add", &["moe", "h"], "sum")
            .node("MatMul", "/self_attn/o_proj/MatMul", &["sum", "onnx::MatMul_1"], "y")
            .find(None)
            .0;
        linears.iter().map(|linear| linear.input.routed).collect::<Vec<_>>()
    };
    let chosen = net().node("NonZero", "", &["mask"], "places").node("Squeeze", "", &["places"], "indices");
    assert_eq!(routed(chosen), [true, true, false]);
    assert_eq!(routed(net().node("Range", "", &["zero", "n", "one"], "indices")), [false, false, false]);
}

#[test]
fn a_module_that_is_also_called_on_positions() {
    let positions = || net().node("Shape", "", &["x"], "sizes").node("ConstantOfShape", "", &["sizes"], "positions");
    let product = |net: Net, node: &str, input: &str, output: &str| net.node("MatMul", node, &[input, "w"], output);
    let called = product(positions().weight("w", &[4, 4]), "/self_attn/k_proj/MatMul", "positions", "y");
    let linears = product(called, "/self_attn/k_proj/MatMul_1", "x", "z")
        .check(&["self_attn.k_proj by node", "self_attn.k_proj by node"], 0);
    assert_eq!(linears.iter().map(|linear| linear.input.constant).collect::<Vec<_>>(), [true, false]);
    let grouping = group(linears.iter().map(|linear| (linear, linear.modules.iter().collect())));
    assert_eq!(grouping.groups.iter().map(|group| &group.tensors[..]).collect::<Vec<_>>(), [["x"]]);
    product(positions().weight("w", &[4, 4]), "/self_attn/pos_proj/MatMul", "positions", "y")
        .refused("its input does not depend on the data");
}

#[test]
fn products_of_constants_are_no_layers_of_the_data() {
    let product = net().weight("table", &[8, 4]).weight("onnx::MatMul_1", &[4, 4]);
    product
        .node("MatMul", "/pos_proj/MatMul", &["table", "onnx::MatMul_1"], "y")
        .refused("its input does not depend on the data");
    let scalars = net().weight("a", &[1, 1]).weight("b", &[1, 4]).node("MatMul", "/m/MatMul", &["a", "b"], "y");
    scalars.check(&[], 0);
}

/// A reshape whose shape is its own result, and dequantizations that read what the one before gives as values and scales:
/// followed without a bound, the one has no end and the other 2^99 ways.
#[test]
fn constants_behind_cycles_and_shared_scales() {
    let product = |net: Net| net.node("MatMul", "/mlp/up_proj/MatMul", &["x", "w"], "y");
    product(net().weight("stored", &[4, 6]).node("Reshape", "", &["stored", "w"], "w"))
        .refused("its constant passes through a reshape that cannot be followed");
    product(net().node("Identity", "", &["w"], "w")).check(&[], 0);
    let mut chain = net().weight("0", &[4, 6]);
    for step in 1..100 {
        let before = &(step - 1).to_string();
        chain = chain.node("DequantizeLinear", "", &[before, before], &step.to_string());
    }
    product(chain.node("Identity", "", &["99"], "w")).check(&[], 0);
}
