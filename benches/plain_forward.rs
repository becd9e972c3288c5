//! A plain ONNX Runtime forward pass, without the output head: the least that any calibration must cost.
//!
//! ```text
//! plain_forward MODEL ROWS --batch-size N --max-batches N --device cpu|cuda[:N]
//! ```
//!
//! Takes the same batches as `eva-onnx init --keep-order`, prints the seconds of each and the peak memory as JSON.

#![expect(clippy::print_stdout)]

use clap::Parser;
use eva_onnx::onnx::{Model, Output, Patch};
use eva_onnx::runtime::{self, Device, Options, Session};
use eva_onnx::{calib, feeds, linear, system};
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
    ort_lib: Option<PathBuf>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let model = Model::open(&args.model)?;
    let plan = feeds::plan(&model.inputs(), feeds::CacheShape::default())?;
    let data = calib::load(&calib::Options {
        files: vec![args.rows],
        batch_size: args.batch_size,
        max_batches: args.max_batches,
        order: calib::Order::Kept,
        shape: plan.shape(),
        ..calib::Options::default()
    })?;
    let runtime = runtime::load(&runtime::find(args.ort_lib.as_deref())?)?;

    let started = Instant::now();
    let options = Options { device: args.device, threads: args.threads };
    let mut session = Session::load(&runtime, &without_head(&model)?, options)?;
    let load = started.elapsed().as_secs_f64();
    let mut forward = Vec::new();
    for batch in data.batches() {
        let inputs = plan.bind(&batch)?;
        let started = Instant::now();
        session.run_keeping(inputs.iter().map(|(name, value)| (name.as_str(), value)), |_| true)?;
        forward.push(started.elapsed().as_secs_f64());
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
fn without_head(model: &Model) -> Result<Model, Box<dyn Error>> {
    let (linears, _) = linear::find(model, None);
    let name = match linears.iter().find(|linear| linear.head) {
        Some(head) => head.input.clone(),
        None => model.outputs().into_iter().next().ok_or("the model has no output")?.name,
    };
    let outputs = vec![Output { name, element: None }];
    Ok(model.apply(&Patch { outputs, drop_outputs: true, ..Patch::default() })?)
}
