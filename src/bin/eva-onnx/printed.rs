//! What a command prints when it has succeeded.

use super::error::ExitStatus;

/// The result of a command.
#[derive(Default)]
pub(crate) struct Printed {
    /// Text for stdout.
    pub(crate) text: String,
    /// Whether the text has colours: then control characters of names are escaped in it already.
    pub(crate) is_styled: bool,
    /// Remarks for stderr.
    pub(crate) notes: Vec<String>,
    /// Exit status.
    pub(crate) status: ExitStatus,
}

/// Escapes control characters, which names in a model may hold, but for the end of a line.
pub(crate) fn visible(text: &str) -> String {
    let mut visible = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && c != '\n' { visible.extend(c.escape_default()) } else { visible.push(c) }
    }
    visible
}

#[cfg(test)]
mod tests {
    use super::visible;

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(visible("a\u{1b}[31m\tb\nc"), "a\\u{1b}[31m\\tb\nc");
    }
}
