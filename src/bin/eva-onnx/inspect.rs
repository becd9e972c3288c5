//! `inspect`: the linear layers of a model, without running it.

use super::args::Inspect;
use super::select::{Selection, select};
use super::{Failure, Printed, listing};
use eva_onnx::hub::config;
use eva_onnx::onnx::Model;
use serde_json::json;

pub(crate) fn run(args: &Inspect) -> Result<Printed, Failure> {
    let model = Model::open(&args.model).map_err(|e| Failure::from(e).in_file(&args.model))?;
    let beside = config::beside(&args.model, args.selection.naming.checkpoint.as_deref());
    let selection = select(&model, &args.selection, &beside, false).map_err(|e| e.in_file(&args.model))?;
    let text = if args.json { document(&model, &selection) } else { listing::listing(&model, &selection) };
    Ok(Printed { text, notes: selection.notes, status: 0 })
}

fn document(model: &Model, selection: &Selection) -> String {
    let inputs = model.inputs();
    let groups = selection.grouping.ids();
    let linears = selection.linears.iter().enumerate().map(|(i, linear)| {
        let modules = linear.modules.iter().map(|part| {
            json!({"module": part.module, "columns": part.columns.map(|(from, to)| [from, to]),
                "slice": part.slice.map(|slice| [slice.start, slice.end, slice.of])})
        });
        json!({
            "node": linear.at.node,
            "op": linear.at.op,
            "scope": linear.at.subgraph,
            "input": linear.input.tensor,
            "output": linear.output.tensor,
            "fused": linear.output.fused.map(|fused| fused.to_string()),
            "weight": linear.weight.tensor,
            "in_features": linear.in_features,
            "out_features": linear.out_features,
            "dtype": linear.weight.dtype,
            "bias": linear.weight.bias,
            "fan_in_fan_out": linear.weight.fan_in_fan_out,
            "modules": modules.collect::<Vec<_>>(),
            "named_by": linear.named_by.as_str(),
            "group": linear.modules.iter().find_map(|part| groups.get(part.module.as_str())),
            "targeted": (0..linear.modules.len()).any(|part| selection.targeted.contains(&(i, part))),
        })
    });
    let skipped = selection
        .skipped
        .iter()
        .map(|s| json!({"node": s.node, "op": s.op, "reason": s.reason.to_string()}))
        .collect::<Vec<_>>();
    let document = json!({
        "model": {
            "producer": format!("{} {}", model.producer(), model.producer_version()).trim(),
            "opset": model.opset(),
            "ir_version": model.ir_version(),
            "inputs": inputs,
            "external_data": model.external_data(),
        },
        "linears": linears.collect::<Vec<_>>(),
        "skipped": skipped,
        "notes": selection.notes,
    });
    serde_json::to_string_pretty(&document).unwrap_or_default() + "\n"
}
