//! The file of `--config`: options by their names, for all commands or in a table for one.

use super::error::Failure;
use super::options::{meant, option, options};
use clap::Command;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use toml::de::{DeTable, DeValue};

/// Largest file that is read.
const MAX_BYTES: u64 = 1 << 20;

/// An option in the file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) values: Vec<OsString>,
    /// Its place, for messages.
    pub(crate) origin: String,
}

/// A file that is read for one command.
struct File<'a> {
    path: &'a Path,
    text: &'a str,
    definition: &'a Command,
}

/// The options that a file has for a command, by their long names. Those in the table of the command win.
///
/// # Errors
/// When the file cannot be read, or has an option that no command has.
pub(crate) fn read(path: &Path, definition: &Command, command: &str) -> Result<BTreeMap<String, Entry>, Failure> {
    let unreadable = |error| Failure::usage(format!("cannot read `{}`: {error}", path.display()));
    let bytes = fs::metadata(path).map_err(unreadable)?.len();
    if bytes > MAX_BYTES {
        return Err(Failure::usage(format!("`{}` has {bytes} bytes, more than a file of options has", path.display())));
    }
    let text = fs::read_to_string(path).map_err(unreadable)?;
    File { path, text: &text, definition }.entries(command)
}

impl File<'_> {
    fn entries(&self, command: &str) -> Result<BTreeMap<String, Entry>, Failure> {
        let document = DeTable::parse(self.text).map_err(|error| {
            let place = self.place(error.span().map_or(0, |span| span.start));
            Failure::usage(format!("{place}: {}", error.message()))
        })?;
        let commands = || self.definition.get_subcommands();
        let (mut flat, mut own) = (BTreeMap::new(), BTreeMap::new());
        for (at, key, value) in in_order(document.get_ref()) {
            let DeValue::Table(table) = value else {
                if !commands().any(|command| option(command, key).is_some()) {
                    let known = commands().flat_map(options).map(|(name, _)| name);
                    return Err(self.unknown(at, key, "no option of a command", meant(key, known)));
                }
                self.add(&mut flat, (at, key, value))?;
                continue;
            };
            let Some(of) = commands().find(|command| command.get_name() == key) else {
                return Err(self.unknown(at, key, "no command", meant(key, commands().map(Command::get_name))));
            };
            for (at, key, value) in in_order(table) {
                if option(of, key).is_none() {
                    let what = format!("no option of `{}`", of.get_name());
                    return Err(self.unknown(at, key, &what, meant(key, options(of).map(|(name, _)| name))));
                }
                if of.get_name() == command {
                    self.add(&mut own, (at, key, value))?;
                }
            }
        }
        flat.extend(own);
        Ok(flat)
    }

    /// Adds an option that is not there yet.
    fn add(
        &self,
        entries: &mut BTreeMap<String, Entry>,
        (at, key, value): (usize, &str, &DeValue<'_>),
    ) -> Result<(), Failure> {
        let origin = self.place(at);
        let values = values(value).ok_or_else(|| {
            Failure::usage(format!("{origin}: `{key}` takes text, a decimal number, true or false, or a list of these"))
        })?;
        match entries.insert(key.replace('_', "-"), Entry { values, origin: origin.clone() }) {
            None => Ok(()),
            Some(before) => {
                Err(Failure::usage(format!("{origin}: `{key}` has been given before, at {}", before.origin)))
            }
        }
    }

    fn unknown(&self, at: usize, key: &str, what: &str, hint: Option<String>) -> Failure {
        Failure { hint, ..Failure::usage(format!("{}: `{key}` is {what}", self.place(at))) }
    }

    fn place(&self, at: usize) -> String {
        let before = self.text.as_bytes().iter().take(at);
        format!("`{}` line {}", self.path.display(), 1 + before.filter(|byte| **byte == b'\n').count())
    }
}

/// The keys of a table with their places and values, as the file has them.
fn in_order<'t>(table: &'t DeTable<'_>) -> Vec<(usize, &'t str, &'t DeValue<'t>)> {
    let entries = table.iter().map(|(key, value)| (key.span().start, &**key.get_ref(), value.get_ref()));
    let mut entries: Vec<_> = entries.collect();
    entries.sort_by_key(|(at, ..)| *at);
    entries
}

/// A value as texts; `None` where no option takes it.
fn values(value: &DeValue<'_>) -> Option<Vec<OsString>> {
    let one = |value: &DeValue<'_>| match value {
        DeValue::String(text) => Some(OsString::from(text.as_ref())),
        DeValue::Boolean(flag) => Some(flag.to_string().into()),
        DeValue::Integer(number) if number.radix() == 10 => Some(number.as_str().into()),
        DeValue::Float(number) => Some(number.as_str().into()),
        _ => None,
    };
    match value {
        DeValue::Array(values) => values.iter().map(|value| one(value.get_ref())).collect(),
        value => one(value).map(|value| vec![value]),
    }
}

#[cfg(test)]
mod tests {
    use super::super::options::definition;
    use super::*;

    fn entries(text: &str) -> Result<BTreeMap<String, Entry>, Failure> {
        File { path: Path::new("eva.toml"), text, definition: &definition() }.entries("init")
    }

    #[track_caller]
    fn refused(text: &str, message: &str, hint: Option<&str>) {
        let failure = entries(text).unwrap_err();
        assert_eq!((failure.message.as_str(), failure.hint.as_deref()), (message, hint));
    }

    #[test]
    fn the_table_of_the_command_wins() {
        let text = "rank = 8\nlr = 1e-3\n[train]\nrank-is = 1\n";
        assert!(entries(text).is_err());
        let found = entries("rank = 8\nlr = 1e-3\n[init]\nrank = 4\nbatch_size = 2\ndata = ['a', 'b']\n").unwrap();
        let values = |name: &str| found[name].values.iter().map(|v| v.to_str().unwrap()).collect::<Vec<_>>();
        assert_eq!(values("rank"), ["4"]);
        assert_eq!(values("batch-size"), ["2"]);
        assert_eq!(values("data"), ["a", "b"]);
        assert_eq!(values("lr"), ["1e-3"]);
        assert_eq!(found["rank"].origin, "`eva.toml` line 4");
    }

    #[test]
    fn what_no_command_has_is_refused() {
        let did = Some("did you mean `rank`?");
        refused("\nrnak = 8\n", "`eva.toml` line 2: `rnak` is no option of a command", did);
        refused("[init]\nrnak = 8\n", "`eva.toml` line 2: `rnak` is no option of `init`", did);
        refused("[init]\nlr = 8\n", "`eva.toml` line 2: `lr` is no option of `init`", None);
        refused("[inti]\n", "`eva.toml` line 1: `inti` is no command", Some("did you mean `init`?"));
        refused("config = 'a'\n", "`eva.toml` line 1: `config` is no option of a command", None);
        let twice = "`eva.toml` line 2: `batch_size` has been given before, at `eva.toml` line 1";
        refused("batch-size = 1\nbatch_size = 2\n", twice, None);
        refused(
            "rank = 0x8\n",
            "`eva.toml` line 1: `rank` takes text, a decimal number, true or false, or a list of these",
            None,
        );
    }
}
