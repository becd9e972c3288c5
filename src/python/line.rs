//! Keyword arguments as a command line, so that Python has the options and the checks of the program.

use crate::command::args::{Cli, Command};
use crate::command::error::Failure;
use crate::command::options::{OF_PRINTING, definition, meant, option, options, words};
use clap::Parser;
use std::ffi::OsString;

/// Options by their names, with their values.
pub(super) type Options = Vec<(String, Vec<OsString>)>;

/// What a command was asked for. A keyword of Python, such as `as`, is followed by `_`.
///
/// # Errors
/// When it has no such option, or does not take such a value.
pub(super) fn parse(command: &str, positional: Vec<OsString>, given: &Options) -> Result<Command, Failure> {
    let definition = definition();
    let Some(of) = definition.find_subcommand(command) else {
        return Err(Failure::usage(format!("there is no command `{command}`")));
    };
    let mut line: Vec<OsString> = vec!["eva-onnx".into(), command.into()];
    for (name, values) in given {
        let plain = name.trim_end_matches('_');
        let Some((long, arg)) = option(of, plain).filter(|(long, _)| !OF_PRINTING.contains(long)) else {
            let known = options(of).map(|(long, _)| long).filter(|long| !OF_PRINTING.contains(long));
            let hint = meant(plain, known).map(|hint| hint.replace('-', "_"));
            return Err(Failure { hint, ..Failure::usage(format!("{command}() has no option `{name}`")) });
        };
        line.extend(words(long, arg, values).map_err(|takes| Failure::usage(format!("`{name}` {takes}")))?);
    }
    line.push("--".into());
    line.extend(positional);
    Cli::try_parse_from(line).map(|cli| cli.command).map_err(|error| Failure::usage(message(&error.to_string())))
}

/// The message of clap without what is for a terminal.
fn message(text: &str) -> String {
    let message = text.split("\n\n").next().unwrap_or_default().trim();
    message.strip_prefix("error: ").unwrap_or(message).to_owned()
}
