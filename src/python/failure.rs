//! Failures as exceptions.

use crate::command::error::{ExitStatus, Failure};
use pyo3::prelude::*;

/// The exception for a failure: one of `eva_onnx._errors`, with its hint.
pub(super) fn raised(py: Python<'_>, failure: Failure) -> PyErr {
    let class = match failure.status {
        ExitStatus::Done | ExitStatus::Input => "InputError",
        ExitStatus::Environment => "UsageError",
        ExitStatus::Changed => "ChangedError",
        ExitStatus::Interrupted => "StoppedError",
    };
    let error = PyModule::import(py, "eva_onnx._errors")
        .and_then(|errors| errors.getattr(class))
        .and_then(|class| class.call1((failure.message, failure.hint)));
    error.map_or_else(|error| error, PyErr::from_value)
}
