//! Pictures of 8-bit red, green and blue.

/// A picture, row by row from the top, with the three samples of a pixel side by side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rgb {
    /// Pixels of a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    samples: Vec<u8>,
}

impl Rgb {
    /// A picture of these samples; `None` unless they fill it and there are some.
    pub fn new(width: usize, height: usize, samples: Vec<u8>) -> Option<Self> {
        let fills = width.checked_mul(height)?.checked_mul(3)? == samples.len() && !samples.is_empty();
        fills.then_some(Self { width, height, samples })
    }

    /// A picture of zeros.
    pub(super) fn black(width: usize, height: usize) -> Self {
        Self { width, height, samples: vec![0; 3 * width * height] }
    }

    /// All samples.
    pub fn samples(&self) -> &[u8] {
        &self.samples
    }

    pub(super) fn row(&self, at: usize) -> &[u8] {
        &self.samples[3 * self.width * at..][..3 * self.width]
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = &[u8]> {
        self.samples.chunks_exact(3 * self.width)
    }

    pub(super) fn rows_mut(&mut self) -> impl Iterator<Item = &mut [u8]> {
        self.samples.chunks_exact_mut(3 * self.width)
    }

    /// The part of this size in the middle; zeros around it where the picture is smaller.
    pub(super) fn centre(&self, width: usize, height: usize, middle: Middle) -> Self {
        let mut cropped = Self::black(width, height);
        let (columns, rows) = (middle.between(self.width, width), middle.between(self.height, height));
        let (shared, copied) = (3 * self.width.min(width), self.height.min(height));
        for at in 0..copied {
            let from = &self.row(rows.from + at)[3 * columns.from..][..shared];
            cropped.samples[3 * (width * (rows.to + at) + columns.to)..][..shared].copy_from_slice(from);
        }
        cropped
    }
}

/// Where the middle is, if it is between two samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Middle {
    /// As in `center_crop` of transformers' `image_transforms.py`: a larger picture is cut before, a smaller one put after.
    Transforms,
    /// As in `center_crop` of the fast image processors: before in both cases.
    Before,
    /// As in torchvision's `center_crop`: a larger picture is cut at the even place, a smaller one put before.
    Even,
}

impl Rgb {
    /// The picture as it is seen, of one stored in an Exif orientation from 1 to 8.
    pub(super) fn turned(&self, orientation: u8) -> Self {
        let (turns, mirrors_x, mirrors_y) =
            (orientation >= 5, [2, 3, 7, 8].contains(&orientation), [3, 4, 6, 7].contains(&orientation));
        if !turns && !mirrors_x && !mirrors_y {
            return self.clone();
        }
        let (width, height) = if turns { (self.height, self.width) } else { (self.width, self.height) };
        let mut turned = Self::black(width, height);
        for (y, row) in turned.rows_mut().enumerate() {
            for (x, pixel) in row.chunks_exact_mut(3).enumerate() {
                let (x, y) = if turns { (y, x) } else { (x, y) };
                let x = if mirrors_x { self.width - 1 - x } else { x };
                let y = if mirrors_y { self.height - 1 - y } else { y };
                pixel.copy_from_slice(&self.row(y)[3 * x..][..3]);
            }
        }
        turned
    }
}

/// Where the common part of two lengths begins in each of them.
struct Offset {
    from: usize,
    to: usize,
}

impl Middle {
    fn between(self, from: usize, to: usize) -> Offset {
        let (cut, put) = (from.saturating_sub(to), to.saturating_sub(from));
        let even = |length: usize| length / 2 + usize::from(length % 4 == 3);
        Offset {
            from: if self == Self::Even { even(cut) } else { cut / 2 },
            to: if self == Self::Transforms { put.div_ceil(2) } else { put / 2 },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The numbers of the pixels in the middle of a picture of `size` pixels that are numbered from 1.
    fn middle(rule: Middle, size: (usize, usize), wanted: (usize, usize)) -> Vec<u8> {
        let samples = (1..=(size.0 * size.1) as u8).flat_map(|pixel| [pixel; 3]).collect();
        let cropped = Rgb::new(size.0, size.1, samples).unwrap().centre(wanted.0, wanted.1, rule);
        assert_eq!((cropped.width, cropped.height), wanted);
        cropped.samples().chunks(3).map(|pixel| pixel[0]).collect()
    }

    #[test]
    fn the_middle_is_rounded_as_transformers_rounds_it() {
        assert_eq!(middle(Middle::Transforms, (5, 1), (2, 1)), [2, 3]);
        assert_eq!(middle(Middle::Transforms, (2, 1), (5, 1)), [0, 0, 1, 2, 0]);
        assert_eq!(middle(Middle::Transforms, (2, 3), (4, 2)), [0, 1, 2, 0, 0, 3, 4, 0]);
        assert_eq!(middle(Middle::Before, (5, 1), (2, 1)), [2, 3]);
        assert_eq!(middle(Middle::Before, (2, 1), (5, 1)), [0, 1, 2, 0, 0]);
        assert_eq!(middle(Middle::Even, (5, 1), (2, 1)), [3, 4]);
        assert_eq!(middle(Middle::Even, (5, 1), (4, 1)), [1, 2, 3, 4]);
        assert_eq!(middle(Middle::Even, (9, 1), (4, 1)), [3, 4, 5, 6]);
    }

    /// As `PIL.ImageOps.exif_transpose` does, here of the pixels 1 2 3 above 4 5 6.
    #[test]
    fn orientations() {
        let picture = Rgb::new(3, 2, (1..=6).flat_map(|pixel| [pixel; 3]).collect()).unwrap();
        let turned = |orientation| {
            let turned = picture.turned(orientation);
            (turned.width, turned.samples().chunks(3).map(|pixel| pixel[0]).collect::<Vec<_>>())
        };
        assert_eq!(turned(1), (3, vec![1, 2, 3, 4, 5, 6]));
        assert_eq!(turned(2), (3, vec![3, 2, 1, 6, 5, 4]));
        assert_eq!(turned(3), (3, vec![6, 5, 4, 3, 2, 1]));
        assert_eq!(turned(4), (3, vec![4, 5, 6, 1, 2, 3]));
        assert_eq!(turned(5), (2, vec![1, 4, 2, 5, 3, 6]));
        assert_eq!(turned(6), (2, vec![4, 1, 5, 2, 6, 3]));
        assert_eq!(turned(7), (2, vec![6, 3, 5, 2, 4, 1]));
        assert_eq!(turned(8), (2, vec![3, 6, 2, 5, 1, 4]));
    }

    #[test]
    fn samples_must_fill_the_picture() {
        assert_eq!(Rgb::new(2, 1, vec![0; 5]), None);
        assert_eq!(Rgb::new(0, 1, vec![]), None);
        assert_eq!(Rgb::new(usize::MAX, 2, vec![0; 6]), None);
    }
}
