//! Parquet and Zstandard files that pyarrow wrote: their rows are those of the JSON beside them.

use std::fs;
use std::path::{Path, PathBuf};

use crate::calib::error::Error;
use crate::calib::files::DataFiles;
use crate::calib::row::Row;
use crate::calib::source::RowSource;
use crate::hint::Hint;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/data").join(name)
}

/// The rows in their order, or in the reverse one.
fn rows(file: &Path, reversed: bool) -> Result<Vec<Row>, Error> {
    let mut source = DataFiles::new([file]);
    let rows = if reversed { source.permuted(&mut |rows| (0..rows).rev().collect()) } else { source.rows() };
    rows?.collect()
}

#[track_caller]
fn wrong(file: &Path) -> String {
    let error = rows(file, false).unwrap_err();
    assert!(error.hint().is_some(), "{error}");
    error.to_string().replace(&file.display().to_string(), "f")
}

#[test]
fn rows_of_every_compression_are_those_of_json() {
    let expected = rows(&fixture("columns.json"), false).unwrap();
    assert_eq!(expected.len(), 7);
    for name in ["none", "snappy", "gzip", "brotli", "lz4", "zstd", "v2"].map(|name| format!("columns-{name}.parquet"))
    {
        for reversed in [false, true] {
            let mut found = rows(&fixture(&name), reversed).unwrap_or_else(|error| panic!("{name}: {error}"));
            found.sort_by(|a, b| a.origin.cmp(&b.origin));
            assert_eq!(found.len(), 7, "{name}");
            for (found, expected) in found.iter().zip(&expected) {
                assert_eq!(found.fields, expected.fields, "{name}");
            }
        }
    }
}

#[test]
fn the_frames_of_zstandard_follow_each_other() {
    let expected = rows(&fixture("columns.json"), false).unwrap();
    let packed = fs::read(fixture("columns.jsonl.zst")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    // A frame that is skipped comes first where pzstd and others write their own data.
    let skipped = [&[0x5e, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3], &packed[..]].concat();
    for bytes in [&packed, &skipped] {
        let file = dir.path().join("rows");
        fs::write(&file, bytes).unwrap();
        let found = rows(&file, false).unwrap();
        assert!(found.iter().map(|row| &row.fields).eq(expected.iter().map(|row| &row.fields)));
    }
    let file = dir.path().join("cut");
    fs::write(&file, &packed[..packed.len() - 40]).unwrap();
    assert!(wrong(&file).starts_with("cannot read calibration file `f`: "), "{}", wrong(&file));
}

#[test]
fn broken_files_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let whole = fs::read(fixture("columns-snappy.parquet")).unwrap();
    let file = dir.path().join("rows.parquet");
    let check = |bytes: &[u8], expected: &str| {
        fs::write(&file, bytes).unwrap();
        let said = wrong(&file);
        assert!(said.starts_with("`f` is a Parquet file that cannot be read: ") && said.contains(expected), "{said}");
    };
    check(&whole[..whole.len() - 1], "Corrupt footer");
    check(&whole[..whole.len() / 2], "Corrupt footer");
    check(b"PAR1", "");
    let mut flipped = whole.clone();
    flipped[4..400].fill(0xff);
    check(&flipped, "");
}

#[test]
fn parquet_is_read_from_a_plain_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("rows");
    let packed = zstd::encode_all(&fs::read(fixture("columns-none.parquet")).unwrap()[..], 1).unwrap();
    fs::write(&file, packed).unwrap();
    assert_eq!(wrong(&file), "`f` is a Parquet file, which is read from its end, and cannot be compressed as a whole");
}

#[test]
fn a_file_that_names_pictures_is_known_by_them() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("rows.parquet");
    fs::copy(fixture("columns-none.parquet"), &file).unwrap();
    let fingerprint = || DataFiles::new([&file]).fingerprint().unwrap().unwrap();
    let without = fingerprint();
    fs::write(dir.path().join("5.png"), "a picture").unwrap();
    assert_ne!(fingerprint(), without);
}
