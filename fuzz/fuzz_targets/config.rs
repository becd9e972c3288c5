//! The file of `--config`, for every command that has options.
#![no_main]

// The program, whose modules are in no library.
#[path = "../../src/bin/eva-onnx/main.rs"]
#[allow(dead_code, unreachable_pub)]
mod command;

use clap::{CommandFactory, Parser};
use command::args::Cli;
use command::given::given;
use std::collections::BTreeMap;
use std::ffi::OsString;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(&file, bytes).expect("a file");
    for name in Cli::command().get_subcommands().map(clap::Command::get_name) {
        let mut line: Vec<OsString> = ["eva-onnx", name, "x", "--config"].map(Into::into).into();
        line.push(file.path().into());
        if let Ok(given) = given(line, &BTreeMap::new()) {
            let _ = Cli::try_parse_from(given.words);
        }
    }
});
