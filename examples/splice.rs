//! Puts an adapter into a model whose A and B are inputs: `cargo run --example splice -- MODEL ADAPTER OUT`.

#![expect(clippy::print_stdout, clippy::print_stderr)]

use eva_onnx::options::{Form, SpliceOptions};
use std::env;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [model, adapter, out] = &arguments[..] else {
        eprintln!("usage: splice MODEL ADAPTER OUT");
        return ExitCode::FAILURE;
    };
    let options = SpliceOptions { form: Form::AdapterInputs, ..SpliceOptions::default() };
    match eva_onnx::splice(model, adapter, out, &options) {
        Ok(spliced) => {
            println!("{} modules in {} layers", spliced.modules, spliced.layers);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
