//! `convert`: an adapter in another form.

use super::adapter_args::{Convert, ReaderArg};
use super::error::Failure;
use super::printed::Printed;
use super::table::counted;
use eva_onnx::options::Naming;
use eva_onnx::results::Converted;

pub(crate) fn run(args: &Convert) -> Result<Printed, Failure> {
    let Converted { modules, ranks_total, notes, .. } = converted(args)?;
    let (modules, ranks) = (counted(modules, "module"), counted(ranks_total, "rank"));
    let text = format!("{modules} with {ranks} written to {}\n", args.output.display());
    Ok(Printed { text, notes, ..Printed::default() })
}

/// Writes the adapter in another form.
pub(crate) fn converted(args: &Convert) -> Result<Converted, Failure> {
    if args.model.is_some() && !args.uses_model() {
        return Err(Failure::usage("--model is for --uniform-rank, --for tgi and .gguf files"));
    }
    if (args.reader == Some(ReaderArg::Diffusers)) != args.component.is_some() {
        return Err(Failure::usage("--for diffusers and --component belong together: a pipeline has several models"));
    }
    let naming = args.naming.to_options();
    if args.model.is_none() && naming != (Naming { names: naming.names, ..Naming::default() }) {
        return Err(Failure::usage("the options under \"Layers and names\" are for the modules of --model"));
    }
    Ok(eva_onnx::convert(&args.input, &args.output, &args.to_options())?)
}
