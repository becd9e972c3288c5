//! `inspect`: the linear layers of a model, without running it.

use super::args::Inspect;
use super::error::Failure;
use super::listing;
use super::printed::Printed;

pub(crate) fn run(args: &Inspect) -> Result<Printed, Failure> {
    let inspection = eva_onnx::inspect(&args.model, &args.selection.naming.to_options(), &args.selection.to_options())?;
    let text = if args.json {
        serde_json::to_string_pretty(&inspection).unwrap_or_default() + "\n"
    } else {
        listing::listing(&inspection)
    };
    Ok(Printed { text, notes: inspection.notes, ..Printed::default() })
}
