//! Models in several files of one folder: each gets the modules that it has.

use super::fitting::{Fitting, fitting, saved_note};
use super::options::{SpliceOptions, Spliced};
use super::put::{Files, Job, absent_note, put};
use crate::adapter::Adapter;
use crate::error::Error;
use crate::formats::peft::Contents;
use crate::named::{NamedModel, Naming};
use crate::output::Destination;
use crate::output::model::{self, Put};
use crate::splice::{self, Record, Saved, SavedParameter};
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// Puts every module of an adapter into each of the models that have it. Models that have none come along.
///
/// # Errors
/// As [`splice`](crate::splice()); also when no model has a module.
pub(super) fn splice(
    paths: &[PathBuf],
    read: Contents,
    adapter_path: &Path,
    destination: &mut Destination,
    options: &SpliceOptions,
    naming: &Naming,
) -> Result<Spliced, Error> {
    let models = paths.iter().map(|path| NamedModel::open(path, naming)).collect::<Result<Vec<_>, _>>()?;
    let (modules, ranks) = (read.adapter.modules.len(), read.adapter.modules.iter().map(|module| module.rank()).sum());
    check_modules(&models, &read.adapter).map_err(|error| Error::from(error).in_file(adapter_path))?;
    let saved = shares_of_saved(&models, &read.saved).map_err(|error| Error::from(error).in_file(adapter_path))?;
    let mut spliced =
        Spliced { modules, ranks_total: ranks, layers: 0, linked_bytes: 0, copied_bytes: 0, notes: Vec::new() };
    let (mut parts, mut notes, mut absent) = (Vec::new(), Vec::new(), Vec::new());
    for (named, saved) in models.iter().zip(&saved) {
        let name = named.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
        let files = &Files::of(&name);
        let adapter = share(named, &read.adapter);
        let put = if adapter.modules.is_empty() && saved.is_empty() {
            model::put(&named.model, &named.model, destination, "", &files.model)?
        } else {
            let count = adapter.modules.len();
            parts.push(format!("`{name}` has {count} of the adapter's {modules} modules"));
            let read = Contents { adapter, base: read.base.clone(), saved: Vec::new() };
            let Fitting { adapter, base, notes: more } = fitting(named, read, adapter_path, naming)?;
            notes.extend(named.layers.notes.iter().cloned().chain(more));
            let sites = splice::fit(&named.layers.linears, &adapter)?;
            spliced.layers += sites.len();
            let record = Record::new(options.form, &adapter, &base).with_saved(saved);
            let inputs = options.inputs;
            let job = Job { named, sites: &sites, adapter: &adapter, record: &record, saved, inputs, files };
            put(&job, destination, "").map_err(|e| e.in_file(named.path()))?
        };
        let Put { linked, copied, absent: others } = put;
        spliced.linked_bytes += linked;
        spliced.copied_bytes += copied;
        absent.extend(others);
    }
    absent.retain(|name| !destination.staged("").any(|staged| staged == name));
    notes.dedup();
    spliced.notes = parts.into_iter().chain(notes).chain(saved_note(&read.saved)).chain(absent_note(&absent)).collect();
    Ok(spliced)
}

/// Checks that every module is in one of the models.
fn check_modules(models: &[NamedModel], adapter: &Adapter) -> Result<(), splice::Error> {
    let parts = models.iter().flat_map(|named| &named.layers.linears).flat_map(|linear| &linear.modules);
    let known: HashSet<&str> = parts.map(|part| part.module.as_str()).collect();
    let unknown = adapter.modules.iter().map(|module| &module.module).filter(|name| !known.contains(name.as_str()));
    let unknown: Vec<String> = unknown.cloned().collect();
    if unknown.is_empty() {
        return Ok(());
    }
    Err(splice::Error::Misfit { unknown, shapes: Vec::new(), modules: adapter.modules.len() })
}

/// The modules of an adapter that a model has, of any size.
fn share(named: &NamedModel, adapter: &Adapter) -> Adapter {
    let parts = named.layers.linears.iter().flat_map(|linear| &linear.modules);
    let known: HashSet<&str> = parts.map(|part| part.module.as_str()).collect();
    let mut share = adapter.clone();
    share.modules.retain(|module| known.contains(module.module.as_str()));
    share
}

/// The trained parameters that each model has a place for.
fn shares_of_saved(models: &[NamedModel], saved: &[SavedParameter]) -> Result<Vec<Vec<SavedParameter>>, splice::Error> {
    let mut shares = vec![Vec::new(); models.len()];
    for parameter in saved {
        let mut refused = None;
        let mut placed = false;
        for (named, share) in models.iter().zip(&mut shares) {
            match Saved::find(&named.model, &named.layers.linears, std::slice::from_ref(parameter)) {
                Ok(_) => {
                    share.push(parameter.clone());
                    placed = true;
                }
                Err(error) => refused = Some(error),
            }
        }
        if let Some(error) = refused.filter(|_| !placed) {
            return Err(error);
        }
    }
    Ok(shares)
}
