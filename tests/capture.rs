//! Both ways of gathering statistics, on real models in ONNX Runtime, against an exact PCA of the activations.
#![allow(clippy::unwrap_used)]

mod support;

use eva_onnx::calib::{self, Calibration, Order};
use eva_onnx::capture::{Capture, Outputs, Placement, Setup, Sharded, Sketch};
use eva_onnx::eva::{self, Next, Ranks, Settings, Stop};
use eva_onnx::feeds::{self, CacheShape, Plan};
use eva_onnx::group::{Grouping, group};
use eva_onnx::linear;
use eva_onnx::onnx::{Constant, Model, Node, Output, Patch};
use eva_onnx::runtime::{self, Device, Options, Runtime, Session};
use ndarray::{Array2, Axis};
use std::path::PathBuf;
use support::{Exact, exact, orthonormality_error};

const OPTIONS: Options = Options { device: Device::Cpu, threads: 0, tf32: false };

/// As a GPU has it: groups joined in products with their rows, rows that are masked, and products of 16 bits.
fn gpu() -> [Placement; 3] {
    let on = |tokens, half| Placement::on(Device::Cuda(0), tokens, half);
    [on(1, false), on(1 << 23, false), on(1 << 23, true)]
}

struct Case {
    model: Model,
    runtime: Runtime,
    feeds: Plan,
    grouping: Grouping,
    data: Calibration,
    placement: Placement,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// A committed model with all its linear layers but the head, and `batches` batches of real text.
fn case(folder: &str, batches: usize, batch_size: usize, max_length: usize) -> Case {
    let dir = root().join("graphs").join(folder);
    let model = Model::open(dir.join("model.onnx")).unwrap();
    let (linears, _) = linear::find(&model, None);
    let grouping = group(linears.iter().filter(|l| !l.head).map(|l| (l, l.modules.iter().collect())));
    let feeds = feeds::plan(&model.inputs(), CacheShape::default()).unwrap();
    let data = calib::load(&calib::Options {
        files: vec![root().join("fixtures/calibration.jsonl")],
        tokenizer: Some(dir.join("tokenizer.json")),
        batch_size: calib::BatchSize::Rows(batch_size),
        max_length,
        max_batches: Some(batches),
        order: Order::Kept,
        ..calib::Options::default()
    });
    let runtime = runtime::load(&runtime::find(None).unwrap()).unwrap();
    Case { model, runtime, feeds, grouping, data: data.unwrap(), placement: Placement::default() }
}

impl Case {
    fn setup(&self, components: usize) -> Setup<'_> {
        Setup {
            runtime: &self.runtime,
            options: OPTIONS,
            model: &self.model,
            feeds: &self.feeds,
            groups: &self.grouping.groups,
            components,
            placement: self.placement,
            seed: 0,
        }
    }

    /// Sketches on as many devices, which one CPU stands in for.
    fn sharded(&self, shards: usize, setup: Setup<'_>) -> Sharded {
        let shards = (0..shards).map(|_| Box::new(Sketch::new(setup, &self.data.batch(0)).unwrap()) as _);
        Sharded::new(shards.collect(), setup.groups, setup.components, 2)
    }

    fn run(&self, capture: &mut dyn Capture) {
        for batch in self.data.batches() {
            capture.absorb(&batch).unwrap();
        }
        capture.finish().unwrap();
    }

    /// The rows that count, by batch and group, from the plain model.
    fn activations(&self) -> Vec<Vec<Array2<f64>>> {
        let outputs = self.grouping.groups.iter().map(|g| Output { name: g.tensors[0].clone(), element: None });
        let patch = Patch { outputs: outputs.collect(), drop_outputs: true, ..Patch::default() };
        let mut session = Session::load(&self.runtime, &self.model.apply(&patch).unwrap(), OPTIONS).unwrap();
        let kept = self.data.batches().map(|batch| {
            let feeds = self.feeds.bind(&batch).unwrap();
            let values = session.run(feeds.iter().map(|(name, value)| (name.as_str(), value))).unwrap();
            let of_group = self.grouping.groups.iter().zip(values).map(|(group, value)| {
                let (_, data) = value.to_f64().unwrap();
                let all = Array2::from_shape_vec((data.len() / group.features, group.features), data).unwrap();
                let per_token = all.nrows() == batch.input_ids.len();
                let kept = if per_token { batch.rows() } else { batch.sequences() };
                let kept: Vec<usize> = kept.into_iter().map(|i| i as usize).collect();
                all.select(Axis(0), &kept)
            });
            of_group.collect()
        });
        kept.collect()
    }

    /// The exact PCA of every group.
    fn truth(&self) -> Vec<Exact> {
        let batches = self.activations();
        let rows = |g: usize| batches.iter().map(|groups| groups[g].view()).collect::<Vec<_>>();
        let all = |g| exact(ndarray::concatenate(Axis(0), &rows(g)).unwrap().view());
        (0..self.grouping.groups.len()).map(all).collect()
    }
}

/// Every group of a model: orthonormal components that hold at least `bound` of the best possible variance, and the
/// right total.
#[track_caller]
fn check(case: &Case, capture: &dyn Capture, k: usize, bound: f64) {
    let components = capture.components().unwrap();
    for (g, truth) in case.truth().iter().enumerate() {
        let name = &case.grouping.groups[g].tensors[0];
        let a = &components[g];
        assert!(orthonormality_error(a.view()) < 1e-10, "{name}");
        let a = a.slice(ndarray::s![..k.min(a.nrows()), ..]);
        let captured = truth.captured(a);
        assert!(captured >= bound && captured < 1.0 + 1e-5, "{name}: {captured}");
        let total: f64 = truth.eigenvalues.iter().sum();
        let error = (capture.spectrum(g).total_variance / total - 1.0).abs();
        // Products of 16 bits round the mean, whose square is taken from that of the rows.
        let alike = truth.mean.dot(&truth.mean) * capture.spectrum(g).rows as f64 / total;
        let rounding = if case.placement.half { 2.0 * f64::from(half::f16::EPSILON) * alike } else { 0.0 };
        assert!(error < 1e-4 + rounding, "{name}: total variance off by {error}");
    }
}

#[test]
fn the_sketch_finds_the_directions_of_the_example() {
    let cpu = Placement::default();
    let on_cpu = [("example/dynamo", cpu), ("example/optimum", cpu)];
    for (exporter, placement) in on_cpu.into_iter().chain(gpu().map(|gpu| ("example/dynamo", gpu))) {
        let case = Case { placement, ..case(exporter, 24, 4, 256) };
        let mut sketch = Sketch::new(case.setup(32), &case.data.batch(0)).unwrap();
        case.run(&mut sketch);
        check(&case, &sketch, 16, 0.999);
        check(&case, &sketch, 32, 0.999);
    }
}

#[test]
fn shards_find_the_directions_of_the_example_together() {
    for (devices, placement) in
        [(2, Placement::default()), (3, Placement::default()), (2, Placement::on(Device::Cuda(0), 1 << 14, false))]
    {
        let case = Case { placement, ..case("example/dynamo", 24, 4, 256) };
        let mut sharded = case.sharded(devices, case.setup(32));
        case.run(&mut sharded);
        check(&case, &sharded, 16, 0.999);
        check(&case, &sharded, 32, 0.999);
    }
}

/// What is known after each batch, and in the end, depends on the batches alone and not on the threads.
#[test]
fn shards_know_the_same_at_the_same_time_in_every_run() {
    let case = case("tiny/llama-ts", 7, 2, 32);
    let run = || {
        let mut sharded = case.sharded(3, case.setup(8));
        let mut spectra = Vec::new();
        for batch in case.data.batches() {
            sharded.absorb(&batch).unwrap();
            spectra.push(sharded.spectrum(0).clone());
        }
        sharded.finish().unwrap();
        spectra.push(sharded.spectrum(0).clone());
        (spectra, sharded.components().unwrap())
    };
    let (spectra, components) = run();
    assert_eq!((spectra, components.clone()), run());
    let rows: Vec<u64> = run().0.iter().map(|spectrum| spectrum.rows).collect();
    let kept: Vec<u64> = case.data.batches().map(|batch| batch.kept() as u64).collect();
    // Batch i is handed out when batch i - 3 is done.
    let want: Vec<u64> = (0..7).map(|i| kept[..(i + 1_usize).saturating_sub(3)].iter().sum()).collect();
    assert_eq!((&rows[..7], rows[7]), (want.as_slice(), kept.iter().sum()));
}

#[test]
fn a_shard_without_a_batch_changes_nothing() {
    let case = case("tiny/bert-dynamo", 2, 4, 64);
    let mut sharded = case.sharded(3, case.setup(64));
    case.run(&mut sharded);
    check(&case, &sharded, 8, 0.9999);
    assert!(sharded.spectrum(0).similarity.is_empty(), "nothing tells how much its components turn");
}

#[test]
fn incremental_svd_of_one_batch_of_activations_is_exact() {
    // One batch is decomposed exactly; what several lose is checked against the reference implementations.
    let case = case("example/dynamo", 1, 12, 128);
    let mut outputs = Outputs::new(case.setup(16)).unwrap();
    case.run(&mut outputs);
    check(&case, &outputs, 16, 1.0 - 1e-9);
}

#[test]
fn every_committed_export_runs() {
    let tiny = [
        "gpt2-dynamo",
        "gpt2-optimum",
        "bert-dynamo",
        "bert-optimum",
        "llama-dynamo-noopt",
        "llama-ts",
        "llama-external",
    ];
    for name in tiny {
        // Groups of few features are followed whole, so nothing is lost but rounding. Stacks of any number of groups,
        // in which BERT's pooler with its one row a sequence does not fit.
        for placement in [Placement::default()].into_iter().chain(gpu()) {
            let case = Case { placement, ..case(&format!("tiny/{name}"), 6, 4, 64) };
            let widest = case.grouping.groups.iter().map(|g| g.features).max().unwrap();
            let mut sketch = Sketch::new(case.setup(widest), &case.data.batch(0)).unwrap();
            case.run(&mut sketch);
            check(&case, &sketch, 8, 0.9999);
        }
    }
}

#[test]
fn batch_size_and_order_do_not_matter_at_full_width() {
    let components = |batches: usize, batch_size: usize| {
        let case = case("tiny/llama-ts", batches, batch_size, 64);
        let mut sketch = Sketch::new(case.setup(64), &case.data.batch(0)).unwrap();
        case.run(&mut sketch);
        sketch.components().unwrap().swap_remove(0)
    };
    let (one, four) = (components(16, 1), components(4, 4));
    for j in 0..8 {
        let cosine = one.row(j).dot(&four.row(j)).abs();
        assert!(cosine > 0.9999, "component {j}: {cosine}");
    }
}

const MADE: &str = "eva/test/made";

/// Rows of padding that are not finite, and rows that 16 bits do not tell apart.
#[test]
fn what_the_fast_subgraphs_cannot_bear_the_others_do() {
    let in_padding = |tensor: &str| {
        let nodes = vec![
            cast("attention_mask", "eva/test/mask"),
            node("Log", &["eva/test/mask"], "eva/test/log"),
            node("Unsqueeze", &["eva/test/log", "eva/test/2"], "eva/test/column"),
            node("Add", &[tensor, "eva/test/column"], MADE),
        ];
        (nodes, ("eva/test/2".to_owned(), Constant::I64(vec![1], vec![2])))
    };
    let alike = |tensor: &str| {
        let nodes = vec![node("Add", &[tensor, "eva/test/far"], MADE)];
        (nodes, ("eva/test/far".to_owned(), Constant::F32(vec![1], vec![100.0])))
    };
    let [_, masked, half] = gpu();
    type Made<'a> = &'a dyn Fn(&str) -> (Vec<Node>, (String, Constant));
    for (make, placement) in [(&in_padding as Made<'_>, masked), (&in_padding, half), (&alike, half)] {
        let mut case = Case { placement, ..case("tiny/llama-ts", 6, 4, 512) };
        case.grouping.groups.truncate(2);
        let truth = case.truth();
        let (nodes, constant) = make(&case.grouping.groups[1].tensors[0]);
        let constants = vec![constant];
        case.model = case.model.apply(&Patch { nodes, constants, ..Patch::default() }).unwrap();
        case.grouping.groups[1].tensors[0] = MADE.to_owned();
        let mut sketch = Sketch::new(case.setup(16), &case.data.batch(0)).unwrap();
        assert!(!sketch.fell_back());
        case.run(&mut sketch);
        assert!(sketch.fell_back(), "{placement:?}");
        for (g, truth) in truth.iter().enumerate() {
            let captured = truth.captured(sketch.components().unwrap()[g].view());
            assert!(captured > 0.9999, "{captured}");
            let total: f64 = truth.eigenvalues.iter().sum();
            // 100 is far from the rows: the lengths of rows are rounded, and so is what they are computed from.
            let alike = 1e4 * (case.grouping.groups[g].features as f64) * sketch.spectrum(g).rows as f64 / total;
            let error = (sketch.spectrum(g).total_variance / total - 1.0).abs();
            assert!(error < 4.0 * f64::from(f32::EPSILON) * alike, "{error} {alike}");
        }
    }
}

const OVERFLOWN: &str = "eva/test/overflown";

/// Adds a tensor that is `tensor` times 1e38, squared.
fn overflow(tensor: &str) -> Patch {
    Patch {
        nodes: vec![
            node("Mul", &[tensor, "eva/test/huge"], "eva/test/scaled"),
            node("Mul", &["eva/test/scaled", "eva/test/scaled"], OVERFLOWN),
        ],
        constants: vec![("eva/test/huge".to_owned(), Constant::F32(vec![1], vec![1e38]))],
        ..Patch::default()
    }
}

fn cast(input: &str, output: &str) -> Node {
    Node { attributes: vec![("to", eva_onnx::onnx::Attribute::Int(1))], ..node("Cast", &[input], output) }
}

fn node(op: &'static str, inputs: &[&str], output: &str) -> Node {
    Node {
        name: format!("{output}/{op}"),
        op,
        inputs: inputs.iter().map(|&i| i.to_owned()).collect(),
        outputs: vec![output.to_owned()],
        attributes: vec![],
    }
}

const HUNGRY: &str = "eva/test/hungry";

/// Adds a tensor equal to `tensor` whose making takes 4 * 4096^b bytes, b the rows of a batch.
fn hunger(tensor: &str) -> Patch {
    Patch {
        nodes: vec![
            node("Shape", &["input_ids"], "eva/test/shape"),
            node("Gather", &["eva/test/shape", "eva/test/0"], "eva/test/rows"),
            node("Pow", &["eva/test/4096", "eva/test/rows"], "eva/test/size"),
            node("Expand", &["eva/test/zero", "eva/test/size"], "eva/test/zeros"),
            node("ReduceMax", &["eva/test/zeros"], "eva/test/most"),
            node("Add", &[tensor, "eva/test/most"], HUNGRY),
        ],
        constants: vec![
            ("eva/test/0".to_owned(), Constant::I64(vec![1], vec![0])),
            ("eva/test/4096".to_owned(), Constant::I64(vec![1], vec![4096])),
            ("eva/test/zero".to_owned(), Constant::F32(vec![1], vec![0.0])),
        ],
        ..Patch::default()
    }
}

/// Batches of 4 rows would take a thousand tebibytes; their halves fit.
#[test]
fn a_batch_that_does_not_fit_is_run_in_halves() {
    for placement in [Placement::default()].into_iter().chain(gpu()) {
        let case = Case { placement, ..case("tiny/llama-ts", 6, 4, 64) };
        let mut groups = case.grouping.groups.clone();
        groups.truncate(1);
        let model = case.model.apply(&hunger(&groups[0].tensors[0])).unwrap();
        groups[0].tensors[0] = HUNGRY.to_owned();
        let setup = Setup { model: &model, groups: &groups, ..case.setup(8) };
        let mut sketch = Sketch::new(setup, &case.data.batch(0)).unwrap();
        case.run(&mut sketch);
        assert_eq!(sketch.divided(), 6);
        let truth = &case.truth()[0];
        let captured = truth.captured(sketch.components().unwrap()[0].view());
        assert!(captured > 0.999, "{placement:?} {captured}");
        assert_eq!(sketch.spectrum(0).rows as usize, case.data.kept());
    }
}

#[test]
fn a_row_that_does_not_fit_says_what_to_lower() {
    let case = case("tiny/llama-ts", 1, 4, 64);
    let mut groups = case.grouping.groups.clone();
    groups.truncate(1);
    let mut patch = hunger(&groups[0].tensors[0]);
    patch.constants[1].1 = Constant::I64(vec![1], vec![1 << 21]);
    let model = case.model.apply(&patch).unwrap();
    groups[0].tensors[0] = HUNGRY.to_owned();
    let setup = Setup { model: &model, groups: &groups, ..case.setup(8) };
    let Err(error) = Sketch::new(setup, &case.data.batch(0)) else { panic!("it cannot fit") };
    assert!(error.to_string().starts_with("out of memory: "), "{error}");
    assert!(error.hint().unwrap().contains("--batch-size"), "{error}");
}

#[test]
fn infinite_activations_name_the_layer_input_and_the_batch() {
    let case = case("tiny/llama-ts", 1, 2, 32);
    let mut groups = case.grouping.groups.clone();
    groups.truncate(1);
    let patch = overflow(&groups[0].tensors[0]);
    let model = case.model.apply(&patch).unwrap();
    groups[0].tensors[0] = OVERFLOWN.to_owned();
    let setup = Setup { model: &model, groups: &groups, ..case.setup(8) };
    for mut capture in [
        Box::new(Sketch::new(setup, &case.data.batch(0)).unwrap()) as Box<dyn Capture>,
        Box::new(Outputs::new(setup).unwrap()) as Box<dyn Capture>,
    ] {
        let error = capture.absorb(&case.data.batch(0)).unwrap_err().to_string();
        assert_eq!(error, "the layer input `eva/test/overflown` is not finite in batch 1");
    }
}

/// One batch of seven has an entry above the bound of a square root.
#[test]
fn an_error_in_a_shard_names_the_layer_and_the_batch_of_all() {
    const LAST: usize = 7;
    let mut case = case("tiny/llama-ts", 7, 2, 32);
    let activations = case.activations();
    let largest = |groups: &Vec<Array2<f64>>| groups[LAST].iter().fold(f64::NEG_INFINITY, |most, v| v.max(most));
    let mut batches: Vec<(f64, usize)> = activations.iter().map(largest).zip(1..).collect();
    batches.sort_by(|a, b| b.0.total_cmp(&a.0));
    let (bound, batch) = ((batches[0].0 + batches[1].0) / 2.0, batches[0].1);
    assert!(batches[0].0 > 1.01 * batches[1].0, "{batches:?}");
    let tensor = case.grouping.groups[LAST].tensors[0].clone();
    let nodes =
        [node("Sub", &["eva/test/bound", &tensor], "eva/test/below"), node("Sqrt", &["eva/test/below"], OVERFLOWN)];
    let constants = vec![("eva/test/bound".to_owned(), Constant::F32(vec![1], vec![bound as f32]))];
    case.model = case.model.apply(&Patch { nodes: nodes.into(), constants, ..Patch::default() }).unwrap();
    case.grouping.groups[LAST].tensors[0] = OVERFLOWN.to_owned();

    let settings = Settings { rank: 2, alpha: 2.0, rho: 2.0, tau: 1.0, min_rank: 0, ranks: Ranks::Eva, whiten: false };
    for devices in [2, 3] {
        let mut sharded = case.sharded(devices, case.setup(4));
        let mut go_on = |_: &eva::Progress| Next::Continue;
        let run = eva::run(&mut sharded, &case.grouping, case.data.batches(), Stop::Data, &settings, &mut go_on);
        let error = run.map(|outcome| outcome.progress).unwrap_err().to_string();
        assert!(error.contains("layers.1.mlp.down_proj"), "{error}");
        assert!(error.ends_with(&format!("(tensor `{OVERFLOWN}`) is not finite in batch {batch}")), "{error}");
    }
}
