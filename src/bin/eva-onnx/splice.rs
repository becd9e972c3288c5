//! `splice`: an adapter into a model.

use super::args::{FormArg, Init, LossArg, Splice};
use super::{Failure, Printed, select};
use eva_onnx::adapter::{Adapter, Base};
use eva_onnx::formats::{manifest, onnx_adapter, peft};
use eva_onnx::hub::config;
use eva_onnx::linear::{Layers, Linear};
use eva_onnx::onnx::Model;
use eva_onnx::output::model::{self, Weights};
use eva_onnx::output::{self, Destination};
use eva_onnx::splice::{self, Form, LossEdit, Record, Site, Task};
use serde_json::json;
use std::fmt::Write as _;
use std::io::{BufWriter, Write as _};
use std::path::Path;

/// File of the merged weights.
const MERGED: &str = "merged.data";

pub(crate) fn run(args: &Splice) -> Result<Printed, Failure> {
    if args.ort_training && args.form != FormArg::Trainable {
        return Err(Failure::usage("--ort-training needs --as trainable"));
    }
    let mut destination = Destination::prepare(&args.out, args.force)?;
    if args.copy {
        destination.without_links();
    }
    let (adapter, base) = adapter(&args.adapter)?;
    let model = Model::open(&args.model).map_err(|e| Failure::from(e).in_file(&args.model))?;
    let beside = config::beside(&args.model, args.naming.checkpoint.as_deref());
    let Layers { linears, notes, .. } =
        select::layers(&model, &args.naming, &beside).map_err(|e| e.in_file(&args.model))?;
    let sites = splice::fit(&linears, &adapter).map_err(|e| Failure::from(e).in_file(&args.adapter))?;

    let form = form(args.form);
    let record = Record::new(form, &adapter, &base);
    let job = Job { model: &model, linears: &linears, sites: &sites, adapter: &adapter, record: &record };
    let training = args.ort_training.then_some(args.loss);
    let weights = put(&job, training, &mut destination, "").map_err(|e| e.in_file(&args.model))?;
    destination.commit(&[])?;
    Ok(Printed { text: printed(args, form, &adapter, sites.len(), weights), notes, status: 0 })
}

/// Puts models with an adapter that `init` has made into folders of a destination, one for each form.
pub(crate) fn emit(
    args: &Init,
    forms: &[Form],
    adapter: &Adapter,
    base: &Base,
    destination: &mut Destination,
) -> Result<(), Failure> {
    if forms.is_empty() {
        return Ok(());
    }
    // What ran for calibration may be a part of the model only.
    let model = Model::open(&args.model)?;
    let naming = &args.selection.naming;
    let beside = config::beside(&args.model, naming.checkpoint.as_deref());
    let Layers { linears, .. } = select::layers(&model, naming, &beside)?;
    let sites = splice::fit(&linears, adapter)?;
    for form in forms {
        let record = Record::new(*form, adapter, base);
        let job = Job { model: &model, linears: &linears, sites: &sites, adapter, record: &record };
        put(&job, None, destination, &format!("{}/", form.as_str()))?;
    }
    Ok(())
}

/// What goes into what.
struct Job<'a> {
    model: &'a Model,
    linears: &'a [Linear],
    sites: &'a [Site<'a>],
    adapter: &'a Adapter,
    record: &'a Record,
}

fn put(
    job: &Job<'_>,
    training: Option<Option<LossArg>>,
    destination: &mut Destination,
    inside: &str,
) -> Result<Weights, Failure> {
    let (mut spliced, own) = edited(job, destination, inside)?;
    if let Some(task) = training {
        spliced = trained(&spliced, job, task, destination)?;
    }
    let own: Vec<&str> = own.iter().map(String::as_str).collect();
    let moved = model::moved(&spliced, &own)?;
    Ok(model::put(job.model.path(), &moved, destination, inside)?)
}

/// A folder of PEFT, or a file for ONNX Runtime.
pub(crate) fn adapter(path: &Path) -> Result<(Adapter, Base), Failure> {
    if path.is_dir() {
        return Ok(peft::read(path)?);
    }
    Ok((onnx_adapter::read(path)?, Base::default()))
}

fn form(form: FormArg) -> Form {
    match form {
        FormArg::Trainable => Form::Trainable,
        FormArg::AdapterInputs => Form::AdapterInputs,
        FormArg::Merged => Form::Merged,
    }
}

/// The edited model, and the names of data files that are in the folder already.
fn edited(job: &Job<'_>, destination: &mut Destination, inside: &str) -> Result<(Model, Vec<String>), Failure> {
    let metadata = || vec![(splice::KEY.to_owned(), job.record.to_json())];
    let Job { model, sites, .. } = job;
    match job.record.form {
        Form::Trainable => {
            let mut patch = splice::trainable(model, sites)?;
            patch.metadata = metadata();
            Ok((model.apply(&patch)?, Vec::new()))
        }
        Form::AdapterInputs => {
            let mut patch = splice::adapter_inputs(model, sites)?;
            patch.metadata = metadata();
            let file = onnx_adapter::bytes(&splice::parameters(job.adapter));
            destination.write(&format!("{inside}{}", onnx_adapter::ADAPTER), &file)?;
            Ok((model.apply(&patch)?, Vec::new()))
        }
        Form::Merged => {
            let name = model::free_name(model, MERGED);
            let path = format!("{inside}{name}");
            let mut out = BufWriter::new(destination.create(&path)?);
            let patch = splice::merge(model, sites, &name, &mut out)?;
            let path = destination.dir().join(&path);
            let synced = out.flush().and_then(|()| out.get_ref().sync_all());
            synced.map_err(|source| output::Error::Io { path, source })?;
            Ok((model.apply(&patch)?, vec![name]))
        }
    }
}

/// The model with a loss, as ONNX Runtime Training takes it; the files that go with it are put into the folder.
fn trained(
    model: &Model,
    job: &Job<'_>,
    task: Option<LossArg>,
    destination: &mut Destination,
) -> Result<Model, Failure> {
    let task = task.map(|task| match task {
        LossArg::CausalLm => Task::CausalLm,
        LossArg::Classification => Task::Classification,
    });
    let classes = job.linears.iter().find(|linear| linear.head).map(|linear| linear.out_features);
    let LossEdit { patch, task, logits } = splice::loss(model, task, classes)?;
    let model = model.apply(&patch)?;
    let model = model.apply(&splice::prepare(&model, &manifest::trainable(job.record), splice::LOSS)?)?;
    let manifest = manifest::manifest(&model, job.record, task, &logits);
    destination.write(manifest::MANIFEST, manifest.as_bytes())?;
    destination.write(manifest::SCRIPT, manifest::script().as_bytes())?;
    Ok(model)
}

fn printed(args: &Splice, form: Form, adapter: &Adapter, layers: usize, weights: Weights) -> String {
    let ranks: usize = adapter.modules.iter().map(|module| module.rank()).sum();
    if args.json {
        let document = json!({
            "model": args.model.display().to_string(),
            "adapter": args.adapter.display().to_string(),
            "as": form.as_str(),
            "out": args.out.display().to_string(),
            "modules": adapter.modules.len(),
            "layers": layers,
            "ranks_total": ranks,
            "weights": {"linked_bytes": weights.linked, "copied_bytes": weights.copied},
        });
        return serde_json::to_string_pretty(&document).unwrap_or_default() + "\n";
    }
    let modules = adapter.modules.len();
    let mut text = format!("{modules} modules with {ranks} ranks, {} in {layers} layers\n", form.as_str());
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    if weights.linked > 0 {
        let _ = writeln!(text, "{:.1} MB of weights shared with the model by hard links", megabytes(weights.linked));
    }
    if weights.copied > 0 {
        let _ = writeln!(text, "{:.1} MB of weights copied", megabytes(weights.copied));
    }
    let _ = writeln!(text, "written to {}", args.out.display());
    text
}
