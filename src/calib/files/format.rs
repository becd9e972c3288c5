//! What a file holds, by its first bytes. Its name decides only between tables and plain text, where both are possible,
//! and that what is called JSON is no other text.

use std::path::Path;

use serde_json::Value;

use super::super::arrays::Container;
use super::super::file_error::Foreign;
use super::super::forms::is_text_field;
use super::super::media::is_media_field;
use super::nesting::Nesting;

/// Columns that tell a table from plain text, beside those that hold text or name pictures and sounds.
const COLUMNS: [&str; 3] = ["input_ids", "messages", "conversations"];

/// Keys of an object around the rows.
const WRAPPERS: [&str; 5] = ["data", "rows", "examples", "instances", "train"];

/// How rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// One JSON object a line.
    Lines,
    /// JSON objects that may be longer than a line.
    Json(Shape),
    /// Columns between delimiters, named in the first line.
    Table {
        /// The delimiter.
        delimiter: u8,
    },
    /// Columns in pages.
    Parquet,
    /// Arrays whose first axis is that of the rows.
    Arrays(Container),
    /// Plain text: a row is a paragraph, or a line where there are no empty lines.
    Text {
        /// Whether empty lines part the rows.
        paragraphs: bool,
    },
}

/// Where JSON objects are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// One after the other.
    Sequence,
    /// In an array that begins after so many bytes, within an object if there is one.
    Array {
        /// Bytes before the bracket.
        at: usize,
        /// Whether an object holds the array.
        within: bool,
    },
}

impl Format {
    /// The format of the file at `path` whose first bytes are `head`; they are the `whole` file or not.
    ///
    /// # Errors
    /// What else the file is.
    pub(super) fn of(head: &[u8], whole: bool, path: &Path) -> Result<Self, Foreign> {
        if let Some(container) = Container::of(head) {
            return Ok(Self::Arrays(container));
        }
        if head.starts_with(b"PAR1") {
            return Ok(Self::Parquet);
        }
        if let Some(foreign) = Foreign::of(head) {
            return Err(foreign);
        }
        let start = head.len() - head.trim_ascii_start().len();
        Ok(match head.get(start) {
            Some(b'[') => Self::Json(Shape::Array { at: start, within: false }),
            Some(b'{') => object(head, start, whole),
            _ => text(head, whole, path),
        })
    }

    /// What it is called in messages.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Lines => "JSON lines",
            Self::Json(_) => "JSON",
            Self::Table { .. } => "a table",
            Self::Parquet => "a Parquet file",
            Self::Arrays(container) => container.name(),
            Self::Text { .. } => "plain text",
        }
    }
}

/// The format of a file that begins with a brace at `start`.
fn object(head: &[u8], start: usize, whole: bool) -> Format {
    let mut lines = head[start..].split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty());
    let (first, second) = (lines.next().unwrap_or_default(), lines.next());
    let is_object = |line: &[u8]| matches!(serde_json::from_slice(line), Ok(Value::Object(_)));
    if second.is_some() && (is_object(first) || second.is_some_and(is_object)) {
        return Format::Lines;
    }
    if let Some(at) = wrapped(&head[start..]) {
        return Format::Json(Shape::Array { at: start + at, within: true });
    }
    let open = |line: &[u8]| serde_json::from_slice::<Value>(line).is_err_and(|error| error.is_eof());
    // A first line that is longer than what is known is one of long lines.
    let whole_line = whole || second.is_some();
    if second.is_some() && whole_line && open(first) { Format::Json(Shape::Sequence) } else { Format::Lines }
}

/// Where the array of rows begins in an object around them.
fn wrapped(object: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        at += space(&object[at..]);
        let key = at..at + Nesting::value(&object[at..])?;
        at = key.end + space(object.get(key.end..)?);
        if object.get(at) != Some(&b':') {
            return None;
        }
        at += 1;
        at += space(&object[at..]);
        let name: Option<String> = serde_json::from_slice(&object[key]).ok();
        if name.is_some_and(|name| WRAPPERS.contains(&name.as_str())) && object.get(at) == Some(&b'[') {
            let first = object.get(at + 1..)?.trim_ascii_start().first();
            return (first == Some(&b'{')).then_some(at);
        }
        at += Nesting::value(object.get(at..)?)?;
        at += space(object.get(at..)?);
        if object.get(at) != Some(&b',') {
            return None;
        }
        at += 1;
    }
}

fn space(text: &[u8]) -> usize {
    text.len() - text.trim_ascii_start().len()
}

/// A table or plain text.
fn text(head: &[u8], whole: bool, path: &Path) -> Format {
    let name = path.file_name().map(|name| name.to_string_lossy().to_lowercase()).unwrap_or_default();
    let name = name.trim_end_matches(".gz").trim_end_matches(".zst");
    let ends = |extensions: &[&str]| extensions.iter().any(|extension| name.ends_with(extension));
    let columns = |delimiter: u8| columns(head, whole, delimiter).map(|columns| (delimiter, columns));
    let table = [b',', b'\t', b';', b'|'].into_iter().filter_map(columns).max_by_key(|(_, columns)| columns.len());
    let first = head.split(|byte| *byte == b'\n').next().unwrap_or_default().trim_ascii();
    let known = |name: &str| COLUMNS.contains(&name) || is_text_field(name) || is_media_field(name);
    match table {
        _ if ends(&[".jsonl", ".ndjson", ".json"]) => Format::Lines,
        Some((delimiter, columns)) if !ends(&[".txt", ".text", ".md"]) || columns.iter().any(|name| known(name)) => {
            Format::Table { delimiter }
        }
        _ if ends(&[".tsv"]) => Format::Table { delimiter: b'\t' },
        _ if ends(&[".csv"]) || std::str::from_utf8(first).is_ok_and(known) => Format::Table { delimiter: b',' },
        _ => Format::Text { paragraphs: has_paragraphs(head) },
    }
}

/// The names of the columns, where all lines that are known have as many columns, and more than one.
fn columns(head: &[u8], whole: bool, delimiter: u8) -> Option<Vec<String>> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).delimiter(delimiter).from_reader(head);
    let mut lines = reader.byte_records().collect::<Result<Vec<_>, _>>().ok()?;
    if !whole {
        lines.pop();
    }
    let (first, others) = lines.split_first()?;
    let even = first.len() > 1 && !others.is_empty() && others.iter().all(|line| line.len() == first.len());
    even.then(|| first.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect())
}

/// Whether there is an empty line between others.
fn has_paragraphs(head: &[u8]) -> bool {
    let mut lines = head.split(|byte| *byte == b'\n').skip_while(|line| line.trim_ascii().is_empty());
    lines.any(|line| line.trim_ascii().is_empty()) && lines.any(|line| !line.trim_ascii().is_empty())
}
