//! Log-mel spectrograms as Whisper takes them.

use std::f64::consts::PI;

use realfft::num_complex::Complex;
use realfft::{RealFftPlanner, RealToComplex};
use std::sync::Arc;

/// Highest frequency of the filters, in Hz.
const HIGHEST: f64 = 8000.0;

/// Makes log-mel spectrograms (`WhisperFeatureExtractor` of transformers, in 64 bits).
#[derive(Clone)]
pub(super) struct LogMel {
    fft: Arc<dyn RealToComplex<f64>>,
    /// Samples from one frame to the next.
    hop: usize,
    /// A Hann window, as long as the transform.
    window: Vec<f64>,
    filters: Vec<Band>,
}

/// A triangular filter: the first frequency that it weighs, and its weights.
#[derive(Clone, Debug)]
struct Band {
    first: usize,
    weights: Vec<f64>,
}

impl LogMel {
    /// For sounds of `rate` samples a second, with transforms of `n_fft` samples and `bands` filters.
    pub(super) fn new(rate: u32, n_fft: usize, hop: usize, bands: usize) -> Self {
        let turn = |at: usize| 2.0 * PI * at as f64 / n_fft as f64;
        Self {
            fft: RealFftPlanner::new().plan_fft_forward(n_fft),
            hop,
            window: (0..n_fft).map(|at| 0.5 - 0.5 * turn(at).cos()).collect(),
            filters: filters(rate, 1 + n_fft / 2, bands),
        }
    }

    /// The spectrogram [bands, samples / hop] of a sound, in row-major order: the decimal logarithm of the power of each
    /// band, at most 8 below the largest one, plus 4 and divided by 4.
    pub(super) fn of(&self, sound: &[f64]) -> Vec<f32> {
        let frames = sound.len() / self.hop;
        let mut logs = vec![0.0; self.filters.len() * frames];
        let (mut frame, mut spectrum) = (self.fft.make_input_vec(), self.fft.make_output_vec());
        for at in 0..frames {
            self.cut(sound, at * self.hop, &mut frame);
            if self.fft.process(&mut frame, &mut spectrum).is_err() {
                // The lengths of both are those of the transform.
                spectrum.fill(Complex::default());
            }
            let power: Vec<f64> = spectrum.iter().map(Complex::norm_sqr).collect();
            for (band, filter) in self.filters.iter().enumerate() {
                let weighed = filter.weights.iter().zip(&power[filter.first..]);
                logs[band * frames + at] =
                    weighed.map(|(weight, power)| weight * power).sum::<f64>().max(1e-10).log10();
            }
        }
        let floor = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max) - 8.0;
        logs.into_iter().map(|log| ((log.max(floor) + 4.0) / 4.0) as f32).collect()
    }

    /// The samples around `middle` times the window. Beyond its ends the sound is mirrored.
    fn cut(&self, sound: &[f64], middle: usize, into: &mut [f64]) {
        let half = (self.window.len() / 2) as i64;
        let last = sound.len() as i64 - 1;
        for (at, (sample, weight)) in into.iter_mut().zip(&self.window).enumerate() {
            let place = (middle as i64 - half + at as i64).abs();
            let place = if place > last { 2 * last - place } else { place };
            *sample = weight * sound[place as usize];
        }
    }
}

/// Triangles between neighbouring points of the mel scale, each divided by half its width (`mel_filter_bank` of
/// transformers' `audio_utils.py` with `norm="slaney"` and `mel_scale="slaney"`).
fn filters(rate: u32, frequencies: usize, bands: usize) -> Vec<Band> {
    let points: Vec<f64> = (0..bands + 2).map(|at| hertz(mel(HIGHEST) * at as f64 / (bands + 1) as f64)).collect();
    let frequency = |at: usize| f64::from(rate / 2) * at as f64 / (frequencies - 1) as f64;
    let band = |ends: &[f64]| {
        let (low, middle, high) = (ends[0], ends[1], ends[2]);
        let weight = |at: usize| {
            let (up, down) = ((frequency(at) - low) / (middle - low), (high - frequency(at)) / (high - middle));
            up.min(down).max(0.0) * 2.0 / (high - low)
        };
        let all: Vec<f64> = (0..frequencies).map(weight).collect();
        let first = all.iter().position(|weight| *weight > 0.0).unwrap_or(0);
        let end = all.iter().rposition(|weight| *weight > 0.0).map_or(first, |last| last + 1);
        Band { first, weights: all[first..end].to_vec() }
    };
    points.windows(3).map(band).collect()
}

/// Where the mel scale is no longer linear: 1000 Hz, 15 mels.
const KNEE: (f64, f64) = (1000.0, 15.0);

/// The mel of a frequency (Slaney).
fn mel(hertz: f64) -> f64 {
    if hertz < KNEE.0 { 3.0 * hertz / 200.0 } else { KNEE.1 + (hertz / KNEE.0).ln() * 27.0 / 6.4f64.ln() }
}

/// The frequency of a mel.
fn hertz(mel: f64) -> f64 {
    if mel < KNEE.1 { 200.0 * mel / 3.0 } else { KNEE.0 * ((mel - KNEE.1) * 6.4f64.ln() / 27.0).exp() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mel_scale_turns_back() {
        for frequency in [0.0, 440.0, 1000.0, 6000.0] {
            assert!((hertz(mel(frequency)) - frequency).abs() <= 1e-12 * frequency, "{frequency}");
        }
        assert_eq!(mel(1000.0), 15.0);
    }

    /// A tone at the middle of a transform's frequency has all its power there: (n_fft / 4)^2 for a window of mean 1/2.
    #[test]
    fn a_tone_is_in_its_band() {
        let (rate, n_fft) = (16000, 400);
        let tone: Vec<f64> = (0..8000).map(|at| (2.0 * PI * 1000.0 * f64::from(at) / 16000.0).cos()).collect();
        let mel = LogMel::new(rate, n_fft, 160, 80);
        let (spectrogram, frames) = (mel.of(&tone), 50);
        assert_eq!(spectrogram.len(), 80 * frames);
        let at_frame = |band: usize| spectrogram[band * frames + 25];
        let best = (0..80).max_by(|a, b| at_frame(*a).total_cmp(&at_frame(*b))).unwrap();
        let weight = |at: usize| {
            let band = &mel.filters[best];
            at.checked_sub(band.first).and_then(|at| band.weights.get(at)).copied().unwrap_or(0.0)
        };
        // The Hann window spreads a tone over three frequencies, with amplitudes 1/2, 1 and 1/2.
        let power = 100.0f64.powi(2) * (weight(25) + (weight(24) + weight(26)) / 4.0);
        assert!((f64::from(at_frame(best)) - (power.log10() + 4.0) / 4.0).abs() < 1e-6);
        assert!(mel.of(&vec![0.0; 1600]).iter().all(|value| *value == -1.5));
    }
}
