//! Parses the command line, runs the command, prints its result or its error with a hint.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod adapter_args;
mod args;
mod convert;
mod error;
mod init;
mod inspect;
mod interrupt;
mod listing;
mod progress;
mod splice;
mod table;

use args::{Cli, Command};
use clap::Parser;
use error::{ExitStatus, Failure};
use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(printed) => {
            for note in &printed.notes {
                eprintln!("note: {note}");
            }
            // A reader that has gone away, as in `eva-onnx ... | head`, is no failure.
            let _ = std::io::stdout().write_all(printed.text.as_bytes());
            ExitCode::from(printed.status as u8)
        }
        Err(failure) => {
            eprintln!("error: {}", failure.message);
            if let Some(hint) = failure.hint {
                eprintln!("hint: {hint}");
            }
            ExitCode::from(failure.status as u8)
        }
    }
}

/// Runs one command and returns what belongs on stdout, with the exit status.
fn run(cli: Cli) -> Result<Printed, Failure> {
    match cli.command {
        Command::Inspect(args) => inspect::run(&args),
        Command::Init(args) => init::run(&args),
        Command::Splice(args) => splice::run(&args),
        Command::Convert(args) => convert::run(&args),
    }
}

/// The result of a command.
struct Printed {
    /// Text for stdout.
    text: String,
    /// Remarks for stderr.
    notes: Vec<String>,
    /// Exit status.
    status: ExitStatus,
}
