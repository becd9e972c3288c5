//! `completions` and `man`: what a shell and a manual need to know of the commands.

use super::args::{Cli, Completions, Man};
use super::error::Failure;
use super::options::definition;
use super::printed::Printed;
use clap::CommandFactory;
use clap_complete::Shell;
use eva_onnx::options::Destination;

pub(crate) fn completions(args: &Completions) -> Printed {
    Printed { text: script(args.shell), is_styled: true, ..Printed::default() }
}

/// What a shell needs to complete command lines.
fn script(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "eva-onnx", &mut script);
    // For bash, clap_complete 4.6 calls a program with a hyphen by two names.
    String::from_utf8_lossy(&script).replace("eva__subcmd__onnx", "eva__onnx")
}

/// The name of a file, and what it holds.
type Page = (String, Vec<u8>);

/// Writes a page for the program and one for each command.
pub(crate) fn man(args: &Man) -> Result<Printed, Failure> {
    let destination = Destination::prepare(&args.out, args.force)?;
    let pages = manual()?;
    let files: Vec<(&str, Vec<u8>)> = pages.iter().map(|(name, bytes)| (name.as_str(), bytes.clone())).collect();
    destination.commit(&files)?;
    let wrote = |(name, _): &Page| format!("wrote {}\n", args.out.join(name).display());
    Ok(Printed { text: pages.iter().map(wrote).collect(), ..Printed::default() })
}

/// The page of the program, and those of its commands.
fn manual() -> Result<Vec<Page>, Failure> {
    let definition = definition();
    let commands = definition.get_subcommands().filter(|command| command.get_name() != "help");
    let mut pages = Vec::new();
    for command in [&definition].into_iter().chain(commands) {
        let (page, mut bytes) = (clap_mangen::Man::new(command.clone()), Vec::new());
        page.render(&mut bytes).map_err(|error| Failure::usage(format!("cannot make a page: {error}")))?;
        pages.push((page.get_filename(), bytes));
    }
    Ok(pages)
}

#[cfg(test)]
mod tests {
    use super::{manual, script};
    use clap_complete::Shell;
    use std::collections::BTreeMap;
    use std::fs;
    use std::path::{Path, PathBuf};

    /// What the wheel installs below its prefix; `[tool.maturin]` of pyproject.toml names it.
    const DATA: &str = "src/python/eva_onnx.data/data";

    /// The files by their paths below `DATA`, where `make install` and systems look for them.
    fn files() -> BTreeMap<PathBuf, String> {
        let scripts = [
            (Shell::Bash, "share/bash-completion/completions/eva-onnx"),
            (Shell::Zsh, "share/zsh/site-functions/_eva-onnx"),
            (Shell::Fish, "share/fish/vendor_completions.d/eva-onnx.fish"),
        ];
        let scripts = scripts.map(|(shell, path)| (PathBuf::from(path), script(shell)));
        let pages = manual().unwrap().into_iter();
        let pages =
            pages.map(|(name, page)| (Path::new("share/man/man1").join(name), String::from_utf8(page).unwrap()));
        pages.chain(scripts).collect()
    }

    fn there(folder: &Path, below: &Path, found: &mut BTreeMap<PathBuf, String>) {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                there(&path, below, found);
            } else {
                found.insert(path.strip_prefix(below).unwrap().to_owned(), fs::read_to_string(&path).unwrap());
            }
        }
    }

    #[test]
    fn the_wheel_has_the_pages_and_completions_of_this_program() {
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join(DATA);
        if std::env::var_os("UPDATE_DOCS").is_some() {
            let _ = fs::remove_dir_all(&data);
            for (path, text) in files() {
                fs::create_dir_all(data.join(&path).parent().unwrap()).unwrap();
                fs::write(data.join(path), text).unwrap();
            }
        }
        let mut found = BTreeMap::new();
        there(&data, &data, &mut found);
        let (found, made) = (found.iter(), files());
        let differ: Vec<_> = found.clone().filter(|(path, text)| made.get(*path) != Some(text)).collect();
        assert!(
            differ.is_empty() && found.len() == made.len(),
            "`UPDATE_DOCS=1 cargo test --bin eva-onnx pages` writes {DATA}"
        );
    }
}
