//! `completions` and `man`: what a shell and a manual need to know of the commands.

use super::args::{Cli, Completions, Man};
use super::error::Failure;
use super::options::definition;
use super::printed::Printed;
use clap::CommandFactory;
use eva_onnx::output;
use std::fs;

pub(crate) fn completions(args: &Completions) -> Printed {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "eva-onnx", &mut script);
    // For bash, clap_complete 4.6 calls a program with a hyphen by two names.
    let text = String::from_utf8_lossy(&script).replace("eva__subcmd__onnx", "eva__onnx");
    Printed { text, is_styled: true, ..Printed::default() }
}

/// Writes a page for the program and one for each command.
pub(crate) fn man(args: &Man) -> Result<Printed, Failure> {
    let folder = |error| Failure::usage(format!("cannot make the folder `{}`: {error}", args.out.display()));
    fs::create_dir_all(&args.out).map_err(folder)?;
    let definition = definition();
    let mut text = String::new();
    let commands = definition.get_subcommands().filter(|command| command.get_name() != "help");
    for command in [&definition].into_iter().chain(commands) {
        let page = clap_mangen::Man::new(command.clone());
        let path = args.out.join(page.get_filename());
        let mut bytes = Vec::new();
        page.render(&mut bytes).map_err(|error| Failure::usage(format!("cannot make a page: {error}")))?;
        output::file(&path, &bytes, args.force)?;
        text.push_str(&format!("wrote {}\n", path.display()));
    }
    Ok(Printed { text, ..Printed::default() })
}
