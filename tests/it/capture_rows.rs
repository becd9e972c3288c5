//! Whose the rows of a tensor are: sequences that come second, padding that nothing masks, rows that routers choose.
//! Batches of rows of different lengths must learn what each row alone shows.

use crate::support::adapters::runtime;
use crate::support::case::{OPTIONS, gpu};
use crate::support::graph::{F32, I64, Net, net};
use crate::support::tolerance::{rounded_away, within};
use crate::support::{Exact, exact, rows};
use eva_onnx::calib::{Batch, Tokens};
use eva_onnx::capture::{Capture, Demands, Error, Outputs, Setup, Sketch, Strategy};
use eva_onnx::feeds::{CacheShape, Feeds};
use eva_onnx::group::{Grouping, group};
use eva_onnx::linear::find;
use eva_onnx::onnx::{Model, Output, Patch};
use eva_onnx::runtime::Session;
use ndarray::{Array2, Axis, concatenate};

const FEATURES: usize = 6;
const VOCABULARY: usize = 40;

/// Random matrices by name.
fn matrix(net: Net, name: &str, rows_: usize, columns: usize, seed: u64) -> Net {
    let values: Vec<f32> = rows(rows_, columns, 0.1, seed).iter().map(|value| *value as f32 / 4.0).collect();
    net.values(name, &[rows_ as i64, columns as i64], &values)
}

/// A model of token ids whose embedding is `e` [batch, sequence, features].
fn embedded() -> Net {
    let net = matrix(net().opset(17), "table", VOCABULARY, FEATURES, 1).shaped_input("input_ids", I64, &[-1, -1]);
    let net = matrix(matrix(net, "w1", FEATURES, FEATURES, 2), "w2", FEATURES, FEATURES, 3);
    net.node("Gather", "/embed/Gather", &["table", "input_ids"], "e").integers("last", &[1], &[-1])
}

/// Two layers around a mean over the tokens that `mask` [batch, sequence] attends, along `axis` of their states.
fn averaging(net: Net, states: &str, axis: i64, mask: Option<&str>) -> Net {
    let net = net.integers("axis", &[1], &[axis]).node("MatMul", "/mlp/up_proj/MatMul", &[states, "w1"], "p");
    let net = match mask {
        None => net.node("ReduceMean", "", &["p"], "mean").ints("axes", &[axis]),
        Some(mask) => net
            .node("Unsqueeze", "", &[mask, "last"], "column")
            .node("Cast", "", &["column"], "floats")
            .int("to", F32.into())
            .node("Mul", "", &["p", "floats"], "masked")
            .node("ReduceSum", "", &["masked", "axis"], "sum")
            .node("ReduceSum", "", &["floats", "axis"], "count")
            .node("Div", "", &["sum", "count"], "mean"),
    };
    net.node("Add", "", &["p", "mean"], "h")
        .node("Tanh", "", &["h"], "t")
        .node("MatMul", "/mlp/down_proj/MatMul", &["t", "w2"], "y")
        .output("y")
}

/// Hidden states [sequence, batch, features].
fn sequence_first() -> Net {
    let net = embedded().shaped_input("attention_mask", I64, &[-1, -1]);
    let net = net.node("Transpose", "", &["e"], "x").ints("perm", &[1, 0, 2]);
    averaging(net.node("Transpose", "", &["attention_mask"], "m").ints("perm", &[1, 0]), "x", 0, Some("m"))
}

/// Three rows a token, one after the other.
fn three_a_token() -> Net {
    embedded()
        .integers("2", &[1], &[2])
        .integers("rows", &[3], &[0, -1, FEATURES as i64])
        .node("Sin", "", &["e"], "s")
        .node("Cos", "", &["e"], "c")
        .node("Unsqueeze", "", &["e", "2"], "e1")
        .node("Unsqueeze", "", &["s", "2"], "s1")
        .node("Unsqueeze", "", &["c", "2"], "c1")
        .node("Concat", "", &["e1", "s1", "c1"], "all")
        .int("axis", 2)
        .node("Reshape", "", &["all", "rows"], "x")
        .node("MatMul", "/mlp/up_proj/MatMul", &["x", "w1"], "y")
        .output("y")
}

/// Sequences in windows of two tokens, those of all sequences side by side: [2, batch * windows, features].
fn windows() -> Net {
    embedded()
        .integers("windows", &[4], &[0, -1, 2, FEATURES as i64])
        .integers("flat", &[3], &[2, -1, FEATURES as i64])
        .node("Reshape", "", &["e", "windows"], "w")
        .node("Transpose", "", &["w"], "turned")
        .ints("perm", &[2, 0, 1, 3])
        .node("Reshape", "", &["turned", "flat"], "x")
        .node("MatMul", "/mlp/up_proj/MatMul", &["x", "w1"], "y")
        .output("y")
}

/// Two experts; padding is sent to them as any other token is.
fn experts() -> Net {
    let mut net = matrix(embedded(), "gate", FEATURES, 2, 4)
        .integers("flat", &[2], &[-1, FEATURES as i64])
        .integers("one", &[1], &[0])
        .node("Reshape", "", &["e", "flat"], "x")
        .node("MatMul", "/gate/MatMul", &["x", "gate"], "scores")
        .node("ArgMax", "", &["scores"], "best")
        .int("axis", 1)
        .int("keepdims", 0);
    for k in 0..2 {
        let name = |what: &str| format!("{what}{k}");
        net = net
            .integers(&name("k"), &[], &[k])
            .node("Equal", "", &["best", &name("k")], &name("is"))
            .node("NonZero", "", &[&name("is")], &name("places"))
            .node("Squeeze", "", &[&name("places"), "one"], &name("indices"))
            .node("Gather", "", &["x", &name("indices")], &name("chosen"))
            .node(
                "MatMul",
                &format!("/experts.{k}/up_proj/MatMul"),
                &[&name("chosen"), &format!("w{}", k + 1)],
                &name("y"),
            )
            .output(&name("y"));
    }
    net
}

/// Rows of ids of these lengths.
fn ids(lengths: &[usize]) -> Vec<Vec<i64>> {
    let id = |row: usize, token: usize| ((row * row * 7 + token * 11 + row * token * 3) % (VOCABULARY - 1) + 1) as i64;
    lengths.iter().enumerate().map(|(row, length)| (0..*length).map(|token| id(row, token)).collect()).collect()
}

/// The rows as one batch, padded on the right.
fn batch(rows: &[Vec<i64>]) -> Batch {
    let longest = rows.iter().map(Vec::len).max().unwrap();
    let padded = Array2::from_shape_fn((rows.len(), longest), |(i, j)| rows[i].get(j).copied().unwrap_or(0));
    let attended = Array2::from_shape_fn((rows.len(), longest), |(i, j)| j < rows[i].len());
    Batch { keep: attended.clone(), ..Batch::of_tokens(Tokens::new(padded, attended)) }
}

struct Tried {
    _dir: tempfile::TempDir,
    model: Model,
    feeds: Feeds,
    grouping: Grouping,
    rows: Vec<Vec<i64>>,
}

fn tried(net: Net, lengths: &[usize]) -> Tried {
    let (_dir, model) = net.open();
    let feeds = Feeds::plan(&model.inputs(), CacheShape::default()).unwrap();
    let linears = find(&model, None).0;
    let grouping = group(linears.iter().map(|linear| (linear, linear.modules.iter().collect())));
    Tried { _dir, model, feeds, grouping, rows: ids(lengths) }
}

impl Tried {
    /// The exact components of every group, from rows that are run alone.
    fn truth(&self) -> Vec<(Exact, usize)> {
        let outputs = self.grouping.groups.iter().map(|g| Output { name: g.tensors[0].clone(), dtype: None });
        let patch = Patch { outputs: outputs.collect(), drop_outputs: true, ..Patch::default() };
        let mut session = Session::load(&runtime(), &self.model.apply(&patch).unwrap(), OPTIONS).unwrap();
        let mut all: Vec<Array2<f64>> = vec![Array2::zeros((0, FEATURES)); self.grouping.groups.len()];
        for row in &self.rows {
            let feeds = self.feeds.bind(&batch(std::slice::from_ref(row))).unwrap();
            let values = session.run(feeds.iter().map(|(name, value)| (name.as_str(), value))).unwrap();
            for (all, value) in all.iter_mut().zip(values) {
                let (_, data) = value.to_f64().unwrap();
                let own = Array2::from_shape_vec((data.len() / FEATURES, FEATURES), data).unwrap();
                *all = concatenate![Axis(0), *all, own];
            }
        }
        all.iter().map(|rows| (exact(rows.view()), rows.nrows())).collect()
    }

    fn setup<'a>(&'a self, runtime: &'a eva_onnx::runtime::Runtime, strategy: Strategy) -> Setup<'a> {
        let (model, feeds, groups) = (&self.model, &self.feeds, &self.grouping.groups[..]);
        Setup {
            runtime,
            options: OPTIONS,
            model,
            feeds,
            groups,
            components: FEATURES,
            strategy,
            seed: 0,
            demands: Demands::default(),
            may_turn: false,
        }
    }

    /// Batches of four rows, in every way of gathering statistics: the rows and directions of rows that are run alone.
    fn check(&self) {
        let (runtime, truth) = (runtime(), self.truth());
        let batches: Vec<Batch> = self.rows.chunks(4).map(batch).collect();
        for strategy in [None, Some(Strategy::Direct)].into_iter().chain(gpu().map(Some)) {
            let setup = self.setup(&runtime, strategy.unwrap_or(Strategy::Direct));
            let mut capture: Box<dyn Capture> = match strategy {
                None => Box::new(Outputs::new(setup).unwrap()),
                Some(_) => Box::new(Sketch::new(setup, &batches[0]).unwrap()),
            };
            batches.iter().for_each(|batch| capture.absorb(batch).unwrap());
            assert!(!capture.finish().unwrap().counted_others);
            let components = capture.components().unwrap();
            for (g, (truth, rows)) in truth.iter().enumerate() {
                let what = format!("{strategy:?} {:?}", self.grouping.groups[g].tensors);
                assert_eq!(capture.spectrum(g).rows as usize, *rows, "{what}");
                let captured = truth.captured(components[g].slice(ndarray::s![..3, ..]));
                within(1.0 - captured, rounded_away(), &what);
            }
        }
    }
}

#[test]
fn sequences_may_come_second() {
    tried(sequence_first(), &[3, 7, 5, 6, 7, 7, 7, 7, 4, 9, 8, 1]).check();
}

#[test]
fn a_first_batch_of_one_row_leaves_the_order_open() {
    let tried = tried(sequence_first(), &[3, 7, 5, 6, 7, 9]);
    let (runtime, truth) = (runtime(), tried.truth());
    for strategy in [Strategy::Direct].into_iter().chain(gpu()) {
        let setup = tried.setup(&runtime, strategy);
        let mut sketch = Sketch::new(setup, &batch(&tried.rows[..1])).unwrap();
        for rows in [&tried.rows[..1], &tried.rows[1..]] {
            sketch.absorb(&batch(rows)).unwrap();
        }
        sketch.finish().unwrap();
        for (g, (truth, rows)) in truth.iter().enumerate() {
            assert_eq!(sketch.spectrum(g).rows as usize, *rows);
            within(
                1.0 - truth.captured(sketch.components().unwrap()[g].slice(ndarray::s![..3, ..])),
                rounded_away(),
                "",
            );
        }
    }
}

/// Padding changes the rows of tokens, since nothing tells the model which they are.
#[test]
fn padding_that_nothing_masks_is_left_out() {
    tried(averaging(embedded(), "e", 1, None), &[5, 5, 5, 5, 3, 7, 5, 6, 4, 9, 4, 1]).check();
}

#[test]
fn rows_of_unknown_tokens_count_where_nothing_is_padding() {
    tried(three_a_token(), &[4, 4, 4, 4, 3, 7, 5, 3, 4, 9, 8, 4]).check();
    tried(windows(), &[4, 6, 4, 8, 2, 6, 2, 4]).check();
}

#[test]
fn experts_do_not_count_padding() {
    tried(experts(), &[3, 7, 5, 6, 7, 7, 7, 7, 4, 9, 8, 1]).check();
}

/// Prompts do not count, but nobody knows which rows are theirs.
#[test]
fn tokens_that_do_not_count_need_rows_that_are_known() {
    let runtime = runtime();
    let finished = |tried: &Tried, strategy: Option<Strategy>| {
        let mut prompted = batch(&tried.rows);
        prompted.keep.column_mut(0).fill(false);
        let setup = tried.setup(&runtime, strategy.unwrap_or(Strategy::Direct));
        let mut capture: Box<dyn Capture> = match strategy {
            None => Box::new(Outputs::new(setup)?),
            Some(_) => Box::new(Sketch::new(setup, &prompted)?),
        };
        capture.absorb(&prompted)?;
        capture.finish()
    };
    for strategy in [None, Some(Strategy::Direct)].into_iter().chain(gpu().map(Some)) {
        let error = finished(&tried(three_a_token(), &[3, 7, 5]), strategy).unwrap_err();
        assert!(matches!(&error, Error::Unmatched { tensor } if tensor == "x"), "{error}");
        assert!(finished(&tried(windows(), &[4, 8, 6]), strategy).is_err());
        assert!(finished(&tried(experts(), &[3, 7, 5]), strategy).unwrap().counted_others);
        assert!(!finished(&tried(sequence_first(), &[3, 7, 5]), strategy).unwrap().counted_others);
    }
}
