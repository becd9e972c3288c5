use crate::hint::Hint;
use std::io;
use std::path::PathBuf;

/// What can be wrong with an ONNX file or with an edit of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file could not be opened, read or mapped.
    #[error("cannot read `{}`: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The file has another format.
    #[error("`{}` is {what}, not an ONNX model", path.display())]
    NotOnnx {
        /// The file.
        path: PathBuf,
        /// The format, with an article.
        what: &'static str,
    },
    /// The bytes do not follow the protobuf encoding of an ONNX model.
    #[error("malformed ONNX data at byte {offset} while reading {reading}: {reason}")]
    Malformed {
        /// Position in the file.
        offset: usize,
        /// The message or field that was being read.
        reading: &'static str,
        /// What was wrong.
        reason: String,
    },
    /// The skeleton of the model could not be decoded or encoded.
    #[error("cannot decode the ONNX model: {reason}")]
    Decode {
        /// The message of the protobuf library.
        reason: String,
    },
    /// External data would be read from outside the model's folder.
    #[error("tensor `{tensor}` has its data in `{location}`, outside the folder of the model")]
    ExternalOutside {
        /// The tensor.
        tensor: String,
        /// The path as written in the model.
        location: String,
    },
    /// A file of external data does not exist or cannot be opened.
    #[error("tensor `{tensor}` has its data in `{}`, which cannot be opened: {source}", path.display())]
    ExternalMissing {
        /// The tensor.
        tensor: String,
        /// The missing file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// A file of external data ends before the tensor's last byte.
    #[error("tensor `{tensor}` ends at byte {end} of `{}`, which has only {size} bytes", path.display())]
    ExternalShort {
        /// The tensor.
        tensor: String,
        /// The file.
        path: PathBuf,
        /// One past the tensor's last byte.
        end: u64,
        /// Bytes in the file.
        size: u64,
    },
    /// An entry of a tensor's external data is absent or unreadable.
    #[error("tensor `{tensor}` has external data whose `{key}` is {value}")]
    ExternalEntry {
        /// The tensor.
        tensor: String,
        /// The entry.
        key: &'static str,
        /// Its value, in backticks, or `missing`.
        value: String,
    },
    /// The bytes of a tensor are not as many as its shape and type need.
    #[error("tensor `{tensor}` has {got} bytes of data where its shape and type need {expected}")]
    TensorSize {
        /// The tensor.
        tensor: String,
        /// Bytes needed.
        expected: u64,
        /// Bytes present.
        got: u64,
    },
    /// A name of the edit is used already, in the model or in the edit.
    #[error("the name `{name}` is taken")]
    NameTaken {
        /// The name.
        name: String,
    },
    /// A node of the edit is incomplete.
    #[error("the new node `{node}` {reason}")]
    BadNode {
        /// The node.
        node: String,
        /// What it lacks.
        reason: &'static str,
    },
    /// A node of the edit reads a tensor that nothing before it produces.
    #[error("node `{node}` reads `{tensor}`, which nothing before it produces")]
    InputUnknown {
        /// The node.
        node: String,
        /// The tensor.
        tensor: String,
    },
    /// A graph output names a tensor that the main graph does not have.
    #[error("the graph has no tensor `{tensor}` to make an output of")]
    OutputUnknown {
        /// The tensor.
        tensor: String,
    },
    /// A graph output names a graph input.
    #[error("`{tensor}` is a graph input and cannot be an output")]
    OutputIsInput {
        /// The tensor.
        tensor: String,
    },
    /// A tensor would be a graph output twice.
    #[error("`{tensor}` is a graph output already")]
    OutputTwice {
        /// The tensor.
        tensor: String,
    },
    /// A subgraph of the edit does not exist.
    #[error("the graph has no subgraph `{step}`")]
    SubgraphUnknown {
        /// The first step of its path that does not exist.
        step: String,
    },
    /// The edit changes a node that does not exist.
    #[error("no node of the graph produces `{tensor}`")]
    ProducerUnknown {
        /// The tensor.
        tensor: String,
    },
    /// New nodes take over a tensor that none of them produces.
    #[error("none of the new nodes that take over `{tensor}` produces it")]
    NotTakenOver {
        /// The tensor.
        tensor: String,
    },
    /// The edit gives values to an initializer that does not exist.
    #[error("the graph has no initializer `{tensor}`")]
    ValueUnknown {
        /// The tensor.
        tensor: String,
    },
    /// The new values of an initializer have another shape or element type.
    #[error("the new values of `{tensor}` have another shape or element type")]
    ValueDiffers {
        /// The tensor.
        tensor: String,
    },
    /// The edited graph would have no output.
    #[error("the edited graph has no output")]
    NoOutputs,
    /// A constant or input of the edit has an impossible shape.
    #[error("`{name}` has shape {shape:?}, which does not hold {values} values")]
    BadShape {
        /// The constant or input.
        name: String,
        /// Its shape.
        shape: Vec<i64>,
        /// Number of values given.
        values: usize,
    },
    /// The edited graph breaks a rule that the original kept.
    #[error("the edited graph is invalid: {violation}")]
    Invalid {
        /// The rule.
        violation: Violation,
    },
}

/// A rule that a graph breaks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// A tensor is an input and an output of the main graph.
    #[error("`{tensor}` is an input and an output")]
    InputIsOutput {
        /// The tensor.
        tensor: String,
    },
    /// Nothing produces an output of the main graph.
    #[error("output `{tensor}` is not produced")]
    OutputMissing {
        /// The tensor.
        tensor: String,
    },
    /// Nothing produces an output of a subgraph.
    #[error("output `{tensor}` of a subgraph is not produced")]
    SubgraphOutputMissing {
        /// The tensor.
        tensor: String,
    },
    /// A tensor is an output twice.
    #[error("`{tensor}` is an output twice")]
    OutputTwice {
        /// The tensor.
        tensor: String,
    },
    /// A node reads a tensor that nothing before it produces.
    #[error("`{tensor}` is read by `{node}` before anything produces it")]
    ReadTooEarly {
        /// The tensor.
        tensor: String,
        /// The node.
        node: String,
    },
    /// Two nodes produce a tensor of one name.
    #[error("`{tensor}` is produced twice")]
    ProducedTwice {
        /// The tensor.
        tensor: String,
    },
    /// A tensor of a branch would hide one of the graph around it.
    #[error("`{tensor}` is a tensor of the branch of `{node}` and of the graph around it")]
    Hidden {
        /// The tensor.
        tensor: String,
        /// The node with the branch.
        node: String,
    },
}

impl Hint for Error {
    fn hint(&self) -> Option<String> {
        let hint = match self {
            Error::NotOnnx { what, .. } => return not_onnx_hint(what),
            Error::Malformed { .. } | Error::Decode { .. } => {
                "the file may be truncated: compare its size with the original, or export it again"
            }
            Error::ExternalOutside { .. } => {
                "put the model and its data files in one folder, as real files rather than links"
            }
            Error::ExternalMissing { .. } => {
                "a model with external data needs its data files beside it, under the names it was saved with"
            }
            Error::ExternalShort { .. } => "the data file is truncated or belongs to another export: copy it again",
            Error::ExternalEntry { .. } | Error::TensorSize { .. } => "the model is inconsistent: export it again",
            _ => return None,
        };
        Some(hint.to_owned())
    }
}

fn not_onnx_hint(what: &str) -> Option<String> {
    let hint = match what {
        "a git-lfs pointer" => "fetch the real file: `git lfs pull`",
        "a safetensors file" => "a checkpoint has no graph: export the model to ONNX first, for example with Optimum",
        "a web page" => "the download failed: fetch the raw file",
        "a PyTorch pickle" | "a zip archive" => {
            "a PyTorch checkpoint has no graph: export the model with `torch.onnx.export`"
        }
        "an ORT format model" => "give the .onnx file that the ORT format model was converted from",
        _ => return None,
    };
    Some(hint.to_owned())
}
