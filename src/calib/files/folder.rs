//! The data files of a folder.

use std::fs;
use std::path::{Path, PathBuf};

use super::super::error::Error;
use super::object::unreadable;

/// Endings of data files, after those of compression.
const DATA: [&str; 13] = [
    ".jsonl",
    ".ndjson",
    ".json",
    ".csv",
    ".tsv",
    ".txt",
    ".text",
    ".parquet",
    ".npy",
    ".npz",
    ".safetensors",
    ".arrow",
    ".feather",
];

/// Files of the datasets library that hold no rows.
const NO_ROWS: [&str; 4] = ["dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json"];

/// The data files in a folder, by name. Hidden files, other folders, and files of other endings are none.
///
/// # Errors
/// When the folder cannot be read.
pub(super) fn data_files(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let failed = |source| unreadable(folder, source);
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.is_file() && path.file_name().is_some_and(|name| is_data(&name.to_string_lossy())) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn is_data(name: &str) -> bool {
    let lower = name.to_lowercase();
    let plain = lower.trim_end_matches(".gz").trim_end_matches(".zst");
    !name.starts_with('.') && !NO_ROWS.contains(&plain) && DATA.iter().any(|ending| plain.ends_with(ending))
}
