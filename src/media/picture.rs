//! Files of pictures: PNG and JPEG as RGB, as `load_image` of transformers' `image_utils.py` has them from Pillow.

use std::io::{BufRead, BufReader, Cursor, Read, Seek};
use std::path::Path;

use super::error::BadFile;
use super::jpeg::jpeg;
use super::png::png;
use super::rgb::Rgb;
use crate::regular;

const EXPECTED: &str = "a PNG or JPEG picture";

/// First bytes of files, and what they are.
const KNOWN: [(&[u8], &str); 8] = [
    (b"GIF8", "a GIF picture"),
    (b"BM", "a BMP picture"),
    (b"RIFF", "a WebP picture or something else"),
    (b"II*\0", "a TIFF picture"),
    (b"MM\0*", "a TIFF picture"),
    (b"%PDF", "a PDF document"),
    (b"<svg", "an SVG drawing"),
    (b"\0\0\0", "a HEIF or AVIF picture, or a video"),
];

/// The picture in a file, turned as its Exif orientation says.
///
/// # Errors
/// When the file is missing, no picture, broken or too large.
pub fn picture(path: &Path) -> Result<Rgb, BadFile> {
    read(BufReader::new(regular::open(path)?))
}

/// The picture in the bytes of a file, as [`picture()`] reads it.
///
/// # Errors
/// When they are no picture, broken or too large.
pub fn picture_of(bytes: &[u8]) -> Result<Rgb, BadFile> {
    read(Cursor::new(bytes))
}

fn read(mut file: impl BufRead + Seek) -> Result<Rgb, BadFile> {
    let mut start = Vec::new();
    file.by_ref().take(8).read_to_end(&mut start)?;
    file.rewind()?;
    let (picture, orientation) = match &start[..] {
        [0x89, b'P', b'N', b'G', ..] => png(file)?,
        [0xff, 0xd8, 0xff, ..] => jpeg(file)?,
        other => {
            let known = KNOWN.iter().find(|(start, _)| other.starts_with(start));
            return Err(BadFile::Foreign { found: known.map_or("no picture", |(_, name)| name), expected: EXPECTED });
        }
    };
    Ok(picture.turned(orientation.unwrap_or(1)))
}
