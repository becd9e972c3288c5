//! The loss, and what ONNX Runtime Training asks of a graph: each rule on a graph that breaks it.

use crate::support::adapters::{self, OPTIONS, runtime};
use crate::support::eva;
use crate::support::graph::{F16, F32, Net, listing, net};
use crate::support::tolerance::{summed, within};
use eva_onnx::Hint;
use eva_onnx::adapter::{Adapter, Base};
use eva_onnx::dtype::DType;
use eva_onnx::formats::peft::{self, CONFIG, WEIGHTS};
use eva_onnx::onnx::{Graph, Model, Patch};
use eva_onnx::runtime::{Session, Value};
use eva_onnx::splice::{self, LossEdit, Task};

/// `x [2, 4] -> MatMul(A) -> h`, with A [4, 6] to be trained; the nodes that follow make `y` [2, 6] of `h`.
fn start() -> Net {
    net().shaped_input("x", F32, &[2, 4]).shaped_output("y", F32, &[2, 6]).floats("A", &[4, 6], F32).node(
        "MatMul",
        "first",
        &["x", "A"],
        "h",
    )
}

fn prepared(net: Net) -> Result<(Model, Patch), String> {
    let (_dir, model) = net.open();
    let patch = splice::prepare(&model, &["A".to_owned()], "y").map_err(|error| error.to_string())?;
    let edited = model.apply(&patch).unwrap();
    assert_eq!(evaluate(&edited), evaluate(&model));
    // What has been prepared needs nothing more.
    let again = splice::prepare(&edited, &["A".to_owned()], "y").unwrap();
    assert_eq!(again, Patch::default());
    Ok((edited, patch))
}

fn evaluate(model: &Model) -> Vec<Vec<f64>> {
    adapters::outputs(model, &[2, 4], (0..8).map(|i| 0.3 * i as f32 - 1.0).collect())
}

#[track_caller]
fn refused(net: Net, reason: &str) {
    let message = format!("ONNX Runtime Training 1.19.2 cannot train this model: {reason}");
    assert_eq!(prepared(net).err().unwrap(), message);
}

#[test]
fn normalizations_get_their_outputs_and_a_bias_and_share_nothing() {
    let norm = |net: Net, name: &str, input: &str, more: &[&str], output: &str| {
        net.node("LayerNormalization", name, &[&[input, "scale"], more].concat(), output)
    };
    let again =
        start().floats("scale", &[6], F32).floats("bias", &[6], F32).node("Identity", "same", &["bias"], "bias2");
    let first = norm(again, "n0", "h", &["bias"], "a");
    let (model, patch) = prepared(norm(norm(first, "n1", "a", &["bias2"], "b"), "n2", "b", &[], "y")).unwrap();
    let graph = Graph::new(&model);
    let inputs: Vec<Vec<String>> =
        graph.nodes(0).filter(|(_, n)| n.op() == "LayerNormalization").map(|(_, n)| n.inputs().to_vec()).collect();
    let expected =
        [["h", "scale", "bias"], ["a", "lora/scale/use2", "lora/bias/use2"], ["b", "lora/scale/use3", "lora/y/bias"]];
    assert_eq!(inputs, expected);
    assert!(graph.nodes(0).filter(|(_, n)| n.op() == "LayerNormalization").all(|(_, n)| n.outputs().len() == 3));
    assert_eq!(patch.constants.len(), 4);
}

#[test]
fn transpositions_say_their_order() {
    let net = start()
        .floats("w_t", &[6, 6], F32)
        .node("Transpose", "turn", &["w_t"], "w")
        .node("MatMul", "p", &["h", "w"], "q")
        .node("Transpose", "turn_result", &["q"], "t")
        .node("Transpose", "back", &["t"], "y");
    let (model, _) = prepared(net.clone().shape("q", &[2, 6]).shape("t", &[6, 2])).unwrap();
    let graph = Graph::new(&model);
    let turned = graph.nodes(0).filter(|(_, n)| n.op() == "Transpose");
    assert!(turned.into_iter().all(|(_, n)| n.ints("perm") == Some(&[1, 0][..])));
    refused(net, "the order of the axes of `turn_result` is not given");
}

#[test]
fn every_node_gets_a_name_of_its_own() {
    let net = start().node("Neg", "", &["h"], "a").node("Neg", "first", &["a"], "b").node("Neg", "", &["b"], "y");
    // ONNX Runtime does not even load it as it is.
    let (_dir, model) = net.open();
    let model = model.apply(&splice::prepare(&model, &["A".to_owned()], "y").unwrap()).unwrap();
    evaluate(&model);
    let graph = Graph::new(&model);
    let names: Vec<_> = graph.nodes(0).map(|(_, n)| n.name()).collect();
    assert_eq!(names, ["first", "lora/node/1", "lora/node/2", "lora/node/3"]);
}

#[test]
fn exponents_become_floats() {
    let net = start().integers("two", &[], &[2]).node("Pow", "square", &["h", "two"], "y");
    let (model, _) = prepared(net).unwrap();
    assert_eq!(model.tensor("lora/y/exponent").unwrap().bytes().unwrap().as_ref(), 2f32.to_le_bytes());
}

#[test]
fn a_split_with_an_unused_result_becomes_slices() {
    let joined = |parts: [&str; 3]| {
        let split = start().integers("sizes", &[3], &[2, 2, 2]).node("Split", "split", &["h", "sizes"], "a unused b");
        split.int("axis", 1).node("Concat", "join", &parts, "y").int("axis", 1)
    };
    let (model, _) = prepared(joined(["a", "b", "a"])).unwrap();
    insta::assert_snapshot!("splice_split", listing(&model));
    // All results used: nothing changes.
    assert_eq!(prepared(joined(["a", "b", "unused"])).unwrap().1, Patch::default());
}

#[test]
fn what_has_no_gradient_is_listed() {
    let net = start()
        .opset(18)
        .integers("axis", &[], &[1])
        .node("CumSum", "c1", &["h", "axis"], "a")
        .node("CumSum", "c2", &["a", "axis"], "b")
        .node("Mish", "m", &["b"], "y")
        .node("Mish", "beside", &["h"], "nobody")
        .node("Mish", "before", &["x"], "nobody_either");
    refused(
        net,
        "the operator CumSum (`c1` and 1 more) has no gradient there; the operator Mish (`m`) has no gradient there",
    );
    let backwards = [("from", -1), ("to", -9), ("axis", 1), ("step", -1)];
    let net = backwards.iter().fold(start(), |net, (name, value)| net.integers(name, &[1], &[*value]));
    let net = net.node("Slice", "turn", &["h", "from", "to", "axis", "step"], "y");
    refused(net, "`turn` slices backwards, which has no gradient there");
}

#[test]
fn shapes_need_no_gradient() {
    let net = start()
        .integers("zero", &[], &[0])
        .node("Shape", "shape", &["h"], "s")
        .node("CumSum", "sum", &["s", "zero"], "unused")
        .node("Reshape", "reshape", &["h", "s"], "y");
    assert_eq!(prepared(net).unwrap().1, Patch::default());
}

#[test]
fn versions_have_a_ceiling() {
    let net = || start().node("Neg", "n", &["h"], "y");
    for (opset, known) in [(11, false), (12, true), (21, true), (22, false), (23, false)] {
        if known {
            assert_eq!(prepared(net().opset(opset)).unwrap().1, Patch::default(), "{opset}");
        } else {
            let reason = format!("it uses operator set {opset}, and only 12 to 21 are known there");
            refused(net().opset(opset), &reason);
        }
    }
    assert_eq!(prepared(net().ir_version(11)).unwrap().0.ir_version(), 10);
}

/// The loss of `logits` against labels, by ONNX Runtime and by hand.
#[track_caller]
fn scored(shape: &[i64], task: Option<Task>, labels: &[i64]) {
    let net = net()
        .shaped_input("x", F32, shape)
        .shaped_output("other", F32, shape)
        .shaped_output("logits", F32, shape)
        .node("Neg", "a", &["x"], "other")
        .node("Neg", "b", &["other"], "logits");
    let (_dir, model) = net.open();
    let LossEdit { patch, task, logits } = splice::loss(&model, task, &[], None).unwrap();
    assert_eq!(logits, "logits");
    let model = model.apply(&patch).unwrap();
    let names = |values: Vec<eva_onnx::onnx::ValueInfo>| values.into_iter().map(|value| value.name).collect::<Vec<_>>();
    assert_eq!(
        (names(model.inputs()), names(model.outputs())),
        (vec!["x".into(), "labels".into()], vec!["loss".into(), "logits".into()])
    );

    let sizes: Vec<usize> = shape.iter().map(|size| *size as usize).collect();
    let x: Vec<f32> = (0..sizes.iter().product()).map(|i| ((i * 7) % 11) as f32 / 4.0).collect();
    let (count, classes) = (x.len(), sizes[sizes.len() - 1]);
    let mut terms = Vec::new();
    for (row, logits) in x.chunks(classes).enumerate() {
        let label = match task {
            Task::Classification => labels[row],
            // Position i is scored by the label after it, and the last of a sequence by none.
            Task::CausalLm if (row + 1) % sizes[1] == 0 => splice::IGNORED,
            Task::CausalLm => labels[row + 1],
        };
        if label != splice::IGNORED {
            let total: f64 = logits.iter().map(|v| f64::from(*v).exp()).sum();
            terms.push(total.ln() - f64::from(logits[label as usize]));
        }
    }
    let expected = terms.iter().sum::<f64>() / terms.len() as f64;
    let mut session = Session::load(&runtime(), &model, OPTIONS).unwrap();
    let (x, labels) = (Value::f32(&sizes, x).unwrap(), Value::i64(&sizes[..sizes.len() - 1], labels.to_vec()).unwrap());
    let got = session.run([("x", &x), ("labels", &labels)]).unwrap()[0].to_f64().unwrap().1[0];
    within(got / expected - 1.0, summed(count), "loss");
}

#[test]
fn the_loss_is_the_mean_over_labels_that_count() {
    scored(&[2, 4, 5], None, &[0, 1, 2, -100, -100, 3, 4, 0]);
    scored(&[3, 5], None, &[4, -100, 2]);
    scored(&[3, 5], Some(Task::Classification), &[0, 1, 2]);
}

/// Why `y` of this type and shape, under the name `output`, has no loss.
fn without_loss(output: &str, element: i32, shape: &[i64], task: Option<Task>, class: Option<&str>) -> splice::Error {
    let net = net().shaped_input("x", element, shape).shaped_output(output, element, shape);
    let (_dir, model) = net.node("Neg", "n", &["x"], output).open();
    splice::loss(&model, task, &[], class).err().unwrap()
}

#[test]
fn a_model_without_logits_has_no_loss() {
    let check = |error: splice::Error, message: &str, hint: &str| {
        assert_eq!(error.to_string(), format!("ONNX Runtime Training 1.19.2 cannot train this model: {message}"));
        let said = error.hint().unwrap();
        assert!(said.contains(hint), "{said}");
    };
    let logits = |element, shape: &[i64], task, class| without_loss("logits", element, shape, task, class);
    let message = "its output `logits` has type f16, and the loss needs f32";
    check(logits(F16, &[2, 5], None, None), message, "in f32");
    let message = "its output `logits` has 4 dimensions, and --loss says what it means";
    check(logits(F32, &[2, 3, 4, 5], None, None), message, "give --loss");
    let message = "its output `logits` has 3 dimensions, which is not the shape of logits for the loss classification";
    check(logits(F32, &[2, 3, 4], Some(Task::Classification), None), message, "choose with --loss");
    let message = "its output `logits` has 2 dimensions, which is not the shape of logits for the loss causal-lm";
    check(logits(F32, &[2, 3], Some(Task::CausalLm), None), message, "choose with --loss");
    let message = "its output `logits` has one class, whose cross entropy is always zero";
    check(logits(F32, &[2, 1], Some(Task::Classification), None), message, "with PEFT");
    for class in ["BertForMaskedLM", "BertForTokenClassification", "ViTForMaskedImageModeling"] {
        let message = format!("its class {class} is trained with another loss than those known here");
        check(logits(F32, &[2, 3, 4], None, Some(class)), &message, "with PEFT");
    }
    let message = "its output `last_hidden_state` is not known to be the logits of an output head";
    check(without_loss("last_hidden_state", F32, &[2, 3, 4], None, Some("BertModel")), message, "with its head");
}

#[test]
fn what_the_user_or_the_graph_says_is_logits() {
    let mut net = start()
        .floats("w", &[6, 3], F32)
        .floats("classifier.bias", &[3], F32)
        .node("MatMul", "product", &["h", "w"], "p")
        .node("Add", "sum", &["p", "classifier.bias"], "z")
        .shaped_output("z", F32, &[2, 3]);
    net.graph.output.remove(0);
    let linears = net.clone().find(None).0;
    assert!(linears.iter().any(|linear| linear.head), "{linears:?}");
    let (_dir, model) = net.open();
    for class in ["BertForSequenceClassification", "ViTForImageClassification", "Unknown"] {
        assert_eq!(splice::loss(&model, None, &linears, Some(class)).unwrap().task, Task::Classification);
    }
    assert!(splice::loss(&model, None, &[], None).is_err());
    assert_eq!(splice::loss(&model, Some(Task::Classification), &[], None).unwrap().logits, "z");
}

#[test]
fn modules_beside_the_way_to_the_loss_are_left_out_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let net = net()
        .shaped_input("x", F32, &[2, 4])
        .floats("onnx::1", &[4, 6], F32)
        .floats("onnx::2", &[6, 3], F32)
        .floats("onnx::3", &[6, 6], F32)
        .floats("classifier.bias", &[3], F32)
        .floats("pooler.dense.bias", &[6], F32)
        .node("MatMul", "/model/layers.0/mlp/up_proj/MatMul", &["x", "onnx::1"], "h")
        .node("MatMul", "m2", &["h", "onnx::2"], "c")
        .node("Add", "a2", &["c", "classifier.bias"], "logits")
        .node("MatMul", "m3", &["h", "onnx::3"], "p")
        .node("Add", "a3", &["p", "pooler.dense.bias"], "pooled")
        .shaped_output("logits", F32, &[2, 3])
        .shaped_output("pooled", F32, &[2, 6]);
    let linears = net.clone().find(None).0;
    std::fs::write(dir.path().join("m.onnx"), net.encoded()).unwrap();
    let mut adapter = adapters::adapter(&linears, true);
    let splice = |adapter: &Adapter, out: &str| {
        let folder = dir.path().join("adapter");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(WEIGHTS), peft::weights(adapter, DType::F32).unwrap()).unwrap();
        std::fs::write(folder.join(CONFIG), peft::config(adapter, &Base::default())).unwrap();
        let mut command = eva::eva();
        command.current_dir(dir.path()).args(["splice", "m.onnx", "adapter", "--ort-training", "--out", out]);
        let output = command.output().unwrap();
        (output.status.success(), eva::text(&output.stderr))
    };
    let (done, said) = splice(&adapter, "out");
    assert!(done, "{said}");
    let note = "note: left out of the model, since its output `logits` does not depend on them: `pooler.dense`";
    assert!(said.contains(note), "{said}");
    let manifest = std::fs::read_to_string(dir.path().join("out/manifest.json")).unwrap();
    assert!(manifest.contains("lora/model.layers.0.mlp.up_proj/A") && !manifest.contains("lora/pooler.dense"));
    adapter.modules.retain(|module| module.module == "pooler.dense");
    let (done, said) = splice(&adapter, "other");
    assert!(!done && said.contains("no module of the adapter has an effect on its output `logits`"), "{said}");
}
