//! `completions` and `man`: what a shell and a manual need to know of the commands.

use super::args::{Cli, Completions, Man};
use super::error::Failure;
use super::options::definition;
use super::printed::Printed;
use clap::CommandFactory;
use eva_onnx::Destination;

pub(crate) fn completions(args: &Completions) -> Printed {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "eva-onnx", &mut script);
    // For bash, clap_complete 4.6 calls a program with a hyphen by two names.
    let text = String::from_utf8_lossy(&script).replace("eva__subcmd__onnx", "eva__onnx");
    Printed { text, is_styled: true, ..Printed::default() }
}

/// Writes a page for the program and one for each command.
pub(crate) fn man(args: &Man) -> Result<Printed, Failure> {
    let destination = Destination::prepare(&args.out, args.force)?;
    let definition = definition();
    let commands = definition.get_subcommands().filter(|command| command.get_name() != "help");
    let mut pages = Vec::new();
    for command in [&definition].into_iter().chain(commands) {
        let (page, mut bytes) = (clap_mangen::Man::new(command.clone()), Vec::new());
        page.render(&mut bytes).map_err(|error| Failure::usage(format!("cannot make a page: {error}")))?;
        pages.push((page.get_filename(), bytes));
    }
    let files: Vec<(&str, Vec<u8>)> = pages.iter().map(|(name, bytes)| (name.as_str(), bytes.clone())).collect();
    destination.commit(&files)?;
    let wrote = |(name, _): &(String, Vec<u8>)| format!("wrote {}\n", args.out.join(name).display());
    Ok(Printed { text: pages.iter().map(wrote).collect(), ..Printed::default() })
}
