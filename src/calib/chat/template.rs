//! Chat templates, rendered as transformers' `apply_chat_template` does.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, Serde};
use minijinja::{Environment, Error, ErrorKind, State, UndefinedBehavior, Value};
use regex::Regex;
use std::io::{self, Write};
use std::ops::Range;

use super::python;

/// Steps of a rendering, and its memory in units of 64 bytes.
const FUEL: u64 = 4_000_000;
/// Longest text of a conversation in bytes.
const LONGEST: usize = 64 << 20;
/// These surround what the assistant says. They are no characters, and stand in no text.
const MARKS: [char; 2] = ['\u{fdd0}', '\u{fdd1}'];

/// A compiled template.
pub(crate) struct Template {
    environment: Environment<'static>,
    /// Whether it tells what the assistant says, by `{% generation %}`.
    pub(crate) tells: bool,
}

/// The text of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rendered {
    pub(crate) text: String,
    /// What the template marks as said by the assistant, in bytes.
    pub(crate) said: Vec<Range<usize>>,
}

impl Template {
    /// Compiles a template.
    pub(crate) fn new(source: &str) -> Result<Self, Error> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?;
        environment.set_syntax(syntax);
        environment.set_undefined_behavior(UndefinedBehavior::Lenient);
        environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
        environment.set_unknown_method_callback(python::method);
        environment.set_fuel(Some(FUEL));
        environment.add_filter("tojson", python::tojson);
        environment.add_test("sequence", |value: &Value| python::is_sequence(value));
        environment.add_function("raise_exception", python::raise_exception);
        environment.add_function("strftime_now", |format: String| python::strftime_now(&format));
        environment.add_function("generation_of_the_assistant", said);
        let (source, tells) = with_calls(source);
        environment.add_template_owned(NAME, source)?;
        Ok(Self { environment, tells })
    }

    /// The text of a conversation whose variables are given.
    pub(crate) fn render(&self, variables: &serde_json::Map<String, serde_json::Value>) -> Result<Rendered, Error> {
        if self.tells && serde_json::Value::from(variables.clone()).to_string().contains(MARKS) {
            return Err(Error::new(ErrorKind::InvalidOperation, "the conversation holds U+FDD0 or U+FDD1"));
        }
        let mut out = Bounded(Vec::new());
        self.environment.get_template(NAME)?.render_captured_to(Value::from(Serde(variables)), &mut out)?;
        let text = String::from_utf8(out.0).map_err(|_| Error::new(ErrorKind::WriteFailure, "not UTF-8"))?;
        Ok(if self.tells { unmarked(&text) } else { Rendered { text, said: Vec::new() } })
    }
}

/// Name of the template in messages.
const NAME: &str = "chat template";

/// The template with its own tags of transformers as calls: what stands between is the body of a macro, as there.
fn with_calls(source: &str) -> (String, bool) {
    let replaced = |source: &str, tag: &str, with: &str| {
        // The pattern is a constant.
        let Ok(pattern) = Regex::new(&format!(r"\{{%([-+]?)\s*{tag}\s*([-+]?)%\}}")) else { return source.to_owned() };
        pattern.replace_all(source, format!("{{%$1 {with} $2%}}")).into_owned()
    };
    let called = replaced(source, "generation", "call generation_of_the_assistant()");
    let tells = called != source;
    (replaced(&called, "endgeneration", "endcall"), tells)
}

/// What the assistant says, between marks.
fn said(state: &mut State<'_, '_>, options: Kwargs) -> Result<String, Error> {
    let caller: Value = options.get("caller")?;
    let said = caller.call(state, &[])?;
    Ok(format!("{}{said}{}", MARKS[0], MARKS[1]))
}

/// The text without marks, and what they surround.
fn unmarked(marked: &str) -> Rendered {
    let mut rendered = Rendered { text: String::with_capacity(marked.len()), said: Vec::new() };
    let mut start = None;
    for piece in marked.split_inclusive(MARKS) {
        let plain = piece.trim_end_matches(MARKS);
        rendered.text.push_str(plain);
        match piece[plain.len()..].chars().next() {
            Some(mark) if mark == MARKS[0] => start = Some(rendered.text.len()),
            Some(_) => rendered.said.extend(start.take().map(|start| start..rendered.text.len())),
            None => {}
        }
    }
    rendered
}

/// Text up to the longest.
struct Bounded(Vec<u8>);

impl Write for Bounded {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > LONGEST {
            return Err(io::Error::other(format!("the text has over {LONGEST} bytes")));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
