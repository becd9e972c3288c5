//! What the models of transformers predict.

/// What a model of transformers predicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Predicts {
    /// Tokens, each from those before it.
    NextTokens,
    /// Tokens that are masked in the input.
    MaskedTokens,
    /// The class of each token.
    TokenClasses,
    /// Classes or numbers for a row.
    Row,
}

/// What models predict, by the ends of the names of their classes. Source: `LOSS_MAPPING` of `loss/loss_utils.py`, and
/// the losses of `modeling`.
const PREDICTIONS: [(&str, Predicts); 11] = [
    // XLM and FlauBERT, which are masked language models unless their config says otherwise.
    ("WithLMHeadModel", Predicts::MaskedTokens),
    ("ForCausalLM", Predicts::NextTokens),
    ("LMHeadModel", Predicts::NextTokens),
    ("ForConditionalGeneration", Predicts::NextTokens),
    ("MTModel", Predicts::NextTokens),
    ("ForMaskedLM", Predicts::MaskedTokens),
    ("ForTokenClassification", Predicts::TokenClasses),
    ("ForSequenceClassification", Predicts::Row),
    ("ForImageClassification", Predicts::Row),
    ("ForAudioClassification", Predicts::Row),
    ("ForVideoClassification", Predicts::Row),
];

/// What a class of transformers predicts, if its loss is known.
pub(crate) fn predicts(architecture: &str) -> Option<Predicts> {
    PREDICTIONS.iter().find(|(ending, _)| architecture.ends_with(ending)).map(|(_, predicts)| *predicts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn predictions_by_architecture() {
        assert_eq!(predicts("GPT2LMHeadModel"), Some(Predicts::NextTokens));
        assert_eq!(predicts("ViTForImageClassification"), Some(Predicts::Row));
        assert_eq!(predicts("BertForMaskedLM"), Some(Predicts::MaskedTokens));
        assert_eq!(predicts("BertForQuestionAnswering"), None);
        assert_eq!(predicts("BertModel"), None);
    }
}
