//! What a command prints.

use super::error::ExitStatus;
use std::io::{self, Write};

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

/// Writes a line to stderr, which begins with what it is: `error`, `hint` or `note`. Where stderr takes nothing more, as on
/// a full disk, there is nobody to tell.
pub(crate) fn say(what: &str, text: &str) {
    let _ = writeln!(io::stderr(), "{what}: {}", visible(text));
}

/// Escapes control characters, which names in a model may hold, but for the end of a line.
pub(crate) fn visible(text: &str) -> String {
    escaped(text, |c| c.escape_default().collect())
}

/// What a command prints on stdout; a JSON document has the escapes of JSON, and stays the same document.
pub(crate) fn printable(text: &str) -> String {
    let is_json = text.starts_with('{') && text.ends_with("}\n");
    if is_json { escaped(text, |c| format!("\\u{:04x}", u32::from(c))) } else { visible(text) }
}

fn escaped(text: &str, escape: impl Fn(char) -> String) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && c != '\n' || turns(c) { escaped.push_str(&escape(c)) } else { escaped.push(c) }
    }
    escaped
}

/// Whether a character turns the direction of the text that follows it, or begins a line where none is seen.
fn turns(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::{printable, visible};

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(visible("a\u{1b}[31m\tb\nc"), "a\\u{1b}[31m\\tb\nc");
        assert_eq!(visible("q\u{202e}jorp_\u{2066}k é ق"), "q\\u{202e}jorp_\\u{2066}k é ق");
        let document = serde_json::json!({"a\u{9b}\u{202e}": "\u{1b}\n"});
        let printed = printable(&(document.to_string() + "\n"));
        assert_eq!(printed, "{\"a\\u009b\\u202e\":\"\\u001b\\n\"}\n");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&printed).unwrap(), document);
    }
}
