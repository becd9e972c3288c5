//! What chat templates expect of Python.

use minijinja::value::Kwargs;
use minijinja::{Error, ErrorKind, State, Value as Template};
use minijinja_contrib::pycompat::unknown_method_callback;
use serde_json::Value;

/// How `json.dumps` separates and indents.
struct Style {
    item: String,
    key: String,
    indent: Option<String>,
    ascii: bool,
    sorted: bool,
}

/// transformers' filter `tojson`: `json.dumps(x, ensure_ascii=False)` with its options.
pub(crate) fn tojson(value: Template, options: Kwargs) -> Result<String, Error> {
    if value.is_undefined() {
        return Err(invalid("an undefined value is not JSON".to_owned()));
    }
    let value = serde_json::to_value(&value).map_err(|error| invalid(error.to_string()))?;
    let indent = match options.get::<Option<Template>>("indent")? {
        Some(indent) if !indent.is_none() => Some(match indent.as_str() {
            Some(text) => text.to_owned(),
            None => " ".repeat(usize::try_from(indent.clone())?.min(80)),
        }),
        _ => None,
    };
    let separators = options.get::<Option<Template>>("separators")?.filter(|separators| !separators.is_none());
    let (item, key) = match separators {
        Some(both) => (both.get_item_by_index(0)?.to_string(), both.get_item_by_index(1)?.to_string()),
        None if indent.is_some() => (",".to_owned(), ": ".to_owned()),
        None => (", ".to_owned(), ": ".to_owned()),
    };
    let ascii = options.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false);
    let sorted = options.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    options.assert_all_used()?;
    let mut out = String::new();
    Style { item, key, indent, ascii, sorted }.write(&value, 0, &mut out);
    Ok(out)
}

impl Style {
    fn write(&self, value: &Value, depth: usize, out: &mut String) {
        match value {
            Value::Null | Value::Bool(_) => out.push_str(&value.to_string()),
            Value::Number(number) if number.is_f64() => out.push_str(&float(number.as_f64().unwrap_or(f64::NAN))),
            Value::Number(number) => out.push_str(&number.to_string()),
            Value::String(text) => self.write_text(text, out),
            Value::Array(items) => self.write_all('[', ']', items.iter().map(|item| (None, item)), depth, out),
            Value::Object(object) => {
                let mut entries: Vec<_> = object.iter().map(|(key, value)| (Some(key), value)).collect();
                if self.sorted {
                    entries.sort_by_key(|(key, _)| *key);
                }
                self.write_all('{', '}', entries.into_iter(), depth, out);
            }
        }
    }

    fn write_all<'v>(
        &self,
        open: char,
        close: char,
        entries: impl Iterator<Item = (Option<&'v String>, &'v Value)>,
        depth: usize,
        out: &mut String,
    ) {
        let line = |depth: usize, out: &mut String| {
            if let Some(indent) = &self.indent {
                out.push('\n');
                out.push_str(&indent.repeat(depth));
            }
        };
        out.push(open);
        let mut first = true;
        for (key, value) in entries {
            if !std::mem::take(&mut first) {
                out.push_str(&self.item);
            }
            line(depth + 1, out);
            if let Some(key) = key {
                self.write_text(key, out);
                out.push_str(&self.key);
            }
            self.write(value, depth + 1, out);
        }
        if !first {
            line(depth, out);
        }
        out.push(close);
    }

    fn write_text(&self, text: &str, out: &mut String) {
        let quoted = Value::from(text).to_string();
        if !self.ascii {
            return out.push_str(&quoted);
        }
        for letter in quoted.chars() {
            if letter.is_ascii() && letter != '\u{7f}' {
                out.push(letter);
            } else {
                let mut units = [0; 2];
                letter.encode_utf16(&mut units).iter().for_each(|unit| out.push_str(&format!("\\u{unit:04x}")));
            }
        }
    }
}

/// A float as Python writes it.
fn float(value: f64) -> String {
    let size = value.abs();
    if value == 0.0 || (1e-4..1e16).contains(&size) {
        return format!("{value:?}");
    }
    let text = format!("{value:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |exponent| ('-', exponent));
    format!("{digits}e{sign}{exponent:0>2}")
}

/// The time as `datetime.now().strftime(format)` writes it. `SOURCE_DATE_EPOCH`, a number of seconds since 1970, stands
/// for the time of reproducible runs.
pub(crate) fn strftime_now(format: &str) -> Result<String, Error> {
    let fixed = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|seconds| seconds.parse().ok());
    let now = match fixed.and_then(|seconds| jiff::Timestamp::from_second(seconds).ok()) {
        Some(time) => time.to_zoned(jiff::tz::TimeZone::UTC),
        None => jiff::Zoned::now(),
    };
    jiff::fmt::strtime::format(format, &now).map_err(|error| invalid(error.to_string()))
}

/// Methods of Python's values. The library capitalises words where Python's `title` does so after each sign.
pub(crate) fn method(
    state: &mut State<'_, '_>,
    value: &Template,
    name: &str,
    args: &[Template],
) -> Result<Template, Error> {
    match (name, value.as_str()) {
        ("title", Some(text)) if args.is_empty() => Ok(Template::from(title(text))),
        _ => unknown_method_callback(state, value, name, args),
    }
}

fn title(text: &str) -> String {
    let mut inside = false;
    let letter = |letter: char| -> String {
        let inside = std::mem::replace(&mut inside, letter.is_alphabetic());
        if inside { letter.to_lowercase().collect() } else { letter.to_uppercase().collect() }
    };
    text.chars().map(letter).collect()
}

/// Whether Python could take the length of a value and an item by its number, which is what `is sequence` asks.
pub(crate) fn is_sequence(value: &Template) -> bool {
    use minijinja::value::ValueKind::{Map, Seq, String};
    value.is_undefined() || matches!(value.kind(), Map | Seq | String)
}

/// Ends the rendering with the template's message.
pub(crate) fn raise_exception(message: String) -> Result<Template, Error> {
    Err(invalid(message))
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_those_of_python() {
        for (value, expected) in [
            (0.0, "0.0"),
            (1.0, "1.0"),
            (-2.5, "-2.5"),
            (1e-4, "0.0001"),
            (1e-5, "1e-05"),
            (1.5e16, "1.5e+16"),
            (1e22, "1e+22"),
            (123456789.125, "123456789.125"),
            (-2e-300, "-2e-300"),
        ] {
            assert_eq!(float(value), expected);
        }
    }

    #[test]
    fn titles_are_those_of_python() {
        assert_eq!(title("it's </think> tWO2three élan"), "It'S </Think> Two2Three Élan");
    }
}
