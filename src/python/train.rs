//! `train`.

use super::adapter::{Matrix, Module, matrix, modules};
use super::failure::raised;
use super::line::{Options, parse};
use super::rows::{NAME, PyRows};
use super::watch::{Raised, Watch};
use crate::DType;
use crate::calib::RowSource;
use crate::command::args::Command;
use crate::command::error::Failure;
use crate::command::train::{Place, set_up, with_checkpoints};
use crate::command::train_args::Train;
use crate::options::Destination;
use crate::results::{TrainProgress, Trained};
use pyo3::prelude::*;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

/// The result of a training.
#[pyclass(frozen)]
pub(super) struct Training {
    trained: Trained,
    dtype: DType,
}

#[pymethods]
impl Training {
    /// What train.json says.
    fn report(&self) -> String {
        self.trained.to_json()
    }

    /// The matrices.
    fn modules(&self, py: Python<'_>) -> Vec<Module> {
        modules(py, &self.trained.adapter)
    }

    /// The parameters of layers that were trained whole, by module and name.
    fn saved(&self, py: Python<'_>) -> Vec<(String, String, Matrix)> {
        let saved = self.trained.saved.iter();
        saved.map(|saved| (saved.module.clone(), saved.parameter.clone(), matrix(py, &saved.values))).collect()
    }

    /// Writes a PEFT folder.
    fn save(&self, py: Python<'_>, out: PathBuf, force: bool) -> PyResult<()> {
        let save =
            || -> Result<(), Failure> { Ok(self.trained.save_to(Destination::prepare(&out, force)?, self.dtype)?) };
        py.detach(save).map_err(|failure| raised(py, failure))
    }
}

/// Trains on the rows of files or of an iterable, which is read again for each epoch.
#[pyfunction]
pub(super) fn train(
    py: Python<'_>,
    model: OsString,
    rows: Option<Py<PyAny>>,
    eval_rows: Option<Py<PyAny>>,
    options: Options,
    observe: Option<Py<PyAny>>,
) -> PyResult<Training> {
    let has_out = options.iter().any(|(name, _)| name == "out");
    let parsed = parse("train", vec![model], &options).and_then(|command| match command {
        Command::Train(args) => check(&args, has_out).map(|()| args),
        _ => Err(Failure::usage("not `train`")),
    });
    let args = parsed.map_err(|failure| raised(py, failure))?;
    let exception = Raised::default();
    let mut watch = Watch::new(observe, exception.clone());
    let trained = py.detach(|| -> Result<Trained, Failure> {
        let mut train = set_up(&args);
        if let Some(rows) = rows {
            train = train.source(NAME, opening(rows, NAME, exception.clone()));
        }
        if let Some(rows) = eval_rows {
            train = train.eval_source(EVAL, opening(rows, EVAL, exception.clone()));
        }
        if has_out {
            train = with_checkpoints(train, &args);
            train.check_checkpoints()?;
        }
        let place = has_out.then(|| Place::prepare(&args)).transpose()?;
        let trained = train.run_with(|progress| watch.next(progress, arguments))?;
        if let Some(place) = place.filter(|_| !exception.is_set()) {
            place.write(&trained, &args)?;
        }
        Ok(trained)
    });
    exception.check()?;
    let dtype = args.adapter_options.dtype.into();
    trained.map(|trained| Training { trained, dtype }).map_err(|failure| raised(py, failure))
}

/// What messages call the rows that are evaluated.
const EVAL: &str = "eval";

/// Opens an iterable again and again.
fn opening(
    iterable: Py<PyAny>,
    name: &'static str,
    raised: Raised,
) -> Arc<dyn Fn() -> Box<dyn RowSource + Send> + Send + Sync> {
    Arc::new(move || {
        let iterable = Python::attach(|py| iterable.clone_ref(py));
        Box::new(PyRows::new(iterable, name, raised.clone()))
    })
}

/// Refuses what Python does not have, or what needs an output folder where there is none.
fn check(args: &Train, has_out: bool) -> Result<(), Failure> {
    let kept = args.training.checkpoints.save_every.is_some() || args.training.checkpoints.resume;
    match args.output.emit {
        Some(_) => Err(Failure::usage("`emit` is for the command `eva-onnx train`")),
        None if !has_out && args.output.report.is_some() => Err(Failure::usage("`report` needs `out`")),
        None if !has_out && kept => Err(Failure::usage("`save_every` and `resume` need `out`")),
        None => Ok(()),
    }
}

fn arguments(state: &TrainProgress) -> (usize, usize, f64, usize) {
    let TrainProgress { planned, steps, loss, targets } = *state;
    (steps, planned, loss, targets)
}
