//! Feature extractors of transformers: from a sound to `input_values` or `input_features`.

use super::error::ProcessorError;
use super::kind::Kind;
use super::mel::LogMel;
use super::settings::{Settings, SettingsFile};
use crate::tensor::Tensor;

/// Types of models with a Whisper extractor, and with a Wav2Vec2 extractor (`models/auto/feature_extraction_auto.py`).
const WHISPER: [&str; 1] = ["whisper"];
const WAVES: [&str; 10] = [
    "data2vec-audio",
    "hubert",
    "moonshine",
    "sew",
    "sew-d",
    "unispeech",
    "unispeech-sat",
    "wav2vec2",
    "wav2vec2-conformer",
    "wavlm",
];

/// Makes the model's input of sounds.
pub struct SoundProcessor {
    /// Samples a second that sounds must have.
    pub rate: u32,
    features: Features,
}

enum Features {
    /// The samples, with mean 0 and variance 1 if `normal`.
    Samples { normal: bool },
    /// A log-mel spectrogram of `samples` samples: what is missing is silence, what is beyond is cut.
    Mel { mel: LogMel, bands: usize, samples: usize },
}

impl SoundProcessor {
    /// The extractor with these settings.
    ///
    /// # Errors
    /// When there are none, or they cannot be followed.
    pub fn open(file: &SettingsFile) -> Result<Self, ProcessorError> {
        let settings = Settings::open(file, Kind::Sounds)?;
        let model = file.model_type.as_deref().unwrap_or_default();
        let of_model = match model {
            _ if WHISPER.contains(&model) => Some("WhisperFeatureExtractor"),
            _ if WAVES.contains(&model) => Some("Wav2Vec2FeatureExtractor"),
            _ => None,
        };
        let class = settings.class(of_model)?;
        let rate = settings.count("sampling_rate", 16000)?;
        let rate = u32::try_from(rate).map_err(|_| settings.bad("sampling_rate", "is too large".to_owned()))?;
        if settings.number("padding_value", 0.0)? != 0.0 {
            return Err(settings.bad("padding_value", "must be 0".to_owned()));
        }
        let features = match class.as_str() {
            "WhisperFeatureExtractor" => whisper(&settings, rate)?,
            "Wav2Vec2FeatureExtractor" => waves(&settings)?,
            _ => return Err(settings.unknown(class)),
        };
        Ok(Self { rate, features })
    }

    /// The most samples that change anything, if longer sounds are cut.
    pub fn heard(&self) -> Option<usize> {
        match self.features {
            Features::Samples { .. } => None,
            Features::Mel { samples, .. } => Some(samples),
        }
    }

    /// The model's input for a sound of the right sampling rate, and what transformers calls it: `input_values`
    /// [samples], or `input_features` [bands, frames]. `None` for a sound without samples.
    pub fn input(&self, sound: &[f32]) -> Option<(&'static str, Tensor)> {
        if sound.is_empty() {
            return None;
        }
        match &self.features {
            Features::Samples { normal } => {
                let values = if *normal { normalized(sound) } else { sound.to_vec() };
                Some(("input_values", Tensor::from_vec(&[sound.len()], values)?))
            }
            Features::Mel { mel, bands, samples } => {
                let mut heard: Vec<f64> = sound.iter().take(*samples).copied().map(f64::from).collect();
                heard.resize(*samples, 0.0);
                let spectrogram = mel.of(&heard);
                let frames = spectrogram.len() / bands;
                Some(("input_features", Tensor::from_vec(&[*bands, frames], spectrogram)?))
            }
        }
    }
}

fn whisper(settings: &Settings, rate: u32) -> Result<Features, ProcessorError> {
    const MOST_SAMPLES: usize = 1 << 26;
    let bands = settings.count("feature_size", 80)?;
    let (n_fft, hop) = (settings.count("n_fft", 400)?, settings.count("hop_length", 160)?);
    let samples = settings.count("chunk_length", 30)?.saturating_mul(rate as usize);
    if settings.number("dither", 0.0)? != 0.0 {
        return Err(settings.bad("dither", "must be 0: it adds random numbers".to_owned()));
    }
    for (field, count, most) in [("feature_size", bands, 4096), ("n_fft", n_fft, 1 << 16), ("hop_length", hop, samples)]
    {
        if count > most {
            return Err(settings.bad(field, format!("must be at most {most}, got {count}")));
        }
    }
    if samples > MOST_SAMPLES {
        return Err(settings.bad("chunk_length", "is too long".to_owned()));
    }
    // A sound is mirrored by half a transform at its ends.
    if n_fft < 2 || n_fft / 2 >= samples {
        return Err(settings.bad("n_fft", format!("must be from 2 to {}, got {n_fft}", 2 * samples - 1)));
    }
    Ok(Features::Mel { mel: LogMel::new(rate, n_fft, hop, bands), bands, samples })
}

fn waves(settings: &Settings) -> Result<Features, ProcessorError> {
    if settings.count("feature_size", 1)? != 1 {
        return Err(settings.bad("feature_size", "must be 1".to_owned()));
    }
    if settings.get("padding_side").is_some_and(|side| side != "right") {
        return Err(settings.bad("padding_side", "must be \"right\"".to_owned()));
    }
    Ok(Features::Samples { normal: settings.flag("do_normalize", true)? })
}

/// The samples with mean 0 and variance 1 (`zero_mean_unit_var_norm` of transformers).
fn normalized(sound: &[f32]) -> Vec<f32> {
    let count = sound.len() as f64;
    let mean = sound.iter().copied().map(f64::from).sum::<f64>() / count;
    let variance = sound.iter().map(|sample| (f64::from(*sample) - mean).powi(2)).sum::<f64>() / count;
    let deviation = (variance + 1e-7).sqrt();
    sound.iter().map(|sample| ((f64::from(*sample) - mean) / deviation) as f32).collect()
}
