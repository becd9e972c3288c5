//! An ONNX model: its structure in memory, its weights on disk.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use onnx_protobuf::tensor_shape_proto::Dimension;
use onnx_protobuf::{
    GraphProto, Message, ModelProto, OperatorSetIdProto, StringStringEntryProto, TensorProto, TensorShapeProto,
    ValueInfoProto,
};

use super::attributes;
use super::external::{self, ModelFile};
use super::schema::other_format;
use super::tensor::{self, Files, Tensor};
use super::{Error, wire};
use crate::dtype::DType;
use crate::regular;
use serde::Serialize;

/// The version of the file format of models that are made here; it came with operator set 15.
const IR_VERSION: i64 = 8;

/// An opened ONNX model.
///
/// Only the structure is in memory. Tensors of more than a kilobyte stay in the file they came in: the model's own file
/// or its external data files, which must not change while the model is in use.
#[derive(Clone)]
pub struct Model {
    pub(crate) proto: ModelProto,
    storage: Arc<Storage>,
}

/// The files of a model and its tensors.
struct Storage {
    path: PathBuf,
    dir: PathBuf,
    files: Files,
    external_data: bool,
    /// The files when they were opened, by location.
    stamps: BTreeMap<String, Stamp>,
}

/// The name and type of a graph input, a graph output or a tensor in between.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ValueInfo {
    /// Tensor name.
    pub name: String,
    /// Element type; [`DType::Undefined`] when the model gives none or the value is not a tensor.
    pub dtype: DType,
    /// Dimensions; `None` when even their number is unknown.
    pub shape: Option<Vec<Dim>>,
}

/// A dimension of a tensor; in JSON a number, a text or null.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Dim {
    /// A fixed size.
    Fixed(i64),
    /// A dynamic size with a name, for example `batch`.
    Symbol(String),
    /// A dynamic size without a name.
    Unknown,
}

impl Model {
    /// Opens the model at `path` and checks its structure and external data, without reading the weights.
    pub fn open(path: impl AsRef<Path>) -> Result<Model, Error> {
        let path = path.as_ref();
        let unreadable = |source| Error::Read { path: path.to_owned(), source };
        let own = model_file(path).map_err(unreadable)?;
        let file = regular::open(path).map_err(unreadable)?;
        let map = Arc::new(tensor::map(&file).map_err(unreadable)?);
        let mut proto = decode(&map, &own.name).map_err(|error| match other_format(&map) {
            Some(what) => Error::NotOnnx { path: path.to_owned(), what },
            None => error,
        })?;
        if proto.graph.is_none() {
            let what = other_format(&map).unwrap_or("a file without a graph");
            return Err(Error::NotOnnx { path: path.to_owned(), what });
        }
        let (files, external_data) = external::resolve(&mut proto, &own, map)?;
        let stamps = files.keys().filter_map(|name| Some((name.clone(), Stamp::of(&own.real.join(name)).ok()?)));
        let stamps = stamps.collect();
        let storage = Storage { path: path.to_owned(), dir: own.real, files, external_data, stamps };
        Ok(Model { proto, storage: Arc::new(storage) })
    }

    /// A model without nodes, for patches to fill, whose tensors are all in memory.
    pub fn empty(opset: i64) -> Model {
        let import = OperatorSetIdProto { version: opset, ..Default::default() };
        let graph = GraphProto { name: "eva".to_owned(), ..Default::default() };
        let proto = ModelProto {
            ir_version: IR_VERSION,
            opset_import: vec![import],
            graph: Some(graph).into(),
            ..Default::default()
        };
        let here = PathBuf::from(".");
        let (files, stamps) = (Files::default(), BTreeMap::new());
        let storage = Storage { path: here.clone(), dir: here, files, external_data: false, stamps };
        Model { proto, storage: Arc::new(storage) }
    }

    /// The path that the model was opened with.
    pub fn path(&self) -> &Path {
        &self.storage.path
    }

    /// The real folder that the locations of external tensors are relative to, for ONNX Runtime's
    /// `session.model_external_initializers_file_folder_path`.
    pub fn dir(&self) -> &Path {
        &self.storage.dir
    }

    /// The files that hold tensor data, the model's own file included, relative to [`Model::dir`].
    pub fn data_files(&self) -> impl Iterator<Item = &str> {
        self.storage.files.keys().map(String::as_str)
    }

    /// Whether the model keeps tensors in external data files.
    pub fn external_data(&self) -> bool {
        self.storage.external_data
    }

    /// The name of the exporter, for example `pytorch`.
    pub fn producer(&self) -> &str {
        &self.proto.producer_name
    }

    /// The version of the exporter.
    pub fn producer_version(&self) -> &str {
        &self.proto.producer_version
    }

    /// The version of the ONNX file format.
    pub fn ir_version(&self) -> i64 {
        self.proto.ir_version
    }

    /// The version of the default operator set; 0 when the model imports none.
    pub fn opset(&self) -> i64 {
        let default = |domain: &str| domain.is_empty() || domain == "ai.onnx";
        self.proto.opset_import.iter().filter(|set| default(&set.domain)).map(|set| set.version).max().unwrap_or(0)
    }

    /// What the graph must be fed, in order; initializers that are listed as inputs are left out.
    pub fn inputs(&self) -> Vec<ValueInfo> {
        let graph = self.graph();
        let stored: std::collections::HashSet<&str> =
            graph.initializer.iter().map(|tensor| tensor.name.as_str()).collect();
        graph.input.iter().filter(|input| !stored.contains(input.name.as_str())).map(value).collect()
    }

    /// What the graph returns, in order.
    pub fn outputs(&self) -> Vec<ValueInfo> {
        self.graph().output.iter().map(value).collect()
    }

    /// The value of a metadata entry of the model.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        entry(&self.proto.metadata_props, key)
    }

    /// The initializer `name` of the main graph.
    pub fn tensor(&self, name: &str) -> Option<Tensor<'_>> {
        let found = self.graph().initializer.iter().find(|tensor| tensor.name == name);
        found.map(|tensor| Tensor::new(tensor, self.files()))
    }

    /// The initializers of the main graph, in order.
    pub fn tensors(&self) -> impl Iterator<Item = Tensor<'_>> {
        self.graph().initializer.iter().map(|tensor| Tensor::new(tensor, self.files()))
    }

    /// The model as protobuf bytes, its large tensors as references into files of [`Model::dir`].
    pub fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        self.proto.write_to_bytes().map_err(|error| Error::Decode { reason: error.to_string() })
    }

    /// The model as protobuf bytes for another folder. `place` maps where a tensor's data is, relative to
    /// [`Model::dir`], to its location relative to the new folder and its offset there.
    pub fn to_bytes_elsewhere(&self, place: &mut dyn FnMut(Place<'_>) -> (String, u64)) -> Result<Vec<u8>, Error> {
        let mut proto = self.proto.clone();
        visit_places(&mut proto, &mut |tensor, found| {
            let (location, offset) = place(found);
            external::place(tensor, &location, offset);
        })?;
        proto.write_to_bytes().map_err(|error| Error::Decode { reason: error.to_string() })
    }

    /// Calls `visit` with the place of every tensor's data that is in a file, in graph order.
    pub fn visit_places(&self, visit: &mut dyn FnMut(Place<'_>)) -> Result<(), Error> {
        visit_places(&mut self.proto.clone(), &mut |_, place| visit(place))
    }

    /// The bytes of the data file at `location` as they were when the model was opened, unless they were overwritten
    /// since.
    pub fn file_bytes(&self, location: &str) -> Option<&[u8]> {
        self.files().get(location).map(|map| &map[..])
    }

    /// What became of the data file at `location` since the model was opened.
    pub fn file_state(&self, location: &str) -> FileState {
        let (Some(then), Ok(now)) = (self.storage.stamps.get(location), Stamp::of(&self.dir().join(location))) else {
            return FileState::Replaced;
        };
        match (*then == now, then.file == now.file) {
            (true, _) => FileState::Unchanged,
            (false, true) => FileState::Overwritten,
            (false, false) => FileState::Replaced,
        }
    }

    /// The first data file for whose path and state this holds.
    pub(crate) fn file_where(&self, holds: impl Fn(&Path, FileState) -> bool) -> Option<PathBuf> {
        let mut files = self.data_files().map(|location| (self.dir().join(location), self.file_state(location)));
        files.find(|(path, state)| holds(path, *state)).map(|(path, _)| path)
    }

    /// The main graph.
    pub(crate) fn graph(&self) -> &GraphProto {
        self.proto.graph.get_or_default()
    }

    pub(crate) fn files(&self) -> &Files {
        &self.storage.files
    }

    pub(crate) fn with(&self, proto: ModelProto) -> Model {
        Model { proto, storage: Arc::clone(&self.storage) }
    }
}

/// Where a tensor's data is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place<'m> {
    /// The file, relative to the folder of the model.
    pub location: &'m str,
    /// First byte.
    pub offset: u64,
    /// Number of bytes.
    pub length: u64,
}

fn visit_places(proto: &mut ModelProto, visit: &mut dyn FnMut(&mut TensorProto, Place<'_>)) -> Result<(), Error> {
    tensor::visit_tensors(proto, &mut |tensor| {
        if tensor::is_external(tensor) {
            let (location, offset, length) = tensor::external_entries(tensor)?;
            let location = location.to_owned();
            let length = length.or_else(|| tensor::byte_size(tensor)).unwrap_or(0);
            visit(tensor, Place { location: &location, offset, length });
        }
        Ok(())
    })
}

/// What became of a file since a model was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileState {
    /// It is the same.
    Unchanged,
    /// It was written into: what was read of it may be of either version.
    Overwritten,
    /// It was removed, or another file has its name. The model still reads the old one.
    Replaced,
}

/// What tells whether a file has changed.
#[derive(PartialEq, Eq)]
struct Stamp {
    /// Which file it is, whatever its name.
    file: (u64, u64),
    length: u64,
    modified: Option<SystemTime>,
}

impl Stamp {
    fn of(path: &Path) -> std::io::Result<Self> {
        let metadata = path.metadata()?;
        #[cfg(unix)]
        let file = std::os::unix::fs::MetadataExt::dev(&metadata);
        #[cfg(unix)]
        let file = (file, std::os::unix::fs::MetadataExt::ino(&metadata));
        #[cfg(not(unix))]
        let file = (0, 0);
        Ok(Self { file, length: metadata.len(), modified: metadata.modified().ok() })
    }
}

fn decode(bytes: &[u8], own_name: &str) -> Result<ModelProto, Error> {
    let skeleton = wire::skeleton(bytes, own_name)?;
    let proto = ModelProto::parse_from_bytes(&skeleton);
    let mut proto = proto.map_err(|error| Error::Decode { reason: error.to_string() })?;
    attributes::complete_model(&mut proto);
    Ok(proto)
}

fn model_file(path: &Path) -> std::io::Result<ModelFile> {
    let real = path.canonicalize()?;
    let name = real.file_name().and_then(|name| name.to_str()).map(str::to_owned);
    let named = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok(ModelFile {
        named: named.to_owned(),
        real: real.parent().unwrap_or(Path::new("/")).to_owned(),
        name: name.ok_or(std::io::ErrorKind::InvalidFilename)?,
    })
}

/// The value of the entry `key`.
pub(crate) fn entry<'m>(entries: &'m [StringStringEntryProto], key: &str) -> Option<&'m str> {
    entries.iter().find(|entry| entry.key == key).map(|entry| entry.value.as_str())
}

/// The name and type of a value.
pub(crate) fn value(info: &ValueInfoProto) -> ValueInfo {
    let tensor = info.type_.as_ref().filter(|kind| kind.has_tensor_type()).map(|kind| kind.tensor_type());
    ValueInfo {
        name: info.name.clone(),
        dtype: tensor.map_or(DType::Undefined, |tensor| DType::from_onnx(tensor.elem_type)),
        shape: tensor.and_then(|tensor| tensor.shape.as_ref()).map(dims),
    }
}

fn dims(shape: &TensorShapeProto) -> Vec<Dim> {
    let dim = |dim: &Dimension| {
        if dim.has_dim_value() && dim.dim_value() >= 0 {
            Dim::Fixed(dim.dim_value())
        } else if !dim.dim_param().is_empty() {
            Dim::Symbol(dim.dim_param().to_owned())
        } else {
            Dim::Unknown
        }
    };
    shape.dim.iter().map(dim).collect()
}
