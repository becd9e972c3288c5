//! External data: every file that holds tensor data is found and checked when a model is opened.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use onnx_protobuf::{ModelProto, StringStringEntryProto, TensorProto};

use super::Error;
use super::tensor::{self, Files};
use crate::regular;

/// The file of a model.
pub(crate) struct ModelFile {
    /// The folder that the caller's path names.
    pub(crate) named: PathBuf,
    /// The folder of the real file, all links resolved.
    pub(crate) real: PathBuf,
    /// File name in `real`.
    pub(crate) name: String,
}

/// Checks every external tensor of the model and maps the files of their data.
///
/// Locations are relative to the folder named by the user. Where that folder only links to files elsewhere (the cache
/// of the Hugging Face hub does), they are rewritten to be relative to the folder of the real model file, because ONNX
/// Runtime accepts no file outside the folder it is given.
pub(crate) fn resolve(
    model: &mut ModelProto,
    own: &ModelFile,
    map: Arc<memmap2::Mmap>,
) -> Result<(Files, bool), Error> {
    let mut found: BTreeMap<String, DataFile> = BTreeMap::new();
    let mut files = Files::from([(own.name.clone(), map)]);
    let mut foreign = false;
    tensor::visit_tensors(model, &mut |tensor| {
        if !tensor::is_external(tensor) {
            return tensor::check_inline(tensor);
        }
        let (location, offset, length) = tensor::external_entries(tensor)?;
        let location = location.to_owned();
        if location == own.name {
            return check_size(tensor, length);
        }
        foreign = true;
        if !found.contains_key(&location) {
            let file = find(tensor, &location, own)?;
            files.insert(file.location.clone(), Arc::new(file.open(tensor)?));
            found.insert(location.clone(), file);
        }
        let file = &found[&location];
        check_size(tensor, length)?;
        let length = length.or_else(|| tensor::byte_size(tensor)).unwrap_or(0);
        let end = offset.saturating_add(length);
        let size = files[&file.location].len() as u64;
        if end > size {
            return Err(Error::ExternalShort { tensor: tensor.name.clone(), path: file.path.clone(), end, size });
        }
        if file.location != location {
            relocate(tensor, &file.location);
        }
        Ok(())
    })?;
    Ok((files, foreign))
}

struct DataFile {
    path: PathBuf,
    location: String,
}

impl DataFile {
    fn open(&self, tensor: &TensorProto) -> Result<memmap2::Mmap, Error> {
        File::open(&self.path).and_then(|file| tensor::map(&file)).map_err(|source| missing(tensor, &self.path, source))
    }
}

fn missing(tensor: &TensorProto, path: &Path, source: std::io::Error) -> Error {
    Error::ExternalMissing { tensor: tensor.name.clone(), path: path.to_owned(), source }
}

fn find(tensor: &TensorProto, location: &str, own: &ModelFile) -> Result<DataFile, Error> {
    let outside = || Error::ExternalOutside { tensor: tensor.name.clone(), location: location.to_owned() };
    let inside = |part| matches!(part, Component::Normal(_) | Component::CurDir);
    if !Path::new(location).components().all(inside) {
        return Err(outside());
    }
    let named = own.named.join(location);
    let path = named.canonicalize().map_err(|source| missing(tensor, &named, source))?;
    regular::check(&path).map_err(|source| missing(tensor, &named, source))?;
    let relative = path.strip_prefix(&own.real).map_err(|_| outside())?;
    let same = own.real.join(location).canonicalize().is_ok_and(|other| other == path);
    let location = if same { location } else { relative.to_str().ok_or_else(outside)? };
    Ok(DataFile { path: path.clone(), location: location.to_owned() })
}

fn check_size(tensor: &TensorProto, length: Option<u64>) -> Result<(), Error> {
    match (tensor::byte_size(tensor), length) {
        (Some(expected), Some(got)) if expected != got => {
            Err(Error::TensorSize { tensor: tensor.name.clone(), expected, got })
        }
        _ => Ok(()),
    }
}

pub(crate) fn relocate(tensor: &mut TensorProto, location: &str) {
    set(tensor, "location", location.to_owned());
}

/// Lets the tensor's data begin at `offset` of the file at `location`.
pub(crate) fn place(tensor: &mut TensorProto, location: &str, offset: u64) {
    relocate(tensor, location);
    let has_offset = tensor.external_data.iter().any(|entry| entry.key == "offset");
    if has_offset {
        set(tensor, "offset", offset.to_string());
    } else if offset != 0 {
        let (key, value) = ("offset".to_owned(), offset.to_string());
        tensor.external_data.push(StringStringEntryProto { key, value, ..Default::default() });
    }
}

fn set(tensor: &mut TensorProto, key: &str, value: String) {
    for entry in tensor.external_data.iter_mut().filter(|entry| entry.key == key) {
        entry.value.clone_from(&value);
    }
}
