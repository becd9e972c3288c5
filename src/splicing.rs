//! Putting an adapter into a model, from files to a folder.

use crate::adapter::{Adapter, AdapterModule, Base};
use crate::error::Error;
use crate::formats::{manifest, matrix, onnx_adapter, peft};
use crate::linear::{Layers, Reason};
use crate::named::{NamedModel, Naming};
use crate::onnx::{Model, Patch};
use crate::output::model::{self, Put};
use crate::output::{self, Destination, Link};
use crate::siblings::{self, Share};
use crate::splice::{self, Form, Inputs, LossEdit, Record, Saved, SavedParameter, Site, Task};
use std::ffi::OsStr;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

/// File of the values of required inputs, by their names.
const VALUES: &str = "adapter.safetensors";

/// File of the merged weights.
const MERGED: &str = "merged.data";

/// How an adapter is put into a model.
#[derive(Clone, Debug)]
pub struct SpliceOptions {
    /// What the model becomes.
    pub form: Form,
    /// Whether to add what ONNX Runtime Training 1.19.2 needs: a loss, a manifest and a script. Only for
    /// [`Form::Trainable`].
    pub ort_training: bool,
    /// With `ort_training`: what the model is trained for; by default, the shape of its logits decides.
    pub task: Option<Task>,
    /// How the modules of the model are named.
    pub naming: Naming,
    /// With [`Form::AdapterInputs`]: whether the inputs may be left out.
    pub inputs: Inputs,
    /// How the files with weights come into the output folder.
    pub link: Link,
    /// Whether to replace files of the same names in the output folder.
    pub force: bool,
}

impl Default for SpliceOptions {
    /// The defaults of the command line.
    fn default() -> Self {
        Self {
            form: Form::Trainable,
            ort_training: false,
            task: None,
            inputs: Inputs::default(),
            naming: Naming::default(),
            link: Link::default(),
            force: false,
        }
    }
}

/// What was written.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Spliced {
    /// Modules of the adapter.
    pub modules: usize,
    /// Sum of their ranks.
    pub ranks_total: usize,
    /// Layers that changed.
    pub layers: usize,
    /// Bytes of files with weights that the folder shares with the model by hard links.
    pub linked_bytes: u64,
    /// Bytes of files with weights that were copied.
    pub copied_bytes: u64,
    /// Remarks on the names, as sentences.
    pub notes: Vec<String>,
}

/// Puts the adapter at `adapter`, a PEFT folder or an `.onnx_adapter` file, into the model at `model`, its file or the
/// folder that stands for it, and writes the result to the folder `out`, which appears whole or not at all.
///
/// # Errors
/// When a file cannot be read, the adapter does not fit the model, or the folder cannot be written.
pub fn splice(
    model: impl AsRef<Path>,
    adapter: impl AsRef<Path>,
    out: impl AsRef<Path>,
    options: &SpliceOptions,
) -> Result<Spliced, Error> {
    let adapter_path = adapter.as_ref();
    if options.ort_training && options.form != Form::Trainable {
        return Err(Error::usage("ONNX Runtime Training needs the trainable form", Some("use --as trainable")));
    }
    let mut destination = Destination::prepare(out.as_ref(), options.force)?;
    destination.set_link(options.link);
    destination.protect(adapter_path);
    let read = read_contents(adapter_path)?;
    let naming = options.naming.with_names_of(&read.base)?;
    let named = NamedModel::open(model.as_ref(), &naming)?;
    let saved = read.saved.clone();
    let Fitting { adapter, base, mut notes } = fitting(&named, read, adapter_path, &naming)?;
    notes.splice(0..0, named.layers.notes.iter().cloned());
    notes.extend(saved_note(&saved));
    let mut adapter = adapter;
    if options.ort_training {
        notes.extend(leave_out_untrained(&named, &mut adapter, options.task).map_err(|e| e.in_file(named.path()))?);
    }
    let sites = splice::fit(&named.layers.linears, &adapter)?;
    let record = Record::new(options.form, &adapter, &base);
    let job =
        Job { named: &named, sites: &sites, adapter: &adapter, record: &record, saved: &saved, inputs: options.inputs };
    let training = options.ort_training.then_some(options.task);
    let Put { linked, copied, absent } =
        put(&job, training, &mut destination, "").map_err(|e| e.in_file(named.path()))?;
    notes.extend((!absent.is_empty()).then(|| {
        format!("the folder lacks {}, which genai_config.json names: splice or copy them too", absent.join(", "))
    }));
    destination.commit(&[])?;
    Ok(Spliced {
        modules: adapter.modules.len(),
        ranks_total: adapter.modules.iter().map(|module| module.rank()).sum(),
        layers: sites.len(),
        linked_bytes: linked,
        copied_bytes: copied,
        notes,
    })
}

/// An adapter as a model takes it.
struct Fitting {
    adapter: Adapter,
    base: Base,
    /// What was done to it, as sentences.
    notes: Vec<String>,
}

/// The adapter that was read from `path`, for the weights and modules that the model has.
fn fitting(named: &NamedModel, read: peft::Contents, path: &Path, naming: &Naming) -> Result<Fitting, Error> {
    let peft::Contents { adapter, base, .. } = read;
    let Matching { adapter, mut notes } = matching(named, adapter, path, naming)?;
    let sites = splice::fit(&named.layers.linears, &adapter)?;
    let plain = splice::plain(&named.model, &sites, &adapter, base.weights);
    let plain = plain.map_err(|error| Error::from(error).in_file(path))?;
    notes.extend(base.weights.init().map(|init| {
        format!(
            "the adapter began with `init_lora_weights` {init}, which changes the weights of the base model; the model \
             gets a plain adapter of twice the rank instead, which computes the same"
        )
    }));
    Ok(Fitting { adapter: plain, base, notes })
}

/// The part of an adapter that a model has.
pub(crate) struct Matching {
    pub(crate) adapter: Adapter,
    /// What became of the rest, as sentences.
    pub(crate) notes: Vec<String>,
}

/// The part of `adapter`, which was read from `path`, that the model has, with the same sizes and weights.
pub(crate) fn matching(
    named: &NamedModel,
    mut adapter: Adapter,
    path: &Path,
    naming: &Naming,
) -> Result<Matching, Error> {
    let in_file = |error: splice::Error| Error::from(error).in_file(path);
    let mut notes: Vec<String> = without_bypassed(&named.layers, &mut adapter).into_iter().collect();
    let Share { adapter, note } = siblings::share(named, naming, adapter).map_err(in_file)?;
    notes.extend(note);
    let sites = splice::fit(&named.layers.linears, &adapter).map_err(in_file)?;
    if let Some(folder) = folder(path) {
        for (module, saved) in peft::saved_weights(&folder)?.iter() {
            if !adapter.modules.iter().any(|known| known.module == module) {
                continue;
            }
            match splice::is_weight(&named.model, &sites, &module, &saved) {
                Ok(true) => {}
                Ok(false) => return Err(in_file(splice::Error::OtherWeight { module })),
                Err(reason) => notes.push(format!(
                    "the adapter's file has the weight of `{module}`, which cannot be compared with the model's: {reason}"
                )),
            }
        }
    }
    Ok(Matching { adapter, notes })
}

/// Takes out the modules that PyTorch does not call, and says so. In PEFT they change nothing.
fn without_bypassed(layers: &Layers, adapter: &mut Adapter) -> Option<String> {
    let bypassed = layers.skipped.iter().filter(|skipped| skipped.reason == Reason::Bypassed);
    let bypassed: Vec<&String> = bypassed.flat_map(|skipped| &skipped.modules).collect();
    let is_called = |module: &str| layers.linears.iter().flat_map(|l| &l.modules).any(|part| part.module == module);
    let taken = |module: &AdapterModule| bypassed.contains(&&module.module) && !is_called(&module.module);
    let (out, kept): (Vec<_>, Vec<_>) = adapter.modules.drain(..).partition(taken);
    if kept.is_empty() {
        adapter.modules = out;
        return None;
    }
    adapter.modules = kept;
    let names: Vec<String> = out.iter().map(|module| format!("`{}`", module.module)).collect();
    let reason = "PyTorch reads the weight without calling the module, so that PEFT's LoRA changes nothing there";
    (!names.is_empty()).then(|| format!("left out of the adapter: {}; {reason}", names.join(", ")))
}

/// What becomes of modules that the adapter's file holds whole.
fn saved_note(saved: &[SavedParameter]) -> Option<String> {
    let mut modules: Vec<String> = saved.iter().map(|parameter| format!("`{}`", parameter.module)).collect();
    modules.dedup();
    (!modules.is_empty()).then(|| {
        format!(
            "the trained weights of {} replace those of the model, with and without the adapter; `convert` does not take \
             them out again",
            modules.join(", ")
        )
    })
}

/// Takes out the modules that no gradient reaches, and says so.
fn leave_out_untrained(named: &NamedModel, adapter: &mut Adapter, task: Option<Task>) -> Result<Option<String>, Error> {
    let NamedModel { model, layers, config, .. } = named;
    let sites = splice::fit(&layers.linears, adapter)?;
    let loss = splice::loss(model, task, &layers.linears, config.architecture.as_deref())?;
    let untrained = splice::without_gradient(model, &sites, adapter, &loss)?;
    adapter.modules.retain(|module| !untrained.contains(&module.module));
    let names: Vec<String> = untrained.iter().map(|module| format!("`{module}`")).collect();
    let logits = loss.logits;
    Ok((!names.is_empty()).then(|| {
        let names = names.join(", ");
        format!("left out of the model, since its output `{logits}` does not depend on them: {names}")
    }))
}

/// Puts models with `adapter` into folders of `destination`, one for each form.
pub(crate) fn put_all(
    named: &NamedModel,
    forms: &[Form],
    adapter: &Adapter,
    base: &Base,
    destination: &mut Destination,
) -> Result<(), Error> {
    let sites = splice::fit(&named.layers.linears, adapter)?;
    for form in forms {
        let record = Record::new(*form, adapter, base);
        let job = Job { named, sites: &sites, adapter, record: &record, saved: &[], inputs: Inputs::Optional };
        put(&job, None, destination, &format!("{}/", form.as_str()))?;
    }
    Ok(())
}

/// A PEFT folder, one of its files, or a file for ONNX Runtime's `LoraAdapter`.
pub(crate) fn read_adapter(path: &Path) -> Result<(Adapter, Base), Error> {
    match folder(path) {
        Some(folder) => Ok(peft::read(&folder)?),
        None => Ok((onnx_adapter::read(path)?, Base::default())),
    }
}

/// As [`read_adapter`], with what only a model can take.
pub(crate) fn read_contents(path: &Path) -> Result<peft::Contents, Error> {
    match folder(path) {
        Some(folder) => Ok(peft::read_all(&folder)?),
        None => {
            let (adapter, base, saved) = (onnx_adapter::read(path)?, Base::default(), Vec::new());
            Ok(peft::Contents { adapter, base, saved })
        }
    }
}

/// The PEFT folder that `path` is, or that it is a file of.
pub(crate) fn folder(path: &Path) -> Option<PathBuf> {
    if path.is_dir() {
        return Some(path.to_owned());
    }
    let is_in_one = path.file_name().is_some_and(|name| [peft::CONFIG, peft::WEIGHTS].map(OsStr::new).contains(&name));
    is_in_one.then(|| path.with_file_name(""))
}

/// What goes into what.
struct Job<'a> {
    named: &'a NamedModel,
    sites: &'a [Site<'a>],
    adapter: &'a Adapter,
    record: &'a Record,
    saved: &'a [SavedParameter],
    inputs: Inputs,
}

/// Puts one model into `destination`; `inside` is empty or a folder in it that ends in a slash.
fn put(
    job: &Job<'_>,
    training: Option<Option<Task>>,
    destination: &mut Destination,
    inside: &str,
) -> Result<Put, Error> {
    let mut spliced = edited(job, destination, inside)?;
    if let Some(task) = training {
        spliced = trained(&spliced, job, task, destination)?;
    }
    Ok(model::put(&job.named.model, &spliced, destination, inside)?)
}

/// The edited model; the files that belong to it are staged in `destination`.
fn edited(job: &Job<'_>, destination: &mut Destination, inside: &str) -> Result<Model, Error> {
    let Job { named: NamedModel { model, layers, .. }, sites, .. } = job;
    let saved = Saved::find(model, &layers.linears, job.saved)?;
    let is_merged = job.record.form == Form::Merged;
    let mut patch = match job.record.form {
        Form::Trainable => splice::trainable(model, sites)?,
        Form::AdapterInputs => {
            let parameters = splice::parameters(job.adapter);
            let patch = splice::adapter_inputs(model, sites, job.inputs)?;
            destination.write(&format!("{inside}{}", onnx_adapter::ADAPTER), &onnx_adapter::bytes(&parameters))?;
            if job.inputs == Inputs::Required {
                destination.write(&format!("{inside}{VALUES}"), &matrix::safetensors(&parameters)?)?;
            }
            patch
        }
        Form::Merged => Patch::default(),
    };
    if is_merged || !saved.is_empty() {
        let name = model::free_name(model, MERGED);
        let path = format!("{inside}{name}");
        let mut out = BufWriter::new(destination.create(&path)?);
        patch.extend(splice::merge(model, if is_merged { sites } else { &[] }, &saved, &name, &mut out)?);
        let path = destination.dir().join(&path);
        let synced = out.flush().and_then(|()| out.get_ref().sync_all());
        synced.map_err(|source| output::Error::Io { path, source })?;
    }
    if !is_merged {
        patch.metadata = vec![(splice::KEY.to_owned(), job.record.to_json())];
    }
    Ok(model.apply(&patch)?)
}

/// The model with a loss, as ONNX Runtime Training takes it; the files that go with it are put into the folder.
fn trained(model: &Model, job: &Job<'_>, task: Option<Task>, destination: &mut Destination) -> Result<Model, Error> {
    let NamedModel { layers, config, .. } = job.named;
    let LossEdit { patch, task, logits } = splice::loss(model, task, &layers.linears, config.architecture.as_deref())?;
    let model = model.apply(&patch)?;
    let model = model.apply(&splice::prepare(&model, &manifest::trainable(job.record), splice::LOSS)?)?;
    let manifest = manifest::manifest(&model, job.record, task, &logits);
    destination.write(manifest::MANIFEST, manifest.as_bytes())?;
    destination.write(manifest::SCRIPT, manifest::script().as_bytes())?;
    Ok(model)
}
