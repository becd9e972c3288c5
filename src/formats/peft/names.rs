//! The names of tensors in the files of PEFT.

/// What PyTorch's wrappers add to the path of a module: torch.compile, FSDP, and activation checkpointing.
const WRAPPERS: [&str; 3] = ["_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"];

/// What `DistributedDataParallel`, DeepSpeed and Lightning put before all names.
const AROUND: [&str; 3] = ["module", "model", "_forward_module"];

/// The name of DoRA's norms in the names of tensors.
pub(super) const MAGNITUDE: &str = "lora_magnitude_vector";

/// What a tensor is to its module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::formats) enum Matrix {
    A,
    B,
    /// The norms of DoRA.
    Magnitude,
    /// The weight of the model, which PEFT saves beside the matrices of an output head.
    Base,
}

/// A tensor of an adapter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::formats) struct Name {
    pub(in crate::formats) module: String,
    pub(in crate::formats) matrix: Matrix,
    /// The name of the adapter, where it is in the name of the tensor.
    pub(in crate::formats) adapter: Option<String>,
}

/// The meaning of `base_model.model.<module>.lora_A.weight` and its like.
///
/// `DistributedDataParallel` puts `module.` before it, Lightning `model.` or `_forward_module.`, and old versions of PEFT and some trainers the name of the
/// adapter before `weight`.
pub(in crate::formats) fn parse(name: &str) -> Option<Name> {
    let parts = path(name);
    let (module, matrix, adapter) = match &parts[..] {
        [module @ .., "base_layer", "weight"] => (module, Matrix::Base, None),
        [module @ .., matrix @ ("lora_A" | "lora_B"), "weight"] => (module, ab(matrix), None),
        [module @ .., matrix @ ("lora_A" | "lora_B"), adapter, "weight"] => (module, ab(matrix), Some(*adapter)),
        [module @ .., MAGNITUDE] | [module @ .., MAGNITUDE, "weight"] => (module, Matrix::Magnitude, None),
        [module @ .., MAGNITUDE, adapter] | [module @ .., MAGNITUDE, adapter, "weight"] => {
            (module, Matrix::Magnitude, Some(*adapter))
        }
        _ => return None,
    };
    let adapter = adapter.filter(|name| *name != "default").map(str::to_owned);
    (!module.is_empty()).then(|| Name { module: module.join("."), matrix, adapter })
}

/// Module and parameter of a tensor in a module that is saved whole, whose name ends in one of `keys`.
///
/// Source: `_set_trainable` and `get_peft_model_state_dict` of PEFT 0.21, which takes `modules_to_save.<adapter>` out of
/// the names.
pub(super) fn saved(name: &str, keys: &[String]) -> Option<(String, String)> {
    let mut parts = path(name);
    if let Some(at) = parts.iter().position(|part| *part == "modules_to_save") {
        parts.drain(at..(at + 2).min(parts.len()));
    }
    let (parameter, module) = parts.split_last()?;
    let is_saved = (1..=module.len()).any(|end| keys.iter().any(|key| module[..end].join(".").ends_with(key.as_str())));
    let is_of_lora = parts.iter().any(|part| part.starts_with("lora_") || *part == "base_layer");
    (is_saved && !is_of_lora).then(|| (module.join("."), (*parameter).to_owned()))
}

/// The parts of a name without what PEFT and wrappers put before and between them.
fn path(name: &str) -> Vec<&str> {
    let all: Vec<&str> = name.split('.').filter(|part| !WRAPPERS.contains(part)).collect();
    let mut parts = &all[..];
    loop {
        let around = parts.iter().take_while(|part| AROUND.contains(part)).count();
        match &parts[around..] {
            ["base_model", "model", rest @ ..] => parts = rest,
            _ => break,
        }
    }
    parts.to_vec()
}

fn ab(name: &str) -> Matrix {
    if name == "lora_A" { Matrix::A } else { Matrix::B }
}
