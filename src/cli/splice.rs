//! `splice`: an adapter into a model.

use super::args::{FormArg, LossArg, Splice};
use super::{Failure, Printed, config, select};
use crate::adapter::{Adapter, Base};
use crate::linear::{Layers, Linear};
use crate::onnx::Model;
use crate::read;
use crate::splice::{self, Form, Record, Site, Task};
use crate::write::fs::{Destination, Error as FsError};
use crate::write::model::{self, MODEL, Weights};
use crate::write::{manifest, onnx_adapter};
use serde_json::json;
use std::fmt::Write as _;
use std::io::{BufWriter, Write as _};
use std::path::Path;

/// File of the merged weights.
const MERGED: &str = "merged.data";

pub(super) fn run(args: &Splice) -> Result<Printed, Failure> {
    if args.ort_training && args.form != FormArg::Trainable {
        return Err(Failure::usage("--ort-training needs --as trainable"));
    }
    let mut destination = Destination::prepare(&args.out, args.force)?;
    let (adapter, base) = adapter(&args.adapter)?;
    let model = Model::open(&args.model).map_err(|e| Failure::from(e).in_file(&args.model))?;
    let beside = config::beside(&args.model, args.naming.checkpoint.as_deref());
    let Layers { linears, notes, .. } =
        select::layers(&model, &args.naming, &beside).map_err(|e| e.in_file(&args.model))?;
    let sites = splice::fit(&linears, &adapter).map_err(|e| Failure::from(e).in_file(&args.adapter))?;

    let form = form(args.form);
    let record = Record::new(form, &adapter, &base);
    let (mut spliced, mut files, own) =
        edited(&model, &record, &sites, &adapter, &mut destination).map_err(|e| e.in_file(&args.model))?;
    if args.ort_training {
        let (model, more) = training(&spliced, &record, args.loss, &linears).map_err(|e| e.in_file(&args.model))?;
        spliced = model;
        files.extend(more);
    }
    let own: Vec<&str> = own.iter().map(String::as_str).collect();
    let moved = model::moved(&spliced, &own)?;
    let weights = model::share(&args.model, &moved, &mut destination)?;
    files.push((MODEL, moved.graph));
    destination.commit(&files)?;
    Ok(Printed { text: printed(args, form, &adapter, sites.len(), weights), notes, status: 0 })
}

/// A folder of PEFT, or a file for ONNX Runtime.
pub(super) fn adapter(path: &Path) -> Result<(Adapter, Base), Failure> {
    if path.is_dir() {
        return Ok(read::peft::read(path)?);
    }
    Ok((read::onnx_adapter::read(path)?, Base::default()))
}

fn form(form: FormArg) -> Form {
    match form {
        FormArg::Trainable => Form::Trainable,
        FormArg::AdapterInputs => Form::AdapterInputs,
        FormArg::Merged => Form::Merged,
    }
}

type Files = Vec<(&'static str, Vec<u8>)>;

/// The edited model, files to write with it, and the names of data files that are in the folder already.
fn edited(
    model: &Model,
    record: &Record,
    sites: &[Site<'_>],
    adapter: &Adapter,
    destination: &mut Destination,
) -> Result<(Model, Files, Vec<String>), Failure> {
    let metadata = || vec![(splice::KEY.to_owned(), record.to_json())];
    match record.form {
        Form::Trainable => {
            let mut patch = splice::trainable(model, sites)?;
            patch.metadata = metadata();
            Ok((model.apply(&patch)?, Vec::new(), Vec::new()))
        }
        Form::AdapterInputs => {
            let mut patch = splice::adapter_inputs(model, sites)?;
            patch.metadata = metadata();
            let file = onnx_adapter::bytes(&splice::parameters(adapter));
            Ok((model.apply(&patch)?, vec![(onnx_adapter::ADAPTER, file)], Vec::new()))
        }
        Form::Merged => {
            let name = model::free_name(model, MERGED);
            let mut out = BufWriter::new(destination.create(&name)?);
            let patch = splice::merge(model, sites, &name, &mut out)?;
            let path = destination.dir().join(&name);
            let synced = out.flush().and_then(|()| out.get_ref().sync_all());
            synced.map_err(|source| FsError::Io { path, source })?;
            Ok((model.apply(&patch)?, Vec::new(), vec![name]))
        }
    }
}

/// The model with a loss, as ONNX Runtime Training takes it, and the files that go with it.
fn training(
    model: &Model,
    record: &Record,
    task: Option<LossArg>,
    linears: &[Linear],
) -> Result<(Model, Files), Failure> {
    let task = task.map(|task| match task {
        LossArg::CausalLm => Task::CausalLm,
        LossArg::Classification => Task::Classification,
    });
    let classes = linears.iter().find(|linear| linear.head).map(|linear| linear.out_features);
    let (patch, task, logits) = splice::loss(model, task, classes)?;
    let model = model.apply(&patch)?;
    let model = model.apply(&splice::prepare(&model, &manifest::trainable(record), splice::LOSS)?)?;
    let manifest = manifest::manifest(&model, record, task, &logits);
    let script = manifest::script().as_bytes().to_vec();
    Ok((model, vec![(manifest::MANIFEST, manifest.into_bytes()), (manifest::SCRIPT, script)]))
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
