//! Where a JSON value ends.

/// Brackets and strings that are open.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Nesting {
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl Nesting {
    /// Within so many brackets.
    pub(super) fn within(depth: usize) -> Self {
        Self { depth, ..Self::default() }
    }

    /// Takes the next byte; whether it closes the outermost bracket, or a string outside of brackets.
    pub(super) fn closes(&mut self, byte: u8) -> bool {
        if self.in_string {
            self.in_string = self.escaped || byte != b'"';
            self.escaped = !self.escaped && byte == b'\\';
            return !self.in_string && self.depth == 0;
        }
        match byte {
            b'"' => self.in_string = true,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                return self.depth == 0;
            }
            _ => {}
        }
        false
    }

    /// Whether this byte ends a number or a word outside of brackets and strings.
    pub(super) fn ends_before(&self, byte: u8) -> bool {
        self.depth == 0 && !self.in_string && (byte.is_ascii_whitespace() || matches!(byte, b',' | b']' | b'}'))
    }

    /// Bytes of the value at the beginning of a text, where it ends within the text.
    pub(super) fn value(text: &[u8]) -> Option<usize> {
        let mut nesting = Self::default();
        for (at, &byte) in text.iter().enumerate() {
            if nesting.ends_before(byte) {
                return (at > 0).then_some(at);
            }
            if nesting.closes(byte) {
                return Some(at + 1);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, value: Option<&str>) {
        assert_eq!(Nesting::value(text.as_bytes()).map(|end| &text[..end]), value);
    }

    #[test]
    fn values_end_where_their_brackets_close() {
        check(r#"{"a": [1, {"b": "}]"}]} {"#, Some(r#"{"a": [1, {"b": "}]"}]}"#));
        check(r#""a\"b\\" ,"#, Some(r#""a\"b\\""#));
        check("12.5, 3", Some("12.5"));
        check("null}", Some("null"));
        check("{\"a\": 1", None);
        check(", 1", None);
    }
}
