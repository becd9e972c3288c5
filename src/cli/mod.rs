//! The command line over the library: parse, run, print.

mod adapter_args;
pub mod args;
mod config;
mod convert;
mod devices;
mod error;
mod init;
mod inspect;
mod listing;
mod progress;
mod select;
mod splice;
mod table;

pub use error::Failure;

use args::{Cli, Command};

/// Runs one command and returns what belongs on stdout, with the exit status.
///
/// # Errors
/// [`Failure`] carries the message, the hint and the exit status.
pub fn run(cli: Cli) -> Result<Printed, Failure> {
    match cli.command {
        Command::Inspect(args) => inspect::run(&args),
        Command::Init(args) => init::run(&args),
        Command::Splice(args) => splice::run(&args),
        Command::Convert(args) => convert::run(&args),
    }
}

/// The result of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Printed {
    /// Text for stdout.
    pub text: String,
    /// Remarks for stderr.
    pub notes: Vec<String>,
    /// Exit status.
    pub status: u8,
}
