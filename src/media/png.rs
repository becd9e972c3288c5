//! PNG pictures.

use std::io::{self, BufRead, Seek};

use png::{BitDepth, ColorType, Decoder, DecodingError, Limits, Transformations};

use super::error::BadFile;
use super::exif;
use super::rgb::Rgb;
use super::size::{MOST_PIXELS, check_pixels};

/// A PNG picture and its orientation, if the file has one. Transparency is left out, as by Pillow's `convert("RGB")`.
///
/// # Errors
/// When the file is broken or the picture too large.
pub(super) fn png(file: impl BufRead + Seek) -> Result<(Rgb, Option<u8>), BadFile> {
    let mut decoder = Decoder::new_with_limits(file, Limits { bytes: 16 * MOST_PIXELS as usize });
    decoder.set_transformations(Transformations::EXPAND);
    // Compressed chunks beside the picture, which nobody reads, may unpack to a thousand times their size.
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    let header = decoder.read_header_info().map_err(broken)?;
    let (width, height) = (header.width, header.height);
    // Pillow has such pictures in 16 bits, and others as the upper 8 bits.
    let wide_grey = (header.color_type, header.bit_depth) == (ColorType::Grayscale, BitDepth::Sixteen);
    check_pixels(width, height)?;
    let mut reader = decoder.read_info().map_err(broken)?;
    let most = reader.output_buffer_size().ok_or_else(|| BadFile::Broken("it has no size".to_owned()))?;
    let mut bytes = vec![0; most];
    let frame = reader.next_frame(&mut bytes).map_err(broken)?;
    reader.finish().map_err(broken)?;
    let orientation = reader.info().exif_metadata.as_deref().and_then(exif::orientation);
    let samples = match frame.bit_depth {
        BitDepth::Sixteen if wide_grey => bytes.chunks_exact(2).map(clipped).collect(),
        BitDepth::Sixteen => bytes.iter().copied().step_by(2).collect(),
        _ => bytes,
    };
    let colours = frame.color_type.samples();
    let rgb = samples.chunks_exact(colours).flat_map(|pixel| match pixel {
        [red, green, blue, ..] => [*red, *green, *blue],
        [grey, ..] => [*grey; 3],
        [] => [0; 3],
    });
    let picture = Rgb::new(width as usize, height as usize, rgb.collect());
    Ok((picture.ok_or_else(|| BadFile::Broken("its samples do not fill it".to_owned()))?, orientation))
}

/// A sample of 16 bits as one of 8: those above 255 are 255, as in Pillow's `convert("RGB")`.
fn clipped(sample: &[u8]) -> u8 {
    if sample[0] == 0 { sample[1] } else { 255 }
}

fn broken(error: DecodingError) -> BadFile {
    match error {
        DecodingError::IoError(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            BadFile::Broken("it ends too early".to_owned())
        }
        DecodingError::IoError(error) => BadFile::Io(error),
        other => BadFile::Broken(other.to_string()),
    }
}
