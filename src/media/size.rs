//! The size that a processor gives to pictures.

use serde_json::Value;

use super::error::{BadFile, ProcessorError};
use super::settings::Settings;

/// Most pixels of a picture, as of Pillow's `Image.open`.
pub(super) const MOST_PIXELS: u64 = 178_956_970;

/// The size of a picture that is resized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Size {
    /// This width and height.
    Both {
        /// Pixels of a row.
        width: usize,
        /// Rows.
        height: usize,
    },
    /// This for the shorter side; the proportion is kept.
    Shortest(usize),
}

impl Size {
    /// A setting with a size: an object with `height` and `width` or with `shortest_edge`, a list of height and width, or
    /// a number, which stands for both sides if it is `square` (`get_size_dict` of `image_processing_utils.py`).
    ///
    /// # Errors
    /// When it is none of these.
    pub(super) fn read(settings: &Settings, field: &str, default: Self, square: bool) -> Result<Self, ProcessorError> {
        let Some(value) = settings.get(field) else { return Ok(default) };
        let side = |value: &Value| settings.count_of(field, value);
        let both = |height: &Value, width: &Value| Ok(Self::Both { width: side(width)?, height: side(height)? });
        let other =
            || settings.bad(field, format!("is {value}, and `height` and `width` or `shortest_edge` are known"));
        match value {
            Value::Number(_) if square => both(value, value),
            Value::Number(_) => Ok(Self::Shortest(side(value)?)),
            Value::Array(sides) => match &sides[..] {
                [height, width] => both(height, width),
                _ => Err(other()),
            },
            Value::Object(sides) => {
                let named = |name: &str| sides.get(name).filter(|value| !value.is_null());
                let sides = ["height", "width", "shortest_edge", "longest_edge", "max_height", "max_width"].map(named);
                match sides {
                    [Some(height), Some(width), None, None, None, None] => both(height, width),
                    [None, None, Some(shortest), None, None, None] => Ok(Self::Shortest(side(shortest)?)),
                    _ => Err(other()),
                }
            }
            _ => Err(other()),
        }
    }

    /// Width and height of a picture of this width and height (`get_resize_output_image_size` of
    /// `image_transforms.py`).
    pub(super) fn of(self, width: usize, height: usize) -> (usize, usize) {
        let side = match self {
            Self::Both { width, height } => return (width, height),
            Self::Shortest(side) => side,
        };
        let longer = |short: usize, long: usize| (side as f64 * long as f64 / short as f64) as usize;
        if width <= height { (side, longer(width, height)) } else { (longer(height, width), side) }
    }
}

/// # Errors
/// When a picture of this size is too large, or has no pixels.
pub(super) fn check_pixels(width: u32, height: u32) -> Result<(), BadFile> {
    let (width, height) = (u64::from(width), u64::from(height));
    match width * height {
        0 => Err(BadFile::Broken("it has no pixels".to_owned())),
        pixels if pixels > MOST_PIXELS => Err(BadFile::Large { width, height, most: MOST_PIXELS }),
        _ => Ok(()),
    }
}
