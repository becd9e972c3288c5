//! The step of a training as a model of its own, for programs that train with any ONNX Runtime.
//!
//! Its folder has the graph, the adapter to start from as a PEFT folder, its matrices as one vector, and a manifest that
//! says what the graph reads and returns.

use super::checkpoint::Position;
use super::epochs::Epochs;
use super::options::Train;
use super::start::Start;
use super::task::Task;
use crate::adapter::{Adapter, Base};
use crate::dtype::DType;
use crate::error::Error as RunError;
use crate::eva::Next;
use crate::formats::{self, peft};
use crate::init::Prepared;
use crate::output::model::{self, FileNames};
use crate::output::{Destination, Link};
use crate::regular;
use crate::train::{
    AdamW, Heads, LOSS, Loss, MEAN, OUTPUTS, Parameters, ROWS, SETTINGS, SQUARE, TARGETS, THETA, WEIGHT,
};
use serde_json::{Value, json};
use std::path::Path;

/// Name of the manifest in the folder.
const MANIFEST: &str = "manifest.json";
/// Name of the file with the matrices as one vector of little-endian 32-bit floats.
const VECTOR: &str = "theta.f32";
/// The key by which the manifest is known, with the number of its form.
const KEY: &str = "eva_onnx_step_graph";

impl Train {
    /// Writes the graph of a step to a folder that was prepared before, instead of training. The rows are only those that
    /// the graph is checked with, and may be few.
    ///
    /// # Errors
    /// As [`run`](Self::run); for models in `f16`; when the folder cannot be written.
    pub fn emit_step_graph(self, mut destination: Destination, link: Link) -> Result<(), RunError> {
        let prepared = Prepared::open(&self.model, &self.naming, &self.selection, &self.runtime)?;
        let task = Task::of(self.settings.loss, &prepared);
        let task = task.map_err(|error| RunError::from(error).in_file(&self.model))?;
        of_causal_models(task.loss() == Loss::CausalLm)?;
        let epochs = Epochs::new(&self, &prepared, &task, Position::default())?;
        let Start { adapter, heads, base, .. } = self.start(&prepared, &task, None, &mut |_| Next::Continue)?;
        of_causal_models(heads.modules().is_empty())?;
        let parameters = Parameters::of(&adapter, heads);
        let ready = self.ready(&prepared, &task, (&adapter, &parameters), &epochs.data, None)?;
        let in_model = |error| RunError::from(error).in_file(&self.model);
        let adamw = self.settings.adamw;
        let step = ready.step.with_optimizer(&adamw, &parameters).map_err(in_model)?;
        let vector = ready.theta.iter().flat_map(|value| value.to_le_bytes()).collect();
        let inputs = ready.feeds.described().filter(|(name, ..)| step.inputs().iter().any(|input| input.name == *name));
        let inputs = inputs.map(|(name, dtype, from, zeros)| {
            let sizes = zeros.into_iter().map(|size| size.map_or_else(|| json!("batch"), |size| json!(size)));
            json!({ "name": name, "type": word(dtype), "from": from, "shape": sizes.collect::<Vec<_>>() })
        });
        let manifest = manifest(inputs.collect(), &adamw, &parameters);
        self.load(ready, self.settings.check)?;
        destination.set_link(link);
        model::put(prepared.model(), &step, &mut destination, "", &FileNames::default())?;
        destination.commit(&[
            (peft::WEIGHTS, peft::weights(&adapter, DType::F32)?),
            (peft::CONFIG, peft::config(&adapter, &base).into_bytes()),
            (VECTOR, vector),
            (MANIFEST, manifest.into_bytes()),
        ])?;
        Ok(())
    }
}

/// Refuses what the step graph does not have.
fn of_causal_models(fits: bool) -> Result<(), RunError> {
    let message = "the step graph is of causal language models, without layers that are trained whole";
    if fits { Ok(()) } else { Err(RunError::usage(message, Some("leave out --emit to train the model"))) }
}

fn manifest(inputs: Vec<Value>, adamw: &AdamW, parameters: &Parameters) -> String {
    let [rate, bias1, bias2] = SETTINGS;
    let [theta, mean, square, norm] = OUTPUTS;
    let state =
        |input: &str, output: &str, file: Option<&str>| json!({ "input": input, "output": output, "file": file });
    let places = parameters.places().map(|(at, name, shape)| json!({ "name": name, "offset": at, "shape": shape }));
    let document = json!({
        KEY: 1,
        "inputs": inputs,
        "loss": { "rows": ROWS, "targets": TARGETS, "weight": WEIGHT },
        "optimizer": { "rate": rate, "bias1": bias1, "bias2": bias2, "beta1": number(adamw.beta1), "beta2": number(adamw.beta2) },
        "state": [state(THETA, theta, Some(VECTOR)), state(MEAN, mean, None), state(SQUARE, square, None)],
        "length": parameters.len(),
        "outputs": { "loss": LOSS, "norm": norm },
        "parameters": places.collect::<Vec<_>>(),
    });
    serde_json::to_string_pretty(&document).unwrap_or_default() + "\n"
}

/// An element type as NumPy and JavaScript call it.
fn word(dtype: DType) -> String {
    match dtype {
        DType::F16 => "float16".to_owned(),
        DType::BF16 => "bfloat16".to_owned(),
        DType::F32 => "float32".to_owned(),
        DType::F64 => "float64".to_owned(),
        DType::I64 => "int64".to_owned(),
        DType::I32 => "int32".to_owned(),
        DType::I8 => "int8".to_owned(),
        DType::U8 => "uint8".to_owned(),
        other => other.to_string(),
    }
}

/// The shortest decimal that is this number in 32 bits.
fn number(value: f32) -> Value {
    value.to_string().parse::<f64>().map_or(Value::Null, |value| json!(value))
}

/// The adapter of a folder with the graph of a step, from its vector as it is now; `None` for other folders.
///
/// # Errors
/// When the adapter cannot be read, or the vector is not that of the adapter.
pub(crate) fn read(folder: &Path) -> Result<Option<(Adapter, Base)>, RunError> {
    let manifest = regular::read_to_string(&folder.join(MANIFEST)).unwrap_or_default();
    let manifest: Value = serde_json::from_str(&manifest).unwrap_or_default();
    if !manifest[KEY].is_number() {
        return Ok(None);
    }
    let (adapter, base) = peft::read(folder)?;
    let path = folder.join(VECTOR);
    let bytes = regular::read(&path).map_err(|source| formats::Error::Io { path: path.clone(), source })?;
    let vector: Vec<f32> = bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    let parameters = Parameters::of(&adapter, Heads::default());
    let is_whole = bytes.len() == 4 * parameters.len() && vector.iter().all(|value| value.is_finite());
    if !is_whole {
        let expected = parameters.len();
        return Err(formats::Error::Vector { path, expected }.into());
    }
    Ok(Some((parameters.restore(&vector, &adapter).0, base)))
}
