//! To which length the sequences of a batch are padded.

use super::error::Error;
use super::example::Example;

/// To which length the sequences of a batch are padded; a length that the model fixes wins over it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Padding {
    /// That of the longest row of the batch, without the padding that rows come with.
    #[default]
    Longest,
    /// That of the longest row of the batch, with its padding.
    Given,
    /// The next multiple of this.
    Multiple(usize),
    /// This one.
    To(usize),
}

impl Padding {
    /// The length of a sequence of an example, whose own length is `used`, and `given` with its padding.
    fn length(self, used: usize, given: usize) -> usize {
        match self {
            Self::Longest => used,
            Self::Given => given,
            Self::Multiple(multiple) => used.next_multiple_of(multiple.max(1)),
            Self::To(length) => length.max(used),
        }
    }

    /// The length of an example's tokens.
    pub(super) fn of_tokens(self, example: &Example) -> usize {
        self.length(example.ids.len(), example.given[0])
    }

    /// The length of an example's tokens for the encoder.
    pub(super) fn of_source(self, example: &Example) -> Option<usize> {
        Some(self.length(example.source.as_ref()?.0.len(), example.given[1]))
    }

    /// What the lengths are multiples of, for sequences padded to `length`.
    pub(super) fn step(self, length: usize) -> usize {
        match self {
            Self::Longest => 1,
            Self::Multiple(multiple) => multiple.max(1),
            Self::Given | Self::To(_) => length.max(1),
        }
    }

    /// The length that is asked for.
    pub(super) fn asked(self) -> Option<usize> {
        match self {
            Self::Longest | Self::Given => None,
            Self::Multiple(length) | Self::To(length) => Some(length),
        }
    }

    /// Most tokens of a row, of which there may be `most` after padding. The model may take only `fixed` tokens.
    ///
    /// # Errors
    /// [`Error::PadTo`] and [`Error::PadMultiple`] when there is no such row.
    pub(super) fn limit(self, most: usize, fixed: Option<usize>) -> Result<usize, Error> {
        match (self, fixed) {
            (Self::To(wanted), Some(fixed)) if wanted != fixed => Err(Error::PadTo { wanted, fixed }),
            (Self::To(length), _) => Ok(most.min(length)),
            (Self::Multiple(multiple), None) => match most - most % multiple.max(1) {
                0 => Err(Error::PadMultiple { multiple, max_length: most }),
                limit => Ok(limit),
            },
            _ => Ok(most),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(padding: Padding, length: usize, step: usize, limit: usize) {
        let most = padding.limit(50, None).unwrap_or(0);
        assert_eq!((padding.length(5, 7), padding.step(40), most), (length, step, limit));
    }

    #[test]
    fn lengths() {
        check(Padding::Longest, 5, 1, 50);
        check(Padding::Given, 7, 40, 50);
        check(Padding::Multiple(8), 8, 8, 48);
        check(Padding::Multiple(5), 5, 5, 50);
        check(Padding::Multiple(64), 64, 64, 0);
        check(Padding::To(32), 32, 40, 32);
        assert_eq!(Padding::Multiple(64).limit(50, Some(50)).ok(), Some(50));
        assert!(Padding::To(32).limit(50, Some(50)).is_err());
    }
}
