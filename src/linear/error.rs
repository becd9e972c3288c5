//! Errors of choosing and renaming layers.

use super::reason::Reason;
use crate::hint::Hint;
use regex::Regex;

/// What can be wrong with the choice or the names of layers.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A regular expression does not parse.
    #[error("`{pattern}` is not a regular expression: {reason}")]
    BadPattern {
        /// The expression.
        pattern: String,
        /// The parser's message, on one line.
        reason: String,
    },
    /// A renaming rule is not of the form `REGEX=REPLACEMENT`.
    #[error("the renaming rule `{rule}` has no `=`")]
    BadRule {
        /// The rule.
        rule: String,
    },
    /// No linear layer is targeted.
    #[error("no linear layer matches the target modules `{targets}`")]
    NothingTargeted {
        /// The targets as given.
        targets: String,
        /// Distinct last components of the module names that exist.
        leaves: Vec<String>,
    },
    /// A target is only the name of modules that cannot be used.
    #[error("the target modules `{target}` name `{module}`, which is left out: {reason}")]
    Skipped {
        /// The target.
        target: String,
        /// A module of that name.
        module: String,
        /// Why it cannot be used.
        reason: Box<Reason>,
    },
    /// Every targeted layer is excluded again.
    #[error("the excluded modules `{exclude}` are all the targeted ones")]
    AllExcluded {
        /// The exclusion as given.
        exclude: String,
    },
    /// The model has no linear layer with a name.
    #[error("the model has no linear layer that can be used")]
    NoLinears,
    /// Renaming leaves a module without a name.
    #[error("renaming leaves `{module}` without a name")]
    EmptyName {
        /// The module before.
        module: String,
    },
    /// Renaming gives layers with different weights the same name.
    #[error("renaming gives the name `{module}` to layers with different weights")]
    SameName {
        /// The name.
        module: String,
    },
}

impl Hint for Error {
    fn hint(&self) -> Option<String> {
        match self {
            Error::BadRule { .. } => Some("write it as `REGEX=REPLACEMENT`, for example `^inner\\.=`".to_owned()),
            Error::NothingTargeted { leaves, .. } => {
                Some(format!("the model has modules called {}", leaves.join(", ")))
            }
            Error::Skipped { target, .. } => Some(format!(
                "leave `{target}` out of --target-modules; `eva-onnx inspect` lists the modules to choose from"
            )),
            Error::NoLinears => Some(
                "`eva-onnx inspect` lists what was skipped and why; for a model that is not of PyTorch, --names nodes takes \
                 the names of its graph"
                    .to_owned(),
            ),
            _ => None,
        }
    }
}

/// Compiles `expression`, which stems from what the user gave.
pub(crate) fn pattern(given: &str, expression: &str) -> Result<Regex, Error> {
    Regex::new(expression).map_err(|error| {
        let text = error.to_string();
        let reason = text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
        Error::BadPattern { pattern: given.to_owned(), reason }
    })
}
