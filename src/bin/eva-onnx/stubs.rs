//! The options of commands as Python's type checkers read them: `src/python/eva_onnx/_options.pyi`.
#![cfg(test)]

use super::options::{OF_PRINTING, definition, options};
use clap::{Arg, ArgAction, Command};
use std::any::TypeId;
use std::fmt::Write as _;
use std::path::PathBuf;

/// Commands that are functions of Python, with the options that are their own parameters there.
const FUNCTIONS: [(&str, &[&str]); 7] = [
    ("init", &["data"]),
    ("train", &["data", "eval", "emit", "link"]),
    ("merge", &[]),
    ("splice", &["out"]),
    ("convert", &[]),
    ("inspect", &[]),
    ("check", &[]),
];

const HEAD: &str = "\
# The options of the command line. `UPDATE_DOCS=1 cargo test --bin eva-onnx stubs` writes this file.

import os
from collections.abc import Sequence
from typing import Literal, TypedDict

_Path = str | os.PathLike[str]
";

fn stubs() -> String {
    let definition = definition();
    let mut text = HEAD.to_owned();
    for (name, parameters) in FUNCTIONS {
        let command = definition.find_subcommand(name).unwrap();
        let _ = write!(text, "\nclass {}Options(TypedDict, total=False):\n", capital(name));
        text.push_str(&entries(command, parameters));
    }
    text
}

fn capital(name: &str) -> String {
    name[..1].to_uppercase() + &name[1..]
}

fn entries(command: &Command, parameters: &[&str]) -> String {
    let mut text = String::new();
    for (name, arg) in options(command).filter(|(name, _)| !OF_PRINTING.contains(name) && !parameters.contains(name)) {
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        let key = name.replace('-', "_");
        let key = if ["as", "for"].contains(&name) { format!("{key}_") } else { key };
        let _ = write!(text, "    # {}\n    {key}: {}\n", help.replace('\n', " "), kind(arg));
    }
    text
}

fn kind(arg: &Arg) -> String {
    if matches!(arg.get_action(), ArgAction::SetTrue) {
        return "bool".to_owned();
    }
    let values: Vec<String> = arg.get_possible_values().iter().map(|value| format!("{:?}", value.get_name())).collect();
    let of_type = arg.get_value_parser().type_id();
    let is_list =
        arg.get_value_names().is_some_and(|names| names.iter().any(|name| name == "NAMES" || name == "DEVICES"));
    let one = match () {
        () if !values.is_empty() => format!("Literal[{}]", values.join(", ")),
        () if of_type == TypeId::of::<PathBuf>() => "_Path".to_owned(),
        () if of_type == TypeId::of::<usize>() || of_type == TypeId::of::<u64>() => "int".to_owned(),
        () if of_type == TypeId::of::<f64>() || of_type == TypeId::of::<f32>() => "float".to_owned(),
        () => "str".to_owned(),
    };
    let several = is_list || matches!(arg.get_action(), ArgAction::Append);
    if several { format!("{one} | Sequence[{one}]") } else { one }
}

#[test]
fn python_has_the_options_of_the_commands() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/python/eva_onnx/_options.pyi");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, stubs()).unwrap();
    }
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(there == stubs(), "`UPDATE_DOCS=1 cargo test --bin eva-onnx stubs` writes {}", path.display());
}
