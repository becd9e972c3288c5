//! Choosing layers by module name, the way PEFT does.

use std::collections::BTreeSet;

use regex::Regex;

use super::error::{Error, pattern};
use super::layer::{Linear, Skipped};
use super::module::{is_suffix, leaf};

/// Which modules are meant.
#[derive(Clone, Debug)]
pub enum Targets {
    /// Every linear layer but the output head.
    AllLinear,
    /// Modules whose path is one of these or ends in a dot and one of these.
    Suffixes(Vec<String>),
    /// Modules whose whole path the expression matches.
    Regex(Regex),
}

impl Targets {
    /// Parses what a user gives: `all-linear`, names separated by commas or given one by one, or one regular
    /// expression.
    ///
    /// A single value is an expression if it has one of the characters `\^$*+?()[]{}|`.
    pub fn parse(values: &[String]) -> Result<Targets, Error> {
        match values {
            [value] if value == "all-linear" => Ok(Targets::AllLinear),
            [value] if value.contains(|letter| r"\^$*+?()[]{}|".contains(letter)) => Targets::regex(value),
            values => {
                let names = values.iter().flat_map(|value| value.split(',')).map(str::trim);
                Ok(Targets::Suffixes(names.filter(|name| !name.is_empty()).map(str::to_owned).collect()))
            }
        }
    }

    /// Modules whose whole path `expression` matches.
    pub fn regex(expression: &str) -> Result<Targets, Error> {
        pattern(expression, &format!("^(?:{expression})$")).map(Targets::Regex)
    }

    fn matches(&self, linear: &Linear, module: &str) -> bool {
        match self {
            Targets::AllLinear => !linear.head,
            _ => self.names(module),
        }
    }

    /// Whether they are names, and that of `module` is among them.
    pub(crate) fn names(&self, module: &str) -> bool {
        match self {
            Targets::AllLinear => false,
            Targets::Suffixes(names) => names.iter().any(|name| is_suffix(module, name)),
            Targets::Regex(regex) => regex.is_match(module),
        }
    }

    /// Each name by itself.
    pub(crate) fn each(&self) -> Vec<Targets> {
        match self {
            Targets::Suffixes(names) => names.iter().map(|name| Targets::Suffixes(vec![name.clone()])).collect(),
            other => vec![other.clone()],
        }
    }

    fn text(&self) -> String {
        match self {
            Targets::AllLinear => "all-linear".to_owned(),
            Targets::Suffixes(names) => names.join(","),
            Targets::Regex(regex) => regex.as_str().trim_start_matches("^(?:").trim_end_matches(")$").to_owned(),
        }
    }
}

/// The parts that `targets` names and `exclude` does not: pairs of an index into `linears` and one into its modules.
///
/// Fails if there are none; the error lists the last components of the names that exist. Fails too if one of the names
/// is that of modules in `skipped` alone.
pub fn select(
    linears: &[Linear],
    skipped: &[Skipped],
    targets: &Targets,
    exclude: Option<&Targets>,
) -> Result<Vec<(usize, usize)>, Error> {
    let all = linears.iter().enumerate().flat_map(|(index, linear)| {
        linear.modules.iter().enumerate().map(move |(part, module)| (index, part, linear, module.module.as_str()))
    });
    let all: Vec<_> = all.collect();
    if all.is_empty() {
        return Err(Error::NoLinears);
    }
    for target in targets.each() {
        if !all.iter().any(|(_, _, linear, module)| target.matches(linear, module)) {
            refuse_skipped(skipped, &target)?;
        }
    }
    let targeted: Vec<_> = all.iter().filter(|(_, _, linear, module)| targets.matches(linear, module)).collect();
    if targeted.is_empty() {
        let leaves: BTreeSet<&str> = all.iter().map(|(.., module)| leaf(module)).collect();
        let leaves = leaves.into_iter().map(str::to_owned).collect();
        return Err(Error::NothingTargeted { targets: targets.text(), leaves });
    }
    let excluded = |linear: &Linear, module: &str| exclude.is_some_and(|exclude| exclude.matches(linear, module));
    let kept = targeted.into_iter().filter(|(_, _, linear, module)| !excluded(linear, module));
    let kept: Vec<_> = kept.map(|(index, part, ..)| (*index, *part)).collect();
    match exclude {
        Some(exclude) if kept.is_empty() => Err(Error::AllExcluded { exclude: exclude.text() }),
        _ => Ok(kept),
    }
}

/// Fails with the reason if `target` is the name of a module that cannot be used.
fn refuse_skipped(skipped: &[Skipped], target: &Targets) -> Result<(), Error> {
    let named = skipped.iter().find_map(|node| Some((node, node.modules.iter().find(|module| target.names(module))?)));
    named.map_or(Ok(()), |(node, module)| {
        Err(Error::Skipped { target: target.text(), module: module.clone(), reason: Box::new(node.reason.clone()) })
    })
}

#[cfg(test)]
mod tests {
    use super::super::layer::{LayerInput, LayerOutput, LayerWeight, Location, NamedBy, Part};
    use super::*;
    use crate::dtype::DType;
    use crate::hint::Hint;
    use crate::linear::reason::Reason;

    fn linear(modules: &[&str], head: bool) -> Linear {
        Linear {
            at: Location::default(),
            input: LayerInput::default(),
            output: LayerOutput::default(),
            weight: LayerWeight { tensor: String::new(), dtype: DType::F32, bias: None, fan_in_fan_out: false },
            in_features: 2,
            out_features: 2,
            modules: modules.iter().map(|module| Part::whole(*module)).collect(),
            named_by: NamedBy::Node,
            head,
            conditional: false,
        }
    }

    fn linears() -> Vec<Linear> {
        vec![
            linear(&["layers.0.q_proj", "layers.0.k_proj"], false),
            linear(&["layers.1.xq_proj"], false),
            linear(&["lm_head"], true),
        ]
    }

    fn skipped() -> Vec<Skipped> {
        let modules = vec!["layers.0.out_proj".to_owned()];
        vec![Skipped { node: "n".to_owned(), op: "Gemm".to_owned(), modules, reason: Reason::Bypassed }]
    }

    #[track_caller]
    fn check(targets: &[&str], exclude: Option<&str>, expected: &[(usize, usize)]) {
        let targets: Vec<String> = targets.iter().map(|value| (*value).to_owned()).collect();
        let exclude = exclude.map(|value| Targets::parse(&[value.to_owned()]).unwrap());
        let found = select(&linears(), &skipped(), &Targets::parse(&targets).unwrap(), exclude.as_ref()).unwrap();
        assert_eq!(found, expected);
    }

    #[test]
    fn targets() {
        check(&["all-linear"], None, &[(0, 0), (0, 1), (1, 0)]);
        check(&["q_proj"], None, &[(0, 0)]);
        check(&["q_proj,k_proj"], None, &[(0, 0), (0, 1)]);
        check(&["0.k_proj", "lm_head"], None, &[(0, 1), (2, 0)]);
        check(&[r".*\.[qk]_proj"], None, &[(0, 0), (0, 1)]);
        check(&[r".*q_proj|lm_head"], None, &[(0, 0), (1, 0), (2, 0)]);
        check(&["all-linear"], Some("k_proj"), &[(0, 0), (1, 0)]);
        check(&["all-linear"], Some(r"layers\.0\..*"), &[(1, 0)]);
        check(&[r"layers\.0\..*"], None, &[(0, 0), (0, 1)]);
    }

    #[test]
    fn nothing_left() {
        let select = |targets: &str, exclude: &str| {
            let parse = |value: &str| Targets::parse(&[value.to_owned()]).unwrap();
            select(&linears(), &skipped(), &parse(targets), Some(&parse(exclude))).unwrap_err()
        };
        let error = select("c_attn", "x");
        assert_eq!(error.to_string(), "no linear layer matches the target modules `c_attn`");
        assert_eq!(error.hint().unwrap(), "the model has modules called k_proj, lm_head, q_proj, xq_proj");
        let error = select("^lay", "x");
        assert_eq!(error.to_string(), "no linear layer matches the target modules `^lay`");
        assert!(matches!(select("q_proj", "q_proj"), Error::AllExcluded { .. }));
        assert!(matches!(Targets::regex("("), Err(Error::BadPattern { .. })));
        for targets in ["out_proj", "q_proj,out_proj", ".*out_proj"] {
            let error = select(targets, "x");
            let message = error.to_string();
            assert!(message.contains("`layers.0.out_proj`, which is left out: PyTorch never calls"), "{message}");
            assert!(error.hint().unwrap().contains("--target-modules"));
        }
    }
}
