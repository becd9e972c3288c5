//! `init`: from a model and data to an adapter on disk.

use super::args::{CaptureArg, Dtype, Emit, Init, RanksArg};
use super::progress::Bar;
use super::{Failure, Printed, devices, interrupt, select, splice, table};
use eva_onnx::adapter::Base;
use eva_onnx::calib::{self, BatchSize, Calibration};
use eva_onnx::capture::{Capture, Placement, Setup};
use eva_onnx::dtype::DType;
use eva_onnx::eva::{self, Allocation, Next, Ranks, Settings, Statistics, Stop};
use eva_onnx::feeds;
use eva_onnx::formats::peft;
use eva_onnx::group::{Grouping, Module};
use eva_onnx::hub::config::{self, Beside};
use eva_onnx::linear;
use eva_onnx::onnx::{self, Model};
use eva_onnx::output::Destination;
use eva_onnx::pca;
use eva_onnx::report;
use eva_onnx::runtime::{self, Device, Runtime};
use eva_onnx::splice::Form;
use eva_onnx::system;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

pub(crate) fn run(args: &Init) -> Result<Printed, Failure> {
    let started = Instant::now();
    let interrupted = interrupt::interrupt_flag(super::error::INTERRUPTED);
    let mut destination = Destination::prepare(&args.out, args.force)?;
    let model = prefill(&args.model).map_err(|e| Failure::from(e).in_file(&args.model))?;
    let beside = config::beside(&args.model, args.selection.naming.checkpoint.as_deref());
    let selection = select::select(&model, &args.selection, &beside, true).map_err(|e| e.in_file(&args.model))?;
    let grouping = &selection.grouping;
    let (plan, encoder) = plan(args, &model, &beside)?;
    let data = load_data(args, &model, &beside, &plan)?;

    let runtime = runtime::load(&runtime::find(args.runtime.ort_lib.as_deref())?)?;
    let devices = devices::devices(args, &runtime)?;
    let setup = Setup {
        runtime: &runtime,
        options: runtime::SessionOptions { device: Device::Cpu, threads: args.runtime.threads },
        model: &model,
        feeds: &plan,
        groups: &grouping.groups,
        components: settings(args).components(),
        placement: Placement::default(),
        seed: args.data_options.seed,
    };
    let load = devices::Load {
        args,
        encoder: encoder.as_ref(),
        example: &data.batch(0),
        tokens: data.largest(),
        half: linear::in_half(&selection.linears),
    };
    let mut capture = load.on(&devices, setup)?;
    let loaded = started.elapsed();

    let statistics = calibrate(args, &mut *capture, grouping, &data, &interrupted);
    let statistics = statistics.map_err(|e| Failure::from(e).in_file(&args.model))?;
    let settings = settings(args);
    let allocations = eva::allocate(&statistics, &grouping.modules, &settings);
    let mut adapter = eva::factors(&statistics, &grouping.modules, &allocations, &settings);
    adapter.untouched.extend(selection.untargeted.iter().cloned());

    let writing = Instant::now();
    let timing = statistics.timing;
    let mut report =
        report::Report::new(circumstances(args, &runtime, &devices), grouping, &statistics, &allocations, &settings);
    let weights = peft::weights(&adapter, element(args.adapter.dtype)).map_err(Failure::usage)?;
    let base = base(args, &beside);
    let config = peft::config(&adapter, &base);
    splice::emit(args, &forms(&args.emit), &adapter, &base, &mut destination).map_err(|e| e.in_file(&args.model))?;
    report.peak_rss_bytes = system::peak_rss();
    report.seconds = report::Seconds {
        load: loaded.as_secs_f64(),
        forward_and_sketch: timing.forward.as_secs_f64(),
        decompose: timing.decompose.as_secs_f64(),
        write: writing.elapsed().as_secs_f64(),
        total: started.elapsed().as_secs_f64(),
    };
    let json = report.to_json();
    destination.commit(&[
        (peft::WEIGHTS, weights),
        (peft::CONFIG, config.into_bytes()),
        (report::REPORT, json.clone().into_bytes()),
    ])?;
    Ok(Printed {
        text: printed(args, &report, &data, json),
        notes: if args.quiet { Vec::new() } else { notes(args, &selection, &statistics, &allocations) },
        status: status(&statistics),
    })
}

/// Runs the data through the model, with a bar, until the method or the user has enough.
fn calibrate(
    args: &Init,
    capture: &mut dyn Capture,
    grouping: &Grouping,
    data: &Calibration,
    interrupted: &AtomicBool,
) -> Result<Statistics, eva::Error> {
    let bar = Bar::start(data.len(), !(args.quiet || args.no_progress));
    let limited = args.data_options.max_batches.is_some_and(|most| data.len() >= most);
    let mut observe = |progress: &eva::Progress| {
        bar.show(progress);
        if interrupted.load(Ordering::SeqCst) { Next::Stop } else { Next::Continue }
    };
    let gathered = eva::gather(capture, grouping, data.batches(), &settings(args), &mut observe);
    bar.finish();
    let mut statistics = gathered?;
    if limited && statistics.stopped_by == Stop::Exhausted {
        statistics.stopped_by = Stop::MaxBatches;
    }
    Ok(statistics)
}

/// The model as it runs without a cache: where a graph holds both ways, the switch between them is fed zero.
fn prefill(path: &Path) -> Result<Model, onnx::Error> {
    let model = Model::open(path)?;
    let inputs = model.inputs();
    let switches = inputs.iter().filter(|input| input.dtype == DType::Bool).map(|input| input.name.as_str());
    Ok(model.assuming_false(&switches.collect::<Vec<_>>())?.unwrap_or(model))
}

/// The models to write, each once.
fn forms(emit: &[Emit]) -> Vec<Form> {
    let all = [(Emit::Trainable, Form::Trainable), (Emit::AdapterInputs, Form::AdapterInputs)];
    all.into_iter().filter(|(named, _)| emit.contains(named)).map(|(_, form)| form).collect()
}

/// The model of an encoder and where it lies.
pub(crate) type EncoderFile = (PathBuf, Model);

/// How the model is fed, with the encoder that it reads from, if any.
fn plan(args: &Init, model: &Model, beside: &Beside) -> Result<(feeds::Feeds, Option<EncoderFile>), Failure> {
    let plan = feeds::Feeds::plan(&model.inputs(), beside.cache).map_err(|e| Failure::from(e).in_file(&args.model))?;
    if !plan.needs_encoder() {
        return Ok((plan, None));
    }
    let (path, encoder) = encoder(args)?;
    let plan = plan.beside(&encoder.inputs()).map_err(|e| Failure::from(e).in_file(&path))?;
    Ok((plan, Some((path, encoder))))
}

/// The encoder that the decoder reads from.
fn encoder(args: &Init) -> Result<EncoderFile, Failure> {
    let beside = || args.model.with_file_name("encoder_model.onnx");
    let path = args.runtime.encoder.clone().unwrap_or_else(beside);
    if args.runtime.encoder.is_none() && !path.is_file() {
        return Err(Failure::from(feeds::Error::NoEncoder).in_file(&args.model));
    }
    let model = Model::open(&path).map_err(|e| Failure::from(e).in_file(&path))?;
    Ok((path, model))
}

fn load_data(args: &Init, model: &Model, beside: &Beside, plan: &feeds::Feeds) -> Result<Calibration, Failure> {
    let options = &args.data_options;
    let text = match (&options.text_field, &options.text_template) {
        (Some(field), _) => calib::TextSource::Field(field.clone()),
        (None, Some(template)) => calib::TextSource::Template(template.clone()),
        (None, None) => calib::TextSource::Auto,
    };
    let order = match (options.shuffle, options.keep_order) {
        (true, _) => calib::Order::Shuffled,
        (false, true) => calib::Order::Kept,
        (false, false) => calib::Order::Grouped,
    };
    Ok(calib::load(&calib::LoadOptions {
        files: args.data.clone(),
        tokenizer: options.tokenizer.clone().or_else(|| beside.tokenizer.clone()),
        text,
        completion_only: options.completion_only,
        max_length: beside.positions.map_or(options.max_length, |most| most.min(options.max_length)),
        batch_size: options.batch_tokens.map_or(BatchSize::Rows(options.batch_size), BatchSize::Tokens),
        max_batches: options.max_batches,
        order,
        seed: options.seed,
        vocab_size: select::embedding_rows(model).or(beside.vocab_size),
        shape: plan.shape(),
        tokens: plan.reads_tokens(),
        tensors: plan.tensors(),
        decoder_start: plan.needs_pairs().then(|| beside.decoder_start.unwrap_or(0)),
    })?)
}

fn settings(args: &Init) -> Settings {
    let method = &args.method;
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

fn circumstances(args: &Init, runtime: &Runtime, devices: &[Device]) -> report::Run {
    report::Run {
        version: env!("CARGO_PKG_VERSION"),
        model: args.model.display().to_string(),
        data: args.data.iter().map(|path| path.display().to_string()).collect(),
        device: devices::named(devices),
        onnxruntime: runtime.version.clone(),
        capture: match args.method.capture {
            CaptureArg::Sketch => "sketch",
            CaptureArg::Outputs => "outputs",
        },
        seed: args.data_options.seed,
        rank: args.method.rank,
        alpha: args.method.alpha,
        rho: args.method.rho,
        tau: args.method.tau,
    }
}

fn base(args: &Init, beside: &Beside) -> Base {
    Base {
        name: args.adapter.base_model.clone().or_else(|| beside.base_model.clone()),
        task_type: args.adapter.task_type.clone().or_else(|| beside.task_type.clone()),
    }
}

pub(crate) fn element(dtype: Dtype) -> peft::Element {
    match dtype {
        Dtype::F32 => peft::Element::F32,
        Dtype::F16 => peft::Element::F16,
        Dtype::Bf16 => peft::Element::Bf16,
    }
}

fn printed(args: &Init, report: &report::Report, data: &Calibration, json: String) -> String {
    match (args.quiet, args.json) {
        (_, true) => json,
        (true, false) => String::new(),
        (false, false) => table::report(report, data.counts(), &args.out),
    }
}

/// What the user should know: names in doubt, and experts whose rows are few or mixed.
fn notes(
    args: &Init,
    selection: &select::Selection,
    statistics: &Statistics,
    allocations: &[Allocation],
) -> Vec<String> {
    let mut notes = selection.notes.clone();
    let split = statistics.events.split_batches;
    if split > 0 {
        notes.push(format!(
            "the device has not enough memory for {split} batches or halves of batches, which were run in two parts; \
             --batch-size and --batch-tokens make them smaller"
        ));
    }
    if statistics.events.reloaded_in_f32 {
        notes.push(
            "activations that 16 bits do not hold, or padding that is not finite: the model was loaded a second time, \
             with a slower sketch that takes both"
                .to_owned(),
        );
    }
    let select::Selection { grouping, .. } = selection;
    let layers = grouping.modules.iter().zip(allocations);
    let spectrum = |module: &Module| &statistics.groups[module.group].spectrum;
    let spread = |(module, allocation): &(&Module, &Allocation)| spectrum(module).spread(allocation.rank);
    let range = match args.method.capture {
        CaptureArg::Sketch => pca::RANGE,
        CaptureArg::Outputs => f64::INFINITY,
    };
    let faint = layers.filter(|layer| spread(layer) > range).count();
    if faint > 0 {
        notes.push(format!(
            "the first component of {faint} of {} layers has over {} times the deviation of the last one: beside it, small \
             ones are found only roughly; --capture outputs finds all, but is slower",
            allocations.len(),
            range
        ));
    }
    if grouping.groups.iter().any(|group| group.routed) {
        notes.push(
            "the tokens that a router sends to an expert cannot be told apart: padding and prompts count there"
                .to_owned(),
        );
    }
    let starved = grouping.modules.iter().filter(|module| spectrum(module).rows == 0);
    let starved: Vec<String> = starved.map(|module| format!("`{}`", module.name)).collect();
    if !starved.is_empty() {
        let shown = starved.iter().take(6).cloned().collect::<Vec<_>>().join(", ");
        let more = if starved.len() > 6 { ", ..." } else { "" };
        notes.push(format!(
            "{} layers got no token of the calibration data and have no adapter ({shown}{more}); more data may reach them",
            starved.len()
        ));
    }
    notes
}

fn status(statistics: &Statistics) -> u8 {
    if statistics.stopped_by == Stop::Interrupted { super::error::INTERRUPTED } else { 0 }
}
