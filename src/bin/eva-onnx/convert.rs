//! `convert`: an adapter in another form.

use super::args::{Convert, Naming};
use super::{Failure, Printed, init, select, splice};
use eva_onnx::adapter::{self, Adapter, Base};
use eva_onnx::formats::{onnx_adapter, ort_checkpoint, peft, spliced};
use eva_onnx::hub::config;
use eva_onnx::onnx::Model;
use eva_onnx::output::model::MODEL;
use eva_onnx::output::{self, Destination};
use eva_onnx::splice as graph;
use std::collections::HashSet;
use std::path::Path;

pub(crate) fn run(args: &Convert) -> Result<Printed, Failure> {
    let (adapter, read_base) = input(&args.input)?;
    let mut adapter = match (args.uniform_rank, args.one_alpha) {
        (true, _) => adapter::uniform_rank(&adapter, &missing(args.model.as_deref(), &adapter)?),
        (false, true) => adapter::one_alpha(&adapter),
        (false, false) => adapter,
    };
    for module in &mut adapter.modules {
        module.fan_in_fan_out |= args.fan_in_fan_out;
    }
    let base = Base {
        name: args.adapter.base_model.clone().or(read_base.name),
        task_type: args.adapter.task_type.clone().or(read_base.task_type),
    };
    let extension = args.output.extension().and_then(|extension| extension.to_str());
    match extension {
        Some("onnx_adapter") => {
            output::file(&args.output, &onnx_adapter::bytes(&graph::parameters(&adapter)), args.force)?;
        }
        Some("onnx") => {
            let mut failure = Failure::usage("an adapter goes into a model with `splice`, which takes the model too");
            failure.hint = Some("eva-onnx splice MODEL ADAPTER --out DIR".to_owned());
            return Err(failure);
        }
        _ => {
            let destination = Destination::prepare(&args.output, args.force)?;
            let weights = peft::weights(&adapter, init::element(args.adapter.dtype)).map_err(Failure::usage)?;
            let config = peft::config(&adapter, &base).into_bytes();
            destination.commit(&[(peft::WEIGHTS, weights), (peft::CONFIG, config)])?;
        }
    }
    let ranks: usize = adapter.modules.iter().map(|module| module.rank()).sum();
    let (modules, output) = (adapter.modules.len(), args.output.display());
    let text = format!("{modules} modules with {ranks} ranks written to {output}\n");
    Ok(Printed { text, notes: Vec::new(), status: 0 })
}

fn input(path: &Path) -> Result<(Adapter, Base), Failure> {
    let inside = path.join(MODEL);
    let graph = match () {
        () if path.extension().is_some_and(|extension| extension == "onnx") => Some(path),
        () if path.is_dir() && !path.join(peft::CONFIG).exists() && inside.exists() => Some(inside.as_path()),
        () => None,
    };
    if graph.is_none() && ort_checkpoint::is_checkpoint(path) {
        return Ok(ort_checkpoint::read(path)?);
    }
    let Some(path) = graph else {
        return splice::adapter(path);
    };
    let model = Model::open(path).map_err(|e| Failure::from(e).in_file(path))?;
    Ok(spliced::read(&model)?)
}

/// Modules of the model that the adapter leaves out though it has others of their kind, with their sizes.
fn missing(model: Option<&Path>, adapter: &Adapter) -> Result<Vec<(String, usize, usize)>, Failure> {
    let Some(path) = model else {
        return Ok(Vec::new());
    };
    let model = Model::open(path).map_err(|e| Failure::from(e).in_file(path))?;
    let layers = select::layers(&model, &Naming::default(), &config::beside(path, None));
    let linears = layers.map_err(|e| e.in_file(path))?.linears;
    graph::fit(&linears, adapter).map_err(|e| Failure::from(e).in_file(path))?;
    fn kind(name: &str) -> &str {
        name.rsplit('.').next().unwrap_or_default()
    }
    let kinds: HashSet<&str> = adapter.modules.iter().map(|module| kind(&module.module)).collect();
    let mut known: HashSet<&str> = adapter.modules.iter().map(|module| module.module.as_str()).collect();
    let mut missing = Vec::new();
    for linear in &linears {
        for part in &linear.modules {
            if kinds.contains(kind(&part.module)) && known.insert(&part.module) {
                missing.push((part.module.clone(), linear.in_features, part.out_features(linear)));
            }
        }
    }
    Ok(missing)
}
