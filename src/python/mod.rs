//! The Python module: the commands as functions with the options of the command line.
//!
//! `eva_onnx` beside this file makes dataclasses with NumPy arrays of what these functions return. They run without the
//! GIL, and take it to read rows and to report progress.

mod adapter;
mod commands;
mod failure;
mod line;
mod rows;
mod runs;
mod train;
mod value;
mod watch;

use pyo3::prelude::*;

#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(commands::main, module)?)?;
    module.add_function(wrap_pyfunction!(commands::use_onnxruntime, module)?)?;
    module.add_function(wrap_pyfunction!(commands::inspect, module)?)?;
    module.add_function(wrap_pyfunction!(commands::check, module)?)?;
    module.add_function(wrap_pyfunction!(commands::splice, module)?)?;
    module.add_function(wrap_pyfunction!(commands::convert, module)?)?;
    module.add_function(wrap_pyfunction!(runs::init, module)?)?;
    module.add_function(wrap_pyfunction!(runs::merge, module)?)?;
    module.add_function(wrap_pyfunction!(train::train, module)?)?;
    module.add("__version__", env!("CARGO_PKG_VERSION"))
}
