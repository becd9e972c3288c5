//! Parses the command line, runs the command, prints its result or its error with a hint.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use clap::Parser;
use eva_onnx::cli::{self, args::Cli};
use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::run(Cli::parse()) {
        Ok(printed) => {
            for note in &printed.notes {
                eprintln!("note: {note}");
            }
            // A reader that has gone away, as in `eva-onnx ... | head`, is no failure.
            let _ = std::io::stdout().write_all(printed.text.as_bytes());
            ExitCode::from(printed.status)
        }
        Err(failure) => {
            eprintln!("error: {}", failure.message);
            if let Some(hint) = failure.hint {
                eprintln!("hint: {hint}");
            }
            ExitCode::from(failure.status)
        }
    }
}
