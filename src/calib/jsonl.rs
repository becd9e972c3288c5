//! The non-blank lines of calibration files, in order or at random positions.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::{Error, Origin};
use super::plan::SplitMix64;

/// A non-blank line without its line end.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// Where it stands.
    pub(crate) origin: Origin,
    /// What it says.
    pub(crate) text: String,
}

/// Reads the files one after the other, no further than lines are asked for.
///
/// Ends after the first error. A file without rows is an error when its end is reached.
pub(crate) fn in_order(files: &[PathBuf]) -> impl Iterator<Item = Result<Line, Error>> + '_ {
    let mut files = files.iter();
    let mut current: Option<FileLines> = None;
    std::iter::from_fn(move || {
        loop {
            let lines = match current.as_mut() {
                Some(lines) => lines,
                None => match FileLines::open(files.next()?) {
                    Ok(lines) => current.insert(lines),
                    Err(error) => return Some(Err(error)),
                },
            };
            match lines.next_row() {
                Ok(Some(raw)) => return Some(decode(lines.origin(raw.number), raw.bytes)),
                Ok(None) => current = None,
                Err(error) => return Some(Err(error)),
            }
        }
    })
}

/// Reads every file once to find its rows, then yields them in random order.
///
/// Only the positions are kept in memory; the files must allow seeking.
pub(crate) fn shuffled(
    files: &[PathBuf],
    rng: &mut SplitMix64,
) -> Result<impl Iterator<Item = Result<Line, Error>> + use<>, Error> {
    let mut opened = Vec::new();
    let mut positions = Vec::new();
    for path in files {
        let mut lines = FileLines::open(path)?;
        while let Some(raw) = lines.next_row()? {
            positions.push((opened.len(), raw.number, raw.offset, raw.bytes.len()));
        }
        opened.push((lines.path, lines.input.into_inner()));
    }
    rng.shuffle(&mut positions);
    Ok(positions.into_iter().map(move |(index, number, offset, len)| {
        let (path, file) = &mut opened[index];
        let bytes = read_at(file, offset, len).map_err(|source| Error::Io { file: path.to_path_buf(), source })?;
        decode(Origin { file: path.clone(), line: number }, bytes)
    }))
}

fn read_at(file: &mut File, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    file.seek(SeekFrom::Start(offset))?;
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn decode(origin: Origin, bytes: Vec<u8>) -> Result<Line, Error> {
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Line { origin, text }),
        Err(error) => Err(Error::NotUtf8 { origin, column: error.utf8_error().valid_up_to() + 1 }),
    }
}

/// A non-blank line as it stands in a file.
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
        let file = File::open(path).map_err(|source| Error::Io { file: path.to_owned(), source })?;
        let input = BufReader::with_capacity(1 << 16, file);
        Ok(Self { path: path.into(), input, number: 0, offset: 0, rows: 0 })
    }

    fn origin(&self, number: usize) -> Origin {
        Origin { file: self.path.clone(), line: number }
    }

    /// The next non-blank line without byte order mark and surrounding white space.
    fn next_row(&mut self) -> Result<Option<RawLine>, Error> {
        loop {
            let mut bytes = Vec::new();
            let read = self
                .input
                .read_until(b'\n', &mut bytes)
                .map_err(|source| Error::Io { file: self.path.to_path_buf(), source })?;
            if read == 0 {
                let file = self.path.to_path_buf();
                return if self.rows == 0 { Err(Error::NoRows { file }) } else { Ok(None) };
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

    fn write(dir: &Path, name: &str, content: &[u8]) -> PathBuf {
        let path = dir.join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    /// The lines as `number:text` joined by spaces, or the error's name.
    fn summary(lines: impl Iterator<Item = Result<Line, Error>>) -> String {
        let parts: Result<Vec<_>, _> =
            lines.map(|line| line.map(|l| format!("{}:{}", l.origin.line, l.text))).collect();
        match parts {
            Ok(parts) => parts.join(" "),
            Err(Error::NotUtf8 { origin, column }) => format!("utf8 {}:{column}", origin.line),
            Err(Error::JsonArray { .. }) => "array".to_owned(),
            Err(Error::NoRows { .. }) => "no rows".to_owned(),
            Err(other) => other.to_string(),
        }
    }

    #[track_caller]
    fn check(content: &[u8], expected: &str) {
        let dir = tempfile::tempdir().unwrap();
        let files = [write(dir.path(), "a.jsonl", content)];
        assert_eq!(summary(in_order(&files)), expected);
        let mut rng = SplitMix64::new(7);
        let mut lines: Vec<_> = match shuffled(&files, &mut rng) {
            Ok(lines) => lines.collect(),
            Err(error) => return assert_eq!(summary([Err(error)].into_iter()), expected),
        };
        lines.sort_by_key(|line| line.as_ref().map_or(usize::MAX, |line| line.origin.line));
        assert_eq!(summary(lines.into_iter()), expected);
    }

    #[test]
    fn plain_lines() {
        check(b"{}\n{\"a\":1}\n", "1:{} 2:{\"a\":1}");
    }

    #[test]
    fn last_line_without_end() {
        check(b"{}\n{}", "1:{} 2:{}");
    }

    #[test]
    fn carriage_returns_and_blank_lines() {
        check(b"\r\n  {}  \r\n\r\n\t\n{}\r\n", "2:{} 5:{}");
    }

    #[test]
    fn byte_order_mark() {
        check(b"\xef\xbb\xbf{}\n{}\n", "1:{} 2:{}");
        check(b"\xef\xbb\xbf\n {}\n", "2:{}");
    }

    #[test]
    fn empty_and_blank_files() {
        check(b"", "no rows");
        check(b"\xef\xbb\xbf", "no rows");
        check(b"\n \r\n\n", "no rows");
    }

    #[test]
    fn array_file() {
        check(b"\n[\n{}\n]\n", "array");
        check(b"[{}]", "array");
    }

    #[test]
    fn invalid_utf8_names_its_line() {
        check(b"{}\n\n{\"a\":\"\xff\"}\n", "utf8 3:7");
    }

    #[test]
    fn missing_file_is_named() {
        let files = [PathBuf::from("no/such.jsonl")];
        assert_eq!(summary(in_order(&files)), "cannot read calibration file `no/such.jsonl`");
    }

    #[test]
    fn files_follow_each_other_and_a_later_empty_one_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let files = [write(dir.path(), "a", b"1\n2\n"), write(dir.path(), "b", b"3\n")];
        assert_eq!(summary(in_order(&files)), "1:1 2:2 1:3");
        let files = [files[0].clone(), write(dir.path(), "c", b"")];
        assert_eq!(summary(in_order(&files)), "no rows");
        assert_eq!(summary(in_order(&files).take(2)), "1:1 2:2");
    }
}
