//! Adjusting module names before they are used.

use std::collections::HashMap;

use regex::Regex;

use super::error::{Error, pattern};
use super::layer::{Linear, Skipped};

/// Changes to module names, applied in the order of the fields.
#[derive(Clone, Debug, Default)]
pub struct Rename {
    /// Dropped from the start of names that have it, with the dot that follows.
    strip_prefix: Option<String>,
    /// Replacements for every match of an expression, in order.
    rules: Vec<(Regex, String)>,
    /// Put before every name, with a dot.
    add_prefix: Option<String>,
}

impl Rename {
    /// Parses renaming rules of the form `REGEX=REPLACEMENT`, where the replacement may use `$1` and `${name}`.
    pub fn new(strip_prefix: Option<&str>, add_prefix: Option<&str>, rules: &[String]) -> Result<Rename, Error> {
        let prefix = |prefix: Option<&str>| {
            let prefix = prefix.map(|prefix| prefix.trim_end_matches('.')).filter(|prefix| !prefix.is_empty());
            prefix.map(|prefix| format!("{prefix}."))
        };
        let rule = |rule: &String| {
            let (regex, to) = rule.rsplit_once('=').ok_or_else(|| Error::BadRule { rule: rule.clone() })?;
            Ok((pattern(regex, regex)?, to.to_owned()))
        };
        Ok(Rename {
            strip_prefix: prefix(strip_prefix),
            rules: rules.iter().map(rule).collect::<Result<_, _>>()?,
            add_prefix: prefix(add_prefix),
        })
    }

    /// Renames the modules of all layers, and of the nodes that are not used; fails if the name of a layer vanishes or
    /// two weights end up under one name.
    pub fn apply(&self, linears: &mut [Linear], skipped: &mut [Skipped]) -> Result<(), Error> {
        let mut before: HashMap<String, String> = HashMap::new();
        for module in skipped.iter_mut().flat_map(|node| &mut node.modules) {
            *module = self.name(module);
        }
        for part in linears.iter_mut().flat_map(|linear| &mut linear.modules) {
            let new = self.name(&part.module);
            if new.is_empty() {
                return Err(Error::EmptyName { module: part.module.clone() });
            }
            let old = before.entry(new.clone()).or_insert_with(|| part.module.clone());
            if *old != part.module {
                return Err(Error::SameName { module: new });
            }
            part.module = new;
        }
        Ok(())
    }

    fn name(&self, module: &str) -> String {
        let stripped = self.strip_prefix.as_ref().and_then(|prefix| module.strip_prefix(prefix.as_str()));
        let mut name = stripped.unwrap_or(module).to_owned();
        for (regex, to) in &self.rules {
            name = regex.replace_all(&name, to).into_owned();
        }
        match &self.add_prefix {
            Some(prefix) if !name.is_empty() => format!("{prefix}{name}"),
            _ => name,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(strip: Option<&str>, add: Option<&str>, rules: &[&str], module: &str, renamed: &str) {
        let rules: Vec<String> = rules.iter().map(|rule| (*rule).to_owned()).collect();
        let rename = Rename::new(strip, add, &rules).unwrap();
        assert_eq!(rename.name(module), renamed);
    }

    #[test]
    fn prefixes_and_rules() {
        check(None, None, &[], "a.b", "a.b");
        check(Some("inner"), None, &[], "inner.a", "a");
        check(Some("inner."), None, &[], "inner2.a", "inner2.a");
        check(None, Some("bert"), &[], "encoder.q", "bert.encoder.q");
        check(None, None, &[r"^layers\.(\d+)=model.encoder.layers.$1"], "layers.3.q", "model.encoder.layers.3.q");
        check(Some("x"), Some("y"), &["^a$=b"], "x.a", "y.b");
    }

    #[test]
    fn bad_rules() {
        assert!(matches!(Rename::new(None, None, &["a".to_owned()]), Err(Error::BadRule { .. })));
        assert!(matches!(Rename::new(None, None, &["(=a".to_owned()]), Err(Error::BadPattern { .. })));
    }
}
