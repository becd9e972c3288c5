//! `init` and `merge`.

use super::adapter::{Module, modules};
use super::failure::raised;
use super::line::{Options, parse};
use super::rows::{NAME, PyRows};
use super::watch::{Raised, Watch};
use crate::command::args::Command;
use crate::command::error::Failure;
use crate::command::init::{Place, set_up};
use crate::command::init_args::Init;
use crate::command::merge::made;
use crate::options::Destination;
use crate::results::{Initialised, Progress};
use pyo3::prelude::*;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The result of a run.
#[pyclass(frozen)]
pub(super) struct Run(Mutex<Initialised>);

impl Run {
    fn get(&self) -> MutexGuard<'_, Initialised> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<Initialised> for Run {
    fn from(run: Initialised) -> Self {
        Self(Mutex::new(run))
    }
}

#[pymethods]
impl Run {
    /// What eva.json says.
    fn report(&self) -> String {
        self.get().report().to_json()
    }

    /// The matrices.
    fn modules(&self, py: Python<'_>) -> Vec<Module> {
        modules(py, &self.get().adapter)
    }

    /// Writes a PEFT folder.
    fn save(&self, py: Python<'_>, out: PathBuf, force: bool) -> PyResult<()> {
        let save = || -> Result<(), Failure> {
            self.get().save_to(Destination::prepare(&out, force)?)?;
            Ok(())
        };
        py.detach(save).map_err(|failure| raised(py, failure))
    }
}

/// Runs EVA on the rows of files or of an iterable.
#[pyfunction]
pub(super) fn init(
    py: Python<'_>,
    model: OsString,
    rows: Option<Py<PyAny>>,
    options: Options,
    observe: Option<Py<PyAny>>,
) -> PyResult<Run> {
    let parsed = parse("init", vec![model], &options).and_then(|command| match command {
        Command::Init(args) => check(&args).map(|()| args),
        _ => Err(Failure::usage("not `init`")),
    });
    let args = parsed.map_err(|failure| raised(py, failure))?;
    let exception = Raised::default();
    let mut watch = Watch::new(observe, exception.clone());
    let ran = py.detach(|| -> Result<Initialised, Failure> {
        let out = args.output.out.as_deref();
        let (mut init, _) = set_up(&args, out.unwrap_or(Path::new(NAME)))?;
        if let Some(rows) = rows {
            init = init.source(vec![NAME.to_owned()], PyRows::new(rows, NAME, exception.clone()));
        }
        let place = out.map(|out| Place::prepare(out, &args.output, &init)).transpose()?;
        let run = init.run_with(|progress| watch.next(progress, arguments))?;
        if let Some(place) = place.filter(|_| !exception.is_set()) {
            place.write(&run)?;
        }
        Ok(run)
    });
    exception.check()?;
    ran.map(Run::from).map_err(|failure| raised(py, failure))
}

/// Refuses what needs an output folder where there is none.
fn check(args: &Init) -> Result<(), Failure> {
    // A run in blocks keeps its state in the folder `spill`.
    let kept = (args.parts.checkpoint_every.is_some() || args.parts.resume) && args.parts.blocks.is_none();
    match &args.output.out {
        None if args.output.report.is_some() => Err(Failure::usage("`report` needs `out`")),
        None if kept && args.parts.checkpoint_file.is_none() => {
            Err(Failure::usage("`checkpoint_every` and `resume` need `out` or `checkpoint_file`"))
        }
        _ => Ok(()),
    }
}

/// The arguments of the class `Progress` of Python.
type ProgressArguments = (usize, Option<usize>, usize, usize, usize, usize, Option<usize>, Option<usize>);

fn arguments(state: &Progress) -> ProgressArguments {
    let Progress { batches, planned, converged, modules, tokens_seen, tokens_kept, block } = *state;
    let (block, blocks) = block.map(|at| (at.block, at.of)).unzip();
    (batches, planned, converged, modules, tokens_seen, tokens_kept, block, blocks)
}

/// Makes an adapter of summaries.
#[pyfunction]
pub(super) fn merge(py: Python<'_>, files: Vec<OsString>, options: Options) -> PyResult<Run> {
    let merged = py.detach(|| match parse("merge", files, &options)? {
        Command::Merge(args) => made(&args),
        _ => Err(Failure::usage("not `merge`")),
    });
    merged.map(Run::from).map_err(|failure| raised(py, failure))
}
