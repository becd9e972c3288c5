//! Image processors of transformers: from a picture to `pixel_values`.

use super::classes::{CLASSES, Class, DefaultSize, FAST_BEIT, Normal, Rule};
use super::error::{BadFile, ProcessorError};
use super::filter::Filter;
use super::kind::Kind;
use super::resample::{Rounding, resize};
use super::rgb::{Middle, Rgb};
use super::settings::{Settings, SettingsFile};
use super::size::{MOST_PIXELS, Size};
use crate::tensor::Tensor;

/// Which axis of a picture's tensor has the colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channels {
    /// [3, height, width].
    First,
    /// [height, width, 3].
    Last,
}

/// Makes the model's input of pictures, as the image processors of transformers do: the same numbers for the same samples, to
/// the bit. Those whose class ends in `Fast` use torchvision, others Pillow.
#[derive(Clone, Debug)]
pub struct PictureProcessor {
    resized: Option<(Size, Filter)>,
    rounding: Rounding,
    /// Width and height of the part in the middle.
    cropped: Option<(usize, usize, Middle)>,
    /// For each channel of the result, the value of each of the 256 samples.
    values: [Vec<f32>; 3],
    /// Whether the first channel is blue.
    flipped: bool,
}

/// Settings that switch nothing on that pictures go through.
const OF_LABELS: [&str; 3] = ["do_reduce_labels", "do_convert_rgb", "do_center_crop_labels"];

impl PictureProcessor {
    /// The processor with these settings.
    ///
    /// # Errors
    /// When there are none, or they cannot be followed.
    pub fn open(file: &SettingsFile) -> Result<Self, ProcessorError> {
        let settings = Settings::open(file, Kind::Pictures)?;
        let (class, rounding) = class(&settings, file.model_type.as_deref())?;
        refuse_unknown_steps(&settings, class)?;
        let (resized, fixed_crop) = resizing(&settings, class)?;
        if let (Rounding::Torchvision, Some((_, filter @ (Filter::Box | Filter::Hamming)))) = (rounding, resized) {
            return Err(
                settings.bad("resample", format!("is {filter:?}, which {}ImageProcessorFast has not", class.name))
            );
        }
        let fast = rounding == Rounding::Torchvision;
        let middle = if fast { Middle::Before } else { Middle::Transforms };
        let crop = match class.crop {
            Some(side) if settings.flag("do_center_crop", class.crops)? => Some((crop_size(&settings, side)?, middle)),
            _ => None,
        };
        let fixed_crop = fixed_crop.map(|size| (size, if fast { Middle::Even } else { Middle::Transforms }));
        let cropped = fixed_crop.or(crop).map(|((width, height), middle)| (width, height, middle));
        let flipped = class.flips && settings.flag("do_flip_channel_order", true)?;
        Ok(Self { resized, rounding, cropped, values: values(&settings, class, fast)?, flipped })
    }

    /// The tensor of a picture, of 32-bit floats.
    ///
    /// # Errors
    /// When the picture would become too large.
    pub fn tensor(&self, picture: &Rgb, channels: Channels) -> Result<Tensor, BadFile> {
        let mut made = picture.clone();
        if let Some((size, filter)) = self.resized {
            let (width, height) = size.of(picture.width, picture.height);
            if (width as u64).saturating_mul(height as u64) > MOST_PIXELS || width == 0 || height == 0 {
                return Err(BadFile::Stretched { width, height, most: MOST_PIXELS });
            }
            made = resize(picture, (width, height), filter, self.rounding);
        }
        if let Some((width, height, middle)) = self.cropped {
            made = made.centre(width, height, middle);
        }
        let pixels = made.samples().chunks_exact(3);
        let value = |pixel: &[u8], channel: usize| {
            let from = if self.flipped { 2 - channel } else { channel };
            self.values[channel][usize::from(pixel[from])]
        };
        let (shape, data): (_, Vec<f32>) = match channels {
            Channels::First => (
                [3, made.height, made.width],
                (0..3).flat_map(|channel| pixels.clone().map(move |pixel| value(pixel, channel))).collect(),
            ),
            Channels::Last => (
                [made.height, made.width, 3],
                pixels.flat_map(|pixel| [value(pixel, 0), value(pixel, 1), value(pixel, 2)]).collect(),
            ),
        };
        Tensor::from_vec(&shape, data).ok_or_else(|| BadFile::Broken("its samples do not fill it".to_owned()))
    }
}

/// The class that the settings are for, and whose rounding it has. `Pil` is what transformers 5 calls the slow ones.
fn class(settings: &Settings, model_type: Option<&str>) -> Result<(&'static Class, Rounding), ProcessorError> {
    let of_model = model_type.and_then(|name| CLASSES.iter().find(|class| class.models.contains(&name)));
    let named = settings.class(of_model.map(|class| format!("{}ImageProcessor", class.name)).as_deref())?;
    let (name, rounding) = match (named.strip_suffix("Fast"), named.strip_suffix("Pil")) {
        (Some(name), _) => (name, Rounding::Torchvision),
        (None, slow) => (slow.unwrap_or(&named), Rounding::Pillow),
    };
    let mut known = CLASSES.iter().find(|class| name.strip_suffix("ImageProcessor") == Some(class.name));
    if rounding == Rounding::Torchvision && known.is_some_and(|class| class.name == FAST_BEIT.name) {
        known = Some(&FAST_BEIT);
    }
    known.map(|class| (class, rounding)).ok_or_else(|| settings.unknown(named.clone()))
}

/// Refuses settings that are on, and that the class does not know: fast processors may do what slow ones do not.
fn refuse_unknown_steps(settings: &Settings, class: &Class) -> Result<(), ProcessorError> {
    let known = |name: &str| {
        ["do_resize", "do_rescale", "do_normalize"].contains(&name)
            || OF_LABELS.contains(&name)
            || (name == "do_center_crop" && class.crop.is_some())
            || (name == "do_flip_channel_order" && class.flips)
    };
    match settings.switched_on().find(|name| name.starts_with("do_") && !known(name)) {
        Some(step) => Err(settings.bad(step, format!("is no step of {}ImageProcessor", class.name))),
        None => Ok(()),
    }
}

/// A size with its filter, and the width and height of the part that is cut out of it.
type Resizing = (Option<(Size, Filter)>, Option<(usize, usize)>);

fn resizing(settings: &Settings, class: &Class) -> Result<Resizing, ProcessorError> {
    if !settings.flag("do_resize", true)? {
        return Ok((None, None));
    }
    let default = match class.size {
        DefaultSize::Square(side) => Size::Both { width: side, height: side },
        DefaultSize::Shortest(side) => Size::Shortest(side),
    };
    let size = Size::read(settings, "size", default, matches!(class.size, DefaultSize::Square(_)))?;
    let filter = match settings.get("resample") {
        None => class.filter,
        Some(number) => {
            let known = number.as_u64().and_then(Filter::numbered);
            known.ok_or_else(|| {
                settings.bad("resample", format!("must be a filter of Pillow from 0 to 5, got {number}"))
            })?
        }
    };
    let (size, crop) = match (class.rule, size) {
        (Rule::Widened, Size::Shortest(side)) => (Size::Shortest((256.0 / 224.0 * side as f64) as usize), None),
        (Rule::CropPct, Size::Shortest(side)) if side < 384 => {
            let share = settings.number("crop_pct", 224.0 / 256.0)?;
            let wider = (side as f64 / share) as usize;
            if share <= 0.0 || wider == 0 {
                return Err(settings.bad("crop_pct", format!("must be above 0, got {share}")));
            }
            (Size::Shortest(wider), Some((side, side)))
        }
        (Rule::CropPct, Size::Shortest(side)) => (Size::Both { width: side, height: side }, None),
        (Rule::CropPct, Size::Both { .. }) => {
            return Err(settings.bad("size", "must have `shortest_edge`".to_owned()));
        }
        (_, size) => (size, None),
    };
    Ok((Some((size, filter)), crop))
}

fn crop_size(settings: &Settings, side: usize) -> Result<(usize, usize), ProcessorError> {
    match Size::read(settings, "crop_size", Size::Both { width: side, height: side }, true)? {
        Size::Both { width, height } if (width as u64) * (height as u64) <= MOST_PIXELS => Ok((width, height)),
        _ => Err(settings.bad("crop_size", "must have `height` and `width`".to_owned())),
    }
}

/// What becomes of each sample in each channel. `rescale` of transformers' `image_transforms.py` has 64 bits, rounded to 32,
/// and its `normalize` 32; the fast processors join the two (`rescale_and_normalize` of `image_processing_utils_fast.py`).
fn values(settings: &Settings, class: &Class, fast: bool) -> Result<[Vec<f32>; 3], ProcessorError> {
    let scale = match settings.flag("do_rescale", true)? {
        true => Some(settings.number("rescale_factor", 1.0 / 255.0)?),
        false => None,
    };
    let normal = match class.normal {
        Some(Normal { mean, std }) if settings.flag("do_normalize", true)? => {
            Some((settings.channels("image_mean", mean)?, settings.channels("image_std", std)?))
        }
        _ => None,
    };
    let value = |sample: u8, channel: usize| match (scale, normal) {
        (Some(scale), Some((mean, std))) if fast => {
            let levels = |value: f64| value as f32 * (1.0 / scale) as f32;
            (f32::from(sample) - levels(mean[channel])) / levels(std[channel])
        }
        (Some(scale), None) if fast => f32::from(sample) * scale as f32,
        _ => {
            let rescaled = scale.map_or(f32::from(sample), |scale| (f64::from(sample) * scale) as f32);
            normal.map_or(rescaled, |(mean, std)| (rescaled - mean[channel] as f32) / std[channel] as f32)
        }
    };
    Ok([0, 1, 2].map(|channel| (0..=u8::MAX).map(|sample| value(sample, channel)).collect()))
}
