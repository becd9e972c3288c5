//! Attention in one operator: `y = softmax(s q k^T + m) v` for each head, with a mask `m` that is fixed.
//!
//! The weights are computed anew from the operands: with `p` the weights and `g` the gradient of `y`, `h = p (g v^T -
//! sum(p g v^T))` is that of the scores, and `s h k`, `s h^T q` and `p^T g` those of `q`, `k` and `v`.

use super::super::error::Unsupported;
use super::super::tape::{Operands, Tape, input};
use crate::dtype::DType;
use crate::onnx::{Attribute, Dim, NodeView, Origin};

/// Heads [batch, heads, length, features] of one attention.
struct Heads {
    query: String,
    key: String,
    value: String,
    /// What the scores are multiplied by.
    scale: f32,
    /// What is added to them.
    masks: Vec<String>,
    dtype: DType,
}

impl Heads {
    /// The gradients of query, key and value.
    fn gradients(&self, tape: &mut Tape<'_>, g: &str) -> [String; 3] {
        let scale = tape.number(self.scale, self.dtype);
        let key_turned = turned(tape, &self.key);
        let mut scores = tape.op("MatMul", &[&self.query, &key_turned], &[]);
        scores = tape.op("Mul", &[&scores, &scale], &[]);
        for mask in &self.masks {
            scores = tape.op("Add", &[&scores, mask], &[]);
        }
        let weights = tape.op("Softmax", &[&scores], &[("axis", Attribute::Int(-1))]);
        let value_turned = turned(tape, &self.value);
        let of_weights = tape.op("MatMul", &[g, &value_turned], &[]);
        let product = tape.op("Mul", &[&weights, &of_weights], &[]);
        let total = tape.sum(&product, &[3], true);
        let share = tape.op("Mul", &[&weights, &total], &[]);
        let of_scores = tape.op("Sub", &[&product, &share], &[]);
        let of_scores = tape.op("Mul", &[&of_scores, &scale], &[]);
        let query = tape.op("MatMul", &[&of_scores, &self.key], &[]);
        let of_scores = turned(tape, &of_scores);
        let key = tape.op("MatMul", &[&of_scores, &self.query], &[]);
        let weights = turned(tape, &weights);
        [query, key, tape.op("MatMul", &[&weights, g], &[])]
    }
}

/// The last two of four axes exchanged.
fn turned(tape: &mut Tape<'_>, tensor: &str) -> String {
    tape.op("Transpose", &[tensor], &[("perm", Attribute::Ints(vec![0, 1, 3, 2]))])
}

/// [batch, length, heads * features] as [batch, heads, length, features].
fn apart(tape: &mut Tape<'_>, tensor: &str, heads: i64) -> String {
    let shape = tape.ints(&[0, 0, heads, -1]);
    let apart = tape.op("Reshape", &[tensor, &shape], &[]);
    tape.op("Transpose", &[&apart], &[("perm", Attribute::Ints(vec![0, 2, 1, 3]))])
}

/// [batch, heads, length, features] as [batch, length, heads * features].
fn together(tape: &mut Tape<'_>, tensor: &str) -> String {
    let moved = tape.op("Transpose", &[tensor], &[("perm", Attribute::Ints(vec![0, 2, 1, 3]))]);
    let shape = tape.ints(&[0, 0, -1]);
    tape.op("Reshape", &[&moved, &shape], &[])
}

/// The size of the last axis, which must be fixed.
fn width(tape: &Tape<'_>, tensor: &str) -> Result<i64, Unsupported> {
    match tape.info(tensor)?.dims.last() {
        Some(Dim::Fixed(size)) => Ok(*size),
        _ => Err(Unsupported::Form("of an unknown number of features")),
    }
}

fn heads_of(node: NodeView<'_>, name: &str) -> Result<i64, Unsupported> {
    node.int(name).filter(|heads| *heads > 0).ok_or(Unsupported::Form("without its number of heads"))
}

/// The scale that a node gives, or 1 / sqrt(features).
fn scale(node: NodeView<'_>, features: i64) -> f32 {
    node.float("scale").filter(|scale| *scale != 0.0).unwrap_or(1.0 / (features as f32).sqrt())
}

/// A mask of the keys that come after a query [length, length].
fn causal(tape: &mut Tape<'_>, query: &str, key: &str, dtype: DType) -> String {
    let first = tape.scalar(0);
    let step = tape.scalar(1);
    let axis = tape.scalar(2);
    let [from, to] = [(query, 1), (key, 0)].map(|(tensor, axis_of_one)| {
        let shape = tape.op("Shape", &[tensor], &[]);
        let length = tape.op("Gather", &[&shape, &axis], &[]);
        let places = tape.op("Range", &[&first, &length, &step], &[]);
        let axis = tape.ints(&[axis_of_one]);
        tape.op("Unsqueeze", &[&places, &axis], &[])
    });
    let later = tape.op("Greater", &[&to, &from], &[]);
    masked(tape, &later, NEVER, dtype)
}

/// A score of what is not attended to.
const NEVER: f32 = -1e30;

/// `score` where a condition holds, and else 0.
fn masked(tape: &mut Tape<'_>, condition: &str, score: f32, dtype: DType) -> String {
    let score = if dtype == DType::F16 { score.max(-6e4) } else { score };
    let [score, zero] = [score, 0.0].map(|value| tape.number(value, dtype));
    tape.op("Where", &[condition, &score, &zero], &[])
}

/// A mask of keys [batch, length], 0 for those that are not attended to.
fn of_keys<'a>(
    tape: &mut Tape<'a>,
    node: NodeView<'a>,
    index: usize,
    dtype: DType,
) -> Result<Vec<String>, Unsupported> {
    let Some(mask) = node.input(index) else { return Ok(Vec::new()) };
    if tape.rank(mask)? != 2 {
        return Err(Unsupported::Form("with a mask that is not [batch, length]"));
    }
    let axes = tape.ints(&[1, 2]);
    let wide = tape.op("Unsqueeze", &[mask, &axes], &[]);
    let attended = tape.cast(&wide, DType::Bool);
    let hidden = tape.op("Not", &[&attended], &[]);
    Ok(vec![masked(tape, &hidden, node.float("mask_filter_value").unwrap_or(-10000.0), dtype)])
}

/// Checks that what comes before is an input of the graph, which is empty in a training, and that the other inputs from
/// `first` on are absent.
fn check_past(tape: &Tape<'_>, node: NodeView<'_>, past: &[usize], first: usize) -> Result<(), Unsupported> {
    let is_input =
        |index: &usize| node.input(*index).is_none_or(|name| matches!(tape.origin(name), Some(Origin::Input)));
    let others = (first..node.inputs().len()).any(|index| !past.contains(&index) && node.input(index).is_some());
    if others || !past.iter().all(is_input) { Err(Unsupported::Form("with these inputs")) } else { Ok(()) }
}

/// `com.microsoft.MultiHeadAttention` with query, key and value [batch, length, features].
pub(super) fn multi_head<'a>(tape: &mut Tape<'a>, node: NodeView<'a>, g: &str) -> Operands {
    let form = Unsupported::Form("of packed or cached keys, or with a bias");
    let [query, key, value] = [0, 1, 2].map(|index| input(node, index));
    let (query, key, value) = (query?, key.map_err(|_| form)?, value.map_err(|_| form)?);
    let ranks = [query, key, value].map(|tensor| tape.rank(tensor));
    if ranks.iter().any(|rank| *rank != Ok(3)) || node.input(3).is_some() {
        return Err(form);
    }
    check_past(tape, node, &[6, 7], 6)?;
    let heads = heads_of(node, "num_heads")?;
    let dtype = tape.dtype(query)?;
    let features = width(tape, query)? / heads;
    let mut masks = of_keys(tape, node, 4, dtype)?;
    masks.extend(added(tape, node, 5)?);
    let [q, k, v] = [query, key, value].map(|tensor| apart(tape, tensor, heads));
    if node.flag("unidirectional") {
        masks.push(causal(tape, &q, &k, dtype));
    }
    let whole = Heads { query: q, key: k, value: v, scale: scale(node, features), masks, dtype };
    let g = apart(tape, g, heads);
    let gradients = whole.gradients(tape, &g);
    let mut operands = Vec::new();
    for (index, gradient) in gradients.iter().enumerate() {
        operands.push(if tape.wants(node, index) { Some(together(tape, gradient)) } else { None });
    }
    Ok(operands)
}

/// A frozen tensor that is added to the scores.
fn added<'a>(tape: &Tape<'a>, node: NodeView<'a>, index: usize) -> Result<Option<String>, Unsupported> {
    if tape.wants(node, index) {
        return Err(Unsupported::Form("for its mask"));
    }
    Ok(node.input(index).map(str::to_owned))
}

/// `com.microsoft.Attention`, which multiplies by the weights of query, key and value [in, 3 features] as well.
pub(super) fn packed<'a>(tape: &mut Tape<'a>, node: NodeView<'a>, g: &str) -> Operands {
    let (x, weight) = (input(node, 0)?, input(node, 1)?);
    let form = Unsupported::Form("in this form");
    if node.ints("qkv_hidden_sizes").is_some() || node.flag("do_rotary") || tape.rank(x)? != 3 {
        return Err(form);
    }
    if tape.wants(node, 1) || tape.wants(node, 2) {
        return Err(Unsupported::Form("for its weights"));
    }
    check_past(tape, node, &[4], 6)?;
    let heads = heads_of(node, "num_heads")?;
    let dtype = tape.dtype(x)?;
    let features = width(tape, weight)? / 3;
    let mut masks = of_keys(tape, node, 3, dtype)?;
    masks.extend(added(tape, node, 5)?);
    let mut all = tape.op("MatMul", &[x, weight], &[]);
    if let Some(bias) = node.input(2) {
        all = tape.op("Add", &[&all, bias], &[]);
    }
    let sizes = tape.ints(&[features; 3]);
    let parts = tape.op_with("Split", &[&all, &sizes], 2, 3);
    let [q, k, v] = [0, 1, 2].map(|index| apart(tape, &parts[index], heads));
    if node.flag("unidirectional") {
        masks.push(causal(tape, &q, &k, dtype));
    }
    let whole = Heads { query: q, key: k, value: v, scale: scale(node, features / heads), masks, dtype };
    let g = apart(tape, g, heads);
    let parts = whole.gradients(tape, &g).map(|gradient| together(tape, &gradient));
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    let all = tape.op("Concat", &parts, &[("axis", Attribute::Int(2))]);
    let rows = super::products::flat(tape, &all, 3);
    let product = tape.op("Gemm", &[&rows, weight], &[("transB", Attribute::Int(1))]);
    Ok(vec![Some(tape.like(&product, x))])
}

/// `Attention` of ONNX: heads apart or together, and several heads of the query for one of key and value.
pub(super) fn plain<'a>(tape: &mut Tape<'a>, node: NodeView<'a>, g: &str) -> Operands {
    let operands = [input(node, 0)?, input(node, 1)?, input(node, 2)?];
    if node.float("softcap").is_some_and(|cap| cap != 0.0) {
        return Err(Unsupported::Form("with a cap of its scores"));
    }
    check_past(tape, node, &[4, 5], 4)?;
    let flat = tape.rank(operands[0])? == 3;
    let dtype = tape.dtype(operands[0])?;
    let (heads, shared, features) = if flat {
        let heads = heads_of(node, "q_num_heads")?;
        (heads, heads_of(node, "kv_num_heads")?, width(tape, operands[0])? / heads)
    } else {
        let count = |tensor: &str| match tape.info(tensor)?.dims[..] {
            [_, Dim::Fixed(heads), _, _] => Ok(heads),
            _ => Err(Unsupported::Form("of an unknown number of heads")),
        };
        (count(operands[0])?, count(operands[1])?, width(tape, operands[0])?)
    };
    let counts = [heads, shared, shared];
    let [q, k, v] = [0, 1, 2].map(|index| {
        let tensor = operands[index];
        if flat { apart(tape, tensor, counts[index]) } else { tensor.to_owned() }
    });
    let copies = heads / shared;
    let [k, v] = [k, v].map(|tensor| repeated(tape, tensor, copies, &q));
    let mut masks = Vec::new();
    if let Some(mask) = added(tape, node, 3)? {
        masks.push(match tape.dtype(&mask)? {
            DType::Bool => {
                let hidden = tape.op("Not", &[&mask], &[]);
                masked(tape, &hidden, NEVER, dtype)
            }
            _ => mask,
        });
    }
    if node.flag("is_causal") {
        masks.push(causal(tape, &q, &k, dtype));
    }
    let whole = Heads { query: q, key: k, value: v, scale: scale(node, features), masks, dtype };
    let g = if flat { apart(tape, g, heads) } else { g.to_owned() };
    let gradients = whole.gradients(tape, &g);
    let mut found = Vec::new();
    for (index, gradient) in gradients.into_iter().enumerate() {
        if !tape.wants(node, index) {
            found.push(None);
            continue;
        }
        let gradient = if index == 0 { gradient } else { summed(tape, gradient, [shared, copies]) };
        found.push(Some(if flat { together(tape, &gradient) } else { gradient }));
    }
    Ok(found)
}

/// Each head so many times in a row.
fn repeated(tape: &mut Tape<'_>, tensor: String, copies: i64, query: &str) -> String {
    if copies == 1 {
        return tensor;
    }
    let axis = tape.ints(&[2]);
    let apart = tape.op("Unsqueeze", &[&tensor, &axis], &[]);
    let shape = tape.ints(&[1, 1, copies, 1, 1]);
    let copied = tape.op("Expand", &[&apart, &shape], &[]);
    // [batch, heads of the query, length, features]: the first two from the query, the others from the tensor.
    let (query, tensor) = (tape.op("Shape", &[query], &[]), tape.op("Shape", &[&tensor], &[]));
    let (first, last) = (tape.ints(&[0, 1]), tape.ints(&[2, 3]));
    let first = tape.op("Gather", &[&query, &first], &[]);
    let last = tape.op("Gather", &[&tensor, &last], &[]);
    let shape = tape.op("Concat", &[&first, &last], &[("axis", Attribute::Int(0))]);
    tape.op("Reshape", &[&copied, &shape], &[])
}

/// The sum over the copies of each head.
fn summed(tape: &mut Tape<'_>, gradient: String, [heads, copies]: [i64; 2]) -> String {
    if copies == 1 {
        return gradient;
    }
    let shape = tape.op("Shape", &[&gradient], &[]);
    let (first, last) = (tape.ints(&[0]), tape.ints(&[2, 3]));
    let first = tape.op("Gather", &[&shape, &first], &[]);
    let last = tape.op("Gather", &[&shape, &last], &[]);
    let middle = tape.ints(&[heads, copies]);
    let shape = tape.op("Concat", &[&first, &middle, &last], &[("axis", Attribute::Int(0))]);
    let apart = tape.op("Reshape", &[&gradient, &shape], &[]);
    tape.sum(&apart, &[2], false)
}
