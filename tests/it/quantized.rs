//! Quantized exports against their own activations: what quantization does to them is not ours, and only rounding is left.

use crate::support;
use crate::support::adapters::{OPTIONS, read_a, runtime};
use crate::support::eva;
use crate::support::exports as files;

use std::collections::BTreeMap;
use std::path::Path;

use eva_onnx::calib::{self, BatchSize, Order};
use eva_onnx::feeds::{self, CacheShape};
use eva_onnx::linear::{self, Linear};
use eva_onnx::onnx::{Model, Output, Patch};
use eva_onnx::runtime::{self, Session};
use ndarray::Array2;
use support::exact;
use support::tolerance::{stored, within};

const RANK: usize = 6;

/// What the layers of the model read for the rows, by tensor.
fn activations(model: &Model, linears: &[Linear], rows: &Path) -> BTreeMap<String, Array2<f64>> {
    let feeds = feeds::Feeds::plan(&model.inputs(), CacheShape { heads: Some(1), head_dim: Some(16) }).unwrap();
    let options =
        calib::LoadOptions { batch_size: BatchSize::Rows(2), order: Order::Kept, ..calib::LoadOptions::default() };
    let batch = calib::load(&mut calib::DataFiles::new([rows]), &options).unwrap().batch(0);
    let inputs: BTreeMap<String, usize> =
        linears.iter().map(|linear| (linear.input.tensor.clone(), linear.in_features)).collect();
    let outputs = inputs.keys().map(|name| Output { name: name.clone(), dtype: None });
    let patch = Patch { outputs: outputs.collect(), drop_outputs: true, ..Patch::default() };
    let mut session = Session::load(&runtime(), &model.apply(&patch).unwrap(), OPTIONS).unwrap();
    let bound = feeds.bind(&batch).unwrap();
    let values = session.run(bound.iter().map(|(name, value)| (name.as_str(), value))).unwrap();
    let matrix = |((name, width), value): ((String, usize), runtime::Value)| {
        let data = value.to_f64().unwrap().1;
        (name, Array2::from_shape_vec((data.len() / width, width), data).unwrap())
    };
    inputs.into_iter().zip(values).map(matrix).collect()
}

/// The `A` of every module that `init` writes.
fn adapter(dir: &Path, capture: &str) -> Vec<(String, Array2<f64>)> {
    let mut command = eva::eva();
    command.current_dir(dir).args(["init", "model.onnx", "--data", "rows.jsonl", "--out", capture, "--quiet"]);
    command.args(["--ranks", "uniform", "--rank", &RANK.to_string(), "--rho", "1", "--tau", "1", "--batch-size", "2"]);
    command.args(["--device", "cpu", "--capture", capture, "--target-modules", ".*", "--keep-order"]);
    eva::run(&mut command).unwrap();
    read_a(&dir.join(capture))
}

/// A copy of the folder with the graph unpacked, and two rows of eight tokens, so that a sketch follows all of them.
fn unpacked(folder: &str) -> tempfile::TempDir {
    let dir = files::unpacked(folder);
    let row = |start: u64| serde_json::json!({"input_ids": (start..start + 8).map(|i| i * 7 % 31).collect::<Vec<_>>()});
    std::fs::write(dir.path().join("rows.jsonl"), format!("{}\n{}\n", row(1), row(20))).unwrap();
    dir
}

#[test]
fn directions_are_those_of_the_quantized_model_to_rounding() {
    let folders = [
        "bert/dynamic",
        "bert/qoperator",
        "bert/qdq",
        "llama/nbits4",
        "llama/nbits8",
        "llama/nbits-flat",
        "llama/int4-qdq",
        "llama/nf4",
        "llama/fp4",
        "genai-llama/int4",
    ];
    for folder in folders {
        let dir = unpacked(folder);
        let model = Model::open(dir.path().join("model.onnx")).unwrap();
        let (linears, _) = linear::find(&model, Some("llama"));
        let read = activations(&model, &linears, &dir.path().join("rows.jsonl"));
        for capture in ["outputs", "sketch"] {
            let adapter = adapter(dir.path(), capture);
            assert!(adapter.len() >= linears.len(), "{folder}");
            for (module, a) in adapter {
                let has = |linear: &Linear| linear.modules.iter().any(|part| part.module == module);
                let rows = &read[&linears.iter().find(|linear| has(linear)).unwrap().input.tensor];
                // A layer that reads one
                // row a sequence has no more than one direction.
                let known = a.slice(ndarray::s![..RANK.min(rows.nrows() - 1), ..]);
                let missed = 1.0 - exact(rows.view()).captured(known);
                within(missed, stored(24), &format!("{folder}, {capture}: {module}"));
            }
        }
    }
}
