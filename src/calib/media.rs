//! Rows that name files of pictures and sounds: the tensors that the model reads join their fields.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;

use super::arrays;
use super::error::Error;
use super::input::{Size, TensorInput};
use super::options::LoadOptions;
use super::row::{FieldValue, Row};
use crate::caught::caught;
use crate::media::{BadFile, Channels, PictureProcessor, SoundProcessor, picture, picture_of, sound, sound_of};
use crate::parallel;
use crate::tensor::Tensor;

/// Fields with the path of a picture, best first; `file_name` is that of the datasets library's `metadata.jsonl`.
const PICTURES: [&str; 3] = ["image", "image_path", "file_name"];
/// Fields with the path of a sound, best first.
const SOUNDS: [&str; 3] = ["audio", "audio_path", "file_name"];

/// Whether a field of this name can hold the path of a picture or a sound.
pub(crate) fn is_media_field(name: &str) -> bool {
    PICTURES.contains(&name) || SOUNDS.contains(&name)
}

/// Reads the files that rows name, as the model's processors do.
pub(crate) struct Media<'a> {
    options: &'a LoadOptions,
    pictures: Option<PictureProcessor>,
    sounds: Option<SoundProcessor>,
}

/// What a row has in place of a tensor.
enum Named {
    Picture(Place),
    Sound(Place),
    /// Samples, and how many are a second.
    Samples(Vec<f32>, Option<u64>),
}

/// Where the bytes of a file are.
enum Place {
    /// In a file.
    File(PathBuf),
    /// In the row, as base64.
    Row(String),
}

impl<'a> Media<'a> {
    pub(crate) fn new(options: &'a LoadOptions) -> Self {
        Self { options, pictures: None, sounds: None }
    }

    /// The rows with tensors for what they name, or what is wrong with them, in their order.
    ///
    /// # Errors
    /// When a row names a file, and nothing says how such files become the model's input.
    pub(crate) fn read(&mut self, rows: Vec<Row>) -> Result<Vec<Result<Row, Error>>, Error> {
        let named: Vec<(Row, Vec<Named>)> = rows.into_iter().map(|row| self.named(row)).collect();
        let (mut pictures, mut sounds) = (false, false);
        for named in named.iter().flat_map(|(_, named)| named) {
            let is_picture = matches!(named, Named::Picture(_));
            (pictures, sounds) = (pictures || is_picture, sounds || !is_picture);
        }
        if pictures && self.pictures.is_none() {
            self.pictures = Some(PictureProcessor::open(&self.options.media)?);
        }
        if sounds && self.sounds.is_none() {
            self.sounds = Some(SoundProcessor::open(&self.options.media)?);
        }
        let media = &*self;
        let threads = if pictures || sounds { parallel::cores() } else { 1 };
        Ok(parallel::map(named, threads, |(row, named)| media.with_tensors(row, named)))
    }

    /// A row, and what it has in place of tensors that it does not hold.
    fn named(&self, row: Row) -> (Row, Vec<Named>) {
        let inputs = &self.options.tensors;
        let lacks = |input: &TensorInput| row.fields.peek(&input.name).is_none_or(is_file);
        let value = |names: [&str; 3], usable: fn(&FieldValue) -> bool| {
            let name = names.into_iter().find(|name| row.fields.peek(name).is_some_and(usable))?;
            row.fields.present(name)
        };
        let mut named = Vec::new();
        if picture_input(inputs).is_some_and(|(input, _)| lacks(input)) {
            let found = value(PICTURES, is_file);
            named.extend(found.and_then(|value| place(value, row.origin.folder())).map(Named::Picture));
        } else if inputs.iter().any(|input| is_sound_input(input) && lacks(input)) {
            let found = value(SOUNDS, |value| is_file(value) || samples(value).is_some());
            let file = |value| place(value, row.origin.folder()).map(Named::Sound);
            named.extend(found.and_then(|value| samples(value).or_else(|| file(value))));
        }
        // The class of what is named is not needed.
        if !named.is_empty() {
            row.fields.get("label");
        }
        (row, named)
    }

    fn with_tensors(&self, mut row: Row, named: Vec<Named>) -> Result<Row, Error> {
        for named in named {
            let file = match &named {
                Named::Picture(Place::File(file)) | Named::Sound(Place::File(file)) => file.clone(),
                Named::Picture(Place::Row(_)) => PathBuf::from(PICTURES[0]),
                Named::Sound(Place::Row(_)) | Named::Samples(..) => PathBuf::from(SOUNDS[0]),
            };
            let made =
                caught(|| Ok::<_, String>(self.tensor(named))).unwrap_or_else(|message| Err(BadFile::Broken(message)));
            let bad = |reason| Error::BadFile { origin: row.origin.clone(), file, reason: Box::new(reason) };
            let (input, tensor) = made.map_err(bad)?;
            row.fields.set(input, tensor);
        }
        Ok(row)
    }

    /// The name of an input, and its tensor.
    fn tensor(&self, named: Named) -> Result<(&str, Tensor), BadFile> {
        let inputs = &self.options.tensors;
        let unopened = || BadFile::Broken("its processor is not known".to_owned());
        let given = match named {
            Named::Picture(place) => {
                let processor = self.pictures.as_ref().ok_or_else(unopened)?;
                let (input, channels) = picture_input(inputs).ok_or_else(unopened)?;
                let picture = match place {
                    Place::File(file) => picture(&file)?,
                    Place::Row(bytes) => picture_of(&decoded(&bytes)?)?,
                };
                return Ok((&input.name, processor.tensor(&picture, channels)?));
            }
            Named::Sound(place) => Err(place),
            Named::Samples(samples, rate) => Ok((samples, rate)),
        };
        let processor = self.sounds.as_ref().ok_or_else(unopened)?;
        let sound = match given {
            Err(Place::File(file)) => sound(&file, processor.rate, processor.heard())?,
            Err(Place::Row(bytes)) => sound_of(&decoded(&bytes)?, processor.rate, processor.heard())?,
            Ok((_, Some(got))) if got != u64::from(processor.rate) => {
                return Err(BadFile::Rate { got, expected: processor.rate });
            }
            Ok((samples, _)) => samples,
        };
        let (name, tensor) = processor.input(&sound).ok_or(BadFile::Silent)?;
        let alone = || inputs.iter().find(|input| is_sound_input(input));
        let input = inputs.iter().find(|input| input.name == name).or_else(alone).ok_or_else(unopened)?;
        Ok((&input.name, tensor))
    }
}

/// Whether a field holds or names a picture or a sound.
fn is_file(value: &FieldValue) -> bool {
    place(value, Path::new("")).is_some()
}

/// Where the picture or sound of a field is, whose path is relative to `folder`.
fn place(value: &FieldValue, folder: &Path) -> Option<Place> {
    let FieldValue::Json(json) = value else { return None };
    let bytes = alone(json).get("bytes").and_then(Value::as_str).filter(|bytes| !bytes.is_empty());
    bytes.map(|bytes| Place::Row(bytes.to_owned())).or_else(|| path(value).map(|file| Place::File(folder.join(file))))
}

fn decoded(bytes: &str) -> Result<Vec<u8>, BadFile> {
    BASE64_STANDARD.decode(bytes).map_err(|error| BadFile::Broken(format!("its bytes are no base64: {error}")))
}

/// The path of a picture or a sound in a field. Files of arrays are read as the inputs that they are named for.
fn path(value: &FieldValue) -> Option<&str> {
    let FieldValue::Json(value) = value else { return None };
    named(value).filter(|path| !arrays::is_named(path))
}

/// The path in a value: text, an object with it, as the datasets library writes, or a list of one of these. A cell of a
/// table may be a list.
pub(crate) fn named(value: &Value) -> Option<&str> {
    let value = alone(value);
    let value = if let Value::Object(fields) = value { fields.get("path")? } else { value };
    value.as_str().filter(|path| !path.is_empty() && !path.starts_with('['))
}

/// The only value of a list, or the value itself.
fn alone(value: &Value) -> &Value {
    match value {
        Value::Array(items) if items.len() == 1 => &items[0],
        other => other,
    }
}

/// The samples in a field, an object with `array` and `sampling_rate`, as the datasets library has sounds.
fn samples(value: &FieldValue) -> Option<Named> {
    let FieldValue::Json(Value::Object(fields)) = value else { return None };
    let number = |value: &Value| value.as_f64().map(|sample| sample as f32);
    let samples: Option<Vec<f32>> = fields.get("array")?.as_array()?.iter().map(number).collect();
    Some(Named::Samples(samples?, fields.get("sampling_rate").and_then(Value::as_u64)))
}

/// The input for a picture, and which axis has its colours: `pixel_values`, or the only one of three axes of which the
/// first or the last can have three entries.
fn picture_input(inputs: &[TensorInput]) -> Option<(&TensorInput, Channels)> {
    let channels = |input: &TensorInput| match input.shape[..] {
        [Size::Fixed(3), _, _] => Some(Channels::First),
        [_, _, Size::Fixed(3)] => Some(Channels::Last),
        [Size::Any | Size::TokensOrAny, _, _] => Some(Channels::First),
        _ => None,
    };
    let usable = |input| Some((input, channels(input)?));
    let named = inputs.iter().find(|input| input.name == "pixel_values").map(usable);
    let mut alone = inputs.iter().filter(|input| input.name != "pixel_values").filter_map(usable);
    named.unwrap_or_else(|| alone.next().filter(|_| alone.next().is_none()))
}

/// Whether an input is one for sounds: samples, or the features of frames.
fn is_sound_input(input: &TensorInput) -> bool {
    ["input_values", "input_features"].contains(&input.name.as_str())
        || (input.dtype.is_float() && input.shape.len() == 1 && !matches!(input.shape[0], Size::Fixed(_)))
}
