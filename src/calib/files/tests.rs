//! Files of every format, read in their order and in another one.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use super::DataFiles;
use crate::calib::error::Error;
use crate::calib::row::{FieldValue, Row, RowOrigin};
use crate::calib::source::RowSource;
use crate::hint::Hint;

fn write(dir: &Path, name: &str, content: &[u8]) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, content).unwrap();
    path
}

/// A row as `number:name=value,...`.
fn shown(row: &Row) -> String {
    let (RowOrigin::Line { line: number, .. } | RowOrigin::Item { number, .. }) = &row.origin;
    let field = |name: &str| match row.fields.get(name).unwrap() {
        FieldValue::Json(value) => format!("{name}={value}"),
        other => other.kind().to_owned(),
    };
    format!("{number}:{}", row.fields.names().map(field).collect::<Vec<_>>().join(","))
}

/// The rows in order, or what is wrong first.
fn summary(rows: impl Iterator<Item = Result<Row, Error>>) -> String {
    let mut rows = match rows.collect::<Result<Vec<Row>, Error>>() {
        Ok(rows) => rows,
        Err(error) => return error.to_string(),
    };
    rows.sort_by(|a, b| a.origin.cmp(&b.origin));
    rows.iter().map(shown).collect::<Vec<_>>().join(" ")
}

/// Both ways to read files.
fn read(files: &[PathBuf]) -> [String; 2] {
    let mut source = DataFiles::new(files);
    let in_order = source.rows().map_or_else(|error| error.to_string(), summary);
    let reversed = source.permuted(&mut |rows| (0..rows).rev().collect());
    [in_order, reversed.map_or_else(|error| error.to_string(), summary)]
}

#[track_caller]
fn check_named(name: &str, content: &[u8], expected: &str) {
    let dir = tempfile::tempdir().unwrap();
    let file = write(dir.path(), name, content);
    let [in_order, reversed] =
        read(std::slice::from_ref(&file)).map(|text| text.replace(&file.display().to_string(), "f"));
    assert_eq!(in_order, expected);
    assert_eq!(reversed, expected);
}

#[track_caller]
fn check(content: &[u8], expected: &str) {
    check_named("rows", content, expected);
}

#[test]
fn json_lines() {
    check(b"{}\n{\"a\":1,\"b\":2}\n", "1: 2:a=1,b=2");
    check(b"{}\n{}", "1: 2:");
    check(b"\r\n  {}  \r\n\r\n\t\n{}\r\n", "2: 5:");
    check(b"\xef\xbb\xbf{}\n{}\n", "1: 2:");
    check(b"\xef\xbb\xbf\n {}\n", "2:");
    check(b"{\"a\": {\"b\": [1]}}\n{\"data\": [{}]}", "1:a={\"b\":[1]} 2:data=[{}]");
}

#[test]
fn lines_longer_than_what_tells_the_format() {
    let text = "word ".repeat(30_000);
    let content = format!("{{\"a\": \"{text}\"}}\n{{\"a\": 1}}\n");
    check(content.as_bytes(), &format!("1:a=\"{text}\" 2:a=1"));
}

#[test]
fn empty_and_blank_files() {
    check(b"", "`f` has no rows");
    check(b"\xef\xbb\xbf", "`f` has no rows");
    check(b"\n \r\n\n", "`f` has no rows");
    check(b"[]", "`f` has no rows");
    check(b"{\"data\": [] }", "1:data=[]");
}

#[test]
fn json_that_is_longer_than_lines() {
    check(b"[{\"a\": 1}, {\"a\": \"]\\\"\"}]", "1:a=1 2:a=\"]\\\"\"");
    check(b"\xef\xbb\xbf\n[\r\n {\"a\": 1\n },\n {\"a\": [2]}\n]\n", "1:a=1 2:a=[2]");
    check(b"{\n \"a\": 1\n}\n{\n \"a\": 2\n}\n", "1:a=1 4:a=2");
    check(b"{\n \"a\": 1\n} {\n \"a\": 2\n}", "1:a=1 3:a=2");
    check(b"{\"version\": {\"x\": \"]}\"}, \"data\": [{\"a\": 1}, {\"a\": 2}], \"n\": [2]}", "1:a=1 2:a=2");
    check(b"{\n\"rows\": [\n{\"a\": 1}\n]\n}\n", "1:a=1");
}

#[test]
fn json_that_is_broken() {
    check(b"{}\n\n{\"a\":\"\xff\"}\n", "`f` line 3: not valid UTF-8 at byte 7");
    check(b"{\"a\": }", "`f` line 1: broken JSON at column 7: expected value");
    check(b"{\"a\": 1", "`f` line 1: broken JSON at column 7: EOF while parsing an object");
    check(b"{\"a\": 1} x", "`f` line 1: broken JSON at column 10: trailing characters");
    check_named("rows.jsonl", b"x{}\n{}\n", "`f` line 1: broken JSON at column 1: expected value");
    check(b"{}\n3\n", "`f` line 2: expected an object, got a number");
    check(b"[{}, 3]", "`f` row 2: expected an object, got a number");
    check(b"[{} {}]", "`f` row 1: broken JSON at column 1: no comma after the row before");
    check(b"[{}, ]", "`f` row 2: broken JSON at column 1: expected an object");
    check(b"[{}", "`f` row 2: broken JSON at column 1: the file ends before the array does");
    check(b"[{}, {\"a\":", "`f` row 2: broken JSON at column 5: EOF while parsing a value");
    check(b"[{}]\n{}", "`f` line 2: there is more after the array of rows");
    check(
        b"{\"data\": [{\"a\": 1}]",
        "`f` row 2: broken JSON at column 1: the file ends before the object around the rows does",
    );
    check(b"{\n\"a\": 1\n}\n{\n\"a\":: 1\n}\n", "`f` line 5: broken JSON at column 5: expected value");
    check(b"{\n\"a\": 1\n}\n{\n\"a\": 1\n", "`f` line 6: broken JSON at column 0: EOF while parsing an object");
}

#[test]
fn tables() {
    check(b"text,label\n\"a, b\",1\nc,\n", "2:text=\"a, b\",label=\"1\" 3:text=\"c\",label=\"\"");
    check(b"\xef\xbb\xbftext,n\r\n\"two\r\nlines\",1\r\nb,2", "2:text=\"two\\r\\nlines\",n=\"1\" 4:text=\"b\",n=\"2\"");
    check(b"text\tlabel\na, b, c\t1\n", "2:text=\"a, b, c\",label=\"1\"");
    check(b"text;n\na, b;1\n", "2:text=\"a, b\",n=\"1\"");
    check(b",text\n0,\"He said \"\"no\"\"\"\n", "2:=\"0\",text=\"He said \\\"no\\\"\"");
    check(b"input_ids,labels\n\"[1, 2]\",\n", "2:input_ids=[1,2],labels=null");
    check(b"body,kind\na,b\n", "2:body=\"a\",kind=\"b\"");
    check(b"text\nfirst\nsecond\n", "2:text=\"first\" 3:text=\"second\"");
    check_named("rows.csv", b"body\nfirst\n", "2:body=\"first\"");
    check_named("rows.TSV", b"body\nfirst, second\n", "2:body=\"first, second\"");
}

#[test]
fn tables_that_are_broken() {
    check_named("rows.csv", b"a,b\n1,2\n3\n", "`f` line 3: 1 columns, and the first line names 2");
    check_named("rows.csv", b"a,b,a\n1,2,3\n", "`f` has two columns `a`");
    check_named("rows.csv", b"a,b\n1,\xff\n", "`f` line 2: not valid UTF-8 at byte 1");
    check_named("rows.csv", b"\xff,b\n1,2\n3,4\n", "`f` line 1: not valid UTF-8 at byte 1");
    check_named("rows.csv", b"a,b\n", "`f` has no rows");
}

#[test]
fn plain_text() {
    check(b"One line.\r\nAnother, with a comma.\n", "1:text=\"One line.\" 2:text=\"Another, with a comma.\"");
    check(b"One\nparagraph.\n\n\nAnother.\n \nLast", "1:text=\"One\\nparagraph.\" 5:text=\"Another.\" 7:text=\"Last\"");
    check_named("talk.txt", b"Yes, no.\nNo, yes.\n", "1:text=\"Yes, no.\" 2:text=\"No, yes.\"");
    check(b"caf\xe9\n", "`f` line 1: not valid UTF-8 at byte 4");
}

#[test]
fn long_paragraphs_are_cut_at_white_space() {
    let dir = tempfile::tempdir().unwrap();
    let words: String = (0..2000).map(|n| format!("w\u{f6}rd{n} ")).collect();
    let content = format!("{words}\n{}\n", "\u{4e2d}".repeat(2000));
    let file = write(dir.path(), "long.txt", content.as_bytes());
    let rows: Vec<Row> = DataFiles::new([file]).rows().unwrap().map(Result::unwrap).collect();
    let text = |row: &Row| match row.fields.get("text").unwrap() {
        FieldValue::Json(value) => value.as_str().unwrap().to_owned(),
        _ => unreachable!(),
    };
    assert!(rows.iter().all(|row| text(row).len() <= 2048));
    let of_line = |line: usize| rows.iter().filter(move |row| shown(row).starts_with(&format!("{line}:")));
    assert_eq!(of_line(1).map(text).collect::<Vec<_>>().join(" "), words.trim());
    assert_eq!(of_line(2).map(text).collect::<String>(), "\u{4e2d}".repeat(2000));
}

#[test]
fn compressed_files() {
    let gzip = |content: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    };
    let two = [gzip(b"{\"a\":1}\n"), gzip(b"{\"a\":2}\n")].concat();
    check(&two, "1:a=1 2:a=2");
    check_named("table.csv.gz", &gzip(b"\xef\xbb\xbftext\nb\n"), "2:text=\"b\"");
    check(&gzip(&gzip(b"{}")), "`f` is compressed in a way that is not read");
    let cut = gzip("{\"a\": \"long\"}\n".repeat(1 << 14).as_bytes());
    let dir = tempfile::tempdir().unwrap();
    let [in_order, _] = read(&[write(dir.path(), "cut", &cut[..cut.len() / 2])]);
    assert!(in_order.starts_with("cannot read calibration file `"), "{in_order}");
}

#[test]
fn files_that_are_no_data_are_named() {
    check(b"\xff\xfe{\0}\0", "`f` is text in UTF-16");
    check(b"PK\x03\x04", "`f` is a ZIP archive or a workbook");
    check(b"ARROW1\0\0", "`f` is an Arrow file");
    check(b"a\0b", "`f` is no text");
}

#[test]
fn a_file_that_cannot_be_read_is_named_with_the_reason() {
    let error = DataFiles::new(["no/such.jsonl"]).rows().err().unwrap();
    let text = error.to_string();
    assert!(text.starts_with("cannot read calibration file `no/such.jsonl`: No such file"), "{text}");
    assert!(error.hint().is_some_and(|hint| hint.contains("--data")));
}

#[test]
fn files_follow_each_other_and_all_are_looked_at_first() {
    let dir = tempfile::tempdir().unwrap();
    let table = write(dir.path(), "table", b"text,n\nb,1\n");
    let lines = write(dir.path(), "lines", b"{}\n{\"x\":1}\n");
    assert_eq!(read(&[lines.clone(), table.clone()]), ["1: 2:x=1 2:text=\"b\",n=\"1\""; 2]);
    let binary = write(dir.path(), "binary", b"\0");
    assert!(DataFiles::new([&lines, &binary]).rows().is_err());
    let empty = write(dir.path(), "empty", b"");
    assert!(summary(DataFiles::new([&lines, &empty]).rows().unwrap()).ends_with("has no rows"));
}

#[test]
fn a_folder_stands_for_its_data_files() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("data");
    fs::create_dir(&folder).unwrap();
    assert!(read(std::slice::from_ref(&folder))[0].ends_with("has no data files"));
    for name in ["README.md", "dataset_info.json", ".hidden.json"] {
        write(&folder, name, b"{\"a\": 1}");
    }
    write(&folder, "2.jsonl", b"{\"b\":2}\n");
    write(&folder, "1.jsonl.gz", b"{\"b\":1}\n");
    assert_eq!(read(std::slice::from_ref(&folder)), ["1:b=1 1:b=2"; 2]);
    let table = write(&folder, "3.csv", b"text,n\nb,1\n");
    let [error, _] = read(&[folder]);
    assert!(error.ends_with(&format!("is JSON lines, but `{}` is a table", table.display())), "{error}");
}

/// The first row of a file, after which something happens to it.
#[track_caller]
fn check_changed(content: &str, change: impl Fn(&Path)) {
    for shuffled in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        let file = write(dir.path(), "rows", content.as_bytes());
        let mut source = DataFiles::new([&file]);
        let mut rows = if shuffled { source.permuted(&mut |rows| (0..rows).collect()) } else { source.rows() }.unwrap();
        assert!(rows.next().unwrap().is_ok());
        change(&file);
        let error = rows.next().unwrap().unwrap_err().to_string();
        assert_eq!(error, format!("`{}` changed while it was read", file.display()));
    }
}

#[test]
fn a_file_that_changes_while_it_is_read_is_an_error() {
    let rows = "{\"a\": 1}\n".repeat(100_000);
    check_changed(&rows, |file| fs::OpenOptions::new().write(true).open(file).unwrap().set_len(9).unwrap());
    check_changed(&rows, |file| fs::write(file, "{}\n").unwrap());
    check_changed(&rows, |file| {
        fs::write(file.with_extension("new"), "{}\n").unwrap();
        fs::rename(file.with_extension("new"), file).unwrap();
    });
    check_changed(&rows, |file| writeln!(fs::OpenOptions::new().append(true).open(file).unwrap(), "{{}}").unwrap());
}

#[cfg(unix)]
#[test]
fn pipes_are_read_once() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for shuffled in [false, true] {
        let writer = std::thread::spawn({
            let pipe = pipe.clone();
            move || fs::write(pipe, "text,n\na,1\nb,2\n").unwrap()
        });
        let mut source = DataFiles::new([&pipe]);
        let rows = if shuffled { source.permuted(&mut |rows| (0..rows).rev().collect()) } else { source.rows() };
        assert_eq!(summary(rows.unwrap()), "2:text=\"a\",n=\"1\" 3:text=\"b\",n=\"2\"");
        writer.join().unwrap();
    }
}

/// The fingerprint of data.
fn fingerprint(path: &Path) -> String {
    DataFiles::new([path]).fingerprint().unwrap().unwrap()
}

/// The bytes of a `.npy` file with these texts, a row each.
fn npy_of_texts(texts: &[&str]) -> Vec<u8> {
    let letters = texts.iter().map(|text| text.chars().count()).max().unwrap();
    let header = format!("{{'descr': '<U{letters}', 'fortran_order': False, 'shape': ({},), }}", texts.len());
    let mut bytes = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
    bytes.extend(format!("{header:<117}\n").bytes());
    for text in texts {
        let letters = text.chars().map(u32::from).chain(std::iter::repeat(0)).take(letters);
        bytes.extend(letters.flat_map(u32::to_le_bytes));
    }
    bytes
}

/// The bytes of a `.npy` file with these numbers, a row each.
fn npy(numbers: &[f32]) -> Vec<u8> {
    let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({},), }}", numbers.len());
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend(format!("{header:<117}\n").len().to_le_bytes()[..2].iter());
    bytes.extend(format!("{header:<117}\n").bytes());
    bytes.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
    bytes
}

#[test]
fn every_file_of_a_folder_decides_its_fingerprint() {
    for (one, other, contents) in [
        ("a.npy", "b.npy", [npy(&[1.0, 2.0]), npy(&[3.0, 4.0]), npy(&[3.0, 5.0])]),
        ("a.png", "b.png", [b"one".to_vec(), b"two".to_vec(), b"three".to_vec()]),
    ] {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), one, &contents[0]);
        write(dir.path(), other, &contents[1]);
        let first = fingerprint(dir.path());
        assert_eq!(fingerprint(dir.path()), first);
        write(dir.path(), other, &contents[2]);
        assert_ne!(fingerprint(dir.path()), first, "{other}");
    }
}

#[test]
fn the_name_of_an_array_decides_the_fingerprint() {
    let dir = tempfile::tempdir().unwrap();
    let files = ["states.npy", "actions.npy"].map(|name| write(dir.path(), name, &npy(&[1.0, 2.0])));
    assert_ne!(fingerprint(&files[0]), fingerprint(&files[1]));
}

#[test]
fn files_that_arrays_of_texts_name_decide_the_fingerprint() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    fs::create_dir_all(data.join("pictures")).unwrap();
    let names = write(&data, "image.npy", &npy_of_texts(&["pictures/a.png", "pictures/bb.png"]));
    write(&data, "states.npy", &npy(&[1.0, 2.0]));
    for data in [&data, &names] {
        write(&dir.path().join("data/pictures"), "a.png", b"one");
        let first = fingerprint(data);
        write(&dir.path().join("data/pictures"), "a.png", b"two");
        assert_ne!(fingerprint(data), first, "{}", data.display());
    }
}

#[test]
fn files_that_rows_name_decide_the_fingerprint() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "a.png", b"one");
    write(dir.path(), "b.npy", &npy(&[1.0]));
    let rows = b"{\"image\": \"a.png\"}\n{\"states\": \"b.npy\", \"text\": \"c.png\"}\n{\n";
    let file = write(dir.path(), "rows.jsonl", rows);
    let first = fingerprint(&file);
    write(dir.path(), "a.png", b"two");
    let second = fingerprint(&file);
    write(dir.path(), "b.npy", &npy(&[2.0]));
    let third = fingerprint(&file);
    assert!(first != second && second != third, "{first} {second} {third}");
    write(dir.path(), "d.png", b"not named");
    assert_eq!(fingerprint(&file), third);
}
