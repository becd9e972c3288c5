//! A plain ONNX Runtime forward pass, without the output head: the least that any calibration must cost.
//!
//! ```text
//! plain_forward MODEL ROWS --batch-size N --max-batches N --device cpu|cuda[:N] [--sketch RANK]
//! ```
//!
//! Takes the same batches as `eva-onnx init --keep-order`, prints the seconds of each and the peak memory as JSON. With
//! `--sketch`, what `eva-onnx init` does with a batch is timed instead.

#![expect(clippy::print_stdout)]

use clap::Parser;
use eva_onnx::calib::{self, DataFiles};
use eva_onnx::init::{Load, Prepared};
use eva_onnx::onnx::{Model, Output, Patch};
use eva_onnx::options::{BatchSize, CaptureMethod, DataOptions, Naming, Order, RuntimeOptions, Selection};
use eva_onnx::runtime::{self, Device, Memory, Session, SessionOptions};
use eva_onnx::system;
use std::error::Error;
use std::path::PathBuf;
use std::time::Instant;

#[derive(Parser)]
struct Args {
    model: PathBuf,
    rows: PathBuf,
    #[arg(long, default_value_t = 4)]
    batch_size: usize,
    #[arg(long)]
    max_batches: Option<usize>,
    #[arg(long, default_value = "cpu")]
    device: Device,
    #[arg(long, default_value_t = 0)]
    threads: usize,
    #[arg(long)]
    max_length: Option<usize>,
    #[arg(long)]
    ort_lib: Option<PathBuf>,
    /// Components followed
    #[arg(long)]
    sketch: Option<usize>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let prepared = Prepared::open(&args.model, &Naming::default(), &Selection::default(), &RuntimeOptions::default())?;
    let options = DataOptions {
        batch_size: BatchSize::Rows(args.batch_size),
        max_batches: args.max_batches,
        order: Order::Kept,
        max_length: args.max_length.unwrap_or(usize::MAX),
        ..DataOptions::default()
    };
    let data = calib::load(&mut DataFiles::new([args.rows]), &prepared.load_options(&options))?;
    let runtime = runtime::load(&runtime::find(args.ort_lib.as_deref())?)?;

    let started = Instant::now();
    let mut forward = Vec::new();
    let load;
    if let Some(components) = args.sketch {
        let setup = Load {
            prepared: &prepared,
            runtime: &runtime,
            method: CaptureMethod::Sketch,
            threads: args.threads,
            components,
            seed: 0,
            may_end: false,
        };
        let mut sketch = setup.on(&[args.device], &data)?;
        load = started.elapsed().as_secs_f64();
        for batch in data.batches() {
            let started = Instant::now();
            sketch.absorb(&batch)?;
            forward.push(started.elapsed().as_secs_f64());
        }
        sketch.finish()?;
    } else {
        let options = SessionOptions { device: args.device, threads: args.threads };
        let feeds = prepared.feeds_on(&runtime, options)?;
        let mut session = Session::load(&runtime, &without_head(&prepared)?, options)?;
        load = started.elapsed().as_secs_f64();
        for batch in data.batches() {
            let inputs = feeds.bind(&batch)?;
            let started = Instant::now();
            let fed = inputs.iter().map(|(name, value)| (name.as_str(), value));
            session.run_to(fed, |_| Memory::Device)?;
            forward.push(started.elapsed().as_secs_f64());
        }
    }
    let report = serde_json::json!({
        "load": load,
        "forward": forward.iter().sum::<f64>(),
        "batches": forward,
        "peak_rss_bytes": system::peak_rss(),
    });
    println!("{report}");
    Ok(())
}

/// The model with what the output head reads as its only output, or with the first output when there is no head.
fn without_head(prepared: &Prepared) -> Result<Model, Box<dyn Error>> {
    let model = prepared.model();
    let name = match prepared.linears().iter().find(|linear| linear.head) {
        Some(head) => head.input.tensor.clone(),
        None => model.outputs().into_iter().next().ok_or("the model has no output")?.name,
    };
    let outputs = vec![Output { name, dtype: None }];
    Ok(model.apply(&Patch { outputs, drop_outputs: true, ..Patch::default() })?)
}
