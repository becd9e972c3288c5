//! `init`: from a model and data to an adapter on disk.

use super::args::{CaptureArg, DataOptions, Dtype, Emit, Init, Method, RanksArg, RuntimeOptions};
use super::interrupt::interrupt_flag;
use super::progress::Bar;
use super::{ExitStatus, Failure, Printed, table};
use eva_onnx::{BatchSize, CaptureMethod, DType, Destination, Form, Next, Order, Ranks, Settings, Stop, TextSource};
use std::sync::atomic::Ordering;

pub(crate) fn run(args: &Init) -> Result<Printed, Failure> {
    let interrupted = interrupt_flag(ExitStatus::Interrupted);
    let destination = Destination::prepare(&args.out, args.force)?;
    let mut bar = Bar::new(!(args.quiet || args.no_progress));
    let mut run = set_up(args).run_with(|progress| {
        bar.show(progress);
        if interrupted.load(Ordering::SeqCst) { Next::Stop } else { Next::Continue }
    })?;
    bar.finish();
    let json = run.save_to(destination)?;
    let text = match (args.json, args.quiet) {
        (true, _) => json,
        (false, true) => String::new(),
        (false, false) => table::summary(&run, &args.out),
    };
    let notes = if args.quiet { Vec::new() } else { run.notes.iter().map(ToString::to_string).collect() };
    let status = if run.stopped_by == Stop::Interrupted { ExitStatus::Interrupted } else { ExitStatus::Done };
    Ok(Printed { text, notes, status })
}

fn set_up(args: &Init) -> eva_onnx::Init {
    eva_onnx::Init::new(&args.model)
        .data(&args.data)
        .settings(settings(&args.method))
        .capture(args.method.capture.into())
        .naming(args.selection.naming.to_options())
        .selection(args.selection.to_options())
        .data_options(data_options(&args.data_options))
        .runtime(runtime_options(&args.runtime))
        .base(args.adapter.base())
        .dtype(args.adapter.dtype.into())
        .emit(args.emit.iter().copied().filter_map(form))
}

/// The model to write beside the adapter.
fn form(emit: Emit) -> Option<Form> {
    match emit {
        Emit::Peft => None,
        Emit::Trainable => Some(Form::Trainable),
        Emit::AdapterInputs => Some(Form::AdapterInputs),
    }
}

fn settings(method: &Method) -> Settings {
    Settings {
        rank: method.rank,
        alpha: method.alpha,
        rho: method.rho,
        tau: method.tau,
        min_rank: method.min_rank,
        ranks: match method.ranks {
            RanksArg::Eva => Ranks::Eva,
            RanksArg::Uniform => Ranks::Uniform,
        },
        whiten: method.whiten,
    }
}

fn data_options(options: &DataOptions) -> eva_onnx::DataOptions {
    eva_onnx::DataOptions {
        tokenizer: options.tokenizer.clone(),
        text: match (&options.text_field, &options.text_template) {
            (Some(field), _) => TextSource::Field(field.clone()),
            (None, Some(template)) => TextSource::Template(template.clone()),
            (None, None) => TextSource::Auto,
        },
        completion_only: options.completion_only,
        max_length: options.max_length,
        batch_size: options.batch_tokens.map_or(BatchSize::Rows(options.batch_size), BatchSize::Tokens),
        max_batches: options.max_batches,
        order: match (options.shuffle, options.keep_order) {
            (true, _) => Order::Shuffled,
            (false, true) => Order::Kept,
            (false, false) => Order::Grouped,
        },
        seed: options.seed,
    }
}

fn runtime_options(options: &RuntimeOptions) -> eva_onnx::RuntimeOptions {
    eva_onnx::RuntimeOptions {
        devices: options.device.clone(),
        threads: options.threads,
        ort_lib: options.ort_lib.clone(),
        encoder: options.encoder.clone(),
    }
}

impl From<CaptureArg> for CaptureMethod {
    fn from(capture: CaptureArg) -> Self {
        match capture {
            CaptureArg::Sketch => CaptureMethod::Sketch,
            CaptureArg::Outputs => CaptureMethod::Outputs,
        }
    }
}

impl From<Dtype> for DType {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::Bf16 => DType::BF16,
        }
    }
}
