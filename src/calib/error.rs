//! What can be wrong with calibration data, and what to do about it.

use crate::hint::Hint;
use std::io;
use std::path::{Path, PathBuf};

use super::bad_tensor::BadTensor;
use super::chat::ChatError;
use super::file_error::FileError;
use super::labels::LabelError;
use super::row::RowOrigin;
use crate::media::{BadFile, ProcessorError};

/// Why calibration data could not be loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The list of files is empty.
    #[error("no calibration file was given")]
    NoFiles,
    /// An option that counts something is zero.
    #[error("`{option}` must be at least 1")]
    Zero {
        /// Name of the option.
        option: &'static str,
    },
    /// `max_length` leaves no room between the special tokens.
    #[error("`max_length` {max_length} leaves no room for text beside {special} special tokens")]
    MaxLength {
        /// The limit in force, in tokens.
        max_length: usize,
        /// Special tokens that the tokenizer adds to each row.
        special: usize,
    },
    /// No length within `max_length` is a multiple of what lengths must be.
    #[error("no row of at most {max_length} tokens can be padded to a multiple of {multiple}")]
    PadMultiple {
        /// What lengths are padded to a multiple of.
        multiple: usize,
        /// The limit in force, in tokens.
        max_length: usize,
    },
    /// The model fixes another length than the one asked for.
    #[error("the model takes {fixed} tokens, so that rows cannot be padded to {wanted}")]
    PadTo {
        /// The length asked for.
        wanted: usize,
        /// The length that the model fixes.
        fixed: usize,
    },
    /// A calibration file cannot be read.
    #[error("cannot read calibration file `{}`: {source}", file.display())]
    Io {
        /// The file concerned.
        file: PathBuf,
        /// The system's message.
        source: std::io::Error,
    },
    /// A calibration file is no data, or changed.
    #[error(transparent)]
    File(#[from] FileError),
    /// The source itself failed.
    #[error("the rows of `{name}` ended: {reason}")]
    Source {
        /// The name of the source.
        name: String,
        /// What it says.
        reason: String,
    },
    /// The source has no rows: an empty iterator, or a file without anything in it.
    #[error("`{name}` has no rows")]
    NoRows {
        /// The file or the name of the source.
        name: String,
    },
    /// A line is not UTF-8.
    #[error("{origin}: not valid UTF-8 at byte {column}")]
    NotUtf8 {
        /// The line concerned.
        origin: RowOrigin,
        /// Byte within the line, from 1.
        column: usize,
    },
    /// A line is not JSON.
    #[error("{origin}: broken JSON at column {column}: {message}")]
    Json {
        /// The line concerned.
        origin: RowOrigin,
        /// Byte within the line, from 1.
        column: usize,
        /// The parser's message.
        message: String,
    },
    /// A line is JSON, but not an object.
    #[error("{origin}: expected an object, got {got}")]
    NotAnObject {
        /// The line concerned.
        origin: RowOrigin,
        /// Kind of JSON value found.
        got: &'static str,
    },
    /// The label of a row to train on.
    #[error(transparent)]
    Label(#[from] LabelError),
    /// A row has none of the understood sets of fields.
    #[error("{origin}: no text or token ids in {}", names(fields))]
    NoText {
        /// The row concerned.
        origin: RowOrigin,
        /// Fields of the row.
        fields: Vec<String>,
    },
    /// A row for an encoder-decoder model has data for only one of the two.
    #[error("{origin}: nothing for the decoder to read")]
    NoPair {
        /// The row concerned.
        origin: RowOrigin,
    },
    /// A field does not hold the tensor that the model reads.
    #[error("{origin}: `{field}` {reason}")]
    BadTensor {
        /// The row concerned.
        origin: RowOrigin,
        /// The field.
        field: String,
        /// What is wrong with it.
        reason: Box<BadTensor>,
    },
    /// A picture or a sound that a row names cannot be used.
    #[error("{origin}: `{}` {reason}", file.display())]
    BadFile {
        /// The row concerned.
        origin: RowOrigin,
        /// The file, as it was looked for.
        file: PathBuf,
        /// What is wrong with it.
        reason: Box<BadFile>,
    },
    /// Pictures or sounds cannot be made the model's input.
    #[error(transparent)]
    Processor(#[from] ProcessorError),
    /// The conversations of the rows cannot be made text.
    #[error(transparent)]
    Chat(#[from] ChatError),
    /// A field that was asked for is not there.
    #[error("{origin}: no field `{field}` in {}", names(fields))]
    MissingField {
        /// The row concerned.
        origin: RowOrigin,
        /// Field asked for.
        field: String,
        /// Fields of the row.
        fields: Vec<String>,
    },
    /// A field has a value of the wrong kind.
    #[error("{origin}: `{field}` must be {expected}, got {got}")]
    FieldType {
        /// The row concerned.
        origin: RowOrigin,
        /// Field concerned.
        field: String,
        /// What is understood.
        expected: &'static str,
        /// What was found.
        got: String,
    },
    /// A field with an entry for each token has another length than what gives the tokens.
    #[error("{origin}: `{field}` has {got} entries, `{beside}` has {expected}")]
    FieldLength {
        /// The row concerned.
        origin: RowOrigin,
        /// Field concerned.
        field: String,
        /// The field that gives the tokens, `input_ids` or a tensor.
        beside: Box<str>,
        /// Length of that field.
        expected: usize,
        /// Length of the field.
        got: usize,
    },
    /// A text template cannot be parsed.
    #[error("text template `{template}`: {message} at byte {at}")]
    Template {
        /// The template as given.
        template: String,
        /// What is wrong.
        message: &'static str,
        /// Byte within the template, from 0.
        at: usize,
    },
    /// A row carries text, but no tokenizer was given.
    #[error("{origin}: the row is text, but no tokenizer was given")]
    NoTokenizer {
        /// First row with text.
        origin: RowOrigin,
    },
    /// The tokenizer file does not exist.
    #[error("tokenizer file `{}` does not exist", path.display())]
    TokenizerMissing {
        /// File looked for.
        path: PathBuf,
    },
    /// The tokenizer file is not understood.
    #[error("cannot read tokenizer `{}`: {message}", path.display())]
    Tokenizer {
        /// File concerned.
        path: PathBuf,
        /// The message of the tokenizers library.
        message: String,
    },
    /// The tokenizer fails on a row.
    #[error("{origin}: tokenizer `{}` failed: {message}", path.display())]
    Tokenize {
        /// The row concerned.
        origin: RowOrigin,
        /// The tokenizer file.
        path: PathBuf,
        /// The message of the tokenizers library.
        message: String,
    },
    /// A text is too long to be tokenised whole, and cannot be cut before.
    #[error(
        "{origin}: a text of {bytes} bytes has no space at which tokenizer `{}` could cut it, and is too long to be \
             tokenised whole",
        path.display()
    )]
    LongText {
        /// The row concerned.
        origin: RowOrigin,
        /// Length of the text.
        bytes: usize,
        /// The tokenizer file.
        path: PathBuf,
    },
    /// A token id has no row in the model's embedding.
    #[error("{origin}: token id {id} is outside the model's vocabulary of {vocab_size}")]
    Vocabulary {
        /// The row concerned.
        origin: RowOrigin,
        /// Largest token id of the row.
        id: u32,
        /// Rows of the model's embedding.
        vocab_size: usize,
        /// Tokenizer that made the id; `None` when the row gave it.
        tokenizer: Option<PathBuf>,
    },
    /// Only completions were asked for, and a row does not separate prompt and completion.
    #[error("{origin}: the row has no separate completion")]
    NoCompletion {
        /// The row concerned.
        origin: RowOrigin,
    },
    /// Every row was dropped.
    #[error("none of {rows} rows has a token to learn from ({empty} empty, {masked} fully masked, {bad} at fault)")]
    NothingLeft {
        /// Rows read.
        rows: usize,
        /// Rows without any token.
        empty: usize,
        /// Rows with tokens that are all masked out.
        masked: usize,
        /// Rows passed over.
        bad: usize,
    },
}

impl Hint for Error {
    fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::NoFiles => "name at least one file with `--data`",
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::NotFound => "check the path given with `--data`",
                io::ErrorKind::PermissionDenied => "check the permissions of the file",
                io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::UnexpectedEof => {
                    "the file is cut off or broken: copy or compress it again"
                }
                _ => return None,
            },
            Self::Zero { .. } | Self::Source { .. } => return None,
            Self::MaxLength { .. } => "raise `--max-length`",
            Self::PadMultiple { .. } => "lower `--pad-multiple`, or raise `--max-length` if that is the lower limit",
            Self::PadTo { .. } => "leave out `--pad-to`",
            Self::File(error) => return error.hint(),
            Self::NoRows { .. } => "give at least one row",
            Self::NotUtf8 { .. } => "save the file as UTF-8, for example with `iconv -f latin1 -t utf-8`",
            Self::Json { .. } => "data is one JSON object a line, several one after the other, or one array of them",
            Self::NotAnObject { .. } => "a row looks like {\"text\": \"...\"}",
            Self::Label(error) => error.hint(),
            Self::NoText { .. } => {
                "a row needs `input_ids`, `text`, `prompt` and `completion`, `question` and `answer`, \
                 `instruction` and `output`, or a pair such as `text` and `text_pair`; name other fields with \
                 `--text-field`, `--pair-field` or `--text-template`"
            }
            Self::BadTensor { field, reason, .. }
                if **reason == BadTensor::Missing && field.ends_with("inputs_embeds") =>
            {
                "keep `embed_tokens.onnx` beside the model, or name it with --embed-tokens, for rows of text or \
                 `input_ids`; else a row holds `inputs_embeds` [tokens, features]"
            }
            Self::BadTensor { reason, .. } if **reason == BadTensor::Mask => {
                "take the padding out of the rows; or call the input of the model `attention_mask`, whose 1 is a token, or \
                 `key_padding_mask`, whose 1 is padding; or put an `attention_mask` into the rows, too"
            }
            Self::BadTensor { .. } => {
                "a row holds such inputs of the model by name, without the batch axis: as nested lists, or as the path of \
                 a .npy, .npz or .safetensors file, from the folder of the data file; or it names a picture as `image` \
                 or a sound as `audio`"
            }
            Self::BadFile { reason, .. } => return reason.hint(),
            Self::Processor(error) => return error.hint(),
            Self::NoPair { .. } => {
                "a model with an encoder and a decoder needs `prompt` and `completion`, or `input_ids` and \
                 `decoder_input_ids` or `labels`"
            }
            Self::Chat(error) => return error.hint(),
            Self::MissingField { .. } => "check the names in `--text-field` or `--text-template`",
            Self::FieldType { .. } => "`--text-field` or `--text-template` can name other fields",
            Self::FieldLength { .. } => "give one entry for each token",
            Self::Template { .. } => {
                "put fields in braces, as in \"{question}\\n{answer}\"; write {{ and }} for braces"
            }
            Self::NoTokenizer { .. } | Self::TokenizerMissing { .. } => {
                "give the model's tokenizer.json with `--tokenizer` (`save_pretrained` of its Hugging Face \
                 tokenizer writes one), or store rows as `input_ids`"
            }
            Self::Tokenizer { .. } => "expected a tokenizer.json of the Hugging Face tokenizers library",
            Self::Tokenize { .. } => "check that the tokenizer is complete",
            Self::LongText { .. } => "split the text into several rows",
            Self::Vocabulary { tokenizer, .. } => {
                return Some(vocabulary_hint(tokenizer.as_deref()));
            }
            Self::NoCompletion { .. } => {
                "leave out `--completion-only`, or store rows as `prompt` and `completion`, or as `input_ids` \
                 with `labels`"
            }
            Self::NothingLeft { bad, .. } if *bad > 0 => "`--on-bad-row fail` says what is wrong with the first one",
            Self::NothingLeft { masked, .. } if *masked > 0 => {
                "raise `--max-length` if it cuts the completions off, or leave out `--completion-only`; \
                 labels of -100 and an attention mask of 0 mask tokens out"
            }
            Self::NothingLeft { .. } => "check that the rows are not all empty",
        };
        Some(hint.to_owned())
    }
}

fn vocabulary_hint(tokenizer: Option<&Path>) -> String {
    match tokenizer {
        Some(path) => format!(
            "tokenizer `{}` does not belong to this model; give the model's own with `--tokenizer`",
            path.display()
        ),
        None => "the `input_ids` were made with a tokenizer that does not belong to this model".to_owned(),
    }
}

/// The fields of a row for a message, at most a dozen of them.
fn names(fields: &[String]) -> String {
    const SHOWN: usize = 12;
    if fields.is_empty() {
        return "a row without fields".to_owned();
    }
    let shown: Vec<_> = fields.iter().take(SHOWN).map(|name| format!("`{name}`")).collect();
    let rest = if fields.len() > SHOWN { ", ..." } else { "" };
    format!("a row with {}{rest}", shown.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_and_fields_read_well() {
        let origin = RowOrigin::Line { file: Path::new("data/a.jsonl").into(), line: 3 };
        let fields = vec!["id".to_owned(), "body".to_owned()];
        let error = Error::NoText { origin, fields };
        assert_eq!(error.to_string(), "`data/a.jsonl` line 3: no text or token ids in a row with `id`, `body`");
        assert!(error.hint().is_some_and(|hint| hint.contains("--text-template")));
    }

    #[test]
    fn long_lists_of_fields_are_cut() {
        let many: Vec<_> = (0..20).map(|i| i.to_string()).collect();
        assert!(names(&many).ends_with("`11`, ..."));
        assert_eq!(names(&[]), "a row without fields");
    }
}
