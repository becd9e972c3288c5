//! Resizing 8-bit samples in whole numbers, as Pillow and torchvision do it, to the bit.
//!
//! The equations of Pillow are those of `ImagingResample` (`libImaging/Resample.c`) and, for the nearest sample, of
//! `ImagingScaleAffine` (`libImaging/Geometry.c`), of Pillow 13. Earlier versions resized the width first in all cases,
//! which can change a sample by 1 where the height shrinks by more than twice as much as the width. Those of torchvision
//! are PyTorch's for bytes on processors with AVX2 (`native/cpu/UpSampleKernel.cpp`): the same, with fewer bits.

use super::filter::Filter;
use super::rgb::Rgb;

/// Whose rounding is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rounding {
    /// That of Pillow's `Image.resize`.
    Pillow,
    /// That of torchvision's `resize` of bytes with antialiasing.
    Torchvision,
}

/// The picture in another size.
pub(super) fn resize(picture: &Rgb, (width, height): (usize, usize), filter: Filter, rounding: Rounding) -> Rgb {
    if (picture.width, picture.height) == (width, height) {
        return picture.clone();
    }
    if filter == Filter::Nearest {
        return nearest(picture, (width, height), rounding);
    }
    let (along, down) = (Axis { to: width, filter, rounding }, Axis { to: height, filter, rounding });
    if rounding == Rounding::Pillow && height_first(picture, width, height) {
        resize_width(resize_height(picture, down), along)
    } else {
        resize_height(&resize_width(picture.clone(), along), down)
    }
}

/// Whether the height is resized before the width: it loses more than twice as many samples.
fn height_first(picture: &Rgb, width: usize, height: usize) -> bool {
    let lost = |from: usize, to: usize| from as i64 - to as i64;
    let (rows, columns) = (lost(picture.height, height), lost(picture.width, width));
    rows > 0 && rows > 2 * columns
}

/// How an axis is resized.
#[derive(Clone, Copy)]
struct Axis {
    /// Its new length.
    to: usize,
    filter: Filter,
    rounding: Rounding,
}

/// What the samples along an axis are sums of.
struct Sums {
    windows: Vec<Window>,
    /// Bits of the weights behind the point.
    bits: u32,
}

/// What one sample of the result is the sum of.
struct Window {
    /// The first sample of the picture.
    start: usize,
    /// The weights of this and the following samples, times 2^bits.
    weights: Vec<i32>,
}

impl Axis {
    /// The sums along an axis of `from` samples.
    fn sums(self, from: usize) -> Sums {
        let windows: Vec<(usize, Vec<f64>)> = (0..self.to).map(|at| self.window(from, at)).collect();
        let largest = windows.iter().flat_map(|(_, weights)| weights).copied().fold(0.0, f64::max);
        let bits = self.rounding.bits(largest);
        let fixed = |(start, weights): (usize, Vec<f64>)| Window {
            start,
            weights: weights.into_iter().map(|weight| fixed(weight, bits)).collect(),
        };
        Sums { windows: windows.into_iter().map(fixed).collect(), bits }
    }

    /// The first sample and the weights of the sum for sample `at`.
    fn window(self, from: usize, at: usize) -> (usize, Vec<f64>) {
        let scale = from as f64 / self.to as f64;
        let stretch = scale.max(1.0);
        let (support, narrow) = (self.filter.support() * stretch, 1.0 / stretch);
        let centre = (at as f64 + 0.5) * scale;
        let start = (centre - support + 0.5).max(0.0) as usize;
        let end = ((centre + support + 0.5) as usize).min(from);
        let weight = |sample: usize| self.filter.weight((sample as f64 - centre + 0.5) * narrow);
        let weights: Vec<f64> = (start..end).map(weight).collect();
        let sum: f64 = weights.iter().sum();
        let share = |weight: f64| if sum == 0.0 { weight } else { weight / sum };
        (start, weights.into_iter().map(share).collect())
    }
}

impl Rounding {
    /// Bits of weights behind the point, of which this is the largest.
    fn bits(self, largest: f64) -> u32 {
        match self {
            // All of 32 but 8 of the sample and 2 for sums beyond its range.
            Self::Pillow => 32 - 8 - 2,
            // As many as weights of 16 bits can have.
            Self::Torchvision => {
                let fits = |bits: &u32| (0.5 + largest * f64::from(1u32 << (bits + 1))) < f64::from(1u32 << 15);
                (0..22).find(|bits| !fits(bits)).unwrap_or(22)
            }
        }
    }
}

/// A weight times 2^bits, rounded to the nearest whole number.
fn fixed(weight: f64, bits: u32) -> i32 {
    let scaled = weight * f64::from(1u32 << bits);
    (if weight < 0.0 { scaled - 0.5 } else { scaled + 0.5 }) as i32
}

impl Sums {
    /// One half, at which sums begin.
    fn half(&self) -> i32 {
        (1 << self.bits) / 2
    }

    /// The 8-bit sample of a sum.
    fn rounded(&self, sum: i32) -> u8 {
        (sum >> self.bits).clamp(0, 255) as u8
    }
}

fn resize_width(picture: Rgb, axis: Axis) -> Rgb {
    if picture.width == axis.to {
        return picture;
    }
    let sums = axis.sums(picture.width);
    let mut resized = Rgb::black(axis.to, picture.height);
    for (row, into) in picture.rows().zip(resized.rows_mut()) {
        for (window, into) in sums.windows.iter().zip(into.chunks_exact_mut(3)) {
            let mut pixel = [sums.half(); 3];
            for (samples, weight) in row[3 * window.start..].chunks_exact(3).zip(&window.weights) {
                pixel.iter_mut().zip(samples).for_each(|(sum, sample)| *sum += i32::from(*sample) * weight);
            }
            into.iter_mut().zip(pixel).for_each(|(sample, sum)| *sample = sums.rounded(sum));
        }
    }
    resized
}

fn resize_height(picture: &Rgb, axis: Axis) -> Rgb {
    if picture.height == axis.to {
        return picture.clone();
    }
    let sums = axis.sums(picture.height);
    let mut resized = Rgb::black(picture.width, axis.to);
    let mut line = vec![0; 3 * picture.width];
    for (window, into) in sums.windows.iter().zip(resized.rows_mut()) {
        line.fill(sums.half());
        for (row, weight) in picture.rows().skip(window.start).zip(&window.weights) {
            line.iter_mut().zip(row).for_each(|(sum, sample)| *sum += i32::from(*sample) * weight);
        }
        into.iter_mut().zip(&line).for_each(|(sample, sum)| *sample = sums.rounded(*sum));
    }
    resized
}

/// The sample at the middle of what each sample of the result covers.
fn nearest(picture: &Rgb, (width, height): (usize, usize), rounding: Rounding) -> Rgb {
    let (columns, lines) = (rounding.middles(picture.width, width), rounding.middles(picture.height, height));
    let mut resized = Rgb::black(width, height);
    for (line, into) in lines.into_iter().zip(resized.rows_mut()) {
        let row = picture.row(line);
        for (column, into) in columns.iter().zip(into.chunks_exact_mut(3)) {
            into.copy_from_slice(&row[3 * column..][..3]);
        }
    }
    resized
}

impl Rounding {
    /// The samples in the middle of what each of `to` samples covers, with the rounding errors of the places.
    fn middles(self, from: usize, to: usize) -> Vec<usize> {
        let last = |place: f64| (place as usize).min(from - 1);
        match self {
            Self::Pillow => {
                let step = from as f64 / to as f64;
                let places = std::iter::successors(Some(step * 0.5), |place| Some(place + step));
                places.take(to).map(last).collect()
            }
            Self::Torchvision => {
                let step = from as f32 / to as f32;
                (0..to).map(|at| last(f64::from(((at as f64 + 0.5) * f64::from(step)) as f32))).collect()
            }
        }
    }
}
