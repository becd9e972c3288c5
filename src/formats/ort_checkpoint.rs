//! The checkpoint of ONNX Runtime Training 1.19.2: a flatbuffer with the trained tensors by name.
//!
//! Schema: onnxruntime/core/flatbuffers/schema/ort_training_checkpoint.fbs, `Tensor` of ort.fbs.

use super::spliced::{self, Matrix};
use super::{Error, recorded};
use crate::adapter::{Adapter, Base};
use flatbuffers::{Follow, ForwardsUOffset, InvalidFlatbuffer, Table, VOffsetT, Vector, Verifiable, Verifier};
use std::collections::HashMap;
use std::path::Path;

/// The identifier at byte 4 of the file.
pub const IDENTIFIER: &[u8; 4] = b"ODTC";

const CHECKPOINT_STATE: VOffsetT = 6;
const STATE_TRAINED: VOffsetT = 4;
const TENSOR_NAME: VOffsetT = 4;
const TENSOR_DIMS: VOffsetT = 8;
const TENSOR_DATA_TYPE: VOffsetT = 10;
const TENSOR_RAW_DATA: VOffsetT = 12;

/// Whether the file at `path` is such a checkpoint.
pub fn is_checkpoint(path: &Path) -> bool {
    use std::io::Read;
    let mut start = [0; 8];
    let read = std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut start));
    read.is_ok() && start[4..] == *IDENTIFIER
}

/// Reads the adapter in the checkpoint at `path`, which a graph of `splice --ort-training` was trained to.
///
/// Scales and order come from the `manifest.json` that `splice` wrote, beside the checkpoint or in the folder above.
///
/// # Errors
/// [`Error::NoManifest`] without it; [`Error::Malformed`] when a tensor that it names is not there.
pub fn read(path: &Path) -> Result<(Adapter, Base), Error> {
    let record = recorded(path)?.ok_or_else(|| Error::NoManifest { path: path.to_owned() })?;
    let bytes = std::fs::read(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
    let malformed = |reason: String| Error::Malformed { path: path.to_owned(), reason };
    let file = flatbuffers::root_with_opts::<Checkpoint<'_>>(&super::limits(), &bytes);
    let file = file.map_err(|error| malformed(error.to_string()))?;
    let tensors: HashMap<&str, StoredTensor<'_>> = file.trained().map(|tensor| (tensor.name(), tensor)).collect();
    spliced::assemble(path, record, |name| {
        let tensor = tensors.get(name).ok_or_else(|| format!("it has no trained tensor `{name}`"))?;
        tensor.matrix()
    })
}

#[derive(Clone, Copy)]
struct Checkpoint<'b>(Table<'b>);

#[derive(Clone, Copy)]
struct State<'b>(Table<'b>);

#[derive(Clone, Copy)]
struct StoredTensor<'b>(Table<'b>);

macro_rules! follow_table {
    ($($name:ident),+) => {$(
        impl<'b> Follow<'b> for $name<'b> {
            type Inner = Self;

            unsafe fn follow(buf: &'b [u8], loc: usize) -> Self {
                // SAFETY: the caller promises a table at `loc`.
                Self(unsafe { Table::new(buf, loc) })
            }
        }
    )+};
}

follow_table!(Checkpoint, State, StoredTensor);

type Tensors<'b> = Vector<'b, ForwardsUOffset<StoredTensor<'b>>>;

impl Verifiable for Checkpoint<'_> {
    fn run_verifier(verifier: &mut Verifier<'_, '_>, at: usize) -> Result<(), InvalidFlatbuffer> {
        let table = verifier.visit_table(at)?;
        table.visit_field::<ForwardsUOffset<State<'_>>>("module_state", CHECKPOINT_STATE, true)?.finish();
        Ok(())
    }
}

impl Verifiable for State<'_> {
    fn run_verifier(verifier: &mut Verifier<'_, '_>, at: usize) -> Result<(), InvalidFlatbuffer> {
        let table = verifier.visit_table(at)?;
        table.visit_field::<ForwardsUOffset<Tensors<'_>>>("requires_grad_params", STATE_TRAINED, true)?.finish();
        Ok(())
    }
}

impl Verifiable for StoredTensor<'_> {
    fn run_verifier(verifier: &mut Verifier<'_, '_>, at: usize) -> Result<(), InvalidFlatbuffer> {
        let table = verifier.visit_table(at)?;
        let table = table.visit_field::<ForwardsUOffset<&str>>("name", TENSOR_NAME, true)?;
        let table = table.visit_field::<ForwardsUOffset<Vector<'_, i64>>>("dims", TENSOR_DIMS, true)?;
        let table = table.visit_field::<i32>("data_type", TENSOR_DATA_TYPE, false)?;
        let table = table.visit_field::<ForwardsUOffset<Vector<'_, u8>>>("raw_data", TENSOR_RAW_DATA, true)?;
        table.finish();
        Ok(())
    }
}

// SAFETY of the reads below: these types are only made by `root_with_opts`, which has verified every field.
impl<'b> Checkpoint<'b> {
    fn trained(&self) -> impl Iterator<Item = StoredTensor<'b>> {
        let state = unsafe { self.0.get::<ForwardsUOffset<State<'b>>>(CHECKPOINT_STATE, None) };
        let list = state.and_then(|state| unsafe { state.0.get::<ForwardsUOffset<Tensors<'b>>>(STATE_TRAINED, None) });
        list.into_iter().flatten()
    }
}

impl<'b> StoredTensor<'b> {
    fn name(&self) -> &'b str {
        unsafe { self.0.get::<ForwardsUOffset<&str>>(TENSOR_NAME, Some("")) }.unwrap_or_default()
    }

    fn matrix(&self) -> Result<Matrix, String> {
        let (dims, code, data) = unsafe {
            (
                self.0.get::<ForwardsUOffset<Vector<'b, i64>>>(TENSOR_DIMS, None),
                self.0.get::<i32>(TENSOR_DATA_TYPE, Some(0)).unwrap_or(0),
                self.0.get::<ForwardsUOffset<Vector<'b, u8>>>(TENSOR_RAW_DATA, None),
            )
        };
        let dtype = crate::dtype::DType::from_onnx(code).unwrap_or(crate::dtype::DType::Undefined);
        let dims: Vec<i64> = dims.into_iter().flatten().collect();
        let data = data.map_or(&[][..], |data| data.bytes());
        Matrix::new(self.name(), &dims, dtype, data)
    }
}
