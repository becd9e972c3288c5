//! Reading an adapter, and the part of it that a model has.

use crate::adapter::{Adapter, AdapterModule, Base};
use crate::error::Error;
use crate::formats::{onnx_adapter, peft};
use crate::linear::{Layers, Reason};
use crate::named::{NamedModel, Naming};
use crate::siblings::{self, Share};
use crate::splice::{self, SavedParameter};
use std::collections::HashSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// An adapter as a model takes it.
pub(super) struct Fitting {
    pub(super) adapter: Adapter,
    pub(super) base: Base,
    /// What was done to it, as sentences.
    pub(super) notes: Vec<String>,
}

/// The adapter that was read from `path`, for the weights and modules that the model has.
pub(super) fn fitting(
    named: &NamedModel,
    read: peft::Contents,
    path: &Path,
    naming: &Naming,
) -> Result<Fitting, Error> {
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
    let bypassed: HashSet<String> = bypassed.flat_map(|skipped| &skipped.modules).cloned().collect();
    let parts = layers.linears.iter().flat_map(|linear| &linear.modules);
    let called: HashSet<&str> = parts.map(|part| part.module.as_str()).collect();
    let taken = |module: &AdapterModule| bypassed.contains(&module.module) && !called.contains(module.module.as_str());
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

/// What becomes of modules that the adapter's file holds whole.
pub(super) fn saved_note(saved: &[SavedParameter]) -> Option<String> {
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
