//! The commands that do not run a model, and the program itself.

use super::failure::raised;
use super::line::{Options, parse};
use crate::command::args::Command;
use crate::command::error::Failure;
use crate::{command, runtime};
use pyo3::prelude::*;
use serde_json::{Value, json};
use std::ffi::OsString;
use std::path::PathBuf;

/// Runs the program with this command line and returns its exit status.
#[pyfunction]
pub(super) fn main(py: Python<'_>, line: Vec<OsString>) -> i32 {
    py.detach(|| command::command(line) as i32)
}

/// Takes ONNX Runtime from this folder of the package `onnxruntime`, unless an option or a variable names another one.
#[pyfunction]
pub(super) fn use_onnxruntime(folder: PathBuf) {
    runtime::set_interpreter_package(folder);
}

/// What `inspect --json` prints.
#[pyfunction]
pub(super) fn inspect(py: Python<'_>, model: OsString, options: Options) -> PyResult<String> {
    answer(py, || match parse("inspect", vec![model], &options)? {
        Command::Inspect(args) => {
            let selection = &args.selection;
            let found = crate::inspect(&args.model, &selection.naming.to_options(), &selection.to_options())?;
            Ok(json!(found))
        }
        _ => Err(Failure::usage("not `inspect`")),
    })
}

/// What `check --json` prints.
#[pyfunction]
pub(super) fn check(py: Python<'_>, model: OsString, adapter: OsString, options: Options) -> PyResult<String> {
    answer(py, || match parse("check", vec![model, adapter], &options)? {
        Command::Check(args) => Ok(json!(crate::check(&args.model, &args.adapter, &args.naming.to_options())?)),
        _ => Err(Failure::usage("not `check`")),
    })
}

/// Puts an adapter into a model.
#[pyfunction]
pub(super) fn splice(py: Python<'_>, model: OsString, adapter: OsString, options: Options) -> PyResult<String> {
    answer(py, || match parse("splice", vec![model, adapter], &options)? {
        Command::Splice(args) => {
            let spliced = command::splice::spliced(&args)?;
            Ok(json!({
                "modules": spliced.modules,
                "ranks_total": spliced.ranks_total,
                "layers": spliced.layers,
                "linked_bytes": spliced.linked_bytes,
                "copied_bytes": spliced.copied_bytes,
                "notes": spliced.notes,
            }))
        }
        _ => Err(Failure::usage("not `splice`")),
    })
}

/// Writes an adapter in another form.
#[pyfunction]
pub(super) fn convert(py: Python<'_>, input: OsString, output: OsString, options: Options) -> PyResult<String> {
    answer(py, || match parse("convert", vec![input, output], &options)? {
        Command::Convert(args) => {
            let converted = command::convert::converted(&args)?;
            Ok(json!({
                "modules": converted.modules,
                "ranks_total": converted.ranks_total,
                "notes": converted.notes,
            }))
        }
        _ => Err(Failure::usage("not `convert`")),
    })
}

/// Runs without the GIL and returns a document.
fn answer(py: Python<'_>, run: impl FnOnce() -> Result<Value, Failure> + Send) -> PyResult<String> {
    py.detach(run).map(|document| document.to_string()).map_err(|failure| raised(py, failure))
}
