//! The plain forward pass that `eva-onnx init` is measured against.
//!
//! Runs a model over calibration rows with its outputs pruned to the input of the output head, as `init` does, and
//! prints what it took as one JSON document:
//!
//!     cargo bench --bench forward -- MODEL ROWS.jsonl [--batch-size N] [--max-length N]
#![allow(clippy::print_stdout)]

use clap::Parser;
use eva_onnx::calib::{self, Order};
use eva_onnx::feeds::{self, CacheShape};
use eva_onnx::onnx::{Model, Output, Patch};
use eva_onnx::runtime::{self, Device, Session};
use eva_onnx::{linear, system};
use serde_json::json;
use std::error::Error;
use std::path::PathBuf;
use std::time::Instant;

#[derive(Parser)]
struct Args {
    model: PathBuf,
    rows: PathBuf,
    #[arg(long, default_value_t = 4)]
    batch_size: usize,
    #[arg(long, default_value_t = 512)]
    max_length: usize,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let started = Instant::now();
    let model = Model::open(&args.model)?;
    let plan = feeds::plan(&model.inputs(), CacheShape::default())?;
    let data = calib::load(&calib::Options {
        files: vec![args.rows.clone()],
        tokenizer: args.model.parent().map(|dir| dir.join("tokenizer.json")),
        batch_size: args.batch_size,
        max_length: args.max_length,
        order: Order::Kept,
        shape: plan.shape(),
        ..calib::Options::default()
    })?;
    let runtime = runtime::load(&runtime::find(None)?)?;
    let options = runtime::Options { device: Device::Cpu, threads: 0 };
    let mut session = Session::load(&runtime, &model.apply(&pruned(&model))?, options)?;
    let load = started.elapsed();

    let started = Instant::now();
    let mut tokens = 0;
    for batch in data.batches() {
        let feeds = plan.bind(&batch)?;
        session.run(feeds.iter().map(|(name, value)| (name.as_str(), value)))?;
        tokens += batch.tokens();
    }
    let report = json!({
        "batches": data.len(),
        "tokens": tokens,
        "load_seconds": load.as_secs_f64(),
        "forward_seconds": started.elapsed().as_secs_f64(),
        "peak_rss_bytes": system::peak_rss(),
    });
    println!("{report}");
    Ok(())
}

/// Replaces the outputs by the input of the output head; a model without a head keeps its own.
fn pruned(model: &Model) -> Patch {
    let (linears, _) = linear::find(model, None);
    match linears.into_iter().find(|linear| linear.head) {
        Some(head) => {
            Patch { outputs: vec![Output { name: head.input, element: None }], drop_outputs: true, ..Patch::default() }
        }
        None => Patch::default(),
    }
}
