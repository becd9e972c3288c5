//! Calibrates on rows that are made in the program, not read from files: `cargo run --example custom_rows -- MODEL OUT`.

#![expect(clippy::print_stdout, clippy::print_stderr)]

use eva_onnx::options::Fields;
use eva_onnx::{Error, Init};
use std::env;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [model, out] = &arguments[..] else {
        eprintln!("usage: custom_rows MODEL OUT");
        return ExitCode::FAILURE;
    };
    match init(model, out) {
        Ok(ranks) => {
            println!("{ranks} ranks");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Makes an adapter and returns the sum of its ranks.
fn init(model: &str, out: &str) -> Result<usize, Error> {
    let rows = (1..=200).map(|n| Fields::from([("text", format!("{n} times {n} is {}.", n * n))]));
    let run = Init::new(model).rows("squares", rows).rank(4).max_batches(20).run()?;
    run.save(out)?;
    Ok(run.modules.iter().map(|module| module.rank).sum())
}
