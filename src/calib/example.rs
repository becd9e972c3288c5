//! A tokenised row with its masks.

use super::content::{Completion, Ids};
use super::error::Error;
use super::input::TensorInput;
use super::row::RowOrigin;
use super::tensors::{NamedTensor, of_tokens};
use super::tokenizer::Tokenized;

/// A tokenised row, cut to the maximal length; every list has the length of `ids`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Example {
    /// Where the row comes from.
    pub(crate) origin: RowOrigin,
    pub(crate) ids: Vec<u32>,
    /// `None` when nothing distinguishes them from zeros.
    pub(crate) types: Option<Vec<u32>>,
    /// Positions that the row gives; else they follow from the attended tokens.
    pub(crate) positions: Option<Vec<u32>>,
    /// Tokens that are no padding.
    pub(crate) attended: Vec<bool>,
    /// Attended tokens that enter the statistics.
    pub(crate) keep: Vec<bool>,
    /// Token ids of the encoder and which of them are attended; the other lists are then the decoder's.
    pub(crate) source: Option<(Vec<u32>, Vec<bool>)>,
    /// Other inputs of the model by name, without the axis of the batch.
    pub(crate) tensors: Vec<NamedTensor>,
    /// Whether tokens were cut off.
    pub(crate) truncated: bool,
    /// Lengths of `ids` and of the encoder's with the padding that they came with.
    pub(crate) given: [usize; 2],
}

impl Example {
    /// Whether the row came with padding.
    pub(crate) fn is_stripped(&self) -> bool {
        let source = self.source.as_ref().map_or(0, |(ids, _)| ids.len());
        self.given != [self.ids.len(), source]
    }

    /// The same example with the tensors of its row too, which was not cut.
    ///
    /// # Errors
    /// When a tensor does not have an entry for each token.
    pub(crate) fn with(self, (tensors, inputs): Tensors<'_>) -> Result<Self, Error> {
        let all: Vec<usize> = (0..self.ids.len()).collect();
        let mut tensors = of_tokens(tensors, inputs, (all.len(), &all), &self.origin)?;
        tensors.extend(self.tensors);
        Ok(Self { tensors, ..self })
    }
}

/// The tensors of a row, and the inputs that they are for.
pub(crate) type Tensors<'a> = (Vec<NamedTensor>, &'a [TensorInput]);

/// An example of a model that reads no tokens. It counts as one token, all of whose rows enter the statistics.
pub(crate) fn without_tokens(tensors: Vec<NamedTensor>, origin: RowOrigin) -> Example {
    let alone = |named| NamedTensor { token_axes: Vec::new(), ..named };
    Example {
        origin,
        ids: vec![0],
        types: None,
        positions: None,
        attended: vec![true],
        keep: vec![true],
        source: None,
        tensors: tensors.into_iter().map(alone).collect(),
        truncated: false,
        given: [1, 0],
    }
}

/// How rows are masked and cut.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Longest row, in tokens.
    pub(crate) max_length: usize,
    /// Only completions enter the statistics.
    pub(crate) completion_only: bool,
    /// Whether the model is told which tokens are attended.
    pub(crate) masks: bool,
}

/// An example from a row that is tokenised already.
///
/// Padding at both ends is dropped, the rest cut on the right. Labels of -100 mask tokens out. Where the model reads no
/// mask, tokens that are not attended are dropped wherever they are.
pub(crate) fn from_ids(
    row: Ids,
    (tensors, inputs): Tensors<'_>,
    limits: Limits,
    origin: RowOrigin,
) -> Result<Example, Error> {
    if limits.completion_only && row.labelled.is_none() {
        return Err(Error::NoCompletion { origin });
    }
    let attended = row.attended.unwrap_or_else(|| vec![true; row.ids.len()]);
    let keep: Vec<bool> = match &row.labelled {
        Some(labelled) => attended.iter().zip(labelled).map(|(&a, &l)| a && l).collect(),
        None => attended.clone(),
    };
    let first = attended.iter().position(|&attended| attended).unwrap_or(0);
    let end = attended.iter().rposition(|&attended| attended).map_or(0, |last| last + 1);
    let mut wanted: Vec<usize> = (first..end).filter(|&at| limits.masks || attended[at]).collect();
    let truncated = wanted.len() > limits.max_length;
    wanted.truncate(limits.max_length);
    let given = if wanted.is_empty() { 0 } else { row.ids.len().min(limits.max_length) };
    let tensors = of_tokens(tensors, inputs, (row.ids.len(), &wanted), &origin)?;
    Ok(Example {
        origin,
        ids: picked(&row.ids, &wanted),
        types: row.types.map(|types| picked(&types, &wanted)),
        positions: row.positions.map(|positions| picked(&positions, &wanted)),
        attended: picked(&attended, &wanted),
        keep: picked(&keep, &wanted),
        source: None,
        tensors,
        truncated,
        given: [given, 0],
    })
}

fn picked<T: Copy>(all: &[T], wanted: &[usize]) -> Vec<T> {
    wanted.iter().map(|&at| all[at]).collect()
}

/// An example from the tokens of a text.
///
/// Special tokens alone give an empty example.
pub(crate) fn from_text(
    text: Tokenized,
    completion: Option<&Completion>,
    limits: Limits,
    origin: RowOrigin,
) -> Result<Example, Error> {
    let text = if text.special.iter().all(|special| *special) {
        Tokenized { truncated: text.truncated, ..Tokenized::default() }
    } else {
        text
    };
    let length = text.ids.len();
    let keep = match (limits.completion_only, completion) {
        (false, _) => vec![true; length],
        (true, Some(Completion::From(start))) => beginning_at(&text, *start),
        (true, Some(Completion::Within(ranges))) => {
            let reaches = |(start, end): &(usize, usize)| {
                ranges.iter().any(|range| *start < range.end && range.start < (*end).max(start + 1))
            };
            text.offsets.iter().map(reaches).collect()
        }
        (true, None) => return Err(Error::NoCompletion { origin }),
    };
    Ok(Example {
        origin,
        ids: text.ids,
        types: text.types.iter().any(|&id| id != 0).then_some(text.types),
        positions: None,
        attended: vec![true; length],
        keep,
        source: None,
        tensors: Vec::new(),
        truncated: text.truncated,
        given: [length, 0],
    })
}

/// Tokens that begin at byte `start` or later; a special token belongs to the text before it.
///
/// Special tokens before the text thus belong to the prompt, those after it to the completion.
fn beginning_at(text: &Tokenized, start: usize) -> Vec<bool> {
    let first = text.special.iter().position(|special| !special).unwrap_or(text.special.len());
    let tokens = text.special.iter().zip(&text.offsets).enumerate();
    tokens.map(|(token, (special, offsets))| if *special { token > first } else { offsets.0 >= start }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calib::row::testing::origin;

    fn ids(ids: &[u32], attended: Option<&str>, labelled: Option<&str>) -> Ids {
        let flags = |flags: &str| flags.chars().map(|c| c == '1').collect();
        let (attended, labelled) = (attended.map(flags), labelled.map(flags));
        Ids { ids: ids.to_vec(), attended, labelled, types: None, positions: None }
    }

    /// Ids, then `attended/keep` as digits, then `+` when truncated.
    #[track_caller]
    fn check(row: Ids, max_length: usize, expected: &str) {
        check_as(row, Limits { max_length, completion_only: false, masks: true }, expected);
    }

    #[track_caller]
    fn check_as(row: Ids, limits: Limits, expected: &str) {
        let example = from_ids(row, Tensors::default(), limits, origin()).unwrap();
        let digits = |flags: &[bool]| flags.iter().map(|&f| if f { '1' } else { '0' }).collect::<String>();
        let cut = if example.truncated { "+" } else { "" };
        let masks = format!("{}/{}", digits(&example.attended), digits(&example.keep));
        assert!((example.ids.len()..=limits.max_length).contains(&example.given[0]), "{:?}", example.given);
        assert_eq!(format!("{:?} {masks}{cut}", example.ids), expected);
    }

    #[test]
    fn rows_of_ids() {
        check(ids(&[5, 6, 7], None, None), 9, "[5, 6, 7] 111/111");
        check(ids(&[5, 6, 7], None, None), 2, "[5, 6] 11/11+");
        check(ids(&[5, 6, 7], None, Some("011")), 9, "[5, 6, 7] 111/011");
        check(ids(&[5, 6, 7], Some("010"), Some("111")), 9, "[6] 1/1");
        check(ids(&[5, 6, 0, 0], Some("1100"), None), 2, "[5, 6] 11/11");
        check(ids(&[0, 0, 5, 6, 7, 0], Some("001110"), Some("111011")), 9, "[5, 6, 7] 111/101");
        check(ids(&[0, 0, 5, 6, 7], Some("00111"), None), 2, "[5, 6] 11/11+");
        check(ids(&[0, 5, 6, 7], Some("0101"), None), 9, "[5, 6, 7] 101/101");
        check(ids(&[5, 6], Some("00"), None), 2, "[] /");
        check(ids(&[], None, None), 2, "[] /");
    }

    #[test]
    fn without_a_mask_only_attended_tokens_are_left() {
        let limits = Limits { max_length: 2, completion_only: false, masks: false };
        check_as(ids(&[0, 5, 6, 7, 0], Some("01010"), None), limits, "[5, 7] 11/11");
        check_as(ids(&[5, 6, 7, 8], Some("1011"), None), limits, "[5, 7] 11/11+");
    }

    #[test]
    fn what_belongs_to_a_token_goes_with_it() {
        let limits = Limits { max_length: 2, completion_only: false, masks: true };
        let row = Ids {
            types: Some(vec![0, 1, 2, 3]),
            positions: Some(vec![9, 8, 7, 6]),
            ..ids(&[0, 5, 6, 7], Some("0111"), None)
        };
        let example = from_ids(row, Tensors::default(), limits, origin()).unwrap();
        assert_eq!((example.types, example.positions), (Some(vec![1, 2]), Some(vec![8, 7])));
    }

    #[test]
    fn completions_need_labels() {
        let origin = origin();
        let limits = Limits { max_length: 4, completion_only: true, masks: true };
        let error = from_ids(ids(&[1], None, None), Tensors::default(), limits, origin.clone());
        assert!(matches!(error, Err(Error::NoCompletion { .. })));
        assert!(from_ids(ids(&[1], None, Some("1")), Tensors::default(), limits, origin).is_ok());
    }
}
