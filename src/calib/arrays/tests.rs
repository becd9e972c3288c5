//! Files of arrays, as NumPy and safetensors write them.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::*;

/// A NumPy file.
fn npy(descr: &str, fortran: bool, shape: &str, elements: &[u8]) -> Vec<u8> {
    let order = if fortran { "True" } else { "False" };
    let text = format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}\n");
    let length = (text.len() as u16).to_le_bytes();
    [b"\x93NUMPY\x01\x00", &length[..], text.as_bytes(), elements].concat()
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// An archive with these files, stored or deflated.
fn archive(files: &[(&str, Vec<u8>)], deflated: bool) -> Vec<u8> {
    let (mut all, mut directory) = (Vec::new(), Vec::new());
    for (name, bytes) in files {
        let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).unwrap();
        let packed = if deflated { encoder.finish().unwrap() } else { bytes.clone() };
        let mut crc = flate2::Crc::new();
        crc.update(bytes);
        let mut header = [0; 26];
        header[4] = if deflated { 8 } else { 0 };
        header[10..14].copy_from_slice(&crc.sum().to_le_bytes());
        header[14..18].copy_from_slice(&(packed.len() as u32).to_le_bytes());
        header[18..22].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
        header[22] = name.len() as u8;
        let at = (all.len() as u32).to_le_bytes();
        directory.extend([b"PK\x01\x02\0\0", &header[..], &[0; 10], &at, name.as_bytes()].concat());
        all.extend([b"PK\x03\x04", &header[..], name.as_bytes(), &packed].concat());
    }
    let (size, start) = ((directory.len() as u32).to_le_bytes(), (all.len() as u32).to_le_bytes());
    let count = [files.len() as u8, 0, files.len() as u8, 0];
    [&all[..], &directory, b"PK\x05\x06\0\0\0\0", &count, &size, &start, &[0, 0]].concat()
}

/// Rows as `number:name=value`, or what is wrong.
fn shown(path: &Path) -> String {
    let field = |(name, value): (&str, &FieldValue)| match value {
        FieldValue::Tensor(tensor) => format!("{name}={:?}{:?}", tensor.shape(), tensor.to_floats()),
        FieldValue::Json(value) => format!("{name}={value}"),
    };
    let row = |row: Row| row.fields.iter().map(field).collect::<Vec<_>>().join(",");
    let rows = Stack::open(path, &[path]).and_then(|stack| stack.into_rows().collect::<Result<Vec<_>, Error>>());
    match rows {
        Ok(rows) => rows.into_iter().map(row).collect::<Vec<_>>().join(" "),
        Err(error) => error.to_string().replace(&path.display().to_string(), "f"),
    }
}

#[test]
fn arrays_without_bytes_have_bounds() {
    let rows = |shape: &str| npy("<f4", false, shape, &[]);
    check(
        &rows("(4611686018427387904, 0)"),
        "`f` holds arrays that are not read: it has 4611686018427387904 rows that hold nothing",
    );
    check(
        &rows("(0, 4611686018427387904)"),
        "`f` holds arrays that are not read: each of its rows has more than 256 MiB",
    );
    let texts = npy("<U0", false, "(1, 1099511627776)", &[]);
    check(&texts, "`f` holds arrays that are not read: each of its rows has more than 256 MiB");
}

#[track_caller]
fn check(bytes: &[u8], expected: &str) {
    let dir = tempfile::tempdir().unwrap();
    let path: PathBuf = dir.path().join("x.npy");
    fs::write(&path, bytes).unwrap();
    assert_eq!(shown(&path), expected);
}

#[test]
fn arrays_in_both_orders() {
    let values = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
    check(&npy("<f4", false, "(2, 3)", &floats(&values)), "x=[3][1.0, 2.0, 3.0] x=[3][4.0, 5.0, 6.0]");
    check(&npy("<f4", true, "(2, 3)", &floats(&values)), "x=[3][1.0, 3.0, 5.0] x=[3][2.0, 4.0, 6.0]");
    check(
        &npy("<f4", true, "(6,)", &floats(&values)).clone(),
        "x=[][1.0] x=[][2.0] x=[][3.0] x=[][4.0] x=[][5.0] x=[][6.0]",
    );
    // 2 x 1 x 2: element (i, 0, k) is the (i + 2 k)th.
    check(&npy("<f4", true, "(2, 1, 2)", &floats(&values[..4])), "x=[1, 2][1.0, 3.0] x=[1, 2][2.0, 4.0]");
    check(&npy("<U1", false, "(2,)", &[b'a', 0, 0, 0, b'b', 0, 0, 0]), r#"x="a" x="b""#);
    check(&npy("|b1", false, "(0, 3)", &[]), "");
}

#[test]
fn broken_arrays() {
    let wrong = |what: &str| format!("`f` holds arrays that are not read: {what}");
    check(&npy("<f4", false, "(2, 3)", &[0; 20]), &wrong("its shape [2, 3] does not belong to 20 bytes"));
    check(
        &npy("<f8", false, "(9223372036854775807, 9)", &[0; 20]),
        &wrong("its shape [9223372036854775807, 9] does not belong to 20 bytes"),
    );
    check(&npy("<f4", false, "()", &[0; 4]), &wrong("it has no array with an axis"));
    check(&npy("|O", false, "(2,)", b"\x80\x04pickle"), &wrong("its elements are Python objects, which are pickled"));
    check(b"text", &wrong("it is no file of arrays"));
    check(&archive(&[("a.npy", Vec::new())], false)[..40], &wrong("the archive is broken: invalid data"));
}

#[test]
fn archives_of_arrays() {
    let files = [
        ("b.npy", npy("<f4", false, "(2, 1)", &floats(&[1.0, 2.0]))),
        ("a.npy", npy("|i1", false, "(2,)", &[3, 255])),
        ("seed.npy", npy("|i1", false, "()", &[3])),
    ];
    for deflated in [false, true] {
        check(&archive(&files, deflated), "a=[][3.0],b=[1][1.0] a=[][-1.0],b=[1][2.0]");
    }
    let wrong = |what: &str| format!("`f` holds arrays that are not read: {what}");
    let longer = ("c.npy", npy("|i1", false, "(3,)", &[3, 255, 1]));
    check(&archive(&[files[0].clone(), longer], false), &wrong("`b` has 2 rows, and `c` has 3"));
    let other = ("a.txt", Vec::new());
    check(&archive(&[files[0].clone(), other], false), &wrong("it holds `a.txt`, which is no array"));
    let pickled = ("c.npy", npy("|O", false, "(2,)", b"pickle"));
    check(
        &archive(&[files[0].clone(), pickled], true),
        &wrong("`c`: its elements are Python objects, which are pickled"),
    );
}

#[test]
fn sizes_of_archives_are_not_believed() {
    // A megabyte of zeros that declares, in both headers, to be ten bytes.
    let mut bytes = archive(&[("a.npy", npy("|u1", false, "(1048576,)", &vec![0; 1 << 20]))], true);
    let size = u32::to_le_bytes(npy("|u1", false, "(1048576,)", &vec![0; 1 << 20]).len() as u32);
    let places: Vec<usize> = (0..bytes.len() - 4).filter(|at| bytes[*at..][..4] == size).collect();
    places.iter().for_each(|at| bytes[*at..][..4].copy_from_slice(&10u32.to_le_bytes()));
    assert!(!places.is_empty());
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.npz");
    fs::write(&path, bytes).unwrap();
    assert!(shown(&path).starts_with("`f` holds arrays that are not read: "), "{}", shown(&path));
}

#[test]
fn tensors_of_safetensors() {
    let file = |header: &str, data: &[u8]| [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat();
    let header = r#"{"b":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},"a":{"dtype":"BF16","shape":[2],"data_offsets":[8,12]}}"#;
    let data = [&floats(&[1.0, 2.0])[..], &[0xc0, 0x3f, 0x80, 0x3f]].concat();
    check(&file(header, &data), "a=[][1.5],b=[1][1.0] a=[][1.0],b=[1][2.0]");
    let wrong = |what: &str| format!("`f` holds arrays that are not read: {what}");
    check(&file(header, &data[..11]), &wrong("`a` is cut off"));
    let eight = r#"{"a":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[0,2]}}"#;
    check(&file(eight, &[0, 0]), &wrong("`a` has elements of type F8_E4M3"));
    let mut long = file(header, &data);
    long[..8].copy_from_slice(&90_000_000u64.to_le_bytes());
    check(&long, &wrong("its header is longer than the file"));
}

#[test]
fn a_row_may_name_an_array() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let one = write("one.npy", &npy("<f4", true, "(1, 2)", &floats(&[1.0, 2.0])));
    let FieldValue::Tensor(tensor) = named(&one, "anything").unwrap() else { panic!("no tensor") };
    assert_eq!((tensor.shape(), tensor.to_floats()), (&[1, 2][..], vec![1.0, 2.0]));
    let files = [("a.npy", npy("|i1", false, "(1,)", &[3])), ("b.npy", npy("|i1", false, "(1,)", &[4]))];
    let two = write("two.npz", &archive(&files, false));
    assert!(matches!(named(&two, "b").unwrap(), FieldValue::Tensor(tensor) if tensor.to_floats() == [4.0]));
    assert!(named(&two, "c").unwrap_err().to_string().ends_with("it has no array `c`"));
    assert!(matches!(named(&dir.path().join("no.npy"), "c"), Err(Error::Io { .. })));
}
