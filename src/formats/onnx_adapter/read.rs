//! Reads an `.onnx_adapter` file.

use super::{
    ADAPTER_FORMAT_VERSION, ADAPTER_PARAMETERS, FORMAT_VERSION, IDENTIFIER, PARAMETER_DATA_TYPE, PARAMETER_DIMS,
    PARAMETER_NAME, PARAMETER_RAW_DATA,
};
use crate::adapter::Adapter;
use crate::formats::spliced::{self, Matrix};
use crate::formats::{Error, limits};
use flatbuffers::{Follow, ForwardsUOffset, InvalidFlatbuffer, Table, Vector, Verifiable, Verifier};
use std::path::Path;

/// Reads the adapter in the file `path`.
///
/// The names of the tensors are those that `splice` gives to graph inputs, or `<module>.lora_A.weight` and
/// `<module>.lora_B.weight`. `A` is [in, rank], `B` [rank, out] with the scale in it, so alpha is the rank.
///
/// # Errors
/// [`Error::Malformed`] when it is no such file, [`Error::Unsupported`] for other tensors.
pub fn read(path: &Path) -> Result<Adapter, Error> {
    let bytes = std::fs::read(path).map_err(|source| Error::Io { path: path.to_owned(), source })?;
    let malformed = |reason: String| Error::Malformed { path: path.to_owned(), reason };
    if bytes.len() <= 8 || &bytes[4..8] != IDENTIFIER.as_bytes() {
        return Err(malformed(format!("it does not begin like an adapter of ONNX Runtime, with `{IDENTIFIER}`")));
    }
    let file = flatbuffers::root_with_opts::<File<'_>>(&limits(), &bytes);
    let file = file.map_err(|error| malformed(error.to_string()))?;
    if file.version() != FORMAT_VERSION {
        return Err(malformed(format!("its format version is {}, not {FORMAT_VERSION}", file.version())));
    }
    let matrices = file.parameters().map(|parameter| parameter.matrix().map_err(malformed));
    spliced::adapter(path, matrices.collect::<Result<Vec<_>, _>>()?)
}

#[derive(Clone, Copy)]
struct File<'b>(Table<'b>);

#[derive(Clone, Copy)]
struct Parameter<'b>(Table<'b>);

impl<'b> Follow<'b> for File<'b> {
    type Inner = Self;

    unsafe fn follow(buf: &'b [u8], loc: usize) -> Self {
        // SAFETY: the caller promises a table at `loc`.
        Self(unsafe { Table::new(buf, loc) })
    }
}

impl<'b> Follow<'b> for Parameter<'b> {
    type Inner = Self;

    unsafe fn follow(buf: &'b [u8], loc: usize) -> Self {
        // SAFETY: the caller promises a table at `loc`.
        Self(unsafe { Table::new(buf, loc) })
    }
}

type Parameters<'b> = Vector<'b, ForwardsUOffset<Parameter<'b>>>;

impl Verifiable for File<'_> {
    fn run_verifier(verifier: &mut Verifier<'_, '_>, at: usize) -> Result<(), InvalidFlatbuffer> {
        let table = verifier.visit_table(at)?;
        let table = table.visit_field::<i32>("format_version", ADAPTER_FORMAT_VERSION, false)?;
        let table = table.visit_field::<ForwardsUOffset<Parameters<'_>>>("parameters", ADAPTER_PARAMETERS, true)?;
        table.finish();
        Ok(())
    }
}

impl Verifiable for Parameter<'_> {
    fn run_verifier(verifier: &mut Verifier<'_, '_>, at: usize) -> Result<(), InvalidFlatbuffer> {
        let table = verifier.visit_table(at)?;
        let table = table.visit_field::<ForwardsUOffset<&str>>("name", PARAMETER_NAME, true)?;
        let table = table.visit_field::<ForwardsUOffset<Vector<'_, i64>>>("dims", PARAMETER_DIMS, true)?;
        let table = table.visit_field::<i32>("data_type", PARAMETER_DATA_TYPE, false)?;
        let table = table.visit_field::<ForwardsUOffset<Vector<'_, u8>>>("raw_data", PARAMETER_RAW_DATA, true)?;
        table.finish();
        Ok(())
    }
}

// SAFETY of the reads below: these types are only made by `root_with_opts`, which has verified every field.
impl<'b> File<'b> {
    fn version(&self) -> i32 {
        unsafe { self.0.get::<i32>(ADAPTER_FORMAT_VERSION, Some(0)) }.unwrap_or(0)
    }

    fn parameters(&self) -> impl Iterator<Item = Parameter<'b>> {
        let list = unsafe { self.0.get::<ForwardsUOffset<Parameters<'b>>>(ADAPTER_PARAMETERS, None) };
        list.into_iter().flatten()
    }
}

impl<'b> Parameter<'b> {
    fn matrix(&self) -> Result<Matrix, String> {
        let (name, dims, code, data) = unsafe {
            (
                self.0.get::<ForwardsUOffset<&str>>(PARAMETER_NAME, Some("")).unwrap_or_default(),
                self.0.get::<ForwardsUOffset<Vector<'b, i64>>>(PARAMETER_DIMS, None),
                self.0.get::<i32>(PARAMETER_DATA_TYPE, Some(0)).unwrap_or(0),
                self.0.get::<ForwardsUOffset<Vector<'b, u8>>>(PARAMETER_RAW_DATA, None),
            )
        };
        let dtype = crate::dtype::DType::from_onnx(code).unwrap_or(crate::dtype::DType::Undefined);
        let dims: Vec<i64> = dims.into_iter().flatten().collect();
        let data = data.map_or(&[][..], |data| data.bytes());
        Matrix::new(name, &dims, dtype, data)
    }
}
