//! `report`: what a run recorded, as a page or in the terminal.

use super::args::{ColorArg, Report};
use super::error::Failure;
use super::heat_map::{Colors, heat_map};
use super::printed::Printed;
use eva_onnx::results::Record;
use std::path::Path;

pub(crate) fn run(args: &Report) -> Result<Printed, Failure> {
    let record = Record::read(&args.folder)?;
    if let Some(page) = &args.html {
        record.save_html(page, args.force)?;
        let text = format!("wrote {}\n", page.display());
        return Ok(Printed { text, ..Printed::default() });
    }
    let Some(run) = &record.run else {
        return Err(Failure {
            hint: Some("--html FILE makes a page with the loss curve".to_owned()),
            ..Failure::usage(format!("`{}` has no eva.json, and so no ranks to draw", args.folder.display()))
        });
    };
    let colors = match args.color {
        ColorArg::Auto => Colors::of_terminal(),
        ColorArg::Truecolor => Colors::True,
        ColorArg::Ansi256 => Colors::Ansi256,
        ColorArg::Ansi16 => Colors::Ansi16,
        ColorArg::None => Colors::None,
    };
    Ok(Printed { text: heat_map(run, colors), is_styled: true, ..Printed::default() })
}

/// Writes the page of the output folder `out` after a run.
pub(crate) fn write_page(out: &Path, page: Option<&Path>, force: bool) -> Result<(), Failure> {
    match page {
        Some(page) => Ok(Record::read(out)?.save_html(page, force)?),
        None => Ok(()),
    }
}

/// Refuses a page that cannot be written, before the run begins.
pub(crate) fn check_page(page: Option<&Path>, force: bool) -> Result<(), Failure> {
    match page {
        Some(page) => Ok(Record::check_html(page, force)?),
        None => Ok(()),
    }
}
