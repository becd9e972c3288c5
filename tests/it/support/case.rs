//! Committed models with real text, ready to gather statistics.

use crate::support::adapters::runtime;
use crate::support::eva::{self, root};
use crate::support::{Exact, exact};
use eva_onnx::calib::{self, Calibration, DataFiles};
use eva_onnx::capture::{Capture, Demands, Events, Setup, Sharded, Sketch, Strategy};
use eva_onnx::feeds::Feeds;
use eva_onnx::group::Grouping;
use eva_onnx::init::Prepared;
use eva_onnx::onnx::{Model, Output, Patch};
use eva_onnx::options::{BatchSize, DataOptions, Naming, Order, RuntimeOptions, Selection, TextSource};
use eva_onnx::pca::Precision;
use eva_onnx::runtime::{Device, Runtime, Session, SessionOptions};
use ndarray::{Array2, Axis};

pub const OPTIONS: SessionOptions = SessionOptions { device: Device::Cpu, threads: 0 };

/// As a GPU has it: groups joined in products with their rows, rows that are masked, and products of 16 bits. Pieces are
/// so small that the groups have several.
pub fn gpu() -> [Strategy; 3] {
    let batched = |precision, features| Strategy::Batched { precision, features, piece: 32 };
    [batched(Precision::F32, 1 << 23), batched(Precision::F32, 1), batched(Precision::F16, 1)]
}

pub struct Case {
    pub model: Model,
    pub runtime: Runtime,
    pub feeds: Feeds,
    pub grouping: Grouping,
    pub data: Calibration,
    pub strategy: Strategy,
}

/// A committed model with all its linear layers but the head, and `batches` batches of real text.
pub fn case(folder: &str, batches: usize, batch_size: usize, max_length: usize) -> Case {
    let batch_size = BatchSize::Rows(batch_size);
    of(folder, DataOptions { batch_size, max_length, max_batches: Some(batches), ..in_order() })
}

/// As [`case`], with batches of 4 answers, some of which are shorter than the positions of the tiny models: there is
/// padding.
pub fn padded_case(folder: &str, batches: usize) -> Case {
    let text = TextSource::Field("answer".to_owned());
    let case = of(folder, DataOptions { text, max_batches: Some(batches), ..in_order() });
    assert!(case.data.batches().any(|batch| batch.attended() < batch.keep.len()), "no padding");
    case
}

fn in_order() -> DataOptions {
    DataOptions { order: Order::Kept, ..DataOptions::default() }
}

fn of(folder: &str, options: DataOptions) -> Case {
    let prepared =
        Prepared::open(&eva::graph(folder), &Naming::default(), &Selection::default(), &RuntimeOptions::default())
            .unwrap();
    let rows = root().join("fixtures/calibration.jsonl");
    let data = calib::load(&mut DataFiles::new([rows]), &prepared.load_options(&options)).unwrap();
    let (model, feeds) = (prepared.model().clone(), prepared.feeds);
    let (grouping, strategy) = (prepared.chosen.grouping, Strategy::Direct);
    Case { model, runtime: runtime(), feeds, grouping, data, strategy }
}

impl Case {
    pub fn setup(&self, components: usize) -> Setup<'_> {
        Setup {
            runtime: &self.runtime,
            options: OPTIONS,
            model: &self.model,
            feeds: &self.feeds,
            groups: &self.grouping.groups,
            components,
            strategy: self.strategy,
            seed: 0,
            demands: Demands::default(),
            may_turn: false,
        }
    }

    /// Sketches on as many devices, which one CPU stands in for.
    pub fn sharded(&self, shards: usize, setup: Setup<'_>) -> Sharded {
        let shards = (0..shards).map(|_| Box::new(Sketch::new(setup, &self.data.batch(0)).unwrap()) as _);
        Sharded::new(shards.collect(), setup.groups, setup.components, 2)
    }

    pub fn run(&self, capture: &mut dyn Capture) -> Events {
        for batch in self.data.batches() {
            capture.absorb(&batch).unwrap();
        }
        capture.finish().unwrap()
    }

    /// The rows that count, by batch and group, from the plain model.
    pub fn activations(&self) -> Vec<Vec<Array2<f64>>> {
        let outputs = self.grouping.groups.iter().map(|g| Output { name: g.tensors[0].clone(), dtype: None });
        let patch = Patch { outputs: outputs.collect(), drop_outputs: true, ..Patch::default() };
        let mut session = Session::load(&self.runtime, &self.model.apply(&patch).unwrap(), OPTIONS).unwrap();
        let kept = self.data.batches().map(|batch| {
            let feeds = self.feeds.bind(&batch).unwrap();
            let values = session.run(feeds.iter().map(|(name, value)| (name.as_str(), value))).unwrap();
            let of_group = self.grouping.groups.iter().zip(values).map(|(group, value)| {
                let (_, data) = value.to_f64().unwrap();
                let all = Array2::from_shape_vec((data.len() / group.features, group.features), data).unwrap();
                let per_token = all.nrows() == batch.keep.len();
                let kept = if per_token { batch.rows() } else { batch.sequences() };
                let kept: Vec<usize> = kept.into_iter().map(|i| i as usize).collect();
                all.select(Axis(0), &kept)
            });
            of_group.collect()
        });
        kept.collect()
    }

    /// The exact PCA of every group.
    pub fn truth(&self) -> Vec<Exact> {
        let batches = self.activations();
        let rows = |g: usize| batches.iter().map(|groups| groups[g].view()).collect::<Vec<_>>();
        let all = |g| exact(ndarray::concatenate(Axis(0), &rows(g)).unwrap().view());
        (0..self.grouping.groups.len()).map(all).collect()
    }
}
