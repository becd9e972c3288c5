//! Initialises an adapter and prints what each module got: `cargo run --example init -- MODEL DATA OUT`.

#![expect(clippy::print_stdout, clippy::print_stderr)]

use eva_onnx::{Error, Hint, Init, Next};
use std::env;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [model, data, out] = &arguments[..] else {
        eprintln!("usage: init MODEL DATA OUT");
        return ExitCode::FAILURE;
    };
    match init(model, data, out) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            if let Some(hint) = error.hint() {
                eprintln!("hint: {hint}");
            }
            ExitCode::FAILURE
        }
    }
}

fn init(model: &str, data: &str, out: &str) -> Result<(), Error> {
    let run = Init::new(model).data([data]).rank(8).max_batches(4).run_with(|progress| {
        if let Some(planned) = progress.planned {
            println!("batch {} of {planned}: {} modules converged", progress.batches, progress.converged);
        }
        Next::Continue
    })?;
    run.save(out)?;
    for module in &run.modules {
        println!("{} rank {}, explains {:.3}", module.name, module.rank, module.explained_variance);
    }
    for note in &run.notes {
        println!("note: {note}");
    }
    Ok(())
}
