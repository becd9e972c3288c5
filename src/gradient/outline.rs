//! Fused operators spelled out in plain ones, which have rules.

use crate::onnx::{Attribute, Builder, Change, Constant, Edit, Graph, Model, Names, NodeView, Patch, Takeover};

/// The edit that replaces the first result of every fused attention by plain operators that compute the same from empty
/// caches; nothing if there is none.
///
/// Attentions of other forms stay, and have no rule.
pub(crate) fn outline(model: &Model) -> Option<Patch> {
    let graph = Graph::new(model);
    let mut patch = Patch::default();
    let mut names = Names::default();
    for (_, node) in graph.nodes(0) {
        if node.domain() != "com.microsoft" || node.op() != "GroupQueryAttention" {
            continue;
        }
        let (Some(result), Some(attention)) = (node.output(), GroupQuery::of(node)) else { continue };
        let stem = names.fresh(&format!("outline/{result}"));
        let mut nodes = Builder::new(stem, model.opset());
        let raw = nodes.name("fused");
        attention.spell_out(&mut nodes, result);
        let (nodes, constants) = nodes.finish();
        patch.constants.extend(constants);
        patch.takeovers.push(Takeover { subgraph: Vec::new(), tensor: result.to_owned(), raw, nodes });
    }
    (!patch.takeovers.is_empty()).then_some(patch)
}

/// The edit that lets products with weights of few bits compute in floats where they would round what they multiply to 8
/// bits, which has no slope; nothing if there is none.
pub(crate) fn unrounded(model: &Model) -> Option<Patch> {
    /// `accuracy_level` of `MatMulNBits` for integers of 8 bits, and for the type of the operands.
    const INTEGERS: i64 = 4;
    const AS_GIVEN: i64 = 0;
    let graph = Graph::new(model);
    let nodes = graph.nodes(0).map(|(_, node)| node);
    let rounding = nodes.filter(|node| node.op() == "MatMulNBits" && node.int("accuracy_level") == Some(INTEGERS));
    let change = |node: NodeView<'_>| {
        let edit = Edit::Set("accuracy_level", Attribute::Int(AS_GIVEN));
        Some(Change { subgraph: Vec::new(), produces: node.output()?.to_owned(), edit })
    };
    let changes: Vec<Change> = rounding.filter_map(change).collect();
    (!changes.is_empty()).then(|| Patch { changes, ..Patch::default() })
}

/// `com.microsoft.GroupQueryAttention` over a whole prompt, as in ONNX Runtime's `ContribOperators.md`.
struct GroupQuery<'n> {
    query: &'n str,
    /// Key and value; packed behind the query without them.
    others: Option<[&'n str; 2]>,
    /// Cosines and sines [positions, half of the rotated features], if positions are rotated here.
    rotary: Option<[&'n str; 2]>,
    heads: i64,
    kv_heads: i64,
    scale: f32,
    window: i64,
    softcap: f32,
}

/// A score of what is not attended to.
const NEVER: f32 = -1e30;

impl<'n> GroupQuery<'n> {
    /// The attention of a node, if it has no inputs or attributes beyond these.
    fn of(node: NodeView<'n>) -> Option<Self> {
        let unknown_input = (9..node.inputs().len()).any(|index| node.input(index).is_some());
        if unknown_input || ["rotary_interleaved", "smooth_softmax", "kv_quant"].iter().any(|flag| node.flag(flag)) {
            return None;
        }
        let others = match (node.input(1), node.input(2)) {
            (Some(key), Some(value)) => Some([key, value]),
            (None, None) => None,
            _ => return None,
        };
        let rotary = match (node.flag("do_rotary"), node.input(7), node.input(8)) {
            (false, ..) => None,
            (true, Some(cosines), Some(sines)) => Some([cosines, sines]),
            _ => return None,
        };
        Some(Self {
            query: node.input(0)?,
            others,
            rotary,
            heads: node.int("num_heads")?,
            kv_heads: node.int("kv_num_heads")?,
            scale: node.float("scale").unwrap_or(0.0),
            window: node.int("local_window_size").unwrap_or(-1),
            softcap: node.float("softcap").unwrap_or(0.0),
        })
    }

    /// Adds `softmax(mask(scale q k^T)) v` as `result` [batch, length, heads * features].
    fn spell_out(&self, nodes: &mut Builder, result: &str) {
        let [query, key, value] = self.heads_apart(nodes);
        let [query, key] = match self.rotary {
            Some(tables) => [("query", query), ("key", key)].map(|(part, tensor)| rotate(nodes, part, &tensor, tables)),
            None => [query, key],
        };
        let [key, value] =
            [("key", key), ("value", value)].map(|(part, tensor)| self.repeat(nodes, part, tensor, &query));
        let turned = nodes.op("Transpose", &[&key]).ints("perm", vec![0, 1, 3, 2]).output("key_turned");
        let mut scores = nodes.op("MatMul", &[&query, &turned]).output("scores");
        let factor = self.factor(nodes, &query);
        scores = nodes.op("Mul", &[&scores, &factor]).output("scores_scaled");
        if self.softcap > 0.0 {
            let cap = number(nodes, "cap", self.softcap, &query);
            let share = nodes.op("Div", &[&scores, &cap]).output("scores_share");
            let bent = nodes.op("Tanh", &[&share]).output("scores_bent");
            scores = nodes.op("Mul", &[&bent, &cap]).output("scores_capped");
        }
        let allowed = self.allowed(nodes, &query);
        let never = number(nodes, "never", NEVER, &query);
        let scores = nodes.op("Where", &[&allowed, &scores, &never]).output("scores_masked");
        let weights = nodes.op("Softmax", &[&scores]).int("axis", -1).output("weights");
        let mixed = nodes.op("MatMul", &[&weights, &value]).output("mixed");
        let mixed = nodes.op("Transpose", &[&mixed]).ints("perm", vec![0, 2, 1, 3]).output("mixed_turned");
        let together = nodes.constant("together", Constant::ints(vec![0, 0, -1]));
        nodes.op("Reshape", &[&mixed, &together]).to(result);
    }

    /// Query, key and value, each [batch, its heads, length, features].
    fn heads_apart(&self, nodes: &mut Builder) -> [String; 3] {
        let counts = [self.heads, self.kv_heads, self.kv_heads];
        let parts = ["query", "key", "value"];
        let apart = |nodes: &mut Builder, part: &str, tensor: &str, heads: i64| {
            let shape = nodes.constant(&format!("{part}/shape"), Constant::ints(vec![0, 0, heads, -1]));
            nodes.op("Reshape", &[tensor, &shape]).output(&format!("{part}/heads"))
        };
        let tensors: Vec<String> = match self.others {
            Some([key, value]) => {
                let all = parts.iter().zip([self.query, key, value]).zip(counts);
                all.map(|((part, tensor), heads)| apart(nodes, part, tensor, heads)).collect()
            }
            None => {
                let whole = apart(nodes, "packed", self.query, counts.iter().sum());
                let outputs: Vec<String> = parts.iter().map(|part| nodes.name(&format!("{part}/heads"))).collect();
                nodes.split(&whole, 2, counts.to_vec(), "packed/sizes").outputs(outputs.clone());
                outputs
            }
        };
        [0, 1, 2].map(|index| {
            let turn = nodes.op("Transpose", &[&tensors[index]]).ints("perm", vec![0, 2, 1, 3]);
            turn.output(&format!("{}/turned", parts[index]))
        })
    }

    /// What the scores are multiplied by: 1 / sqrt(features), unless it is given.
    fn factor(&self, nodes: &mut Builder, query: &str) -> String {
        if self.scale != 0.0 {
            return number(nodes, "factor", self.scale, query);
        }
        let features = size(nodes, "features", query, 3);
        let wide = nodes.op("CastLike", &[&features, query]).output("features_wide");
        let root = nodes.op("Sqrt", &[&wide]).output("features_root");
        nodes.op("Reciprocal", &[&root]).output("factor")
    }

    /// Keys and values for every head of the query: neighbouring heads share one.
    fn repeat(&self, nodes: &mut Builder, part: &str, tensor: String, query: &str) -> String {
        if self.heads == self.kv_heads {
            return tensor;
        }
        let axis = nodes.constant(&format!("{part}/axis"), Constant::ints(vec![2]));
        let copies = Constant::ints(vec![1, 1, self.heads / self.kv_heads, 1, 1]);
        let copies = nodes.constant(&format!("{part}/copies"), copies);
        let apart = nodes.op("Unsqueeze", &[&tensor, &axis]).output(&format!("{part}/apart"));
        let copied = nodes.op("Expand", &[&apart, &copies]).output(&format!("{part}/copied"));
        let shape = nodes.op("Shape", &[query]).output(&format!("{part}/like"));
        nodes.op("Reshape", &[&copied, &shape]).output(&format!("{part}/repeated"))
    }

    /// Which token [length, 1] attends to which [1, length].
    fn allowed(&self, nodes: &mut Builder, query: &str) -> String {
        let length = size(nodes, "length", query, 2);
        let first = nodes.constant("first", Constant::I64(Vec::new(), vec![0]));
        let step = nodes.constant("step", Constant::I64(Vec::new(), vec![1]));
        let (front, back) =
            (nodes.constant("front", Constant::ints(vec![0])), nodes.constant("back", Constant::ints(vec![1])));
        let count = nodes.op("Squeeze", &[&length, &front]).output("length_number");
        let tokens = nodes.op("Range", &[&first, &count, &step]).output("tokens");
        let to = nodes.op("Unsqueeze", &[&tokens, &front]).output("attended");
        let from = nodes.op("Unsqueeze", &[&tokens, &back]).output("attending");
        let past = nodes.op("LessOrEqual", &[&to, &from]).output("past");
        if self.window < 0 {
            return past;
        }
        let window = nodes.constant("window", Constant::ints(vec![self.window]));
        let oldest = nodes.op("Sub", &[&from, &window]).output("oldest");
        let near = nodes.op("Greater", &[&to, &oldest]).output("near");
        nodes.op("And", &[&past, &near]).output("allowed")
    }
}

/// A number of the type of `like`.
fn number(nodes: &mut Builder, part: &str, value: f32, like: &str) -> String {
    let constant = nodes.constant(&format!("{part}/number"), Constant::scalar(value));
    nodes.op("CastLike", &[&constant, like]).output(part)
}

/// The size of a tensor along an axis, [1].
fn size(nodes: &mut Builder, part: &str, tensor: &str, axis: i64) -> String {
    let shape = nodes.op("Shape", &[tensor]).output(&format!("{part}/shape_of"));
    let index = nodes.constant(&format!("{part}/index"), Constant::ints(vec![axis]));
    nodes.op("Gather", &[&shape, &index]).output(&format!("{part}/size"))
}

/// The tensor [batch, heads, length, features] with its leading features turned by the angle of each position; `tables`
/// are the cosines and sines [positions, half of those features]. Feature i turns with feature i + half.
fn rotate(nodes: &mut Builder, part: &str, tensor: &str, tables: [&str; 2]) -> String {
    let name = |suffix: &str| format!("{part}/{suffix}");
    let zero = nodes.constant(&name("zero"), Constant::ints(vec![0]));
    let one = nodes.constant(&name("one"), Constant::ints(vec![1]));
    let last = nodes.constant(&name("last"), Constant::ints(vec![-1]));
    let end = nodes.constant(&name("end"), Constant::ints(vec![i64::MAX]));
    let length = size(nodes, &name("length"), tensor, 2);
    let half = size(nodes, &name("half"), tables[0], 1);
    let both = nodes.op("Add", &[&half, &half]).output(&name("both"));
    let slice = |nodes: &mut Builder, suffix: &str, tensor: &str, from: &str, to: &str, axis: &str| {
        nodes.op("Slice", &[tensor, from, to, axis, &one]).output(&name(suffix))
    };
    let cosines = slice(nodes, "cosines", tables[0], &zero, &length, &zero);
    let sines = slice(nodes, "sines", tables[1], &zero, &length, &zero);
    let left = slice(nodes, "left", tensor, &zero, &half, &last);
    let right = slice(nodes, "right", tensor, &half, &both, &last);
    let rest = slice(nodes, "rest", tensor, &both, &end, &last);
    let product = |nodes: &mut Builder, suffix: &str, a: &str, b: &str| nodes.op("Mul", &[a, b]).output(&name(suffix));
    let (a, b) = (product(nodes, "left_cos", &left, &cosines), product(nodes, "right_sin", &right, &sines));
    let (c, d) = (product(nodes, "right_cos", &right, &cosines), product(nodes, "left_sin", &left, &sines));
    let left = nodes.op("Sub", &[&a, &b]).output(&name("left_turned"));
    let right = nodes.op("Add", &[&c, &d]).output(&name("right_turned"));
    let joined = nodes.op("Concat", &[&left, &right, &rest]).with("axis", Attribute::Int(-1));
    joined.output(&name("rotated"))
}
