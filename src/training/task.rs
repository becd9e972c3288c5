//! What a training predicts: by the model's outputs, its config.json, and what was asked for.

use super::labels::Labels;
use crate::calib::{LABEL, LABELS};
use crate::hub::config::ModelConfig;
use crate::hub::predictions::{Predicts, predicts};
use crate::init::Prepared;
use crate::onnx::{Dim, ValueInfo};
use crate::train::{Error, Loss, logits};

/// Classes of a classifier whose config.json names none: the default of transformers.
const DEFAULT_CLASSES: usize = 2;

/// What a training predicts.
pub(super) struct Task {
    /// The output that the loss is computed from.
    pub(super) logits: ValueInfo,
    /// How the rows say what is right.
    pub(super) labels: Labels,
}

impl Task {
    /// The loss that was asked for, or that of the class of transformers that config.json names.
    ///
    /// # Errors
    /// When the model has no logits, nothing says what they are, or they are not those of its config.json.
    pub(super) fn of(asked: Option<Loss>, prepared: &Prepared) -> Result<Self, Error> {
        let (model, config) = (prepared.model(), &prepared.named.config);
        let logits = logits(model, asked.is_some())?;
        if let Some(input) = [LABEL, LABELS].into_iter().find(|name| model.inputs().iter().any(|i| i.name == *name)) {
            return Err(Error::LabelInput { input });
        }
        let pairs = prepared.feeds.needs_pairs();
        let labels = match asked {
            Some(loss) if loss.is_per_token() => of_tokens(loss, &logits, prepared)?,
            Some(loss) => Labels::of(loss, classes(&logits, config)?, config.classes.by_name.clone()),
            None => match meant(&logits, prepared)? {
                Predicts::NextTokens if pairs || prepared.feeds.needs_encoder() => {
                    of_tokens(Loss::Seq2SeqLm, &logits, prepared)?
                }
                Predicts::NextTokens => of_tokens(Loss::CausalLm, &logits, prepared)?,
                Predicts::MaskedTokens => of_tokens(Loss::MaskedLm, &logits, prepared)?,
                Predicts::TokenClasses => of_tokens(Loss::TokenClassification, &logits, prepared)?,
                Predicts::Row => of_row(&logits, config)?,
            },
        };
        Ok(Self { logits, labels })
    }

    /// The loss; where the labels decide, that of those read so far.
    pub(super) fn loss(&self) -> Loss {
        self.labels.loss()
    }
}

/// What the class of the model predicts. Without config.json, its logits tell tokens from rows.
fn meant(logits: &ValueInfo, prepared: &Prepared) -> Result<Predicts, Error> {
    let unknown = |reason: String| Err(Error::UnknownLoss { reason });
    if let Some(architecture) = &prepared.named.config.architecture {
        return match predicts(architecture) {
            Some(predicts) => Ok(predicts),
            None => unknown(format!("config.json says that it is a {architecture}")),
        };
    }
    let rank = logits.shape.as_ref().map(Vec::len);
    match (rank, last(logits), prepared.vocabulary()) {
        (Some(2), ..) => Ok(Predicts::Row),
        (_, Some(size), Some(vocabulary)) if size < vocabulary => {
            unknown(format!("there is no config.json, and its {size} logits are fewer than its {vocabulary} tokens"))
        }
        (Some(3), ..) => Ok(Predicts::NextTokens),
        _ => unknown(format!("there is no config.json, and `{}` has an unknown number of dimensions", logits.name)),
    }
}

/// The loss of a classifier, as its classes in transformers choose it.
fn of_row(logits: &ValueInfo, config: &ModelConfig) -> Result<Labels, Error> {
    let count = classes(logits, config)?;
    let names = config.classes.by_name.clone();
    let loss = match config.problem_type.as_deref() {
        Some("regression") => Loss::Regression,
        Some("single_label_classification") => Loss::SingleLabel,
        Some("multi_label_classification") => Loss::MultiLabel,
        Some(other) => {
            return Err(Error::UnknownLoss { reason: format!("config.json has the `problem_type` {other}") });
        }
        None if count == 1 => Loss::Regression,
        None => return Ok(Labels::of_first(count, names)),
    };
    Ok(Labels::of(loss, count, names))
}

/// The classes of a classifier.
fn classes(logits: &ValueInfo, config: &ModelConfig) -> Result<usize, Error> {
    let named = config.classes.count;
    match (last(logits), named) {
        (Some(model), Some(config)) if model != config => {
            Err(Error::Classes { output: logits.name.clone(), model, config })
        }
        (Some(count), _) | (None, Some(count)) => Ok(count),
        (None, None) if config.architecture.is_some() => Ok(DEFAULT_CLASSES),
        (None, None) => {
            Err(Error::UnknownLoss { reason: format!("nothing says how many classes `{}` has", logits.name) })
        }
    }
}

/// The labels of tokens.
fn of_tokens(loss: Loss, logits: &ValueInfo, prepared: &Prepared) -> Result<Labels, Error> {
    let config = &prepared.named.config;
    if loss == Loss::TokenClassification {
        return Ok(Labels::of(loss, classes(logits, config)?, config.classes.by_name.clone()));
    }
    let vocabulary = last(logits).or_else(|| prepared.vocabulary()).unwrap_or(usize::MAX);
    let labels = Labels::of(loss, vocabulary, Default::default());
    let in_pairs = loss == Loss::Seq2SeqLm && prepared.feeds.needs_pairs();
    Ok(if in_pairs { labels.in_pairs() } else { labels })
}

/// The size of the last axis, if it is fixed.
fn last(logits: &ValueInfo) -> Option<usize> {
    match logits.shape.as_ref()?.last()? {
        Dim::Fixed(size) => usize::try_from(*size).ok(),
        _ => None,
    }
}
