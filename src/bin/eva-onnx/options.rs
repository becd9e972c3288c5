//! Options of commands by name, and their values as words of a command line.

use super::args::Cli;
use super::nearest::nearest;
use clap::{Arg, ArgAction, Command, CommandFactory};
use std::ffi::{OsStr, OsString};

/// Options that only a command line has.
const OF_COMMAND_LINE: [&str; 3] = ["help", "version", "config"];

/// Options for what a command prints, which functions do not have.
#[allow(dead_code, reason = "the Python module and a test use it")]
pub(crate) const OF_PRINTING: [&str; 5] = ["dry-run", "json", "no-progress", "quiet", "verbose"];

/// The value name of options that take a list with commas.
const LISTS: [&str; 2] = ["NAMES", "DEVICES"];

/// The commands and their options, those that all of them have included.
pub(crate) fn definition() -> Command {
    let mut definition = Cli::command();
    definition.build();
    definition
}

/// The options of a command that may be set from elsewhere, with their long names.
pub(crate) fn options(command: &Command) -> impl Iterator<Item = (&str, &Arg)> {
    let named = command.get_arguments().filter_map(|arg| Some((arg.get_long()?, arg)));
    named.filter(|(name, _)| !OF_COMMAND_LINE.contains(name))
}

/// The option of a command that is called `name`, where `_` stands for `-`.
pub(crate) fn option<'c>(command: &'c Command, name: &str) -> Option<(&'c str, &'c Arg)> {
    let name = name.replace('_', "-");
    options(command).find(|(long, _)| *long == name)
}

/// What to do about an unknown name of an option.
pub(crate) fn meant<'c>(name: &str, known: impl IntoIterator<Item = &'c str>) -> Option<String> {
    nearest(&name.replace('_', "-"), known).map(|meant| format!("did you mean `{meant}`?"))
}

/// The words that give an option these values.
///
/// # Errors
/// What the option takes instead, as a clause.
pub(crate) fn words(name: &str, arg: &Arg, values: &[OsString]) -> Result<Vec<OsString>, String> {
    let flag = OsString::from(format!("--{name}"));
    let with = |value: &OsStr| {
        let mut word = flag.clone();
        word.push("=");
        word.push(value);
        word
    };
    let one = || match values {
        [value] => Ok(value),
        _ => Err("takes one value".to_owned()),
    };
    match arg.get_action() {
        ArgAction::SetTrue => match one()?.to_str().map(str::to_lowercase).as_deref() {
            Some("true" | "1" | "yes" | "on") => Ok(vec![flag]),
            Some("false" | "0" | "no" | "off") => Ok(Vec::new()),
            _ => Err("takes true or false".to_owned()),
        },
        ArgAction::Count => match one()?.to_str().and_then(|text| text.parse::<u8>().ok()) {
            Some(count) => Ok(vec![flag; usize::from(count)]),
            None => Err("takes a number from 0 to 255".to_owned()),
        },
        ArgAction::Append => Ok(values.iter().map(|value| with(value)).collect()),
        _ if takes_list(arg) && !values.is_empty() => Ok(vec![with(&values.join(OsStr::new(",")))]),
        _ => Ok(vec![with(one()?)]),
    }
}

fn takes_list(arg: &Arg) -> bool {
    arg.get_value_names().is_some_and(|names| names.iter().any(|name| LISTS.contains(&name.as_str())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(command: &str, name: &str, values: &[&str], expected: Result<&[&str], &str>) {
        let definition = definition();
        let command = definition.find_subcommand(command).unwrap();
        let (name, arg) = option(command, name).unwrap();
        let values: Vec<OsString> = values.iter().map(OsString::from).collect();
        let expected = expected.map(|words| words.iter().map(OsString::from).collect()).map_err(str::to_owned);
        assert_eq!(words(name, arg, &values), expected);
    }

    #[test]
    fn values_become_words() {
        check("init", "batch_size", &["8"], Ok(&["--batch-size=8"]));
        check("init", "data", &["a", "b"], Ok(&["--data=a", "--data=b"]));
        check("init", "shuffle", &["true"], Ok(&["--shuffle"]));
        check("init", "shuffle", &["0"], Ok(&[]));
        check("init", "shuffle", &["8"], Err("takes true or false"));
        check("init", "verbose", &["2"], Ok(&["--verbose", "--verbose"]));
        check("init", "target-modules", &["a", "b"], Ok(&["--target-modules=a,b"]));
        check("init", "rank", &["1", "2"], Err("takes one value"));
        check("train", "train-modules", &["a", "b"], Ok(&["--train-modules=a", "--train-modules=b"]));
    }

    #[test]
    fn some_options_are_for_the_command_line_alone() {
        let definition = definition();
        let init = definition.find_subcommand("init").unwrap();
        assert!(OF_COMMAND_LINE.iter().all(|name| option(init, name).is_none()));
    }
}
