//! How much of a long text its first tokens depend on.
//!
//! A tokenizer whose vocabulary has no token with a space after a visible character splits every text there, whatever
//! follows: the tokens before such a place are the same without the text behind it.

/// A start of a text, and how far its tokens are those of the whole text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    /// Bytes of the start.
    pub(crate) end: usize,
    /// Tokens that end at this byte or before are settled.
    pub(crate) settled: usize,
}

/// The shortest start of a text whose tokens are settled up to byte `from` at least.
pub(crate) fn cut(text: &str, from: usize) -> Option<Cut> {
    let bytes = text.as_bytes();
    let after =
        |from: usize| (from.max(1)..bytes.len()).find(|&at| bytes[at] == b' ' && bytes[at - 1].is_ascii_graphic());
    let settled = after(from)?;
    Some(Cut { end: after(settled + 1)?, settled })
}

/// Whether some token has a space after a visible character. Vocabularies write a space as itself, as `Ġ` (byte-level
/// BPE), or as `▁` (SentencePiece).
pub(crate) fn joins_words<'t>(mut tokens: impl Iterator<Item = &'t str>) -> bool {
    let is_space = |letter: char| [' ', 'Ġ', '▁'].contains(&letter);
    let joins = |token: &str| {
        let pairs = token.chars().zip(token.chars().skip(1));
        pairs.into_iter().any(|(before, letter)| before.is_ascii_graphic() && is_space(letter))
    };
    tokens.any(joins)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_behind_words() {
        let check = |text: &str, from, end: &str, settled: &str| {
            let cut = cut(text, from).map(|cut| (&text[..cut.end], &text[..cut.settled]));
            assert_eq!(cut, Some((end, settled)), "{text}");
        };
        check("one two three four", 0, "one two", "one");
        check("one two three four", 3, "one two", "one");
        check("one two three four", 4, "one two three", "one two");
        check("a  b \n c. é d e", 2, "a  b \n c.", "a  b");
        assert_eq!(cut("one two", 0), None);
        assert_eq!(cut("一二三 四五六 七八九", 0), None);
    }

    #[test]
    fn vocabularies_that_join_words_are_known() {
        for joined in ["of the", "ofĠthe", ".▁The"] {
            assert!(joins_words(["a", joined].into_iter()), "{joined}");
        }
        assert!(!joins_words(["Ġthe", "▁▁▁", "ĊĠĠ", "the", " \n", "é▁"].into_iter()));
    }
}
