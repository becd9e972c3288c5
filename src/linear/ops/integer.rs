//! Products of integers: the float tensors around them, which are what a branch reads and adds to.

use crate::dtype::DType;
use crate::graph::constant::{self, Operand};
use crate::linear::candidate::{Candidate, Found, matrix};
use crate::onnx::{Graph, NodeView, Origin, Place};

/// Why no branch can be added, where integers follow on integers.
const QUANTIZED_RESULT: &str = "its result goes on in quantized form, so that no float tensor holds it";

/// Longest way from a product of integers to the float tensor that it stands for.
const MAX_STEPS: usize = 6;

/// The float tensor that `name` is the quantized form of, or is dequantized from; nothing if there is none.
pub(crate) fn float_before<'m>(graph: &Graph<'m>, scope: usize, name: &'m str) -> Option<&'m str> {
    if let Some(Origin::Node(place)) = graph.origin(scope, name) {
        let node = graph.node(place);
        if ["QuantizeLinear", "DynamicQuantizeLinear"].contains(&node.op()) && node.output() == Some(name) {
            return node.input(0);
        }
    }
    let dequantized = |place: &&Place| place.scope == scope && is_dequantize(graph.node(**place), name);
    let reader = graph.readers(scope, name).iter().find(dequantized)?;
    graph.node(*reader).output()
}

fn is_dequantize(node: NodeView<'_>, name: &str) -> bool {
    node.op() == "DequantizeLinear" && node.input(0) == Some(name)
}

/// The float activation behind an operand that was quantized and dequantized again; else the operand itself.
pub(crate) fn unquantized<'m>(graph: &Graph<'m>, scope: usize, name: &'m str) -> &'m str {
    let behind = || {
        let Some(Origin::Node(place)) = graph.origin(scope, name) else { return None };
        let node = graph.node(place);
        let quantized = node.input(0).filter(|_| node.op() == "DequantizeLinear")?;
        let Some(Origin::Node(place)) = graph.origin(place.scope, quantized) else { return None };
        let node = graph.node(place);
        node.input(0).filter(|_| node.op() == "QuantizeLinear")
    };
    behind().unwrap_or(name)
}

/// `MatMulInteger`, whose result is cast and multiplied by both scales.
pub(crate) fn dynamic<'m>(graph: &Graph<'m>, place: Place, node: NodeView<'m>) -> Found<'m> {
    let Some(weight) = node.input(1).and_then(|name| constant::resolve(graph, place.scope, name)) else {
        return Ok(None);
    };
    let (Some(quantized), Some(product)) = (node.input(0), node.output()) else {
        return Ok(None);
    };
    let input = float_before(graph, place.scope, quantized).ok_or("its input exists in quantized form only")?;
    let scale = scale_of(graph, place.scope, quantized);
    let (output, fused) = match scale.and_then(|scale| scaled(graph, place.scope, product, scale)) {
        Some(output) => (output, None),
        None => (product, Some("the scales of its result are not applied right after it")),
    };
    let dtype = DType::F32;
    candidate(place, node, input, output, Operand { dtype, ..weight }, false)
        .map(|found| found.map(|found| Candidate { fused, ..found }))
}

/// The tensor that holds the scale of a quantized activation.
fn scale_of<'m>(graph: &Graph<'m>, scope: usize, quantized: &'m str) -> Option<&'m str> {
    let Some(Origin::Node(place)) = graph.origin(scope, quantized) else { return None };
    let node = graph.node(place);
    match node.op() {
        "DynamicQuantizeLinear" => node.outputs().get(1).map(String::as_str),
        "QuantizeLinear" => node.input(1),
        _ => None,
    }
}

/// The tensor in which `product` is multiplied by the scale `scale` of its input and by that of its weight.
fn scaled<'m>(graph: &Graph<'m>, scope: usize, product: &'m str, scale: &str) -> Option<&'m str> {
    let mut tensor = product;
    let (mut of_input, mut of_weight) = (false, false);
    for _ in 0..MAX_STEPS {
        let [place] = graph.readers(scope, tensor) else { return None };
        let node = graph.node(*place);
        match node.op() {
            "Cast" => {}
            "Mul" => {
                let factor = node.inputs().iter().map(String::as_str).find(|name| *name != tensor)?;
                let (input, weight) = factors(graph, scope, factor, scale, MAX_STEPS)?;
                of_input |= input;
                of_weight |= weight;
            }
            _ => return None,
        }
        tensor = node.output()?;
        if of_input && of_weight {
            return Some(tensor);
        }
    }
    None
}

/// Whether `name` has the input's scale as a factor, and whether a constant; nothing if it has any other factor.
fn factors(graph: &Graph<'_>, scope: usize, name: &str, scale: &str, steps: usize) -> Option<(bool, bool)> {
    if name == scale {
        return Some((true, false));
    }
    match graph.origin(scope, name)? {
        Origin::Initializer(_) => Some((false, true)),
        Origin::Node(place) => {
            let node = graph.node(place);
            if node.op() == "Constant" {
                return Some((false, true));
            }
            if node.op() != "Mul" || steps == 0 {
                return None;
            }
            let both = node.inputs().iter().map(|input| factors(graph, place.scope, input, scale, steps - 1));
            both.reduce(|a, b| a.zip(b).map(|(a, b)| (a.0 || b.0, a.1 || b.1)))?
        }
        Origin::Input => None,
    }
}

/// ONNX Runtime's fusions of `MatMulInteger`, whose result is float; `DynamicQuantizeMatMul` also reads floats.
pub(crate) fn to_float<'m>(graph: &Graph<'m>, place: Place, node: NodeView<'m>) -> Found<'m> {
    let Some(weight) = node.input(1).and_then(|name| constant::resolve(graph, place.scope, name)) else {
        return Ok(None);
    };
    let (Some(operand), Some(output)) = (node.input(0), node.output()) else {
        return Ok(None);
    };
    let (input, bias) = match node.op() {
        "DynamicQuantizeMatMul" => (Some(operand), 4),
        _ => (float_before(graph, place.scope, operand), 6),
    };
    let input = input.ok_or("its input exists in quantized form only")?;
    let dtype = DType::F32;
    let found = candidate(place, node, input, output, Operand { dtype, ..weight }, false)?;
    Ok(found.map(|found| Candidate { bias_input: node.input(bias).map(|_| bias), ..found }))
}

/// `QLinearMatMul` and `QGemm`, which read and mostly return quantized tensors.
pub(crate) fn quantized<'m>(graph: &Graph<'m>, place: Place, node: NodeView<'m>) -> Found<'m> {
    let constant = |index| node.input(index).and_then(|name| constant::resolve(graph, place.scope, name));
    let Some((weight, scale)) = constant(3).zip(constant(4)) else {
        return Ok(None);
    };
    let (Some(operand), Some(product)) = (node.input(0), node.output()) else {
        return Ok(None);
    };
    let gemm = node.op() == "QGemm";
    if gemm && node.int("transA").is_some_and(|set| set != 0) {
        return Err("it transposes its input".to_owned());
    }
    let input = float_before(graph, place.scope, operand).ok_or("its input exists in quantized form only")?;
    let stays_float = gemm && node.input(7).is_none();
    let output = if stays_float { Some(product) } else { dequantized(graph, place.scope, product) };
    let trans_b = gemm && node.int("transB").is_some_and(|set| set != 0);
    let bias_input = node.input(6).filter(|_| gemm).map(|_| 6);
    let fused = output.is_none().then_some(QUANTIZED_RESULT);
    let weight = Operand { dtype: scale.dtype, ..weight };
    let found = candidate(place, node, input, output.unwrap_or(product), weight, trans_b)?;
    Ok(found.map(|found| Candidate { bias_input, product, fused, ..found }))
}

/// The only float form of a quantized product, after the addition of a bias.
fn dequantized<'m>(graph: &Graph<'m>, scope: usize, product: &'m str) -> Option<&'m str> {
    let mut tensor = product;
    for _ in 0..MAX_STEPS {
        let [place] = graph.readers(scope, tensor) else { return None };
        let node = graph.node(*place);
        let constant = |index| node.input(index).is_some_and(|name| constant::resolve(graph, scope, name).is_some());
        match node.op() {
            "DequantizeLinear" => return node.output(),
            "QLinearAdd" if constant(0) || constant(3) => tensor = node.output()?,
            _ => return None,
        }
    }
    None
}

fn candidate<'m>(
    place: Place,
    node: NodeView<'m>,
    input: &'m str,
    output: &'m str,
    weight: Operand<'m>,
    trans_b: bool,
) -> Found<'m> {
    let (rows, columns) = matrix(&weight)?;
    let (in_features, out_features) = if trans_b { (columns, rows) } else { (rows, columns) };
    let stored_in_out = weight.transposed == trans_b;
    let (bias_input, product, fused) = (None, output, None);
    Ok(Some(Candidate {
        place,
        node,
        input,
        output,
        product,
        fused,
        weight,
        bias_input,
        in_features,
        out_features,
        stored_in_out,
    }))
}
