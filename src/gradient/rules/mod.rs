//! The gradients of operators, one rule each.
//!
//! A rule is given the gradients of a node's results and adds nodes for those of its operands. With `g` the gradient of
//! the first result, the rules in these files state each gradient as a formula.

mod attention;
mod elementwise;
mod gelu;
mod indices;
mod layout;
mod normalization;
mod products;
mod quantized;
mod reductions;
mod rotary;
mod straight;

use super::error::Unsupported;
use super::tape::{Operands, Tape};
use crate::onnx::NodeView;

/// The gradients of the operands of `node`, from those of its results.
pub(super) fn apply<'a>(tape: &mut Tape<'a>, node: NodeView<'a>, results: &[Option<String>]) -> Operands {
    if node.domain().is_empty() && node.op() == "Split" {
        return layout::split(tape, node, results);
    }
    match (node.domain(), node.op()) {
        ("", "DynamicQuantizeLinear") => return straight::dynamic_quantize(tape, node, results),
        ("com.microsoft", "SkipLayerNormalization") => return normalization::skip(tape, node, results, true),
        ("com.microsoft", "SkipSimplifiedLayerNormalization") => {
            return normalization::skip(tape, node, results, false);
        }
        _ => {}
    }
    let [Some(gradient), rest @ ..] = results else {
        return Err(Unsupported::Operator);
    };
    if rest.iter().any(Option::is_some) {
        return Err(Unsupported::Form("through its second result"));
    }
    match (node.domain(), node.op()) {
        ("", _) => plain(tape, node, gradient),
        ("com.microsoft", op) => contributed(tape, node, op, gradient),
        _ => Err(Unsupported::Operator),
    }
}

/// Operators that round activations to integers.
const ROUNDING: [&str; 2] = ["DynamicQuantizeLinear", "QuantizeLinear"];

/// Whether a node rounds, so that no difference of the loss can confirm the gradient.
pub(super) fn rounds(node: NodeView<'_>) -> bool {
    node.domain().is_empty() && ROUNDING.contains(&node.op())
}

/// The rules of ONNX Runtime's domain, from the gradient of the first result.
fn contributed<'a>(tape: &mut Tape<'a>, node: NodeView<'a>, op: &str, g: &str) -> Operands {
    match op {
        "Attention" => attention::packed(tape, node, g),
        "MultiHeadAttention" => attention::multi_head(tape, node, g),
        "BiasGelu" | "Gelu" => gelu::exact(tape, node, g),
        "FastGelu" => gelu::by_tanh(tape, node, g),
        "QuickGelu" => gelu::by_sigmoid(tape, node, g),
        "MatMulBnb4" => quantized::matmul_bnb4(tape, node, g),
        "MatMulNBits" => quantized::matmul_n_bits(tape, node, g),
        "RotaryEmbedding" => rotary::rotary(tape, node, g),
        _ => Err(Unsupported::Operator),
    }
}

/// The rules of the default domain, from the gradient of the first result.
fn plain<'a>(tape: &mut Tape<'a>, node: NodeView<'a>, g: &str) -> Operands {
    match node.op() {
        "Abs" => elementwise::abs(tape, node, g),
        "Add" | "Sum" => elementwise::add(tape, node, g),
        "Cast" | "CastLike" => straight::cast(tape, node, g),
        "Clip" => elementwise::clip(tape, node, g),
        "Cos" => elementwise::cos(tape, node, g),
        "Div" => elementwise::div(tape, node, g),
        "Dropout" | "Identity" => elementwise::identity(tape, node, g),
        "Erf" => elementwise::erf(tape, node, g),
        "Exp" => elementwise::exp(tape, node, g),
        "Gelu" => gelu::exact(tape, node, g),
        "LeakyRelu" => elementwise::leaky_relu(tape, node, g),
        "Log" => elementwise::log(tape, node, g),
        "Max" => elementwise::max(tape, node, g),
        "Min" => elementwise::min(tape, node, g),
        "Mul" => elementwise::mul(tape, node, g),
        "Neg" => elementwise::neg(tape, node, g),
        "Pow" => elementwise::pow(tape, node, g),
        "Reciprocal" => elementwise::reciprocal(tape, node, g),
        "Relu" => elementwise::relu(tape, node, g),
        "Sigmoid" => elementwise::sigmoid(tape, node, g),
        "Sin" => elementwise::sin(tape, node, g),
        "Softplus" => elementwise::softplus(tape, node, g),
        "Sqrt" => elementwise::sqrt(tape, node, g),
        "Sub" => elementwise::sub(tape, node, g),
        "Tanh" => elementwise::tanh(tape, node, g),
        "Where" => elementwise::choose(tape, node, g),
        "Attention" => attention::plain(tape, node, g),
        "DequantizeLinear" => straight::dequantize(tape, node, g),
        "MatMulInteger" => straight::matmul_integer(tape, node, g),
        "QuantizeLinear" => straight::quantize(tape, node, g),
        "Gemm" => products::gemm(tape, node, g),
        "MatMul" => products::matmul(tape, node, g),
        "LayerNormalization" => normalization::layer(tape, node, g),
        "RMSNormalization" | "SimplifiedLayerNormalization" => normalization::rms(tape, node, g),
        "RotaryEmbedding" => rotary::rotary(tape, node, g),
        "LogSoftmax" => reductions::log_softmax(tape, node, g),
        "ReduceMean" => reductions::mean(tape, node, g),
        "ReduceSum" => reductions::sum(tape, node, g),
        "Softmax" => reductions::softmax(tape, node, g),
        "Concat" => layout::concat(tape, node, g),
        "Expand" => layout::expand(tape, node, g),
        "Flatten" | "Reshape" | "Squeeze" | "Unsqueeze" => layout::reshape(tape, node, g),
        "Pad" => layout::pad(tape, node, g),
        "Slice" => layout::slice(tape, node, g),
        "Transpose" => layout::transpose(tape, node, g),
        "Gather" => indices::gather(tape, node, g),
        "GatherElements" => indices::gather_elements(tape, node, g),
        "GatherND" => indices::gather_nd(tape, node, g),
        "ScatterElements" => indices::scatter_elements(tape, node, g),
        "ScatterND" => indices::scatter_nd(tape, node, g),
        "TopK" => indices::top_k(tape, node, g),
        _ => Err(Unsupported::Operator),
    }
}
