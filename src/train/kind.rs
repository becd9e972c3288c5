//! What a training minimises.

/// The losses of transformers' models (`loss/loss_utils.py` of transformers 4.57).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Each token is predicted from those before it.
    CausalLm,
    /// The decoder of an encoder-decoder predicts the tokens of the target, each from those before it.
    Seq2SeqLm,
    /// Tokens that have a label are predicted at their place.
    MaskedLm,
    /// The class of each token that has a label.
    TokenClassification,
    /// The class of a row.
    SingleLabel,
    /// How much each class applies to a row, from 0 to 1.
    MultiLabel,
    /// Numbers for a row.
    Regression,
}

/// What a loss is of one prediction; the loss of a batch is the mean over all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Term {
    /// The negative log-probability of the right class.
    CrossEntropy,
    /// The negative log-probability of each class, which applies or does not.
    BinaryCrossEntropy,
    /// The square of the difference.
    SquaredError,
}

impl Loss {
    /// Its name on the command line and in files: PEFT's task types, and `problem_type` of transformers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CausalLm => "causal-lm",
            Self::Seq2SeqLm => "seq2seq-lm",
            Self::MaskedLm => "masked-lm",
            Self::TokenClassification => "token-classification",
            Self::SingleLabel => "single-label-classification",
            Self::MultiLabel => "multi-label-classification",
            Self::Regression => "regression",
        }
    }

    /// Whether the logits are [batch, length, classes], and not [batch, classes].
    pub(crate) fn is_per_token(self) -> bool {
        !matches!(self, Self::SingleLabel | Self::MultiLabel | Self::Regression)
    }

    /// The shape of the logits, for a message.
    pub(crate) fn logits(self) -> &'static str {
        match self {
            Self::CausalLm | Self::Seq2SeqLm | Self::MaskedLm => "[batch, length, vocabulary]",
            Self::TokenClassification => "[batch, length, classes]",
            Self::SingleLabel | Self::MultiLabel => "[batch, classes]",
            Self::Regression => "[batch, numbers]",
        }
    }

    pub(super) fn term(self) -> Term {
        match self {
            Self::MultiLabel => Term::BinaryCrossEntropy,
            Self::Regression => Term::SquaredError,
            _ => Term::CrossEntropy,
        }
    }
}
