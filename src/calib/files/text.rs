//! Plain text in pieces.

use std::io::BufRead;
use std::path::Path;
use std::sync::Arc;

use super::super::error::Error;
use super::super::row::{Fields, Row, RowOrigin};
use super::lines::Lines;

/// Most bytes of a row: about 500 tokens of English.
const LONGEST: usize = 2048;

/// The rows of plain text, each with one field `text`: paragraphs between empty lines, or lines. Longer ones are cut
/// where there is white space.
pub(super) struct Pieces<R> {
    lines: Lines<R>,
    file: Arc<Path>,
    paragraphs: bool,
    /// Text that is read and in no row yet, and the line where it begins.
    open: String,
    line: usize,
    ended: bool,
}

impl<R: BufRead> Pieces<R> {
    pub(super) fn new(input: R, file: Arc<Path>, paragraphs: bool) -> Self {
        let lines = Lines::new(input, file.clone());
        Self { lines, file, paragraphs, open: String::new(), line: 1, ended: false }
    }

    fn next_row(&mut self) -> Result<Option<Row>, Error> {
        // The rest of a long line is a row before the next line is read.
        while self.open.len() <= LONGEST && !self.ended && (self.paragraphs || self.open.is_empty()) {
            let Some(line) = self.lines.next_raw()? else {
                self.ended = true;
                break;
            };
            let origin = || RowOrigin::Line { file: self.file.clone(), line: line.number };
            let text = String::from_utf8(line.bytes)
                .map_err(|error| Error::NotUtf8 { origin: origin(), column: error.utf8_error().valid_up_to() + 1 })?;
            let blank = text.trim().is_empty();
            let closes = blank || !self.paragraphs;
            if !blank {
                if self.open.is_empty() {
                    self.line = line.number;
                }
                self.open.push_str(&text);
            }
            if closes && !self.open.is_empty() {
                break;
            }
        }
        if self.open.len() > LONGEST {
            let rest = self.open.split_off(cut(&self.open));
            return Ok(Some(self.row(rest.trim_start().to_owned())));
        }
        Ok((!self.open.is_empty()).then(|| self.row(String::new())))
    }

    /// The text that is open as a row; `rest` is open then.
    fn row(&mut self, rest: String) -> Row {
        let origin = RowOrigin::Line { file: self.file.clone(), line: self.line };
        self.line += self.open.matches('\n').count();
        let text = std::mem::replace(&mut self.open, rest);
        Row { origin, fields: Fields::from([("text", text.trim())]) }
    }
}

/// Where a text is cut that is too long: before the last white space that leaves it short enough.
fn cut(text: &str) -> usize {
    let most = text.floor_char_boundary(LONGEST);
    let space = text[..most].rfind(char::is_whitespace);
    space.filter(|at| !text[..*at].trim().is_empty()).unwrap_or(most)
}

impl<R: BufRead> Iterator for Pieces<R> {
    type Item = Result<Row, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_row().transpose()
    }
}
