//! Files of pictures and sounds, as the tensors that the processors of transformers make of them.
//!
//! [`picture()`] and [`sound()`] read files, [`picture_of()`] and [`sound_of()`] their bytes; [`PictureProcessor`] and
//! [`SoundProcessor`] follow the settings that `preprocessor_config.json` beside a model has. This room knows no rows and
//! no models.

mod classes;
mod error;
mod exif;
mod extractor;
mod filter;
mod jpeg;
mod kind;
mod mel;
mod picture;
mod png;
mod processor;
mod resample;
mod rgb;
mod settings;
mod size;
mod sound;

pub use error::{BadFile, ProcessorError};
pub use extractor::SoundProcessor;
pub use kind::Kind;
pub use picture::{picture, picture_of};
pub use processor::{Channels, PictureProcessor};
pub use rgb::Rgb;
pub use settings::SettingsFile;
pub use sound::{sound, sound_of};
