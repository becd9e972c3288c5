//! Options from the environment and from a file, added to the command line.
//!
//! The command line wins over the environment, and that over the file. An option is also left out where one that it
//! conflicts with was given by what wins over it.

use super::args::Cli;
use super::config;
use super::error::Failure;
use super::options::{definition, meant, options, words};
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command, CommandFactory, Id};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::PathBuf;

/// What the names of variables begin with: `EVA_ONNX_BATCH_SIZE` is `--batch-size`.
const PREFIX: &str = "EVA_ONNX_";

/// A command line with what the environment and a file add.
#[derive(Debug, Default)]
pub(crate) struct Given {
    pub(crate) words: Vec<OsString>,
    /// The options added, and where each comes from.
    pub(crate) added: Vec<(String, String)>,
    /// Variables that are no options.
    pub(crate) notes: Vec<String>,
}

impl Given {
    /// Where the options that a message names come from, if not from the command line.
    pub(crate) fn explain(&self, message: &str) -> Vec<String> {
        let named = self.added.iter().filter(|(option, _)| {
            let after = |(at, _): (usize, &str)| message[at + option.len()..].chars().next();
            let ends = |next: Option<char>| next.is_none_or(|next| !next.is_alphanumeric() && next != '-');
            message.match_indices(option.as_str()).map(after).any(ends)
        });
        named.map(|(option, origin)| format!("{option} is from {origin}")).collect()
    }
}

/// The variables of this process that may be options.
pub(crate) fn variables() -> BTreeMap<String, OsString> {
    let named = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
    named.filter(|(name, value)| name.starts_with(PREFIX) && !value.is_empty()).collect()
}

/// Completes a command line.
///
/// # Errors
/// When the file cannot be read, or has what no option is or takes.
pub(crate) fn given(line: Vec<OsString>, variables: &BTreeMap<String, OsString>) -> Result<Given, Failure> {
    let definition = definition();
    // What is wrong with the line is said when all of it is there.
    let parsed = Cli::command().ignore_errors(true).try_get_matches_from(&line).ok();
    let chosen = parsed.as_ref().and_then(ArgMatches::subcommand);
    let Some((command, matches)) = chosen.and_then(|(name, of)| Some((definition.find_subcommand(name)?, of))) else {
        return Ok(Given { words: line, ..Given::default() });
    };
    let mut adding = Adding { command, taken: on_line(command, matches), words: Vec::new(), added: Vec::new() };
    let of_environment = options(command).filter_map(|(name, arg)| {
        let variable = variable(name);
        let value = variables.get(&variable)?;
        Some((name, arg, vec![value.clone()], format!("`{variable}`")))
    });
    adding.layer(of_environment.collect())?;
    let file = matches.get_one::<PathBuf>("config").cloned();
    if let Some(file) = file.or_else(|| variables.get(&variable("config")).map(PathBuf::from)) {
        let mut entries = config::read(&file, &definition, command.get_name())?;
        let of_file = options(command).filter_map(|(name, arg)| {
            let entry = entries.remove(name)?;
            Some((name, arg, entry.values, entry.origin))
        });
        adding.layer(of_file.collect())?;
    }
    let Adding { words: more, added, .. } = adding;
    let mut words = line;
    // After `--` there are no options.
    let end = words.iter().position(|word| word == "--").unwrap_or(words.len());
    words.splice(end..end, more);
    Ok(Given { words, added, notes: notes(&definition, variables) })
}

fn variable(name: &str) -> String {
    format!("{PREFIX}{}", name.to_uppercase().replace('-', "_"))
}

/// The options on the command line.
fn on_line(command: &Command, matches: &ArgMatches) -> BTreeSet<Id> {
    let given = |arg: &&Arg| matches.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine);
    options(command).map(|(_, arg)| arg).filter(given).map(|arg| arg.get_id().clone()).collect()
}

/// Variables that look like options, and are those of no command.
fn notes(definition: &Command, variables: &BTreeMap<String, OsString>) -> Vec<String> {
    let names = || definition.get_subcommands().flat_map(options).map(|(name, _)| name).chain(["config"]);
    let known: BTreeSet<String> = names().map(variable).collect();
    let unknown = variables.keys().filter(|name| !known.contains(*name));
    let note = |name: &String| {
        let meant = meant(&name[PREFIX.len()..].to_lowercase(), names());
        format!("`{name}` is not used: no option has that name{}", meant.map(|m| format!("; {m}")).unwrap_or_default())
    };
    unknown.map(note).collect()
}

/// An option with its name, values, and where they are from.
type Set<'c> = (&'c str, &'c Arg, Vec<OsString>, String);

/// What is added to a command line, layer by layer.
struct Adding<'c> {
    command: &'c Command,
    /// Options that higher layers have given.
    taken: BTreeSet<Id>,
    words: Vec<OsString>,
    added: Vec<(String, String)>,
}

impl<'c> Adding<'c> {
    /// Adds the options of a layer that no higher one decides.
    fn layer(&mut self, layer: Vec<Set<'c>>) -> Result<(), Failure> {
        let mut free: Vec<Set<'c>> = layer;
        free.retain(|(_, arg, ..)| !self.is_decided(arg));
        for (name, arg, values, origin) in free {
            let more = words(name, arg, &values)
                .map_err(|takes| Failure::usage(format!("--{name} {takes}; it is from {origin}")))?;
            self.words.extend(more);
            self.taken.insert(arg.get_id().clone());
            self.added.push((format!("--{name}"), origin));
        }
        Ok(())
    }

    /// Whether a higher layer has given the option, or one that it conflicts with.
    fn is_decided(&self, arg: &Arg) -> bool {
        let conflicts = |arg: &Arg| -> Vec<Id> {
            if arg.is_global_set() {
                return Vec::new();
            }
            self.command.get_arg_conflicts_with(arg).into_iter().map(|other| other.get_id().clone()).collect()
        };
        let taken = || self.command.get_arguments().filter(|other| self.taken.contains(other.get_id()));
        self.taken.contains(arg.get_id())
            || conflicts(arg).iter().any(|other| self.taken.contains(other))
            || taken().any(|other| conflicts(other).contains(arg.get_id()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, variables: &[(&str, &str)], expected: &str) {
        let line = line.split(' ').map(OsString::from).collect();
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), value.into())).collect();
        let words = given(line, &variables).unwrap().words;
        assert_eq!(words.join(std::ffi::OsStr::new(" ")), expected);
    }

    #[test]
    fn variables_are_options() {
        let rank = ("EVA_ONNX_RANK", "8");
        check("eva-onnx init m --data d", &[rank], "eva-onnx init m --data d --rank=8");
        check("eva-onnx init m --data d -- x", &[rank], "eva-onnx init m --data d --rank=8 -- x");
        check("eva-onnx init m --rank 4", &[rank], "eva-onnx init m --rank 4");
        check("eva-onnx inspect m", &[rank], "eva-onnx inspect m");
        check("eva-onnx init m", &[("EVA_ONNX_DATA", "d")], "eva-onnx init m --data=d");
        check("eva-onnx init --help", &[rank], "eva-onnx init --help");
    }

    #[test]
    fn what_conflicts_with_the_command_line_is_left_out() {
        let tokens = ("EVA_ONNX_BATCH_TOKENS", "64");
        check("eva-onnx init m --batch-size 2", &[tokens], "eva-onnx init m --batch-size 2");
        let size = ("EVA_ONNX_BATCH_SIZE", "2");
        check("eva-onnx init m --batch-tokens 64", &[size], "eva-onnx init m --batch-tokens 64");
        check("eva-onnx init m", &[size, tokens], "eva-onnx init m --batch-size=2 --batch-tokens=64");
    }

    #[test]
    fn messages_name_the_origin_of_the_options_in_them() {
        let added = vec![("--rank".to_owned(), "`EVA_ONNX_RANK`".to_owned())];
        let given = Given { added, ..Given::default() };
        assert_eq!(given.explain("invalid value for '--rank <RANK>'"), ["--rank is from `EVA_ONNX_RANK`"]);
        assert!(given.explain("invalid value for '--rank-is <RANK>'").is_empty());
    }
}
