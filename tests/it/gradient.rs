//! The gradient of every operator, against finite differences on ONNX Runtime.

use crate::support::adapters::{OPTIONS, runtime};
use crate::support::graph::{F32, Net, net, pattern};
use crate::support::tolerance::within;
use eva_onnx::dtype::DType;
use eva_onnx::gradient::{backward, path};
use eva_onnx::onnx::{Constant, Graph, Model, Output, Patch};
use eva_onnx::runtime::{Session, Value};
use eva_onnx::train::measure;

/// Half the distance of the two points of a difference.
const STEP: f32 = 1.0 / 64.0;
/// Error of a central difference extrapolated from STEP and STEP / 2, as a share of the largest gradient: STEP^4 / 480 of
/// a fifth derivative that is at most 1.2e6 times the first here (that of 1 / x at 0.1), and the rounding of sums of at
/// most 100 products around 1, 100 EPSILON / 2, over STEP / 2.
const DIFFERENCE: f64 = (STEP * STEP * STEP * STEP) as f64 * 1.2e6 / 480.0 + 100.0 * f32::EPSILON as f64 / STEP as f64;

/// A graph from the parameters `p` [of this shape] to `y`, to be finished.
pub(crate) fn of(shape: &[i64]) -> Net {
    net().opset(18).shaped_input("p", F32, &vec![-1; shape.len()])
}

pub(crate) fn values(model: &Model, feeds: &[(String, Value)]) -> Vec<Value> {
    let mut session = Session::load(&runtime(), model, OPTIONS).unwrap();
    session.run(feeds.iter().map(|(name, value)| (name.as_str(), value))).unwrap()
}

/// Checks the gradient of `sum(y * seed)` with respect to `p`.
#[track_caller]
pub(crate) fn check(shape: &[i64], net: Net) {
    let size = shape.iter().product::<i64>() as usize;
    check_at(shape, pattern(size).into_iter().map(|value| 0.6 * value + 0.7).collect(), net);
}

#[track_caller]
fn check_at(shape: &[i64], at: Vec<f32>, net: Net) {
    // Tensors cannot be made before ONNX Runtime is loaded.
    runtime();
    let (_dir, model) = net.output("y").open();
    let shape: Vec<usize> = shape.iter().map(|size| *size as usize).collect();
    let feeds = |p: Vec<f32>| vec![("p".to_owned(), Value::f32(&shape, p).unwrap())];
    let y = values(&model, &feeds(at.clone())).remove(0);
    let seed: Vec<f32> = pattern(y.shape().iter().product()).into_iter().map(|value| value + 0.1).collect();
    let loss = |p: Vec<f32>| {
        let y = values(&model, &feeds(p)).remove(0).to_f64().unwrap().1;
        y.iter().zip(&seed).map(|(y, seed)| y * f64::from(*seed)).sum::<f64>()
    };

    let graph = Graph::new(&model);
    let wanted = ["p".to_owned()];
    let path = path(&graph, &wanted, &["y".to_owned()]).unwrap();
    let known = measure(&runtime(), OPTIONS, &model, &path, &feeds(at.clone())).unwrap();
    let found = backward(&graph, &path, &known, &[("y".to_owned(), "seed".to_owned())], &wanted).unwrap();
    let dims = y.shape().into_iter().map(|size| size as i64).collect();
    let output = Output { name: found.gradients["p"].clone(), dtype: Some(DType::F32) };
    let mut patch = Patch { outputs: vec![output], drop_outputs: true, ..Patch::default() };
    patch.constants.push(("seed".to_owned(), Constant::F32(dims, seed.clone())));
    found.graph.add_to(&mut patch);
    let gradient = values(&model.apply(&patch).unwrap(), &feeds(at.clone())).remove(0);
    assert_eq!(gradient.shape(), shape);
    let gradient = gradient.to_f64().unwrap().1;

    let largest = gradient.iter().fold(0.0, |most: f64, value| most.max(value.abs()));
    for (index, gradient) in gradient.iter().enumerate() {
        let moved = |by: f32| {
            let mut p = at.clone();
            p[index] += by;
            loss(p)
        };
        let difference = |step: f32| (moved(step) - moved(-step)) / (2.0 * f64::from(step));
        let slope = (4.0 * difference(STEP / 2.0) - difference(STEP)) / 3.0;
        within(gradient - slope, DIFFERENCE * largest.max(1.0), &format!("element {index}, {gradient} and {slope}"));
    }
}

#[test]
fn functions_of_one_element() {
    let ops = "Abs Cos Erf Exp Gelu Identity Log Neg Reciprocal Relu Sigmoid Sin Softplus Sqrt Tanh";
    for op in ops.split(' ') {
        let set = if op == "Gelu" { 20 } else { 18 };
        check(&[2, 3], of(&[2, 3]).opset(set).node(op, "n", &["p"], "y"));
    }
    check(&[5], of(&[5]).node("LeakyRelu", "n", &["p"], "y").float("alpha", 0.3));
    check(
        &[5],
        of(&[5]).values("low", &[], &[0.5]).values("high", &[], &[0.9]).node("Clip", "n", &["p", "low", "high"], "y"),
    );
    check(&[5], of(&[5]).values("e", &[], &[3.0]).node("Pow", "n", &["p", "e"], "y"));
    check(&[5], of(&[5]).integers("e", &[], &[2]).node("Pow", "n", &["p", "e"], "y"));
}

#[test]
fn operands_of_other_shapes_are_broadcast() {
    for op in ["Add", "Sub", "Mul", "Div", "Max", "Min"] {
        for (shape, other) in
            [(vec![2, 3], vec![4, 2, 3]), (vec![2, 1], vec![2, 3]), (vec![1], vec![2, 2]), (vec![2, 3], vec![3])]
        {
            let constant =
                || of(&shape).floats("c", &other, F32).values("up", &[], &[2.0]).node("Add", "a", &["c", "up"], "b");
            check(&shape, constant().node(op, "n", &["p", "b"], "y"));
            check(&shape, constant().node(op, "n", &["b", "p"], "y"));
        }
        check(&[2, 3], of(&[2, 3]).node("Sigmoid", "s", &["p"], "q").node(op, "n", &["p", "q"], "y"));
    }
}

#[test]
fn a_choice_passes_the_gradient_to_what_was_chosen() {
    let start = || of(&[2, 3]).values("c", &[3], &[0.7, 0.2, 0.9]).node("Greater", "g", &["p", "c"], "is");
    check(&[2, 3], start().node("Where", "n", &["is", "p", "c"], "y"));
    check(&[2, 3], start().node("Where", "n", &["is", "c", "p"], "y"));
    check(
        &[3],
        of(&[3]).bytes("is", &[2, 1], 9, vec![0, 1]).floats("c", &[2, 3], F32).node(
            "Where",
            "n",
            &["is", "p", "c"],
            "y",
        ),
    );
}

#[test]
fn products_of_matrices() {
    let weight = |shape: &[i64], other: &[i64]| of(shape).floats("w", other, F32);
    check(&[2, 3], weight(&[2, 3], &[3, 4]).node("MatMul", "n", &["p", "w"], "y"));
    check(&[2, 2, 3], weight(&[2, 2, 3], &[3, 4]).node("MatMul", "n", &["p", "w"], "y"));
    check(&[3, 2], weight(&[3, 2], &[2, 2, 3]).node("MatMul", "n", &["w", "p"], "y"));
    check(&[1, 3, 2], weight(&[1, 3, 2], &[2, 2, 3]).node("MatMul", "n", &["w", "p"], "y"));
    check(&[2, 2, 3], weight(&[2, 2, 3], &[1, 3, 2]).node("MatMul", "n", &["p", "w"], "y"));
    let turned = of(&[2, 2, 3]).node("Transpose", "t", &["p"], "q").ints("perm", &[0, 2, 1]);
    check(&[2, 2, 3], turned.node("MatMul", "n", &["p", "q"], "y"));
    for (a, b) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let sides = |net: Net| net.int("transA", a).int("transB", b).float("alpha", 0.5).float("beta", 2.0);
        let of_a = weight(&[3, 3], &[3, 3]).floats("c", &[3], F32);
        check(&[3, 3], sides(of_a.node("Gemm", "n", &["p", "w", "c"], "y")));
        check(&[3, 3], sides(weight(&[3, 3], &[3, 3]).node("Gemm", "n", &["w", "p"], "y")));
        check(&[3], sides(weight(&[3], &[3, 3]).node("Gemm", "n", &["w", "w", "p"], "y")));
    }
}

#[test]
fn sums_means_and_what_is_divided_by_them() {
    let axes = |shape: &[i64], values: &[i64]| of(shape).integers("axes", &[values.len() as i64], values);
    for op in ["ReduceSum", "ReduceMean"] {
        check(&[2, 3], axes(&[2, 3], &[-1]).node(op, "n", &["p", "axes"], "y").int("keepdims", 0));
        check(&[2, 3, 2], axes(&[2, 3, 2], &[0, 2]).node(op, "n", &["p", "axes"], "y"));
        check(&[2, 3], of(&[2, 3]).node(op, "n", &["p"], "y"));
    }
    check(&[2, 3], of(&[2, 3]).opset(13).node("ReduceMean", "n", &["p"], "y").ints("axes", &[1]).int("keepdims", 0));
    for op in ["Softmax", "LogSoftmax"] {
        check(&[2, 3], of(&[2, 3]).node(op, "n", &["p"], "y"));
        check(&[2, 3], of(&[2, 3]).node(op, "n", &["p"], "y").int("axis", 0));
    }
    let scaled = |shape: &[i64]| of(shape).floats("s", &[3], F32).floats("b", &[3], F32);
    check(&[2, 3], scaled(&[2, 3]).node("LayerNormalization", "n", &["p", "s", "b"], "y").float("epsilon", 0.1));
    check(&[2, 3], scaled(&[2, 3]).node("SimplifiedLayerNormalization", "n", &["p", "s"], "y").float("epsilon", 0.1));
    let skip = |op: &str, net: Net, more: &[&str]| {
        let node = net.node(op, "n", &[&["p", "other", "s"], more].concat(), "z   sum").float("epsilon", 0.1);
        node.node("Mul", "m", &["z", "sum"], "y")
    };
    let both = |shape: &[i64]| scaled(shape).floats("other", &[1, 2, 3], F32);
    check(&[1, 2, 3], skip("com.microsoft:SkipLayerNormalization", both(&[1, 2, 3]), &["b", "b"]));
    check(&[1, 2, 3], skip("com.microsoft:SkipSimplifiedLayerNormalization", both(&[1, 2, 3]), &["b"]));
}

#[test]
fn elements_that_move() {
    let ints = |net: Net, name: &str, values: &[i64]| net.integers(name, &[values.len() as i64], values);
    check(&[2, 3], ints(of(&[2, 3]), "shape", &[3, -1]).node("Reshape", "n", &["p", "shape"], "y"));
    check(&[2, 3], of(&[2, 3]).node("Flatten", "n", &["p"], "y").int("axis", 0));
    check(&[2, 1], ints(of(&[2, 1]), "axes", &[1]).node("Squeeze", "n", &["p", "axes"], "y"));
    check(&[2, 3], ints(of(&[2, 3]), "axes", &[0, 2]).node("Unsqueeze", "n", &["p", "axes"], "y"));
    check(&[2, 3, 2], of(&[2, 3, 2]).node("Transpose", "n", &["p"], "y").ints("perm", &[2, 0, 1]));
    check(&[2, 3], of(&[2, 3]).node("Transpose", "n", &["p"], "y"));
    check(&[2, 1], ints(of(&[2, 1]), "shape", &[3, 2, 3]).node("Expand", "n", &["p", "shape"], "y"));
    check(&[2, 3], ints(of(&[2, 3]), "pads", &[1, 0, 0, 2]).node("Pad", "n", &["p", "pads"], "y"));
    let twice = of(&[2, 3]).floats("c", &[2, 2], F32).node("Exp", "e", &["p"], "q");
    check(&[2, 3], twice.node("Concat", "n", &["p", "c", "q"], "y").int("axis", -1));
    let sizes = ints(of(&[2, 6]), "sizes", &[1, 3, 2]);
    let split = sizes.node("Split", "n", &["p", "sizes"], "a b c").int("axis", 1);
    check(&[2, 6], split.node("Sin", "s", &["b"], "y"));
}

#[test]
fn slices() {
    let slice = |starts: &[i64], ends: &[i64], axes: &[i64]| {
        let net = [("starts", starts), ("ends", ends), ("axes", axes)];
        let net =
            net.iter().fold(of(&[3, 4]), |net, (name, values)| net.integers(name, &[values.len() as i64], values));
        net.node("Slice", "n", &["p", "starts", "ends", "axes"], "y")
    };
    check(&[3, 4], slice(&[0], &[2], &[1]));
    check(&[3, 4], slice(&[-3], &[i64::MAX], &[-1]));
    check(&[3, 4], slice(&[1, -9], &[9, -1], &[0, 1]));
    let plain = of(&[3, 4]).integers("starts", &[2], &[1, 2]).integers("ends", &[2], &[3, 9]);
    check(&[3, 4], plain.node("Slice", "n", &["p", "starts", "ends"], "y"));
}

/// The same graph over parameters whose sizes are declared.
fn sized(shape: &[i64]) -> Net {
    net().opset(18).shaped_input("p", F32, shape)
}

#[test]
fn parts_that_make_up_a_whole_are_joined() {
    let part = |net: Net, to: &str, bounds: [i64; 2]| {
        let [start, end] = bounds.map(|at| format!("{to}{at}"));
        let net = net.integers(&start, &[1], &bounds[..1]).integers(&end, &[1], &bounds[1..]);
        net.node("Slice", to, &["p", &start, &end, "last"], to)
    };
    let parts = |bounds: &[[i64; 2]]| {
        let net = sized(&[3, 4]).integers("last", &[1], &[-1]);
        let names: Vec<String> = (0..bounds.len()).map(|index| format!("s{index}")).collect();
        let net = names.iter().zip(bounds).fold(net, |net, (name, bounds)| part(net, name, *bounds));
        let net = names
            .iter()
            .zip(["Sin", "Exp", "Neg"])
            .fold(net, |net, (name, op)| net.node(op, &format!("{op}-of"), &[name], &format!("{name}-done")));
        let done: Vec<String> = names.iter().map(|name| format!("{name}-done")).collect();
        let done: Vec<&str> = done.iter().map(String::as_str).collect();
        net.node("Concat", "all", &done, "y").int("axis", 1)
    };
    check(&[3, 4], parts(&[[0, 2], [2, i64::MAX]]));
    check(&[3, 4], parts(&[[-2, 9], [0, -2], [-2, 4]]));
    check(&[3, 4], parts(&[[0, 4]]));
    // One is left out, and two overlap.
    check(&[3, 4], parts(&[[0, 1], [2, 4]]));
    check(&[3, 4], parts(&[[0, 3], [1, 4]]));
}

#[test]
fn what_a_mean_gives_each_element_is_not_repeated_before_a_product() {
    let last = |net: Net| net.integers("last", &[1], &[-1]).values("e", &[], &[0.1]).values("two", &[], &[2.0]);
    let rms = |net: Net| {
        let net =
            last(net).node("Pow", "n1", &["p", "two"], "square").node("ReduceMean", "n2", &["square", "last"], "mean");
        let net = net.node("Add", "n3", &["mean", "e"], "above").node("Sqrt", "n4", &["above"], "root");
        net.node("Reciprocal", "n5", &["root"], "inverse").node("Mul", "n6", &["p", "inverse"], "y")
    };
    check(&[2, 3], rms(of(&[2, 3])));
    check(&[2, 3], rms(sized(&[2, 3])));
    let product = |net: Net, other: &str| {
        let net = last(net).node("Sin", "n1", &["p"], "q").node("Mul", "n2", &["q", other], "r");
        net.node("ReduceMean", "n3", &["r", "last"], "y")
    };
    for other in ["p", "row"] {
        check(&[2, 3], product(sized(&[2, 3]).floats("row", &[3], F32), other));
        check(&[2, 3], product(sized(&[2, 3]).floats("row", &[2, 2, 3], F32), other));
    }
    let twice = last(sized(&[2, 3])).node("ReduceSum", "n1", &["p", "last"], "s");
    let twice = twice.node("ReduceSum", "n2", &["s"], "t").int("keepdims", 0);
    check(&[2, 3], twice.node("Exp", "n3", &["t"], "y"));
}

#[test]
fn swish_has_a_rule_of_its_own() {
    let gate = |net: Net| net.node("Sigmoid", "s", &["p"], "gate");
    check(&[2, 3], gate(of(&[2, 3])).node("Mul", "m", &["p", "gate"], "y"));
    check(&[2, 3], gate(of(&[2, 3])).node("Mul", "m", &["gate", "p"], "y"));
    // The gate has another reader.
    let other = gate(sized(&[2, 3])).node("Mul", "m", &["p", "gate"], "x").node("Exp", "e", &["gate"], "z");
    check(&[2, 3], other.node("Mul", "n", &["x", "z"], "y"));
    let of_other = of(&[2, 3]).node("Sin", "o", &["p"], "q").node("Sigmoid", "s", &["q"], "gate");
    check(&[2, 3], of_other.node("Mul", "m", &["p", "gate"], "y"));
}

#[test]
fn shapes_that_are_known_are_constants() {
    let shaped = |net: Net, shape: &[i64]| net.integers("shape", &[shape.len() as i64], shape);
    check(
        &[2, 3],
        shaped(sized(&[2, 3]), &[3, 2]).node("Reshape", "n", &["p", "shape"], "q").node("Sin", "s", &["q"], "y"),
    );
    let named = || net().opset(18).named_input("p", F32, &["batch", "length", "6"]);
    check(
        &[2, 3, 6],
        shaped(named(), &[0, 0, 2, 3]).node("Reshape", "n", &["p", "shape"], "q").node("Sin", "s", &["q"], "y"),
    );
    check(
        &[2, 3, 6],
        shaped(named(), &[-1, 6]).node("Reshape", "n", &["p", "shape"], "q").node("Sin", "s", &["q"], "y"),
    );
    let joined = named().floats("c", &[2, 3, 2], F32).node("Exp", "e", &["p"], "q");
    check(&[2, 3, 6], joined.node("Concat", "n", &["c", "q", "p"], "y").int("axis", -1));
}

#[test]
fn elements_by_index() {
    let indices = |dims: &[i64], values: &[i64]| of(&[3, 4]).integers("i", dims, values);
    for axis in [0, 1] {
        check(&[3, 4], indices(&[], &[1]).node("Gather", "n", &["p", "i"], "y").int("axis", axis));
        check(&[3, 4], indices(&[2, 2], &[0, 2, -1, 0]).node("Gather", "n", &["p", "i"], "y").int("axis", axis));
        check(
            &[3, 4],
            indices(&[2, 3], &[0, 1, 1, 2, 0, 1]).node("GatherElements", "n", &["p", "i"], "y").int("axis", axis),
        );
        check(&[3, 4], indices(&[1], &[2]).node("TopK", "n", &["p", "i"], "y found").int("axis", axis));
    }
    check(&[3, 4], indices(&[2, 1], &[2, 2]).node("GatherND", "n", &["p", "i"], "y"));
    let into = |shape: &[i64], data: &[i64]| of(shape).integers("i", &[2, 1], &[2, 0]).floats("c", data, F32);
    check(&[3, 4], into(&[3, 4], &[2, 4]).node("ScatterND", "n", &["p", "i", "c"], "y"));
    check(&[2, 4], into(&[2, 4], &[3, 4]).node("ScatterND", "n", &["c", "i", "p"], "y"));
    let along = |shape: &[i64], data: &[i64]| of(shape).integers("i", &[2, 2], &[2, 0, 1, 1]).floats("c", data, F32);
    check(&[3, 4], along(&[3, 4], &[2, 2]).node("ScatterElements", "n", &["p", "i", "c"], "y"));
    check(&[2, 2], along(&[2, 2], &[3, 4]).node("ScatterElements", "n", &["c", "i", "p"], "y"));
}

#[test]
fn nodes_may_be_in_any_order_and_gradients_add_up() {
    let net =
        of(&[4]).node("Add", "last", &["a", "b"], "y").node("Sin", "s", &["p"], "a").node("Exp", "e", &["p"], "b");
    check(&[4], net);
}

#[track_caller]
fn refused(net: Net, reason: &str) {
    runtime();
    let (_dir, model) = net.output("y").open();
    let graph = Graph::new(&model);
    let wanted = ["p".to_owned()];
    let result = path(&graph, &wanted, &["y".to_owned()]).map_err(|error| error.to_string()).and_then(|path| {
        let feeds = [("p".to_owned(), Value::f32(&[2, 3], vec![0.5; 6]).unwrap())];
        let known = measure(&runtime(), OPTIONS, &model, &path, &feeds).unwrap();
        let seeds = [("y".to_owned(), "seed".to_owned())];
        backward(&graph, &path, &known, &seeds, &wanted).map(drop).map_err(|error| error.to_string())
    });
    assert_eq!(result.unwrap_err(), reason);
}

#[test]
fn what_has_no_gradient_is_named() {
    refused(
        of(&[2, 3]).node("Elu", "d", &["p"], "y"),
        "gradients do not reach the adapter: Elu `d` has no gradient here",
    );
    let steps = of(&[2, 3]).integers("a", &[1], &[0]).integers("b", &[1], &[9]).integers("s", &[1], &[2]);
    refused(
        steps.node("Slice", "n", &["p", "a", "b", "a", "s"], "y"),
        "gradients do not reach the adapter: Slice `n` has no gradient with steps other than 1",
    );
    refused(
        of(&[2, 3]).opset(12).node("Exp", "n", &["p"], "y"),
        "the model uses operator set 12, and gradients need at least 13",
    );
    refused(
        of(&[2, 3]).node("Shape", "n", &["p"], "y"),
        "the loss does not depend on the adapter: no tensor of `p` and the other modules reaches it",
    );
}
