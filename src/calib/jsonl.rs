//! Files of JSON lines: one object a line, blank lines ignored.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use super::error::Error;
use super::row::{Row, RowOrigin, json_kind};
use super::source::{RowSource, Rows};

/// The rows of `.jsonl` files, one file after the other.
///
/// In another order only the positions of the rows are kept in memory; the files must allow seeking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonLines {
    files: Vec<PathBuf>,
}

impl JsonLines {
    /// The rows of these files.
    pub fn new(files: impl IntoIterator<Item = impl Into<PathBuf>>) -> Self {
        Self { files: files.into_iter().map(Into::into).collect() }
    }
}

impl RowSource for JsonLines {
    fn rows(&mut self) -> Result<Rows<'_>, Error> {
        if self.files.is_empty() {
            return Err(Error::NoFiles);
        }
        let mut files = self.files.iter();
        let mut current: Option<FileLines> = None;
        Ok(Box::new(std::iter::from_fn(move || {
            loop {
                let lines = match current.as_mut() {
                    Some(lines) => lines,
                    None => match FileLines::open(files.next()?) {
                        Ok(lines) => current.insert(lines),
                        Err(error) => return Some(Err(error)),
                    },
                };
                match lines.next_line() {
                    Ok(Some(line)) => return Some(parse(&lines.path, line.number, line.bytes)),
                    Ok(None) => current = None,
                    Err(error) => return Some(Err(error)),
                }
            }
        })))
    }

    fn permuted(&mut self, permutation: &mut dyn FnMut(usize) -> Vec<usize>) -> Result<Rows<'_>, Error> {
        if self.files.is_empty() {
            return Err(Error::NoFiles);
        }
        let mut opened = Vec::new();
        let mut positions = Vec::new();
        for path in &self.files {
            let mut lines = FileLines::open(path)?;
            while let Some(line) = lines.next_line()? {
                positions.push((opened.len(), line.number, line.offset, line.bytes.len()));
            }
            opened.push((lines.path, lines.input.into_inner()));
        }
        let order = permutation(positions.len()).into_iter().filter_map(move |index| positions.get(index).copied());
        Ok(Box::new(order.map(move |(index, number, offset, len)| {
            let (path, file) = &mut opened[index];
            let bytes = read_at(file, offset, len).map_err(|source| unreadable(path, source))?;
            parse(path, number, bytes)
        })))
    }
}

fn read_at(file: &mut File, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    file.seek(SeekFrom::Start(offset))?;
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// The row of one line.
fn parse(file: &Arc<Path>, line: usize, bytes: Vec<u8>) -> Result<Row, Error> {
    let origin = RowOrigin::Line { file: file.clone(), line };
    let text = match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => return Err(Error::NotUtf8 { origin, column: error.utf8_error().valid_up_to() + 1 }),
    };
    match serde_json::from_str(&text) {
        Ok(Value::Object(object)) => Ok(Row { origin, fields: object.into() }),
        Ok(other) => Err(Error::NotAnObject { origin, got: json_kind(&other) }),
        Err(error) => {
            let message = error.to_string();
            let message = message.split(" at line ").next().unwrap_or_default().to_owned();
            Err(Error::Json { origin, column: error.column(), message })
        }
    }
}

fn unreadable(file: &Path, source: io::Error) -> Error {
    Error::Io { file: file.to_owned(), source }
}

/// A line that is not blank, and its position in the file.
struct RawLine {
    number: usize,
    offset: u64,
    bytes: Vec<u8>,
}

/// A file being read line by line.
struct FileLines {
    path: Arc<Path>,
    input: BufReader<File>,
    number: usize,
    offset: u64,
    rows: usize,
}

impl FileLines {
    fn open(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(|source| unreadable(path, source))?;
        let input = BufReader::with_capacity(1 << 16, file);
        Ok(Self { path: path.into(), input, number: 0, offset: 0, rows: 0 })
    }

    /// The next line that is not blank, without byte order mark and surrounding white space.
    fn next_line(&mut self) -> Result<Option<RawLine>, Error> {
        loop {
            let mut bytes = Vec::new();
            let read = self.input.read_until(b'\n', &mut bytes).map_err(|source| unreadable(&self.path, source))?;
            if read == 0 && self.rows == 0 {
                return Err(Error::NoRows { name: self.path.display().to_string() });
            }
            if read == 0 {
                return Ok(None);
            }
            let start = self.offset;
            self.offset += read as u64;
            self.number += 1;
            let mark = if self.number == 1 && bytes.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
            let row = bytes[mark..].trim_ascii();
            if row.is_empty() {
                continue;
            }
            if self.rows == 0 && row[0] == b'[' {
                return Err(Error::JsonArray { file: self.path.to_path_buf() });
            }
            self.rows += 1;
            let skipped = mark + bytes[mark..].len() - bytes[mark..].trim_ascii_start().len();
            let raw = RawLine { number: self.number, offset: start + skipped as u64, bytes: row.to_vec() };
            return Ok(Some(raw));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hint::Hint;

    fn write(dir: &Path, name: &str, content: &[u8]) -> PathBuf {
        let path = dir.join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    /// The rows as `line:fields` joined by spaces, or what is wrong.
    fn summary(rows: impl Iterator<Item = Result<Row, Error>>) -> String {
        let rows: Result<Vec<Row>, Error> = rows.collect();
        let mut rows = match rows {
            Ok(rows) => rows,
            Err(error) => return error.to_string(),
        };
        rows.sort_by(|a, b| a.origin.cmp(&b.origin));
        let line = |row: &Row| match &row.origin {
            RowOrigin::Line { line, .. } => format!("{line}:{}", row.fields.names().collect::<Vec<_>>().join(",")),
            RowOrigin::Item { .. } => String::new(),
        };
        rows.iter().map(line).collect::<Vec<_>>().join(" ")
    }

    /// Both ways to read one file.
    #[track_caller]
    fn check(content: &[u8], expected: &str) {
        let dir = tempfile::tempdir().unwrap();
        let file = write(dir.path(), "a.jsonl", content);
        let shown = |text: String| text.replace(&file.display().to_string(), "f");
        let mut source = JsonLines::new([&file]);
        assert_eq!(shown(summary(source.rows().unwrap())), expected);
        let reversed = source.permuted(&mut |rows| (0..rows).rev().collect());
        let reversed = reversed.map_or_else(|error| error.to_string(), summary);
        assert_eq!(shown(reversed), expected);
    }

    #[test]
    fn plain_lines() {
        check(b"{}\n{\"a\":1,\"b\":2}\n", "1: 2:a,b");
    }

    #[test]
    fn last_line_without_end() {
        check(b"{}\n{}", "1: 2:");
    }

    #[test]
    fn carriage_returns_and_blank_lines() {
        check(b"\r\n  {}  \r\n\r\n\t\n{}\r\n", "2: 5:");
    }

    #[test]
    fn byte_order_mark() {
        check(b"\xef\xbb\xbf{}\n{}\n", "1: 2:");
        check(b"\xef\xbb\xbf\n {}\n", "2:");
    }

    #[test]
    fn empty_and_blank_files() {
        check(b"", "`f` has no rows");
        check(b"\xef\xbb\xbf", "`f` has no rows");
        check(b"\n \r\n\n", "`f` has no rows");
    }

    #[test]
    fn array_file() {
        check(b"\n[\n{}\n]\n", "`f` is a JSON array, expected one JSON object a line");
        check(b"[{}]", "`f` is a JSON array, expected one JSON object a line");
    }

    #[test]
    fn wrong_lines_are_named() {
        check(b"{}\n\n{\"a\":\"\xff\"}\n", "`f` line 3: not valid UTF-8 at byte 7");
        check(b"3", "`f` line 1: expected an object, got a number");
        check(b"{\"a\": }", "`f` line 1: broken JSON at column 7: expected value");
        check(b"{\"a\": 1", "`f` line 1: broken JSON at column 7: EOF while parsing an object");
        check(b"{\"a\": 1} x", "`f` line 1: broken JSON at column 10: trailing characters");
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named_with_the_reason() {
        let error = JsonLines::new(["no/such.jsonl"]).rows().unwrap().next().unwrap().unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("cannot read calibration file `no/such.jsonl`: No such file"), "{text}");
        assert!(error.hint().is_some_and(|hint| hint.contains("--data")));
        let folder = tempfile::tempdir().unwrap();
        let error = JsonLines::new([folder.path()]).rows().unwrap().next().unwrap().unwrap_err();
        assert!(error.hint().is_some_and(|hint| hint.contains("folder")), "{error}");
    }

    #[test]
    fn files_follow_each_other_and_a_later_empty_one_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let files = [write(dir.path(), "a", b"{}\n{\"x\":1}\n"), write(dir.path(), "b", b"{}\n")];
        assert_eq!(summary(JsonLines::new(&files).rows().unwrap()), "1: 2:x 1:");
        let files = [files[0].clone(), write(dir.path(), "c", b"")];
        let mut source = JsonLines::new(&files);
        assert!(summary(source.rows().unwrap()).ends_with("has no rows"));
        assert_eq!(summary(source.rows().unwrap().take(2)), "1: 2:x");
    }
}
