//! Text templates such as `{question}\n{answer}`.

use serde_json::Value;

use super::error::Error;
use super::row::{FieldValue, Row};

/// A parsed text template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(String),
    Field(String),
}

impl Template {
    /// Parses literal text with field names in braces; `{{` and `}}` are literal braces.
    pub(crate) fn parse(template: &str) -> Result<Self, Error> {
        let fail = |message, at| Error::Template { template: template.to_owned(), message, at };
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = template;
        while let Some(brace) = rest.find(['{', '}']) {
            let at = template.len() - rest.len() + brace;
            literal.push_str(&rest[..brace]);
            rest = &rest[brace..];
            if let Some(tail) = rest.strip_prefix("{{") {
                literal.push('{');
                rest = tail;
            } else if let Some(tail) = rest.strip_prefix("}}") {
                literal.push('}');
                rest = tail;
            } else if let Some(tail) = rest.strip_prefix('{') {
                let end = tail.find(['{', '}']).filter(|&end| tail.as_bytes()[end] == b'}');
                let end = end.ok_or_else(|| fail("a brace that is never closed", at))?;
                if end == 0 {
                    return Err(fail("braces without a field name", at));
                }
                if !literal.is_empty() {
                    parts.push(Part::Literal(std::mem::take(&mut literal)));
                }
                parts.push(Part::Field(tail[..end].to_owned()));
                rest = &tail[end + 1..];
            } else {
                return Err(fail("a closing brace without an opening one", at));
            }
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Literal(literal));
        }
        if !parts.iter().any(|part| matches!(part, Part::Field(_))) {
            return Err(fail("no field", template.len()));
        }
        Ok(Self { parts })
    }

    /// A template that is one field.
    pub(crate) fn field(name: &str) -> Self {
        Self { parts: vec![Part::Field(name.to_owned())] }
    }

    /// Fills the fields in; strings as they are, numbers and booleans as JSON writes them.
    pub(crate) fn render(&self, row: &Row) -> Result<String, Error> {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Literal(literal) => text.push_str(literal),
                Part::Field(name) => text.push_str(&value_text(row, name)?),
            }
        }
        Ok(text)
    }
}

fn value_text(row: &Row, name: &str) -> Result<String, Error> {
    match row.fields.get(name) {
        None => Err(Error::MissingField {
            origin: row.origin.clone(),
            field: name.to_owned(),
            fields: row.fields.names().map(str::to_owned).collect(),
        }),
        Some(FieldValue::Json(Value::String(text))) => Ok(text.clone()),
        Some(FieldValue::Json(value @ (Value::Number(_) | Value::Bool(_)))) => Ok(value.to_string()),
        Some(other) => Err(Error::FieldType {
            origin: row.origin.clone(),
            field: name.to_owned(),
            expected: "a string, a number or a boolean",
            got: other.kind().to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calib::row::testing;

    /// Renders `template` over a fixed row, or says what is wrong and where.
    fn outcome(template: &str) -> String {
        let row = testing::row(r#"{"q": "why", "a": "b{c}", "n": 3, "t": true, "null": null, "l": []}"#);
        let text = Template::parse(template).and_then(|template| template.render(&row));
        match text {
            Ok(text) => text,
            Err(Error::Template { message, at, .. }) => format!("{message} at {at}"),
            Err(Error::MissingField { field, .. }) => format!("no {field}"),
            Err(Error::FieldType { field, got, .. }) => format!("{field} is {got}"),
            Err(other) => other.to_string(),
        }
    }

    #[track_caller]
    fn check(template: &str, expected: &str) {
        assert_eq!(outcome(template), expected);
    }

    #[test]
    fn templates() {
        check("{q}", "why");
        check("Q: {q}\nA: {a}", "Q: why\nA: b{c}");
        check("{n}{t}", "3true");
        check("{{{q}}}", "{why}");
        check("{{q}} é{q}é", "{q} éwhyé");
        check("{x}", "no x");
        check("{null}", "null is null");
        check("{l}", "l is an array");
        check("", "no field at 0");
        check("plain", "no field at 5");
        check("a{q", "a brace that is never closed at 1");
        check("a{q{a}", "a brace that is never closed at 1");
        check("{}", "braces without a field name at 0");
        check("{q} }", "a closing brace without an opening one at 4");
    }

    #[test]
    fn field_names_may_hold_anything_but_braces() {
        assert_eq!(Template::parse("{a b.c}").unwrap(), Template::field("a b.c"));
    }
}
