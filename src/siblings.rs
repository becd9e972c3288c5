//! Models in several files: an encoder and its decoders, each with a part of the modules of an adapter.

use crate::adapter::Adapter;
use crate::named::{NamedModel, Naming};
use crate::splice;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// The part of an adapter that belongs to one file of a model.
pub(crate) struct Share {
    /// The modules that the file has.
    pub(crate) adapter: Adapter,
    /// Where the others are, as a sentence, if there are others.
    pub(crate) note: Option<String>,
}

/// The part of `adapter` that `named` has, if other models of its folder have the rest.
///
/// # Errors
/// Those of [`splice::fit()`]; [`splice::Error::Misfit`] lists the modules that no file has.
pub(crate) fn share(named: &NamedModel, naming: &Naming, adapter: Adapter) -> Result<Share, splice::Error> {
    let Err(error) = splice::fit(&named.layers.linears, &adapter) else {
        return Ok(Share { adapter, note: None });
    };
    let (elsewhere, shapes, modules) = match error {
        splice::Error::Misfit { unknown, shapes, modules } => (unknown, shapes, modules),
        other => return Err(other),
    };
    if elsewhere.len() == modules || !shapes.is_empty() {
        return Err(splice::Error::Misfit { unknown: elsewhere, shapes, modules });
    }
    let all = adapter;
    let part = |is_elsewhere: bool| {
        let mut part = all.clone();
        part.modules.retain(|module| elsewhere.contains(&module.module) == is_elsewhere);
        part
    };
    let (own, others) = (part(false), part(true));
    let mut unknown: HashSet<&str> = elsewhere.iter().map(String::as_str).collect();
    let mut files = Vec::new();
    for path in siblings(named.path()) {
        // What cannot be read has no module.
        let Ok(other) = NamedModel::open(&path, naming) else { continue };
        let present = present(&other, &others);
        if !present.is_empty() {
            files.push(format!("`{}`", path.file_name().unwrap_or_default().to_string_lossy()));
        }
        unknown.retain(|module| !present.contains(*module));
    }
    if !unknown.is_empty() {
        let unknown = elsewhere.iter().filter(|module| unknown.contains(module.as_str())).cloned().collect();
        return Err(splice::Error::Misfit { unknown, shapes, modules });
    }
    let note = format!(
        "{} of the adapter's {modules} modules are in this file; the others are in {}, which need a splice of their own",
        own.modules.len(),
        files.join(", ")
    );
    Ok(Share { adapter: own, note: Some(note) })
}

/// The other models in the folder of `path`, by name.
fn siblings(path: &Path) -> Vec<PathBuf> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let models = entries.map(|entry| entry.path()).filter(|file| {
        file.extension().is_some_and(|extension| extension == "onnx") && file.file_name() != path.file_name()
    });
    let mut models: Vec<PathBuf> = models.collect();
    models.sort();
    models
}

/// The modules of `adapter` that the model has with the same sizes.
fn present(named: &NamedModel, adapter: &Adapter) -> HashSet<String> {
    let mut present = HashSet::new();
    for linear in &named.layers.linears {
        for part in &linear.modules {
            let size = (linear.in_features, part.out_features(linear));
            let fits = |module: &&crate::adapter::AdapterModule| {
                module.module == part.module && (module.a.ncols(), module.out_features) == size
            };
            present.extend(adapter.modules.iter().find(fits).map(|module| module.module.clone()));
        }
    }
    present
}
