//! Checks before the first step: the gradient is that of the loss, and the loss that of the model.

use super::error::Error;
use super::state::host;
use super::targets::Targets;
use super::trainer::Trainer;
use crate::calib::Batch;
use crate::runtime::Value;

impl Trainer {
    /// Compares the sum of the losses of a batch with that of the model with its fused operators, if it has any.
    ///
    /// # Errors
    /// [`Error::Outline`] when they differ by more than `tolerance`, relative.
    pub(crate) fn check_loss(&mut self, batch: &Batch, fused: Option<f64>, tolerance: f64) -> Result<(), Error> {
        let Some(fused) = fused else { return Ok(()) };
        let (spelled_out, _) = self.gradient(batch, 1.0)?.ok_or(Error::NoTargets)?;
        let is_close = (spelled_out - fused).abs() <= tolerance * fused.abs();
        if is_close { Ok(()) } else { Err(Error::Outline { spelled_out, fused }) }
    }

    /// Compares the gradient with the loss: along a direction, the loss must change as fast as the gradient says.
    ///
    /// The parameters are moved to where neither matrix of a pair is zero, and back. Where a model chooses, as the router
    /// of a mixture of experts does, the loss may jump on the way; then shorter ways are tried.
    ///
    /// # Errors
    /// [`Error::Check`] when they disagree by more than `tolerance`, relative.
    pub(crate) fn check(&mut self, batch: &Batch, tolerance: f64) -> Result<(), Error> {
        let start = self.theta()?;
        let checked = self.compare(batch, &start, tolerance);
        self.state.theta = Value::f32(&[start.len()], start)?;
        checked
    }

    fn compare(&mut self, batch: &Batch, start: &[f32], tolerance: f64) -> Result<(), Error> {
        /// Scale of the values that the parameters are moved by.
        const MOVED: f32 = 0.02;
        /// The changes of the loss that are aimed at, relative to the loss.
        const CHANGES: [f64; 3] = [0.01, 0.0025, 0.0006];
        // Values between -1 and 1 without a pattern, always the same.
        let noise = (0u32..).map(|i| (i.wrapping_mul(2_654_435_769) >> 8) as f32 / 8_388_608.0 - 1.0);
        let at: Vec<f32> = start.iter().zip(noise).map(|(value, noise)| value + MOVED * noise).collect();
        let (loss, gradient) = self.finite_at(batch, &at)?;
        let expected = gradient.iter().map(|value| value * value).sum::<f64>().sqrt();
        let mut measured = f64::NAN;
        for change in CHANGES {
            let length = change * loss.abs() / expected;
            let mut slope = |length: f64| -> Result<f64, Error> {
                let moved = |sign: f64| {
                    let along = gradient.iter().map(|value| sign * length * value / expected);
                    at.iter().zip(along).map(|(value, change)| (f64::from(*value) + change) as f32).collect()
                };
                let (above, _) = self.at(batch, moved(1.0))?;
                let (below, _) = self.at(batch, moved(-1.0))?;
                Ok((above - below) / (2.0 * length))
            };
            // The error of a central difference falls with the square of its length.
            measured = (4.0 * slope(length / 2.0)? - slope(length)?) / 3.0;
            if (measured - expected).abs() <= tolerance * expected.abs() {
                return Ok(());
            }
        }
        Err(Error::Check { measured, expected })
    }

    /// As [`at`](Self::at), with a scale that lets no gradient overflow.
    fn finite_at(&mut self, batch: &Batch, theta: &[f32]) -> Result<(f64, Vec<f64>), Error> {
        loop {
            let (loss, gradient) = self.at(batch, theta.to_vec())?;
            let gradient: Vec<f64> = host(&gradient)?.into_iter().map(f64::from).collect();
            if gradient.iter().all(|value| value.is_finite()) || !self.halve_scale() {
                return Ok((loss, gradient));
            }
        }
    }

    /// The mean loss of a batch and its gradient at the parameters `theta`.
    fn at(&mut self, batch: &Batch, theta: Vec<f32>) -> Result<(f64, Value), Error> {
        let weight = 1.0 / Targets::of(self.loss, batch).len().max(1) as f32;
        self.state.theta = Value::f32(&[theta.len()], theta)?;
        self.gradient(batch, weight)?.ok_or(Error::NoTargets)
    }
}
