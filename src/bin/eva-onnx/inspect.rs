//! `inspect`: the linear layers of a model, without running it.

use super::args::Inspect;
use super::error::Failure;
use super::listing;
use super::printed::Printed;
use eva_onnx::options::Blocks;

pub(crate) fn run(args: &Inspect) -> Result<Printed, Failure> {
    if let Some(blocks) = args.blocks {
        return show_blocks(args, blocks);
    }
    let inspection = eva_onnx::inspect(&args.model, &args.selection.naming.to_options(), &args.selection.to_options())?;
    let text = if args.json {
        serde_json::to_string_pretty(&inspection).unwrap_or_default() + "\n"
    } else {
        listing::listing(&inspection)
    };
    Ok(Printed { text, notes: inspection.notes, ..Printed::default() })
}

/// Shows the blocks in which `init` runs the model.
fn show_blocks(args: &Inspect, blocks: Blocks) -> Result<Printed, Failure> {
    let (naming, selection) = (args.selection.naming.to_options(), args.selection.to_options());
    let cuts = eva_onnx::cuts(&args.model, &naming, &selection, blocks)?;
    let text =
        if args.json { serde_json::to_string_pretty(&cuts).unwrap_or_default() + "\n" } else { listing::cuts(&cuts) };
    Ok(Printed { text, notes: cuts.notes, ..Printed::default() })
}
