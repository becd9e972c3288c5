//! ONNX Runtime: finding its shared library and loading it, once a process.
//!
//! [`find`] decides which library is used and [`load`] opens it; both refuse a library that is not ONNX Runtime, or
//! is too old, before `ort` opens it. This module is the only owner of `ort`.

mod cuda;
mod error;
mod library;
mod search;
mod session;
mod value;

pub use cuda::{CudaLibrary, cuda_libraries, free_memory, nvidia_driver, preload_cuda};
pub use error::{Error, Result, SearchStep, Tried};
pub use library::{Runtime, find, find_noting, load, providers, set_interpreter_package};
pub use search::Library;
pub use session::{Device, Memory, Session, SessionOptions, cuda_problem, cuda_works};
pub use value::Value;
