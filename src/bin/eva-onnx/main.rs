//! Parses the command line, runs the command, prints its result or its error with a hint.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod adapter_args;
mod args;
mod check;
mod convert;
mod error;
mod heat_map;
mod init;
mod init_args;
mod inspect;
mod interrupt;
mod listing;
mod merge;
mod merge_args;
mod part_args;
mod printed;
mod progress;
mod report;
mod shared_args;
mod splice;
mod table;
mod train;
mod train_args;

use args::{Cli, Command};
use clap::Parser;
use error::{ExitStatus, Failure};
use printed::{Printed, visible};
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::parse();
    log_to_stderr(cli.verbose);
    ExitCode::from(print(run(cli)) as u8)
}

/// Prints what a command returned.
fn print(result: Result<Printed, Failure>) -> ExitStatus {
    let printed = match result {
        Ok(printed) => printed,
        Err(failure) => {
            eprintln!("error: {}", visible(&failure.message));
            if let Some(hint) = failure.hint {
                eprintln!("hint: {}", visible(&hint));
            }
            return failure.status;
        }
    };
    for note in &printed.notes {
        eprintln!("note: {}", visible(note));
    }
    let mut stdout = io::stdout();
    let text = if printed.is_styled { printed.text } else { visible(&printed.text) };
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        // A reader that has gone away, as in `eva-onnx ... | head`, is no failure.
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            eprintln!("error: cannot write to stdout: {error}");
            ExitStatus::Environment
        }
        _ => printed.status,
    }
}

/// Sends the log of the library to stderr: debug messages with `-v`, all with `-vv`.
fn log_to_stderr(verbose: u8) {
    let level = match verbose {
        0 => return,
        1 => tracing::Level::DEBUG,
        _ => tracing::Level::TRACE,
    };
    tracing_subscriber::fmt().with_max_level(level).with_writer(io::stderr).without_time().init();
}

/// Runs one command and returns what belongs on stdout, with the exit status.
fn run(cli: Cli) -> Result<Printed, Failure> {
    // These two stop between batches and write what they have.
    if !matches!(cli.command, Command::Init(_) | Command::Train(_)) {
        interrupt::end_on_interrupt();
    }
    match cli.command {
        Command::Inspect(args) => inspect::run(&args),
        Command::Init(args) => init::run(&args),
        Command::Merge(args) => merge::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Train(args) => train::run(&args),
        Command::Splice(args) => splice::run(&args),
        Command::Convert(args) => convert::run(&args),
        Command::Report(args) => report::run(&args),
    }
}
