//! JPEG pictures, through libjpeg-turbo's decoder as MozJPEG has it: the one that Pillow uses, with the same defaults.

use std::io::Read;

use mozjpeg::{ColorSpace, Decompress, Marker};

use super::error::BadFile;
use super::exif;
use super::rgb::Rgb;
use super::size::check_pixels;
use crate::caught::caught;

/// The segment that holds Exif data, and the bytes that it begins with.
const EXIF: (Marker, &[u8]) = (Marker::APP(1), b"Exif\0\0");

/// A JPEG picture and its orientation, if the file has one.
///
/// # Errors
/// When the file is broken, or the picture too large or of four inks.
pub(super) fn jpeg(mut file: impl Read) -> Result<(Rgb, Option<u8>), BadFile> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    // The decoder fills up what is missing, Pillow refuses it.
    if !ends(&bytes) {
        return Err(BadFile::Broken("it ends too early".to_owned()));
    }
    // Errors of the library are panics.
    caught(|| Ok::<_, String>(decoded(&bytes))).map_err(BadFile::Broken)?
}

fn decoded(bytes: &[u8]) -> Result<(Rgb, Option<u8>), BadFile> {
    let picture = Decompress::with_markers(&[EXIF.0]).from_mem(bytes)?;
    let (width, height) = picture.size();
    check_pixels(width as u32, height as u32)?;
    if matches!(picture.color_space(), ColorSpace::JCS_CMYK | ColorSpace::JCS_YCCK) {
        return Err(BadFile::Foreign { found: "a JPEG picture of four inks", expected: "a picture in RGB" });
    }
    let exif = picture.markers().find_map(|marker| marker.data.strip_prefix(EXIF.1));
    let orientation = exif.and_then(exif::orientation);
    let mut rows = picture.rgb()?;
    let samples = rows.read_scanlines::<u8>()?;
    rows.finish()?;
    let picture = Rgb::new(width, height, samples);
    Ok((picture.ok_or_else(|| BadFile::Broken("its samples do not fill it".to_owned()))?, orientation))
}

/// Whether there is an end after the last scan: no other bytes of a scan are FF D9.
fn ends(bytes: &[u8]) -> bool {
    let last = |marker: [u8; 2]| bytes.windows(2).rposition(|pair| pair == marker);
    last([0xff, 0xd9]) > last([0xff, 0xda])
}
