//! Pictures and sounds that are rows themselves: the files of a folder and of its subfolders.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::error::Error;
use super::super::file_error::FileError;
use super::super::row::{Fields, Row, RowOrigin};
use super::object::unreadable;

/// Endings of pictures. Not all can be read; those that cannot are refused by name, not passed over.
const PICTURES: [&str; 10] = ["png", "jpg", "jpeg", "webp", "bmp", "gif", "tif", "tiff", "heic", "avif"];
/// Endings of sounds, as above.
const SOUNDS: [&str; 8] = ["wav", "flac", "mp3", "ogg", "opus", "m4a", "aac", "aiff"];
/// Folders within folders that are looked into: `train/class/picture.png`.
const DEPTH: usize = 3;

/// The field that names a file, by the ending of its name.
fn field(path: &Path) -> Option<&'static str> {
    let ending = path.extension()?.to_str()?.to_lowercase();
    let known = |endings: &[&str]| endings.contains(&ending.as_str());
    if known(&PICTURES) { Some("image") } else { known(&SOUNDS).then_some("audio") }
}

/// Whether the name of a file is that of a picture or a sound.
pub(super) fn is_media(path: &Path) -> bool {
    field(path).is_some()
}

/// The pictures and sounds in a folder and its subfolders, in the order of their paths. Hidden ones are left out.
///
/// # Errors
/// When a folder cannot be read.
pub(super) fn media_files(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut found = Vec::new();
    add(folder, DEPTH, &mut found)?;
    found.sort();
    Ok(found)
}

fn add(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<(), Error> {
    let failed = |source| unreadable(folder, source);
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let path = entry.path();
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        if path.is_dir() && depth > 0 {
            add(&path, depth - 1, found)?;
        } else if is_media(&path) && path.is_file() {
            found.push(path);
        }
    }
    Ok(())
}

/// The row of a file: its path, and as its `label` the folder that it is in, unless that is `folder` itself.
///
/// # Errors
/// When its name is no text.
pub(super) fn row(file: &Path, number: usize, folder: &Arc<Path>) -> Result<Row, Error> {
    let whole = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    let (Some(path), Some(field)) = (whole.to_str(), field(file)) else {
        return Err(FileError::Name { file: file.to_owned() }.into());
    };
    let class = file.parent().filter(|parent| *parent != &**folder).and_then(Path::file_name);
    let label = class.map(|class| ("label", class.to_string_lossy().into_owned()));
    let origin = RowOrigin::Item { source: folder.display().to_string().into(), number };
    Ok(Row { origin, fields: [(field, path.to_owned())].into_iter().chain(label).collect::<Fields>() })
}
