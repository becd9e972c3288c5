//! JPEG pictures.

use std::io::Read;

use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::error::BadFile;
use super::exif;
use super::rgb::Rgb;
use super::size::check_pixels;

/// A JPEG picture and its orientation, if the file has one.
///
/// # Errors
/// When the file is broken, or the picture too large or of four inks.
pub(super) fn jpeg(mut file: impl Read) -> Result<(Rgb, Option<u8>), BadFile> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let broken = |error: zune_jpeg::errors::DecodeErrors| BadFile::Broken(error.to_string());
    let options = DecoderOptions::default().set_max_width(usize::from(u16::MAX)).set_max_height(usize::from(u16::MAX));
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(&bytes[..]), options);
    decoder.decode_headers().map_err(broken)?;
    let (width, height) = decoder.dimensions().unwrap_or_default();
    check_pixels(width as u32, height as u32)?;
    // The decoder fills up what is missing, Pillow refuses it.
    if !ends(&bytes) {
        return Err(BadFile::Broken("it ends too early".to_owned()));
    }
    let grey = match decoder.input_colorspace() {
        Some(ColorSpace::Luma) => true,
        Some(ColorSpace::CMYK | ColorSpace::YCCK) => {
            return Err(BadFile::Foreign { found: "a JPEG picture of four inks", expected: "a picture in RGB" });
        }
        _ => false,
    };
    let wanted = if grey { ColorSpace::Luma } else { ColorSpace::RGB };
    decoder.set_options(options.jpeg_set_out_colorspace(wanted));
    let samples = decoder.decode().map_err(broken)?;
    let samples = if grey { samples.into_iter().flat_map(|grey| [grey; 3]).collect() } else { samples };
    let picture =
        Rgb::new(width, height, samples).ok_or_else(|| BadFile::Broken("its samples do not fill it".to_owned()));
    Ok((picture?, decoder.exif().and_then(|exif| exif::orientation(exif))))
}

/// Whether there is an end after the last scan: no other bytes of a scan are FF D9.
fn ends(bytes: &[u8]) -> bool {
    let last = |marker: [u8; 2]| bytes.windows(2).rposition(|pair| pair == marker);
    last([0xff, 0xd9]) > last([0xff, 0xda])
}
