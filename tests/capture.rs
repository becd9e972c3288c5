//! Both ways of gathering statistics, on real models in ONNX Runtime, against an exact PCA of the activations.
#![allow(clippy::unwrap_used)]

mod support;

use eva_onnx::calib::{self, Calibration, Order};
use eva_onnx::capture::{Capture, Outputs, Placement, Setup, Sketch};
use eva_onnx::feeds::{self, CacheShape, Plan};
use eva_onnx::group::{Grouping, group};
use eva_onnx::linear;
use eva_onnx::onnx::{Constant, Model, Node, Output, Patch};
use eva_onnx::runtime::{self, Device, Options, Runtime, Session};
use ndarray::{Array2, Axis};
use std::path::PathBuf;
use support::{Exact, exact, orthonormality_error};

const OPTIONS: Options = Options { device: Device::Cpu, threads: 0, tf32: false };

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

    fn run(&self, capture: &mut dyn Capture) {
        for batch in self.data.batches() {
            capture.absorb(&batch).unwrap();
        }
        capture.finish().unwrap();
    }

    /// The exact PCA of every group, from the activations of the plain model.
    fn truth(&self) -> Vec<Exact> {
        let outputs = self.grouping.groups.iter().map(|g| Output { name: g.tensors[0].clone(), element: None });
        let patch = Patch { outputs: outputs.collect(), drop_outputs: true, ..Patch::default() };
        let mut session = Session::load(&self.runtime, &self.model.apply(&patch).unwrap(), OPTIONS).unwrap();
        let mut rows: Vec<Array2<f64>> = self.grouping.groups.iter().map(|g| Array2::zeros((0, g.features))).collect();
        for batch in self.data.batches() {
            let feeds = self.feeds.bind(&batch).unwrap();
            let values = session.run(feeds.iter().map(|(name, value)| (name.as_str(), value))).unwrap();
            for (rows, value) in rows.iter_mut().zip(values) {
                let (_, data) = value.to_f64().unwrap();
                let all = Array2::from_shape_vec((data.len() / rows.ncols(), rows.ncols()), data).unwrap();
                let per_token = all.nrows() == batch.input_ids.len();
                let kept = if per_token { batch.rows() } else { batch.sequences() };
                let kept: Vec<usize> = kept.into_iter().map(|i| i as usize).collect();
                rows.append(Axis(0), all.select(Axis(0), &kept).view()).unwrap();
            }
        }
        rows.iter().map(|rows| exact(rows.view())).collect()
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
        assert!(error < 1e-4, "{name}: total variance off by {error}");
    }
}

#[test]
fn the_sketch_finds_the_directions_of_the_example() {
    let (cpu, gpu) = (Placement::default(), Placement::on(Device::Cuda(0), 1 << 14));
    for (exporter, placement) in [("example/dynamo", cpu), ("example/optimum", cpu), ("example/dynamo", gpu)] {
        let case = Case { placement, ..case(exporter, 24, 4, 256) };
        let mut sketch = Sketch::new(case.setup(32), &case.data.batch(0)).unwrap();
        case.run(&mut sketch);
        check(&case, &sketch, 16, 0.999);
        check(&case, &sketch, 32, 0.999);
    }
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
        for placement in [Placement::default(), Placement::on(Device::Cuda(0), 1)] {
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
    for placement in [Placement::default(), Placement::on(Device::Cuda(0), 1)] {
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
