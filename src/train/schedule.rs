//! The learning rate of each step, as the schedules of transformers give it (`optimization.py`).

use std::f64::consts::PI;

/// How the learning rate falls after the warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Schedule {
    /// Half a cosine, to 0 at the last step.
    #[default]
    Cosine,
    /// A line, to 0 at the last step.
    Linear,
    /// Not at all.
    Constant,
}

impl Schedule {
    /// Its name on the command line and in files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cosine => "cosine",
            Self::Linear => "linear",
            Self::Constant => "constant",
        }
    }

    /// The share of the learning rate in step `step` of `steps`, counted from 0, of which the first `warmup` rise to it.
    pub(crate) fn share(self, step: usize, warmup: usize, steps: usize) -> f64 {
        if step < warmup {
            return step as f64 / warmup as f64;
        }
        let passed = (step - warmup) as f64 / (steps.saturating_sub(warmup)).max(1) as f64;
        match self {
            Self::Cosine => 0.5 * (1.0 + (PI * passed).cos()),
            Self::Linear => 1.0 - passed,
            Self::Constant => 1.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Schedule::{Constant, Cosine, Linear};

    #[test]
    fn the_rate_rises_and_falls() {
        let shares = |schedule: super::Schedule| [0, 1, 2, 3, 4].map(|step| schedule.share(step, 2, 6));
        assert_eq!(shares(Constant), [0.0, 0.5, 1.0, 1.0, 1.0]);
        assert_eq!(shares(Linear), [0.0, 0.5, 1.0, 0.75, 0.5]);
        assert!((Cosine.share(4, 2, 6) - 0.5).abs() < 1e-12);
        assert_eq!(Linear.share(0, 0, 1), 1.0);
    }
}
