//! Products of integers: the float tensors around them, which a LoRA branch reads and adds to.

use crate::dtype::DType;
use crate::graph::constant::{self, Operand};
use crate::linear::candidate::{Candidate, Recognised};
use crate::linear::reason::{Fused, Reason};
use crate::onnx::{Graph, NodeId, NodeView, Origin};

/// Most nodes between a product of integers and the float tensor that it stands for.
const MAX_STEPS: usize = 6;

/// The float tensor that was quantized to `name`, or that `name` is dequantized to; nothing if there is none.
pub(super) fn float_before<'m>(graph: &Graph<'m>, scope: usize, name: &'m str) -> Option<&'m str> {
    if let Some(Origin::Node(id)) = graph.origin(scope, name) {
        let node = graph.node(id);
        if ["QuantizeLinear", "DynamicQuantizeLinear"].contains(&node.op()) && node.output() == Some(name) {
            return node.input(0);
        }
    }
    let dequantized = |id: &&NodeId| id.scope == scope && is_dequantize(graph.node(**id), name);
    let reader = graph.readers(scope, name).iter().find(dequantized)?;
    graph.node(*reader).output()
}

fn is_dequantize(node: NodeView<'_>, name: &str) -> bool {
    node.op() == "DequantizeLinear" && node.input(0) == Some(name)
}

/// The float activation behind an operand that was quantized and dequantized again; else the operand itself.
pub(super) fn unquantized<'m>(graph: &Graph<'m>, scope: usize, name: &'m str) -> &'m str {
    let behind = || {
        let Some(Origin::Node(id)) = graph.origin(scope, name) else { return None };
        let node = graph.node(id);
        let quantized = node.input(0).filter(|_| node.op() == "DequantizeLinear")?;
        let Some(Origin::Node(id)) = graph.origin(id.scope, quantized) else { return None };
        let node = graph.node(id);
        node.input(0).filter(|_| node.op() == "QuantizeLinear")
    };
    behind().unwrap_or(name)
}

/// `MatMulInteger`, whose result is cast and multiplied by both scales.
pub(super) fn dynamic<'m>(graph: &Graph<'m>, id: NodeId, node: NodeView<'m>) -> Recognised<'m> {
    let (Some(quantized), Some(product)) = (node.input(0), node.output()) else {
        return Ok(None);
    };
    let Some(weight) = constant::operand(graph, id, 1) else {
        return Ok(None);
    };
    let input = float_before(graph, id.scope, quantized).ok_or(Reason::QuantizedInput)?;
    let scale = scale_of(graph, id.scope, quantized);
    let scaled = scale.and_then(|scale| scaled(graph, id.scope, product, scale));
    let output = scaled.unwrap_or(product);
    let weight = Operand { dtype: DType::F32, ..weight };
    let found = Candidate::new(id, node, input, output, weight, false)?;
    Ok(Some(Candidate { fused: scaled.is_none().then_some(Fused::LateScales), ..found }))
}

/// The tensor with the scale of a quantized activation.
fn scale_of<'m>(graph: &Graph<'m>, scope: usize, quantized: &'m str) -> Option<&'m str> {
    let Some(Origin::Node(id)) = graph.origin(scope, quantized) else { return None };
    let node = graph.node(id);
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
        let [id] = graph.readers(scope, tensor) else { return None };
        let node = graph.node(*id);
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

/// Whether the scale of the input is a factor of `name`, and whether a constant is; nothing if there is any other
/// factor.
fn factors(graph: &Graph<'_>, scope: usize, name: &str, scale: &str, steps: usize) -> Option<(bool, bool)> {
    if name == scale {
        return Some((true, false));
    }
    match graph.origin(scope, name)? {
        Origin::Initializer(_) => Some((false, true)),
        Origin::Node(id) => {
            let node = graph.node(id);
            if node.op() == "Constant" {
                return Some((false, true));
            }
            if node.op() != "Mul" || steps == 0 {
                return None;
            }
            let both = node.inputs().iter().map(|input| factors(graph, id.scope, input, scale, steps - 1));
            both.reduce(|a, b| a.zip(b).map(|(a, b)| (a.0 || b.0, a.1 || b.1)))?
        }
        Origin::Input => None,
    }
}

/// ONNX Runtime's fusions of `MatMulInteger`, whose result is float; `DynamicQuantizeMatMul` also reads floats.
pub(super) fn to_float<'m>(graph: &Graph<'m>, id: NodeId, node: NodeView<'m>) -> Recognised<'m> {
    let (Some(operand), Some(output)) = (node.input(0), node.output()) else {
        return Ok(None);
    };
    let Some(weight) = constant::operand(graph, id, 1) else {
        return Ok(None);
    };
    let (input, bias) = match node.op() {
        "DynamicQuantizeMatMul" => (Some(operand), 4),
        _ => (float_before(graph, id.scope, operand), 6),
    };
    let input = input.ok_or(Reason::QuantizedInput)?;
    let weight = Operand { dtype: DType::F32, ..weight };
    Ok(Some(Candidate::new(id, node, input, output, weight, false)?.with_bias(bias)))
}

/// `QLinearMatMul` and `QGemm`, which read quantized tensors and mostly return them.
pub(super) fn quantized<'m>(graph: &Graph<'m>, id: NodeId, node: NodeView<'m>) -> Recognised<'m> {
    let (Some(operand), Some(product)) = (node.input(0), node.output()) else {
        return Ok(None);
    };
    let (Some(weight), Some(scale)) = (constant::operand(graph, id, 3), constant::operand(graph, id, 4)) else {
        return Ok(None);
    };
    let is_gemm = node.op() == "QGemm";
    if is_gemm && node.flag("transA") {
        return Err(Reason::TransposesInput);
    }
    let input = float_before(graph, id.scope, operand).ok_or(Reason::QuantizedInput)?;
    let returns_float = is_gemm && node.input(7).is_none();
    let output = if returns_float { Some(product) } else { dequantized(graph, id.scope, product) };
    let weight = Operand { dtype: scale.dtype, ..weight };
    let trans_b = is_gemm && node.flag("transB");
    let found = Candidate::new(id, node, input, output.unwrap_or(product), weight, trans_b)?;
    let found = Candidate { product, fused: output.is_none().then_some(Fused::Quantized), ..found };
    Ok(Some(if is_gemm { found.with_bias(6) } else { found }))
}

/// The only float form of a quantized product, after the addition of a bias.
fn dequantized<'m>(graph: &Graph<'m>, scope: usize, product: &'m str) -> Option<&'m str> {
    let mut tensor = product;
    for _ in 0..MAX_STEPS {
        let [id] = graph.readers(scope, tensor) else { return None };
        let node = graph.node(*id);
        let is_constant = |index| constant::operand(graph, *id, index).is_some();
        match node.op() {
            "DequantizeLinear" => return node.output(),
            "QLinearAdd" if is_constant(0) || is_constant(3) => tensor = node.output()?,
            _ => return None,
        }
    }
    None
}
