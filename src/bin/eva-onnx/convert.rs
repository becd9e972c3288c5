//! `convert`: an adapter in another form.

use super::args::Convert;
use super::{ExitStatus, Failure, Printed};
use eva_onnx::{ConvertOptions, Converted, Scaling};

pub(crate) fn run(args: &Convert) -> Result<Printed, Failure> {
    let options = ConvertOptions {
        scaling: scaling(args),
        dtype: args.adapter.dtype.into(),
        base: args.adapter.base(),
        fan_in_fan_out: args.fan_in_fan_out,
        force: args.force,
    };
    let Converted { modules, ranks_total, .. } = eva_onnx::convert(&args.input, &args.output, &options)?;
    let text = format!("{modules} modules with {ranks_total} ranks written to {}\n", args.output.display());
    Ok(Printed { text, notes: Vec::new(), status: ExitStatus::Done })
}

fn scaling(args: &Convert) -> Scaling {
    if args.uniform_rank {
        let complete = args.model.clone().map(|model| (model, args.naming.to_options()));
        Scaling::UniformRank { complete }
    } else if args.one_alpha {
        Scaling::OneAlpha
    } else {
        Scaling::PerModule
    }
}
