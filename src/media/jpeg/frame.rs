//! A picture in parts: its components, of which each has blocks of coefficients.

use super::super::error::BadFile;
use super::super::size::check_pixels;
use super::block::Block;
use super::defect::broken;

/// A picture whose coefficients are being read.
pub(super) struct Frame {
    /// Pixels of a row.
    pub(super) width: usize,
    /// Rows.
    pub(super) height: usize,
    pub(super) progressive: bool,
    pub(super) components: Vec<Component>,
    /// Most samples of a component per unit, across and down.
    most: (usize, usize),
}

/// One component: luma, chroma, or a colour.
pub(super) struct Component {
    pub(super) id: u8,
    /// Samples per unit, across and down.
    pub(super) across: usize,
    pub(super) down: usize,
    /// Number of its table of quantization, and the table once a scan has begun.
    pub(super) table: usize,
    pub(super) quantization: Option<[u16; 64]>,
    /// Samples of a row, and rows, without what fills up blocks.
    pub(super) width: usize,
    pub(super) height: usize,
    /// Blocks of a row, with those that fill up units.
    pub(super) stride: usize,
    pub(super) blocks: Vec<Block>,
}

/// Samples of a block across and down.
pub(super) const SIDE: usize = 8;

impl Frame {
    /// The frame that the segment of a start of frame describes.
    ///
    /// # Errors
    /// When it is broken, too large, or of a kind that is not read.
    pub(super) fn read(segment: &[u8], progressive: bool) -> Result<Self, BadFile> {
        let [precision, high, low, wide, narrow, count, rest @ ..] = segment else {
            return Err(broken("its header is cut off"));
        };
        let foreign = |found| BadFile::Foreign { found, expected: "a JPEG picture of 8 bits in grey or RGB" };
        if *precision != 8 {
            return Err(foreign("a JPEG picture of more than 8 bits"));
        }
        let [height, width] = [[*high, *low], [*wide, *narrow]].map(|bytes| usize::from(u16::from_be_bytes(bytes)));
        check_pixels(width as u32, height as u32)?;
        match count {
            1 | 3 => {}
            4 => return Err(foreign("a JPEG picture of four inks")),
            _ => return Err(broken("it has not one or three components")),
        }
        let parts: Vec<[u8; 3]> = rest.as_chunks::<3>().0.to_vec();
        let is_usable =
            |part: &[u8; 3]| (1..=4).contains(&(part[1] >> 4)) && (1..=4).contains(&(part[1] & 15)) && part[2] < 4;
        if parts.len() != usize::from(*count) || rest.len() % 3 != 0 || !parts.iter().all(is_usable) {
            return Err(broken("its header is broken"));
        }
        let factors = |part: &[u8; 3]| (usize::from(part[1] >> 4), usize::from(part[1] & 15));
        let most = parts.iter().map(factors).fold((1, 1), |most, part| (most.0.max(part.0), most.1.max(part.1)));
        let units = (width.div_ceil(SIDE * most.0), height.div_ceil(SIDE * most.1));
        let components = parts.iter().map(|part| {
            let (across, down) = factors(part);
            let stride = units.0 * across;
            Component {
                id: part[0],
                across,
                down,
                table: part[2].into(),
                quantization: None,
                width: (width * across).div_ceil(most.0),
                height: (height * down).div_ceil(most.1),
                stride,
                blocks: vec![[0; 64]; stride * units.1 * down],
            }
        });
        Ok(Self { width, height, progressive, components: components.collect(), most })
    }

    /// Units of all components across and down.
    pub(super) fn units(&self) -> (usize, usize) {
        (self.width.div_ceil(SIDE * self.most.0), self.height.div_ceil(SIDE * self.most.1))
    }

    /// How many pixels a sample of a component stands for across and down.
    ///
    /// # Errors
    /// When that is no whole number, which libjpeg does not read either.
    pub(super) fn factors(&self, component: &Component) -> Result<(usize, usize), BadFile> {
        if !self.most.0.is_multiple_of(component.across) || !self.most.1.is_multiple_of(component.down) {
            return Err(broken("its components have sizes that do not divide each other"));
        }
        Ok((self.most.0 / component.across, self.most.1 / component.down))
    }
}
