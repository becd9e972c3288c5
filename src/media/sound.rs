//! Files of sounds: WAV and FLAC, as one channel of 32-bit floats.

use std::io::{BufReader, Cursor, Read, Seek};
use std::path::Path;

use super::error::BadFile;
use crate::regular;

const EXPECTED: &str = "a WAV or FLAC sound";

/// Most samples of a sound that is read whole: 70 minutes at 16,000 a second.
const MOST_SAMPLES: usize = 1 << 26;

/// The sound in a file of `rate` samples a second, at most the first `heard` samples: whole numbers divided by their
/// largest value plus 1, and the mean of the channels, as libsndfile and librosa give it.
///
/// # Errors
/// When the file is missing, no sound, broken, too long, or has another sampling rate.
pub fn sound(path: &Path, rate: u32, heard: Option<usize>) -> Result<Vec<f32>, BadFile> {
    read(BufReader::new(regular::open(path)?), Wanted { rate, heard })
}

/// The sound in the bytes of a file, as [`sound()`] reads it.
///
/// # Errors
/// When they are no sound, broken, too long, or have another sampling rate.
pub fn sound_of(bytes: &[u8], rate: u32, heard: Option<usize>) -> Result<Vec<f32>, BadFile> {
    read(Cursor::new(bytes), Wanted { rate, heard })
}

fn read(mut file: impl Read + Seek, wanted: Wanted) -> Result<Vec<f32>, BadFile> {
    let mut start = Vec::new();
    file.by_ref().take(12).read_to_end(&mut start)?;
    file.rewind()?;
    match &start[..] {
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'A', b'V', b'E'] => wav(file, wanted),
        [b'f', b'L', b'a', b'C', ..] => flac(file, wanted),
        _ => Err(BadFile::Foreign { found: "no sound of a known format", expected: EXPECTED }),
    }
}

#[derive(Clone, Copy)]
struct Wanted {
    rate: u32,
    heard: Option<usize>,
}

fn wav(file: impl Read, wanted: Wanted) -> Result<Vec<f32>, BadFile> {
    let broken = |error: hound::Error| match error {
        hound::Error::IoError(error) => BadFile::Io(error),
        other => BadFile::Broken(other.to_string()),
    };
    let mut reader = hound::WavReader::new(file).map_err(broken)?;
    let hound::WavSpec { channels, sample_rate, bits_per_sample, sample_format } = reader.spec();
    match sample_format {
        hound::SampleFormat::Float => {
            let samples = reader.samples::<f32>().map(|sample| sample.map_err(broken));
            mixed(samples, channels.into(), sample_rate, wanted)
        }
        hound::SampleFormat::Int => {
            let samples =
                reader.samples::<i32>().map(|sample| Ok(float(sample.map_err(broken)?, bits_per_sample.into())));
            mixed(samples, channels.into(), sample_rate, wanted)
        }
    }
}

fn flac(file: impl Read, wanted: Wanted) -> Result<Vec<f32>, BadFile> {
    let broken = |error: claxon::Error| match error {
        claxon::Error::IoError(error) => BadFile::Io(error),
        other => BadFile::Broken(other.to_string()),
    };
    let mut reader = claxon::FlacReader::new(file).map_err(broken)?;
    let claxon::metadata::StreamInfo { channels, sample_rate, bits_per_sample, .. } = reader.streaminfo();
    let samples = reader.samples().map(|sample| Ok(float(sample.map_err(broken)?, bits_per_sample)));
    mixed(samples, channels as usize, sample_rate, wanted)
}

/// A whole number of so many bits as a number from -1 to 1.
fn float(sample: i32, bits: u32) -> f32 {
    (f64::from(sample) / 2f64.powi(bits as i32 - 1)) as f32
}

/// The means of the channels, which take turns.
fn mixed(
    mut samples: impl Iterator<Item = Result<f32, BadFile>>,
    channels: usize,
    rate: u32,
    wanted: Wanted,
) -> Result<Vec<f32>, BadFile> {
    if rate != wanted.rate {
        return Err(BadFile::Rate { got: rate.into(), expected: wanted.rate });
    }
    let most = wanted.heard.unwrap_or(MOST_SAMPLES);
    let mut sound = Vec::new();
    loop {
        let at_once: Result<Vec<f32>, BadFile> = samples.by_ref().take(channels.max(1)).collect();
        let at_once = at_once?;
        match at_once.len() {
            0 => break,
            _ if sound.len() == most && wanted.heard.is_some() => break,
            _ if sound.len() == most => return Err(BadFile::Long { most }),
            _ => sound.push(at_once.iter().sum::<f32>() / at_once.len() as f32),
        }
    }
    if sound.is_empty() {
        return Err(BadFile::Silent);
    }
    Ok(sound)
}
