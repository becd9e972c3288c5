//! A tokenised row with its masks.

use tokenizers::Encoding;

use super::content::Ids;
use super::error::Error;
use super::row::RowOrigin;
use crate::tensor::Tensor;

/// A tensor by the name of its input, without the batch axis.
pub(crate) type Named = (String, Tensor);

/// A tokenised row, cut to the maximal length; every list has the length of `ids`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Example {
    /// Where the row comes from.
    pub(crate) origin: RowOrigin,
    pub(crate) ids: Vec<u32>,
    /// `None` when nothing distinguishes them from zeros.
    pub(crate) types: Option<Vec<u32>>,
    /// Tokens that are no padding.
    pub(crate) attended: Vec<bool>,
    /// Attended tokens that enter the statistics.
    pub(crate) keep: Vec<bool>,
    /// Token ids of the encoder and which of them are attended; the other lists are then the decoder's.
    pub(crate) source: Option<(Vec<u32>, Vec<bool>)>,
    /// Other inputs of the model by name, without the axis of the batch.
    pub(crate) tensors: Vec<Named>,
    /// Whether tokens were cut off.
    pub(crate) truncated: bool,
}

/// How rows are masked and cut.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Longest row, in tokens.
    pub(crate) max_length: usize,
    /// Only completions enter the statistics.
    pub(crate) completion_only: bool,
}

/// An example from a row that is tokenised already.
///
/// Padding at the end is dropped, the rest cut on the right. Labels of -100 mask tokens out.
pub(crate) fn from_ids(row: Ids, limits: Limits, origin: RowOrigin) -> Result<Example, Error> {
    if limits.completion_only && row.labelled.is_none() {
        return Err(Error::NoCompletion { origin });
    }
    let attended = row.attended.unwrap_or_else(|| vec![true; row.ids.len()]);
    let used = attended.iter().rposition(|&attended| attended).map_or(0, |last| last + 1);
    let length = used.min(limits.max_length);
    let keep = match &row.labelled {
        Some(labelled) => attended.iter().zip(labelled).map(|(&a, &l)| a && l).collect(),
        None => attended.clone(),
    };
    let mut example = Example {
        origin,
        ids: row.ids,
        types: row.types,
        attended,
        keep,
        source: None,
        tensors: Vec::new(),
        truncated: length < used,
    };
    example.ids.truncate(length);
    example.attended.truncate(length);
    example.keep.truncate(length);
    if let Some(types) = &mut example.types {
        types.truncate(length);
    }
    Ok(example)
}

/// An example from the encoding of a text whose completion begins at byte `completion`.
///
/// An encoding of special tokens alone gives an empty example.
pub(crate) fn from_encoding(
    encoding: &Encoding,
    completion: Option<usize>,
    limits: Limits,
    origin: RowOrigin,
) -> Result<Example, Error> {
    let special = encoding.get_special_tokens_mask();
    let empty = special.iter().all(|&special| special == 1);
    let length = if empty { 0 } else { encoding.len() };
    let keep = match (limits.completion_only, completion) {
        (false, _) => vec![true; length],
        (true, Some(start)) => completion_tokens(encoding, start)[..length].to_vec(),
        (true, None) => return Err(Error::NoCompletion { origin }),
    };
    let types = encoding.get_type_ids()[..length].to_vec();
    Ok(Example {
        origin,
        ids: encoding.get_ids()[..length].to_vec(),
        types: types.iter().any(|&id| id != 0).then_some(types),
        attended: vec![true; length],
        keep,
        source: None,
        tensors: Vec::new(),
        truncated: !encoding.get_overflowing().is_empty(),
    })
}

/// Tokens that begin at byte `start` or later; a special token belongs to the text before it.
///
/// Special tokens before the text thus belong to the prompt, those after it to the completion.
fn completion_tokens(encoding: &Encoding, start: usize) -> Vec<bool> {
    let special = encoding.get_special_tokens_mask();
    let first = special.iter().position(|&special| special == 0).unwrap_or(special.len());
    let offsets = encoding.get_offsets();
    (0..encoding.len())
        .map(|token| if special[token] == 1 { token > first } else { offsets[token].0 >= start })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calib::row::testing::origin;

    fn ids(ids: &[u32], attended: Option<&str>, labelled: Option<&str>) -> Ids {
        let flags = |flags: &str| flags.chars().map(|c| c == '1').collect();
        Ids { ids: ids.to_vec(), attended: attended.map(flags), labelled: labelled.map(flags), types: None }
    }

    /// Ids, then `attended/keep` as digits, then `+` when truncated.
    #[track_caller]
    fn check(row: Ids, max_length: usize, expected: &str) {
        let origin = origin();
        let limits = Limits { max_length, completion_only: false };
        let example = from_ids(row, limits, origin).unwrap();
        let digits = |flags: &[bool]| flags.iter().map(|&f| if f { '1' } else { '0' }).collect::<String>();
        let cut = if example.truncated { "+" } else { "" };
        let masks = format!("{}/{}", digits(&example.attended), digits(&example.keep));
        assert_eq!(format!("{:?} {masks}{cut}", example.ids), expected);
    }

    #[test]
    fn rows_of_ids() {
        check(ids(&[5, 6, 7], None, None), 9, "[5, 6, 7] 111/111");
        check(ids(&[5, 6, 7], None, None), 2, "[5, 6] 11/11+");
        check(ids(&[5, 6, 7], None, Some("011")), 9, "[5, 6, 7] 111/011");
        check(ids(&[5, 6, 7], Some("010"), Some("111")), 9, "[5, 6] 01/01");
        check(ids(&[5, 6, 0, 0], Some("1100"), None), 2, "[5, 6] 11/11");
        check(ids(&[5, 6], Some("00"), None), 2, "[] /");
        check(ids(&[], None, None), 2, "[] /");
    }

    #[test]
    fn completions_need_labels() {
        let origin = origin();
        let limits = Limits { max_length: 4, completion_only: true };
        let error = from_ids(ids(&[1], None, None), limits, origin.clone());
        assert!(matches!(error, Err(Error::NoCompletion { .. })));
        assert!(from_ids(ids(&[1], None, Some("1")), limits, origin).is_ok());
    }
}
