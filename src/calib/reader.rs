//! Rows to examples: what a row means, its tokens, its masks.

use std::collections::BTreeSet;

use super::batch::TokenInputs;
use super::chat::Chat;
use super::content::{Content, Pair};
use super::error::Error;
use super::example::{self, Example, Limits};
use super::ids;
use super::input::{Lengths, Size, TensorInput};
use super::media::Media;
use super::options::LoadOptions;
use super::pair;
use super::parse::{Fixed, parse};
use super::row::{Row, RowOrigin};
use super::tensors::{self, NamedTensor};
use super::tokenizer::Tokenizer;
use crate::parallel;

/// Most unused fields that are remembered.
const MOST_UNUSED: usize = 64;

/// Makes examples of rows, with a tokenizer from the first text on.
pub(crate) struct Reader<'a> {
    options: &'a LoadOptions,
    limits: Limits,
    fixed: Option<Fixed>,
    tokenizer: Option<Tokenizer>,
    chat: Option<Chat>,
    media: Media<'a>,
    /// The inputs of rows that hold what is otherwise made of their tokens.
    with_embedded: Vec<TensorInput>,
    /// Fields that were of no use in some row.
    unused: BTreeSet<String>,
}

/// A row whose content is read, but not tokenised yet.
struct Parsed {
    origin: RowOrigin,
    content: Content,
    tensors: Vec<NamedTensor>,
    /// Whether the row holds what is otherwise made of its tokens.
    embedded: bool,
}

impl Parsed {
    fn is_text(&self) -> bool {
        matches!(self.content, Content::Text(_) | Content::Chat(_) | Content::Pair(Pair::Texts(..)))
    }

    fn is_chat(&self) -> bool {
        matches!(self.content, Content::Chat(_))
    }
}

impl<'a> Reader<'a> {
    /// A reader of rows as the options say.
    ///
    /// # Errors
    /// When the text template cannot be parsed, or an option that counts something is zero.
    pub(crate) fn new(options: &'a LoadOptions) -> Result<Self, Error> {
        let limits = options.limits()?;
        let with_embedded = [&options.tensors[..], &options.embedded].concat();
        let (fixed, media, unused) = (options.text.fixed()?, Media::new(options), BTreeSet::new());
        Ok(Self { options, limits, fixed, tokenizer: None, chat: None, media, with_embedded, unused })
    }

    /// An id for padding.
    pub(crate) fn pad_id(&self) -> u32 {
        self.tokenizer.as_ref().map_or(0, |tokenizer| tokenizer.pad_id(self.options.vocab_size))
    }

    /// Fields that some row has and that change nothing.
    pub(crate) fn unused(&self) -> &BTreeSet<String> {
        &self.unused
    }

    /// The example of each row, or what is wrong with the row, in their order.
    ///
    /// # Errors
    /// When there is no usable tokenizer for the texts of the rows, no chat template for conversations, or no usable
    /// processor for files.
    pub(crate) fn examples(&mut self, rows: Vec<Row>) -> Result<Vec<Result<Example, Error>>, Error> {
        let rows = self.media.read(rows)?;
        let parsed: Vec<_> = rows.into_iter().map(|row| self.parse(&row?)).collect();
        let first = |wanted: fn(&Parsed) -> bool| parsed.iter().flatten().find(|row| wanted(row));
        let path = |row: &Parsed| {
            let path = self.options.tokenizer.as_ref();
            path.ok_or_else(|| Error::NoTokenizer { origin: row.origin.clone() })
        };
        if let (None, Some(row)) = (&self.tokenizer, first(Parsed::is_text)) {
            self.tokenizer = Some(Tokenizer::open(path(row)?, self.limits.max_length)?);
        }
        if let (None, Some(row)) = (&self.chat, first(Parsed::is_chat)) {
            let wanted = self.options.chat_template.as_deref();
            self.chat = Some(Chat::open(path(row)?, wanted, &row.origin)?);
        }
        let reader = &*self;
        Ok(parallel::map(parsed, parallel::cores(), |row| reader.example(row?)))
    }

    fn parse(&mut self, row: &Row) -> Result<Parsed, Error> {
        let embedded = self.options.embedded.iter().any(|input| row.fields.has(&input.name));
        let inputs = self.inputs(embedded);
        let tensors = tensors::read(row, inputs)?;
        let content = match self.options.lengths {
            Lengths::Tokens if !embedded => parse(row, self.fixed.as_ref(), self.options.decoder_start)?,
            Lengths::Tokens | Lengths::Tensors => match tensors::length(&tensors, inputs) {
                Some((field, length)) => Content::Ids(ids::entries(row, field, length)?),
                None => Content::NoTokens,
            },
            Lengths::Nothing => Content::NoTokens,
        };
        self.note_unused(row);
        Ok(Parsed { origin: row.origin.clone(), content, tensors, embedded })
    }

    /// The inputs that a row holds by name.
    fn inputs(&self, embedded: bool) -> &[TensorInput] {
        if embedded { &self.with_embedded } else { &self.options.tensors }
    }

    /// Notes fields of the row that change nothing. Where the user says what to read, the others are meant to be left.
    fn note_unused(&mut self, row: &Row) {
        if self.fixed.is_some() {
            return;
        }
        let TokenInputs { types, positions, .. } = self.options.reads;
        let read = [("token_type_ids", types), ("position_ids", positions)];
        let in_vain = read.into_iter().filter(|(name, used)| !used && row.fields.has(name));
        for name in in_vain.map(|(name, _)| name).chain(row.fields.unread()) {
            if self.unused.len() < MOST_UNUSED && !self.unused.contains(name) {
                self.unused.insert(name.to_owned());
            }
        }
    }

    fn example(&self, row: Parsed) -> Result<Example, Error> {
        let Parsed { origin, content, tensors, embedded } = row;
        let (limits, inputs) = (self.limits, self.inputs(embedded));
        let own_ids = matches!(content, Content::Ids(_));
        let encode = |text: &_| match &self.tokenizer {
            Some(tokenizer) => tokenizer.encode(text, &origin),
            None => Err(Error::NoTokenizer { origin: origin.clone() }),
        };
        let example = match content {
            Content::Ids(ids) => example::from_ids(ids, (tensors, inputs), self.limits(), origin)?,
            Content::Text(text) => {
                let tokenized = encode(&text)?;
                example::from_text(tokenized, text.completion.as_ref(), limits, origin)?.with((tensors, inputs))?
            }
            Content::Chat(conversation) => {
                let chat = self.chat.as_ref().ok_or_else(|| Error::NoTokenizer { origin: origin.clone() })?;
                let text = chat.text(&conversation, limits.completion_only, &origin)?;
                let tokenized = encode(&text)?;
                example::from_text(tokenized, text.completion.as_ref(), limits, origin)?.with((tensors, inputs))?
            }
            Content::NoTokens => example::without_tokens(tensors, origin),
            Content::Pair(pair) => {
                let start = self.options.decoder_start.unwrap_or(0);
                pair::example(pair, &encode, start, limits, &origin)?.with((tensors, inputs))?
            }
        };
        if self.options.lengths == Lengths::Tokens {
            self.check_vocabulary(&example, self.tokenizer.as_ref().filter(|_| !own_ids))?;
        }
        Ok(example)
    }

    /// How rows of token ids are masked and cut, and rows of tensors, of which sounds are whole.
    fn limits(&self) -> Limits {
        let sound = |input: &TensorInput| input.dtype.is_float() && input.shape == [Size::Tokens];
        if self.options.lengths == Lengths::Tensors && self.options.tensors.iter().any(sound) {
            return Limits { max_length: self.options.shape.length.unwrap_or(usize::MAX), ..self.limits };
        }
        self.limits
    }

    fn check_vocabulary(&self, example: &Example, tokenizer: Option<&Tokenizer>) -> Result<(), Error> {
        let all = example.ids.iter().chain(example.source.iter().flat_map(|(ids, _)| ids));
        let (Some(vocab_size), Some(&id)) = (self.options.vocab_size, all.max()) else {
            return Ok(());
        };
        if (id as usize) < vocab_size {
            return Ok(());
        }
        let tokenizer = tokenizer.map(|tokenizer| tokenizer.path().to_owned());
        Err(Error::Vocabulary { origin: example.origin.clone(), id, vocab_size, tokenizer })
    }
}
