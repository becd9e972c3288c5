//! The segments of a file, of which each begins with a marker.

use super::super::error::BadFile;
use super::block::ZIGZAG;
use super::defect::broken;
use super::frame::Frame;
use super::huffman::Huffman;
use super::scan::Scan;

/// What the components of a picture are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Colours {
    /// Luma, chroma of blue, and chroma of red; or grey alone.
    LumaChroma,
    /// Red, green and blue.
    Rgb,
}

/// What has been read of a file.
#[derive(Default)]
pub(super) struct Segments<'a> {
    pub(super) frame: Option<Frame>,
    /// What the file has as Exif data.
    pub(super) exif: Option<&'a [u8]>,
    quantization: [Option<[u16; 64]>; 4],
    /// Tables of the first and of the other coefficients of blocks.
    huffman: [[Option<Huffman>; 4]; 2],
    /// Units between restarts, or 0.
    restart: usize,
    is_jfif: bool,
    /// The transformation of colours that Adobe's segment names.
    adobe: Option<u8>,
}

impl<'a> Segments<'a> {
    /// Reads all of a file.
    ///
    /// # Errors
    /// When it is broken, ends too early, or is of a kind that is not read.
    pub(super) fn read(&mut self, bytes: &'a [u8]) -> Result<(), BadFile> {
        let mut at = 0;
        let mut scans = 0;
        loop {
            at += bytes.get(at..).and_then(|rest| rest.iter().position(|byte| *byte == 0xff)).ok_or_else(early)?;
            let marker = *bytes.get(at + 1).ok_or_else(early)?;
            at += 1 + usize::from(marker != 0xff);
            match marker {
                0xd9 if scans > 0 => return Ok(()),
                0xd9 => return Err(broken("it has no picture")),
                // No markers, and markers that stand alone.
                0x00 | 0x01 | 0xd0..=0xd8 | 0xff => continue,
                _ => {}
            }
            let length = bytes.get(at..at + 2).map(|length| usize::from(u16::from_be_bytes([length[0], length[1]])));
            let segment = length.filter(|length| *length >= 2).and_then(|length| bytes.get(at + 2..at + length));
            let segment = segment.ok_or_else(early)?;
            at += 2 + segment.len();
            if marker == 0xda {
                at += self.scan(segment, &bytes[at..])?;
                scans += 1;
            } else {
                self.segment(marker, segment)?;
            }
        }
    }

    fn segment(&mut self, marker: u8, segment: &'a [u8]) -> Result<(), BadFile> {
        match marker {
            0xc0..=0xc2 if self.frame.is_some() => return Err(broken("it has two headers")),
            0xc0..=0xc2 => self.frame = Some(Frame::read(segment, marker == 0xc2)?),
            0xc4 => self.read_huffman(segment)?,
            0xc3 | 0xc5..=0xcf => {
                let expected = "a sequential or progressive one with Huffman codes";
                return Err(BadFile::Foreign { found: "a JPEG picture of a rare kind", expected });
            }
            0xdb => self.read_quantization(segment)?,
            0xdd => match segment {
                [high, low] => self.restart = u16::from_be_bytes([*high, *low]).into(),
                _ => return Err(broken("its interval of restarts is broken")),
            },
            0xe0 => self.is_jfif |= segment.starts_with(b"JFIF\0"),
            0xe1 if self.exif.is_none() => self.exif = segment.strip_prefix(b"Exif\0\0"),
            0xee if segment.starts_with(b"Adobe") => self.adobe = segment.get(11).copied(),
            _ => {}
        }
        Ok(())
    }

    fn read_quantization(&mut self, mut rest: &[u8]) -> Result<(), BadFile> {
        let wrong = || broken("a table of quantization is broken");
        while let Some((head, values)) = rest.split_first() {
            let (bytes, number) = (1 + usize::from(head >> 4), usize::from(head & 15));
            let (values, after) =
                values.split_at_checked(64 * bytes).filter(|_| bytes < 3 && number < 4).ok_or_else(wrong)?;
            let mut table = [0; 64];
            for (at, value) in values.chunks_exact(bytes).enumerate() {
                table[ZIGZAG[at]] = value.iter().fold(0, |number, byte| number << 8 | u16::from(*byte));
            }
            self.quantization[number] = Some(table);
            rest = after;
        }
        Ok(())
    }

    fn read_huffman(&mut self, mut rest: &[u8]) -> Result<(), BadFile> {
        let wrong = || broken("a table of Huffman codes is broken");
        while let Some((head, after)) = rest.split_first() {
            let (kind, number) = (usize::from(head >> 4), usize::from(head & 15));
            let (counts, after) =
                after.split_first_chunk::<16>().filter(|_| kind < 2 && number < 4).ok_or_else(wrong)?;
            let total = counts.iter().map(|count| usize::from(*count)).sum();
            let (values, after) = after.split_at_checked(total).ok_or_else(wrong)?;
            self.huffman[kind][number] = Some(Huffman::new(counts, values).ok_or_else(wrong)?);
            rest = after;
        }
        Ok(())
    }

    /// Reads the scan that follows its header, and returns its bytes.
    fn scan(&mut self, header: &[u8], data: &[u8]) -> Result<usize, BadFile> {
        let frame = self.frame.as_mut().ok_or_else(|| broken("its scans begin before its header"))?;
        let scan = Scan::read(header, frame)?;
        for part in &scan.parts {
            let component = &mut frame.components[part.component];
            component.quantization = component.quantization.or(self.quantization[component.table]);
        }
        scan.decode(frame, &self.huffman, self.restart, data)
    }

    /// What the components are, as `default_decompress_parms` of jdapimin.c decides.
    pub(super) fn colours(&self) -> Colours {
        let ids: Vec<u8> =
            self.frame.iter().flat_map(|frame| &frame.components).map(|component| component.id).collect();
        match (self.is_jfif, self.adobe) {
            (true, _) => Colours::LumaChroma,
            (false, Some(0)) => Colours::Rgb,
            (false, Some(_)) => Colours::LumaChroma,
            (false, None) if ids == *b"RGB" => Colours::Rgb,
            (false, None) => Colours::LumaChroma,
        }
    }
}

fn early() -> BadFile {
    broken("it ends too early")
}
