//! Putting an adapter into a model, from files to a folder.

mod fitting;
mod options;
mod put;
mod several;

pub(crate) use fitting::{Matching, folder, matching, read_adapter, read_contents};
pub use options::{SpliceOptions, Spliced};
pub(crate) use put::put_all;

use crate::error::Error;
use crate::formats::peft::Contents;
use crate::hub::layout;
use crate::linear::Targets;
use crate::named::{NamedModel, Naming};
use crate::output::Destination;
use crate::output::model::Put;
use crate::splice::{self, Record};
use fitting::{Fitting, fitting, saved_note};
use put::{Files, Job, absent_note, put};
use std::path::Path;

/// Puts the adapter at `adapter`, a PEFT folder or an `.onnx_adapter` file, into the model at `model`, its file or the
/// folder that stands for it, and writes the result to the folder `out`, which appears whole or not at all. Of a folder
/// with several models, such as an encoder and its decoders, each gets the modules that it has; all are written, under
/// their names.
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
    let models = layout::all(model.as_ref())?;
    let mut destination = Destination::prepare(out.as_ref(), options.force)?;
    destination.set_link(options.link);
    destination.protect(adapter_path);
    let mut read = read_contents(adapter_path)?;
    let left_out = options.modules.as_deref().map(|modules| choose(&mut read, modules)).transpose()?;
    let naming = options.naming.with_names_of(&read.base)?;
    let mut spliced = match &models[..] {
        [model] => one(model, read, adapter_path, &mut destination, options, &naming)?,
        _ => several::splice(&models, read, adapter_path, &mut destination, options, &naming)?,
    };
    spliced.notes.extend(left_out.flatten());
    destination.commit(&[])?;
    Ok(spliced)
}

/// Keeps the modules that are asked for, and says how many are left out.
fn choose(read: &mut Contents, modules: &str) -> Result<Option<String>, Error> {
    let targets = Targets::parse(&[modules.to_owned()])?;
    let all = read.adapter.modules.len();
    read.adapter.modules.retain(|module| targets.names(&module.module));
    read.saved.retain(|parameter| targets.names(&parameter.module));
    let kept = read.adapter.modules.len();
    if kept == 0 {
        let hint =
            "give the ends of the names of modules, separated by commas, or one regular expression for whole names";
        return Err(Error::usage(format!("the adapter has no module that --modules {modules} names"), Some(hint)));
    }
    Ok((kept < all).then(|| format!("{} of the adapter's {all} modules are left out by --modules", all - kept)))
}

/// One model.
fn one(
    model: &Path,
    read: Contents,
    adapter_path: &Path,
    destination: &mut Destination,
    options: &SpliceOptions,
    naming: &Naming,
) -> Result<Spliced, Error> {
    let named = NamedModel::open(model, naming)?;
    let saved = read.saved.clone();
    let Fitting { adapter, base, mut notes } = fitting(&named, read, adapter_path, naming)?;
    notes.splice(0..0, named.layers.notes.iter().cloned());
    notes.extend(saved_note(&saved));
    let sites = splice::fit(&named.layers.linears, &adapter)?;
    let record = Record::new(options.form, &adapter, &base).with_saved(&saved);
    let (inputs, files) = (options.inputs, &Files::default());
    let job = Job { named: &named, sites: &sites, adapter: &adapter, record: &record, saved: &saved, inputs, files };
    let Put { linked, copied, absent } = put(&job, destination, "").map_err(|e| e.in_file(named.path()))?;
    notes.extend(absent_note(&absent));
    Ok(Spliced {
        modules: adapter.modules.len(),
        ranks_total: adapter.modules.iter().map(|module| module.rank()).sum(),
        layers: sites.len(),
        linked_bytes: linked,
        copied_bytes: copied,
        notes,
    })
}
