//! The names of tensors in the files of PEFT.

/// What PyTorch's wrappers add to the path of a module: torch.compile, FSDP, and activation checkpointing.
const WRAPPERS: [&str; 3] = ["_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"];

/// What a tensor is to its module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::formats) enum Matrix {
    A,
    B,
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
/// `DistributedDataParallel` puts `module.` before it, and old versions of PEFT and some trainers the name of the
/// adapter before `weight`.
pub(in crate::formats) fn parse(name: &str) -> Option<Name> {
    let parts: Vec<&str> = name.split('.').filter(|part| !WRAPPERS.contains(part)).collect();
    let mut parts = &parts[..];
    while let ["module", rest @ ..] | ["base_model", "model", rest @ ..] = parts {
        if parts[0] == "module" && !rest.starts_with(&["base_model", "model"]) {
            break;
        }
        parts = rest;
    }
    let (module, matrix, adapter) = match parts {
        [module @ .., "base_layer", "weight"] => (module, Matrix::Base, None),
        [module @ .., matrix @ ("lora_A" | "lora_B"), "weight"] => (module, ab(matrix), None),
        [module @ .., matrix @ ("lora_A" | "lora_B"), adapter, "weight"] => (module, ab(matrix), Some(*adapter)),
        _ => return None,
    };
    let adapter = adapter.filter(|name| *name != "default").map(str::to_owned);
    (!module.is_empty()).then(|| Name { module: module.join("."), matrix, adapter })
}

fn ab(name: &str) -> Matrix {
    if name == "lora_A" { Matrix::A } else { Matrix::B }
}
