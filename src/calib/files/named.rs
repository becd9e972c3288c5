//! The files that rows name, pictures, sounds and arrays, as a part of what tells data from other data.

use std::collections::HashSet;
use std::path::PathBuf;

use super::super::arrays;
use super::super::error::Error;
use super::super::media::{is_media_field, named};
use super::super::row::{FieldValue, Row};
use super::super::source::Rows;
use super::listing;
use super::object::unreadable;
use crate::fingerprint::Fingerprint;

/// Adds the bytes of all files that the rows name, each once, in the order of the rows. Rows that cannot be read name none.
///
/// # Errors
/// When the rows, or such a file, cannot be read.
pub(super) fn add_to(hash: &mut Fingerprint, rows: Rows<'_>) -> Result<(), Error> {
    let mut known = HashSet::new();
    for row in rows {
        let row = match row {
            Ok(row) => row,
            // What ends the reading is no row.
            Err(error) if error.row().is_none() => return Err(error),
            Err(_) => continue,
        };
        for file in files(&row) {
            if file.is_file() && !known.contains(&file) {
                hash.file(&file).map_err(|source| unreadable(&file, source))?;
                known.insert(file);
            }
        }
    }
    Ok(())
}

fn files(row: &Row) -> impl Iterator<Item = PathBuf> {
    row.fields.iter().filter_map(|(name, value)| {
        let FieldValue::Json(value) = value else { return None };
        let path = named(value)?;
        let names_file = is_media_field(name) || listing::is_media(path.as_ref()) || arrays::is_named(path);
        names_file.then(|| row.origin.folder().join(path))
    })
}
