//! Names from a checkpoint: weights are compared by value in every way that they are stored.

use crate::support::graph::{F16, Net, net};
use eva_onnx::Hint;
use std::path::Path;

use eva_onnx::checkpoint::{Checkpoint, Error};
use eva_onnx::linear::{Known, Layers, Slice, find_knowing};
use proptest::prelude::*;
use safetensors::tensor::{Dtype, TensorView, serialize_to_file};

/// Pseudo-random values, different for every seed.
fn random(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u32 << 23) as f32 - 1.0
    };
    std::iter::repeat_with(next).take(count).collect()
}

/// The [columns, rows] transpose of a [rows, columns] matrix.
fn transposed(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    (0..rows * columns).map(|index| values[index % rows * columns + index / rows]).collect()
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// Writes `f32` matrices to one file.
fn write(path: &Path, matrices: &[(&str, usize, &[f32])]) {
    let data: Vec<(_, Vec<usize>, Vec<u8>)> =
        matrices.iter().map(|(name, rows, values)| (*name, vec![*rows, values.len() / rows], bytes(values))).collect();
    let views =
        data.iter().map(|(name, shape, data)| (*name, TensorView::new(Dtype::F32, shape.clone(), data).unwrap()));
    serialize_to_file(views, None, path).unwrap();
}

fn found(graph: Net, matrices: &[(&str, usize, &[f32])]) -> Layers {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("model.safetensors"), matrices);
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    let (_file, model) = graph.open();
    let architecture = Some("GPT2LMHeadModel");
    find_knowing(&model, &Known { checkpoint: Some(&checkpoint), architecture, ..Known::default() })
}

/// Every module with its columns and how it was named, then the reasons of what was skipped, then the notes.
fn text(layers: &Layers) -> Vec<String> {
    let parts = layers.linears.iter().flat_map(|linear| linear.modules.iter().map(move |part| (linear, part)));
    let part = parts.map(|(linear, part)| {
        let columns = part.columns.map_or(String::new(), |(from, to)| format!(" {from}..{to}"));
        format!("{}{columns} by {}", part.module, linear.named_by.as_str())
    });
    let skipped = layers.skipped.iter().map(|skipped| skipped.reason.to_string());
    part.chain(skipped).chain(layers.notes.iter().cloned()).collect()
}

/// `x W` with the [K, N] = [8, 6] weight of a linear module, which the checkpoint stores as [6, 8].
fn product(weight: &[f32], node: &str) -> Net {
    net().values("w", &[8, 6], &transposed(weight, 6, 8)).node("MatMul", node, &["x", "w"], "y")
}

#[test]
fn names_that_the_graph_has_lost() {
    let (a, b) = (random(1, 48), random(2, 48));
    let checkpoint = [("a.weight", 6, &a[..]), ("b.weight", 6, &b[..])];
    assert_eq!(text(&found(product(&a, ""), &checkpoint)), ["a by checkpoint"]);
    assert_eq!(text(&found(product(&b, "node_linear_3"), &checkpoint)), ["b by checkpoint"]);
    let gemm = net().values("w", &[6, 8], &b).node("Gemm", "", &["x", "w"], "y").int("transB", 1);
    assert_eq!(text(&found(gemm, &checkpoint)), ["b by checkpoint"]);
    let turned = net().values("w", &[6, 8], &a).node("Transpose", "", &["w"], "v").node("MatMul", "", &["x", "v"], "y");
    assert_eq!(text(&found(turned, &checkpoint)), ["a by checkpoint"]);
}

#[test]
fn names_that_the_checkpoint_confirms_or_corrects() {
    let (a, b) = (random(1, 48), random(2, 48));
    let checkpoint = [("m.a.weight", 6, &a[..]), ("m.b.weight", 6, &b[..])];
    assert_eq!(text(&found(product(&a, "/m/a/MatMul"), &checkpoint)), ["m.a by node"]);
    assert_eq!(
        text(&found(product(&a, "/m/b/MatMul"), &checkpoint)),
        ["m.a by checkpoint", "the graph calls a layer `m.b`, the checkpoint `m.a`, which is used"]
    );
    assert_eq!(
        text(&found(product(&a, "/a/MatMul"), &checkpoint)),
        [
            "m.a by checkpoint",
            "names in the checkpoint start with `m.`, which those of the graph lack; the checkpoint's are used"
        ]
    );
    let unknown =
        "the checkpoint does not have the weights of 1 of 1 layers, which are named by the graph alone, if at all";
    assert_eq!(text(&found(product(&random(3, 48), "/mlp/fc1/MatMul"), &checkpoint)), ["mlp.fc1 by node", unknown]);
}

/// All weights begin with the zero rows of such a matrix, however many of it.
#[test]
fn matrices_without_elements_match_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let a = bytes(&random(1, 48));
    let view = |shape: &[usize], data| TensorView::new(Dtype::F32, shape.to_vec(), data).unwrap();
    let matrices = [
        ("rows.weight", view(&[0, 8], &[])),
        ("columns.weight", view(&[6, 0], &[])),
        ("both.weight", view(&[0, 0], &[])),
        ("a.weight", view(&[6, 8], &a)),
    ];
    serialize_to_file(matrices, None, &dir.path().join("model.safetensors")).unwrap();
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    let names = |weight: &[f32]| {
        let (_file, model) = product(weight, "/mlp/fc1/MatMul").open();
        text(&find_knowing(&model, &Known { checkpoint: Some(&checkpoint), ..Known::default() }))
    };
    assert_eq!(
        names(&random(1, 48)),
        ["a by checkpoint", "the graph calls a layer `mlp.fc1`, the checkpoint `a`, which is used"]
    );
    assert_eq!(names(&random(2, 48))[0], "mlp.fc1 by node");
}

#[test]
fn checkpoints_with_an_adapter_inside() {
    let (a, b) = (random(1, 48), random(2, 48));
    let checkpoint = [("m.a.base_layer.weight", 6, &a[..]), ("m.a.lora_A.default.weight", 6, &b[..])];
    assert_eq!(text(&found(product(&a, ""), &checkpoint)), ["m.a by checkpoint"]);
    let reason = "its weight is the parameter `m.a.lora_A.default.weight`, which is not the weight of a linear module";
    assert_eq!(text(&found(product(&b, ""), &checkpoint)), [reason]);
}

#[test]
fn two_layers_with_one_name_are_told_apart() {
    let (a, b) = (random(1, 48), random(2, 48));
    let graph = product(&a, "/m/fc/MatMul").values("v", &[8, 6], &transposed(&b, 6, 8)).node(
        "MatMul",
        "/m/fc/MatMul_1",
        &["x", "v"],
        "z",
    );
    let layers = found(graph, &[("m.fc.weight", 6, &a[..]), ("m.d.fc.weight", 6, &b[..])]);
    assert_eq!(text(&layers)[..2], ["m.fc by node", "m.d.fc by checkpoint"]);
}

#[test]
fn equal_weights_are_ambiguous() {
    let a = random(1, 48);
    let checkpoint = [("q.weight", 6, &a[..]), ("k.weight", 6, &a[..])];
    assert_eq!(text(&found(product(&a, "/k/MatMul"), &checkpoint)), ["k by node"]);
    let reason = ["its weight is that of `k` and of `q` in the checkpoint, and which of them is unknown"];
    assert_eq!(text(&found(product(&a, ""), &checkpoint)), reason);
    assert_eq!(text(&found(product(&a, "/o/MatMul"), &checkpoint)), reason);
}

#[test]
fn packed_and_split_projections() {
    let (q, k, v) = (random(1, 48), random(2, 16), random(3, 16));
    let all = [&q[..], &k, &v].concat();
    let packed = || {
        let values = transposed(&all, 10, 8);
        net().values("w", &[8, 10], &values).node("MatMul", "", &["x", "w"], "y")
    };
    let apart = [("q.weight", 6, &q[..]), ("k.weight", 2, &k[..]), ("v.weight", 2, &v[..])];
    assert_eq!(
        text(&found(packed(), &apart)),
        ["q 0..6 by checkpoint", "k 6..8 by checkpoint", "v 8..10 by checkpoint"]
    );
    assert_eq!(text(&found(packed(), &[("qkv.weight", 10, &all[..])])), ["qkv by checkpoint"]);
    let split = net().values("w", &[8, 2], &transposed(&v, 2, 8)).node("MatMul", "", &["x", "w"], "y");
    let layers = found(split, &[("qkv.weight", 10, &all[..])]);
    assert_eq!(text(&layers), ["qkv by checkpoint"]);
    assert_eq!(layers.linears[0].modules[0].slice, Some(Slice { start: 8, end: 10, of: 10 }));
    assert_eq!(layers.linears[0].modules[0].columns, None);
}

#[test]
fn weights_that_are_no_linear_modules() {
    let a = random(1, 48);
    assert_eq!(
        text(&found(product(&a, "/m/attn/MatMul"), &[("m.attn.in_proj_weight", 6, &a[..])])),
        ["its weight is the parameter `m.attn.in_proj_weight`, which is not the weight of a linear module"]
    );
    let conv = found(product(&a, ""), &[("h.c_fc.weight", 8, &transposed(&a, 6, 8)[..])]);
    assert_eq!(text(&conv), ["h.c_fc by checkpoint"]);
    assert!(conv.linears[0].weight.fan_in_fan_out);
}

#[test]
fn heads_tied_to_an_embedding() {
    let a = random(1, 48);
    let checkpoint = [("transformer.wte.weight", 6, &a[..])];
    assert_eq!(text(&found(product(&a, "/lm_head/MatMul"), &checkpoint)), ["lm_head by node"]);
    assert_eq!(found(product(&a, "/head/MatMul"), &checkpoint).linears, []);
    assert_eq!(
        text(&found(product(&a, ""), &checkpoint)),
        ["its weight is that of the embedding `transformer.wte`, and the checkpoint has no name for the layer itself"]
    );
    let returned = |name: &str| {
        net().values("w", &[8, 6], &transposed(&a, 6, 8)).node("MatMul", "", &["x", "w"], name).output(name)
    };
    assert_eq!(text(&found(returned("logits"), &checkpoint)), ["lm_head by checkpoint"]);
    assert_eq!(text(&found(returned("linear_14"), &checkpoint)), ["lm_head by checkpoint"]);
    let logits = net().values("w", &[8, 6], &transposed(&a, 6, 8)).node("MatMul", "", &["x", "w"], "logits");
    let checkpoint = [("emb.weight", 6, &a[..]), ("lm_head.weight", 6, &a[..])];
    assert_eq!(text(&found(logits.output("logits"), &checkpoint)), ["lm_head by checkpoint"]);
    let both = [("transformer.wte.weight", 6, &a[..]), ("out.weight", 6, &a[..])];
    assert_eq!(text(&found(product(&a, ""), &both)), ["out by checkpoint"]);
}

#[test]
fn sixteen_bits_are_compared_as_far_as_they_go() {
    let a = random(1, 48);
    let half = |values: &[f32]| {
        let raw = transposed(values, 6, 8).iter().flat_map(|value| half::f16::from_f32(*value).to_le_bytes()).collect();
        net().bytes("w", &[8, 6], F16, raw).node("MatMul", "", &["x", "w"], "y")
    };
    assert_eq!(text(&found(half(&a), &[("a.weight", 6, &a[..])])), ["a by checkpoint"]);
    let mut other = a.clone();
    other[17] *= 1.01;
    assert_eq!(found(half(&other), &[("a.weight", 6, &a[..])]).linears, []);
    let mut next = a.clone();
    next[17] = f32::from_bits(next[17].to_bits() + 1);
    assert_eq!(found(product(&next, ""), &[("a.weight", 6, &a[..])]).linears, []);
}

#[test]
fn checkpoints_in_shards() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (random(1, 48), random(2, 48));
    write(&dir.path().join("model-1.safetensors"), &[("a.weight", 6, &a)]);
    write(&dir.path().join("model-2.safetensors"), &[("b.weight", 6, &b)]);
    write(&dir.path().join("other.safetensors"), &[("c.weight", 6, &b)]);
    let index = r#"{"weight_map": {"a.weight": "model-1.safetensors", "b.weight": "model-2.safetensors"}}"#;
    std::fs::write(dir.path().join("model.safetensors.index.json"), index).unwrap();
    let names = |path: &Path| {
        let checkpoint = Checkpoint::open(path).unwrap();
        checkpoint.matrices().map(|matrix| matrix.name.to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names(dir.path()), ["a.weight", "b.weight"]);
    assert_eq!(names(&dir.path().join("other.safetensors")), ["c.weight"]);
    let outside = r#"{"weight_map": {"a.weight": "../model-1.safetensors"}}"#;
    std::fs::write(dir.path().join("model.safetensors.index.json"), outside).unwrap();
    assert!(matches!(Checkpoint::open(dir.path()).err(), Some(Error::BadIndex { .. })));
}

#[test]
fn folders_that_are_no_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let error = |path: &Path| Checkpoint::open(path).err().unwrap();
    assert!(matches!(error(dir.path()), Error::NoWeights { pickled: false, .. }));
    std::fs::write(dir.path().join("pytorch_model.bin"), "x").unwrap();
    assert!(error(dir.path()).hint().unwrap().contains("save_pretrained"));
    assert!(matches!(error(&dir.path().join("nowhere")), Error::Read { .. }));
    std::fs::write(dir.path().join("model.safetensors"), [8; 40]).unwrap();
    let message = error(dir.path()).to_string();
    assert!(message.contains("model.safetensors` is not a valid safetensors file"), "{message}");
    write(&dir.path().join("model.safetensors"), &[]);
    assert!(matches!(error(dir.path()), Error::NoMatrices { .. }));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// A weight is found in a checkpoint of random matrices whatever their sizes, and no other is taken for it.
    #[test]
    fn a_weight_is_found_among_others(k in 1usize..9, n in 1usize..9, seeds in prop::collection::hash_set(0u64..1000, 4)) {
        let seeds: Vec<u64> = seeds.into_iter().collect();
        let matrices: Vec<Vec<f32>> = seeds.iter().map(|seed| random(*seed, k * n)).collect();
        let checkpoint: Vec<_> =
            ["a.weight", "b.weight", "c.weight"].iter().zip(&matrices).map(|(name, values)| (*name, n, &values[..])).collect();
        let layer = |values: &[f32]| {
            let values = transposed(values, n, k);
            net().values("w", &[k as i64, n as i64], &values).node("MatMul", "", &["x", "w"], "y")
        };
        prop_assert_eq!(&text(&found(layer(&matrices[1]), &checkpoint))[0], "b by checkpoint");
        prop_assert!(found(layer(&matrices[3]), &checkpoint).linears.is_empty());
    }
}
