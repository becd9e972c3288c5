//! The filters of Pillow's `Image.resize`, by the numbers that `resample` gives them.

use std::f64::consts::PI;

/// A filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Filter {
    /// The nearest sample.
    Nearest,
    /// A sinc with a window of three zeros.
    Lanczos,
    /// A triangle.
    Bilinear,
    /// The cubic convolution with a = -1/2.
    Bicubic,
    /// The mean of a box.
    Box,
    /// A sinc with a Hamming window of one zero.
    Hamming,
}

impl Filter {
    /// The filter that Pillow calls by a number (`PIL.Image.Resampling`).
    pub(super) fn numbered(number: u64) -> Option<Self> {
        let all = [Self::Nearest, Self::Lanczos, Self::Bilinear, Self::Bicubic, Self::Box, Self::Hamming];
        all.get(usize::try_from(number).ok()?).copied()
    }

    /// Half the width of what it weighs, in samples of the smaller picture.
    pub(super) fn support(self) -> f64 {
        match self {
            Self::Nearest | Self::Box => 0.5,
            Self::Bilinear | Self::Hamming => 1.0,
            Self::Bicubic => 2.0,
            Self::Lanczos => 3.0,
        }
    }

    /// The weight at distance `x`, up to a factor.
    pub(super) fn weight(self, x: f64) -> f64 {
        let distance = x.abs();
        match self {
            Self::Nearest | Self::Box => f64::from(u8::from(x > -0.5 && x <= 0.5)),
            Self::Bilinear => (1.0 - distance).max(0.0),
            Self::Bicubic if distance < 1.0 => (1.5 * distance - 2.5) * distance * distance + 1.0,
            Self::Bicubic if distance < 2.0 => (((distance - 5.0) * distance + 8.0) * distance - 4.0) * -0.5,
            Self::Bicubic => 0.0,
            Self::Lanczos if (-3.0..3.0).contains(&x) => sinc(x) * sinc(x / 3.0),
            Self::Lanczos => 0.0,
            // Pillow has the two constants of the window in 32 bits.
            Self::Hamming if distance < 1.0 => {
                sinc(distance) * (f64::from(0.54f32) + f64::from(0.46f32) * (distance * PI).cos())
            }
            Self::Hamming => 0.0,
        }
    }
}

fn sinc(x: f64) -> f64 {
    if x == 0.0 { 1.0 } else { (x * PI).sin() / (x * PI) }
}
