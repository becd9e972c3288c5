//! The loss, and what ONNX Runtime Training asks of a graph: each rule on a graph that breaks it.

use crate::support::adapters;
use crate::support::graphs;

use adapters::{OPTIONS, runtime};
use eva_onnx::onnx::{Graph, Model, Patch};
use eva_onnx::runtime::{Session, Value};
use eva_onnx::splice::{self, LossEdit, Task};
use graphs::{Net, floats, int, ints, node, value};

/// `x [2, 4] -> MatMul(A) -> ... -> y`, with A [4, 6] to be trained; `nodes` make `y` of `h`.
fn net(nodes: Vec<onnx_protobuf::NodeProto>) -> Net {
    let mut net = Net::empty(17);
    net.graph.input = vec![value("x", 1, &[2, 4])];
    net.graph.output = vec![value("y", 1, &[2, 6])];
    net.graph.initializer = vec![floats("A", &[4, 6])];
    net.graph.node = vec![node("first", "MatMul", &["x", "A"], &["h"])];
    net.graph.node.extend(nodes);
    net
}

fn prepared(net: &Net) -> Result<(Model, Patch), String> {
    let dir = tempfile::tempdir().unwrap();
    let model = net.save(dir.path());
    let patch = splice::prepare(&model, &["A".to_owned()], "y").map_err(|error| error.to_string())?;
    let edited = model.apply(&patch).unwrap();
    assert_eq!(evaluate(&edited), evaluate(&model));
    // What has been prepared needs nothing more.
    let again = splice::prepare(&edited, &["A".to_owned()], "y").unwrap();
    assert_eq!(again, Patch::default());
    Ok((edited, patch))
}

fn evaluate(model: &Model) -> Vec<f64> {
    let mut session = Session::load(&runtime(), model, OPTIONS).unwrap();
    let x = Value::f32(&[2, 4], (0..8).map(|i| 0.3 * i as f32 - 1.0).collect()).unwrap();
    session.run([("x", &x)]).unwrap()[0].to_f64().unwrap().1
}

#[track_caller]
fn refused(net: &Net, reason: &str) {
    let message = format!("ONNX Runtime Training 1.19.2 cannot train this model: {reason}");
    assert_eq!(prepared(net).err().unwrap(), message);
}

#[test]
fn normalizations_get_their_outputs_and_a_bias_and_share_nothing() {
    let norm = |name: &str, input: &str, more: &[&str], output: &str| {
        node(name, "LayerNormalization", &[&[input, "scale"], more].concat(), &[output])
    };
    let again = node("same", "Identity", &["bias"], &["bias2"]);
    let mut net =
        net(vec![again, norm("n0", "h", &["bias"], "a"), norm("n1", "a", &["bias2"], "b"), norm("n2", "b", &[], "y")]);
    net.graph.initializer.extend([floats("scale", &[6]), floats("bias", &[6])]);
    let (model, patch) = prepared(&net).unwrap();
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
    let mut net = net(vec![
        node("turn", "Transpose", &["w_t"], &["w"]),
        node("p", "MatMul", &["h", "w"], &["q"]),
        node("turn_result", "Transpose", &["q"], &["t"]),
        node("back", "Transpose", &["t"], &["y"]),
    ]);
    net.graph.initializer.push(floats("w_t", &[6, 6]));
    net.graph.value_info = vec![value("q", 1, &[2, 6]), value("t", 1, &[6, 2])];
    let (model, _) = prepared(&net).unwrap();
    let graph = Graph::new(&model);
    let turned = graph.nodes(0).filter(|(_, n)| n.op() == "Transpose");
    assert!(turned.into_iter().all(|(_, n)| n.ints("perm") == Some(&[1, 0][..])));
    net.graph.value_info.clear();
    refused(&net, "the order of the axes of `turn_result` is not given");
}

#[test]
fn every_node_gets_a_name_of_its_own() {
    let net = net(vec![
        node("", "Neg", &["h"], &["a"]),
        node("first", "Neg", &["a"], &["b"]),
        node("", "Neg", &["b"], &["y"]),
    ]);
    let dir = tempfile::tempdir().unwrap();
    // ONNX Runtime does not even load it as it is.
    let model = net.save(dir.path());
    let model = model.apply(&splice::prepare(&model, &["A".to_owned()], "y").unwrap()).unwrap();
    evaluate(&model);
    let graph = Graph::new(&model);
    let names: Vec<_> = graph.nodes(0).map(|(_, n)| n.name()).collect();
    assert_eq!(names, ["first", "lora/node/1", "lora/node/2", "lora/node/3"]);
}

#[test]
fn exponents_become_floats() {
    let mut net = net(vec![node("square", "Pow", &["h", "two"], &["y"])]);
    net.graph.initializer.push(ints("two", &[], &[2]));
    let (model, _) = prepared(&net).unwrap();
    assert_eq!(model.tensor("lora/y/exponent").unwrap().bytes().unwrap().as_ref(), 2f32.to_le_bytes());
}

#[test]
fn a_split_with_an_unused_result_becomes_slices() {
    let mut split = node("split", "Split", &["h", "sizes"], &["a", "unused", "b"]);
    split.attribute.push(int("axis", 1));
    let mut join = node("join", "Concat", &["a", "b", "a"], &["y"]);
    join.attribute.push(int("axis", 1));
    let mut net = net(vec![split, join]);
    net.graph.initializer.push(ints("sizes", &[3], &[2, 2, 2]));
    let (model, _) = prepared(&net).unwrap();
    let graph = Graph::new(&model);
    let lines: Vec<String> =
        graph.nodes(0).map(|(_, n)| format!("{:?} = {}{:?}", n.outputs(), n.op(), n.inputs())).collect();
    insta::assert_snapshot!("splice_split", lines.join("\n"));
    // All results used: nothing changes.
    net.graph.node[2].input = ["a", "b", "unused"].map(str::to_owned).to_vec();
    assert_eq!(prepared(&net).unwrap().1, Patch::default());
}

#[test]
fn what_has_no_gradient_is_listed() {
    let mut net = net(vec![
        node("c1", "CumSum", &["h", "axis"], &["a"]),
        node("c2", "CumSum", &["a", "axis"], &["b"]),
        node("m", "Mish", &["b"], &["y"]),
        node("beside", "Mish", &["h"], &["nobody"]),
        node("before", "Mish", &["x"], &["nobody_either"]),
    ]);
    net.opset = 18;
    net.graph.initializer.push(ints("axis", &[], &[1]));
    refused(
        &net,
        "the operator CumSum (`c1` and 1 more) has no gradient there; the operator Mish (`m`) has no gradient there",
    );
    let mut net = self::net(vec![node("turn", "Slice", &["h", "from", "to", "axis", "step"], &["y"])]);
    net.graph.initializer.extend([ints("from", &[1], &[-1]), ints("to", &[1], &[-9]), ints("axis", &[1], &[1])]);
    net.graph.initializer.push(ints("step", &[1], &[-1]));
    refused(&net, "`turn` slices backwards, which has no gradient there");
}

#[test]
fn shapes_need_no_gradient() {
    let mut net = net(vec![
        node("shape", "Shape", &["h"], &["s"]),
        node("sum", "CumSum", &["s", "zero"], &["unused"]),
        node("reshape", "Reshape", &["h", "s"], &["y"]),
    ]);
    net.graph.initializer.push(ints("zero", &[], &[0]));
    assert_eq!(prepared(&net).unwrap().1, Patch::default());
}

#[test]
fn versions_have_a_ceiling() {
    for (opset, known) in [(11, false), (12, true), (21, true), (22, false), (23, false)] {
        let mut net = net(vec![node("n", "Neg", &["h"], &["y"])]);
        net.opset = opset;
        if known {
            assert_eq!(prepared(&net).unwrap().1, Patch::default(), "{opset}");
        } else {
            refused(&net, &format!("it uses operator set {opset}, and only 12 to 21 are known there"));
        }
    }
    let mut net = net(vec![node("n", "Neg", &["h"], &["y"])]);
    net.ir_version = 11;
    assert_eq!(prepared(&net).unwrap().0.ir_version(), 10);
}

/// The loss of `logits` against labels, by ONNX Runtime and by hand.
#[track_caller]
fn scored(shape: &[i64], task: Option<Task>, labels: &[i64]) {
    let mut net = Net::empty(17);
    net.graph.input = vec![value("x", 1, shape)];
    net.graph.output = vec![value("other", 1, shape), value("logits", 1, shape)];
    net.graph.node = vec![node("a", "Neg", &["x"], &["other"]), node("b", "Neg", &["other"], &["logits"])];
    let dir = tempfile::tempdir().unwrap();
    let model = net.save(dir.path());
    let LossEdit { patch, task, logits } = splice::loss(&model, task, None).unwrap();
    assert_eq!(logits, "logits");
    let model = model.apply(&patch).unwrap();
    let names = |values: Vec<eva_onnx::onnx::ValueInfo>| values.into_iter().map(|value| value.name).collect::<Vec<_>>();
    assert_eq!(
        (names(model.inputs()), names(model.outputs())),
        (vec!["x".into(), "labels".into()], vec!["loss".into(), "logits".into()])
    );

    let sizes: Vec<usize> = shape.iter().map(|size| *size as usize).collect();
    let x: Vec<f32> = (0..sizes.iter().product()).map(|i| ((i * 7) % 11) as f32 / 4.0).collect();
    let classes = sizes[sizes.len() - 1];
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
    assert!((got - expected).abs() < 1e-5 * expected.abs(), "{got} is not {expected}");
}

#[test]
fn the_loss_is_the_mean_over_labels_that_count() {
    scored(&[2, 4, 5], None, &[0, 1, 2, -100, -100, 3, 4, 0]);
    scored(&[3, 5], None, &[4, -100, 2]);
    scored(&[3, 5], Some(Task::Classification), &[0, 1, 2]);
}

#[test]
fn a_model_without_logits_has_no_loss() {
    let check = |element, shape: &[i64], message: &str| {
        let mut net = Net::empty(17);
        (net.graph.input, net.graph.output) = (vec![value("x", element, shape)], vec![value("y", element, shape)]);
        net.graph.node = vec![node("n", "Neg", &["x"], &["y"])];
        let dir = tempfile::tempdir().unwrap();
        let error = splice::loss(&net.save(dir.path()), None, None).err().unwrap().to_string();
        assert_eq!(error, format!("ONNX Runtime Training 1.19.2 cannot train this model: {message}"));
    };
    check(10, &[2, 5], "its output `y` has type f16, and the loss needs f32");
    check(1, &[2, 3, 4, 5], "its output `y` has 4 dimensions, and --loss says what it means");
}
