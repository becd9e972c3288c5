//! JPEG pictures, decoded as libjpeg-turbo decodes them for Pillow: its integer transform, its interpolation of chroma
//! ("fancy upsampling") and its conversion of colours, to the bit.
//!
//! Source: ITU-T T.81; T.871 (JFIF); jidctint.c, jdsample.c and jdcolor.c of libjpeg-turbo 3.1. Sequential and progressive
//! pictures of 8 bits with Huffman codes are read. What is missing or broken is an error, where libjpeg warns.

mod bits;
mod block;
mod colour;
mod defect;
mod frame;
mod huffman;
mod scan;
mod segments;
mod transform;
mod upsample;

use std::io::Read;

use super::error::BadFile;
use super::exif;
use super::rgb::Rgb;
use defect::broken;
use frame::Frame;
use segments::{Colours, Segments};

/// A JPEG picture and its orientation, if the file has one.
///
/// # Errors
/// When the file is broken, or the picture too large or of four inks.
pub(super) fn jpeg(mut file: impl Read) -> Result<(Rgb, Option<u8>), BadFile> {
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let mut segments = Segments::default();
    segments.read(&bytes)?;
    let orientation = segments.exif.and_then(exif::orientation);
    let colours = segments.colours();
    let mut frame = segments.frame.ok_or_else(|| broken("it has no picture"))?;
    let picture = Rgb::new(frame.width, frame.height, samples(&mut frame, colours)?);
    Ok((picture.ok_or_else(|| broken("its samples do not fill it"))?, orientation))
}

/// Red, green and blue of every pixel.
fn samples(frame: &mut Frame, colours: Colours) -> Result<Vec<u8>, BadFile> {
    let mut planes = Vec::with_capacity(frame.components.len());
    // The coefficients of each are dropped before those of the next become samples.
    for component in std::mem::take(&mut frame.components) {
        let (plane, factors) = (transform::plane(&component)?, frame.factors(&component)?);
        drop(component);
        planes.push(upsample::upsampled(plane, factors, (frame.width, frame.height)));
    }
    Ok(match (&planes[..], colours) {
        ([grey], _) => grey.iter().flat_map(|grey| [*grey; 3]).collect(),
        ([one, two, three], Colours::Rgb) => {
            one.iter().zip(two).zip(three).flat_map(|((red, green), blue)| [*red, *green, *blue]).collect()
        }
        ([luma, blue, red], Colours::LumaChroma) => colour::rgb(luma, blue, red),
        _ => return Err(broken("it has not one or three components")),
    })
}
