//! Parses the command line, runs the command, prints its result or its error with a hint.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod adapter_args;
pub(crate) mod args;
mod bus_error;
mod check;
mod config;
pub(crate) mod convert;
mod doctor;
pub(crate) mod error;
pub(crate) mod given;
mod heat_map;
pub(crate) mod init;
pub(crate) mod init_args;
mod inspect;
mod interrupt;
mod listing;
pub(crate) mod merge;
mod merge_args;
mod nearest;
pub(crate) mod options;
mod pages;
mod part_args;
mod plan;
mod printed;
mod progress;
mod report;
mod shared_args;
pub(crate) mod splice;
mod stubs;
mod table;
pub(crate) mod train;
pub(crate) mod train_args;

use args::{Cli, Command};
use clap::Parser;
use error::{ExitStatus, Failure};
use printed::{Printed, printable, say};
use std::ffi::OsString;
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

fn main() -> ExitCode {
    bus_error::end_on_bus_error();
    interrupt::refuse_large_files_by_error();
    ExitCode::from(command(std::env::args_os().collect()) as u8)
}

/// Runs a command line, whose first word is the program, and returns how the process ends.
pub(crate) fn command(line: Vec<OsString>) -> ExitStatus {
    let given = match given::given(line, &given::variables()) {
        Ok(given) => given,
        Err(failure) => return print(Err(failure)),
    };
    for note in &given.notes {
        say("note", note);
    }
    let error = match Cli::try_parse_from(&given.words) {
        Ok(cli) => {
            log_to_stderr(cli.verbose);
            let words: Vec<String> = given.words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
            return print(run(cli, &words));
        }
        Err(error) => error,
    };
    // Without a terminal there is nothing left to tell.
    let _ = error.print();
    if error.exit_code() == 0 {
        return ExitStatus::Done;
    }
    for origin in given.explain(&error.to_string()) {
        say("hint", &origin);
    }
    ExitStatus::Environment
}

/// Prints what a command returned.
fn print(result: Result<Printed, Failure>) -> ExitStatus {
    let printed = match result {
        Ok(printed) => printed,
        Err(failure) => {
            say("error", &failure.message);
            if let Some(hint) = failure.hint {
                say("hint", &hint);
            }
            return failure.status;
        }
    };
    for note in &printed.notes {
        say("note", note);
    }
    let mut stdout = io::stdout();
    let text = if printed.is_styled { printed.text } else { printable(&printed.text) };
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        // A reader that has gone away, as in `eva-onnx ... | head`, is no failure.
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            say("error", &format!("cannot write to stdout: {error}"));
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

/// Runs one command and returns what belongs on stdout, with the exit status. `line` is the whole command line.
fn run(cli: Cli, line: &[String]) -> Result<Printed, Failure> {
    // These two stop between batches and write what they have.
    if !matches!(cli.command, Command::Init(_) | Command::Train(_)) {
        interrupt::end_on_interrupt();
    }
    match cli.command {
        Command::Inspect(args) => inspect::run(&args),
        Command::Init(args) => init::run(&args, line),
        Command::Merge(args) => merge::run(&args, line),
        Command::Check(args) => check::run(&args),
        Command::Train(args) => train::run(&args),
        Command::Splice(args) => splice::run(&args),
        Command::Convert(args) => convert::run(&args),
        Command::Report(args) => report::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Completions(args) => Ok(pages::completions(&args)),
        Command::Man(args) => pages::man(&args),
    }
}
