//! Putting an adapter into one model, and the result into a folder.

use crate::adapter::{Adapter, Base};
use crate::error::Error;
use crate::formats::{matrix, onnx_adapter};
use crate::named::NamedModel;
use crate::onnx::{Model, Patch};
use crate::output::model::{self, FileNames, Put};
use crate::output::{self, Destination};
use crate::splice::{self, Form, Inputs, Record, Saved, SavedParameter, Site};
use std::io::{BufWriter, Write as _};

/// File names of what is written for one model.
pub(super) struct Files {
    pub(super) model: FileNames,
    /// The adapter, for ONNX Runtime.
    adapter: String,
    /// The values of required inputs, by their names.
    values: String,
    /// The new weights.
    merged: String,
}

impl Default for Files {
    /// Those of a model that is alone in its folder.
    fn default() -> Self {
        let [adapter, values, merged] =
            [onnx_adapter::ADAPTER, "adapter.safetensors", "merged.data"].map(str::to_owned);
        Self { model: FileNames::default(), adapter, values, merged }
    }
}

impl Files {
    /// Those of one of several models, whose file is called `name`.
    pub(super) fn of(name: &str) -> Self {
        let stem = name.trim_end_matches(".onnx");
        let [adapter, values, merged] =
            ["onnx_adapter", "safetensors", "merged.data"].map(|extension| format!("{stem}.{extension}"));
        Self { model: FileNames::of(name), adapter, values, merged }
    }
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
        let job = Job {
            named,
            sites: &sites,
            adapter,
            record: &record,
            saved: &[],
            inputs: Inputs::Optional,
            files: &Files::default(),
        };
        put(&job, destination, &format!("{}/", form.as_str()))?;
    }
    Ok(())
}

/// What goes into what.
pub(super) struct Job<'a> {
    pub(super) named: &'a NamedModel,
    pub(super) sites: &'a [Site<'a>],
    pub(super) adapter: &'a Adapter,
    pub(super) record: &'a Record,
    pub(super) saved: &'a [SavedParameter],
    pub(super) inputs: Inputs,
    pub(super) files: &'a Files,
}

/// Puts one model into `destination`; `inside` is empty or a folder in it that ends in a slash.
pub(super) fn put(job: &Job<'_>, destination: &mut Destination, inside: &str) -> Result<Put, Error> {
    let spliced = edited(job, destination, inside)?;
    Ok(model::put(&job.named.model, &spliced, destination, inside, &job.files.model)?)
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
            let of_part = !job.record.saved.is_empty();
            let bytes = if of_part { onnx_adapter::bytes_of_part } else { onnx_adapter::bytes };
            let bytes = bytes(&parameters);
            destination.write(&format!("{inside}{}", job.files.adapter), &bytes)?;
            if job.inputs == Inputs::Required {
                destination.write(&format!("{inside}{}", job.files.values), &matrix::safetensors(&parameters)?)?;
            }
            patch
        }
        Form::Merged => Patch::default(),
    };
    if is_merged || !saved.is_empty() {
        let name = model::free_name(model, &job.files.merged);
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

/// What the settings name and the folder lacks.
pub(super) fn absent_note(absent: &[String]) -> Option<String> {
    let names = absent.join(", ");
    (!absent.is_empty()).then(|| {
        format!(
            "the folder lacks {names}, which genai_config.json names: splice the folder of all models, or copy them too"
        )
    })
}
