//! What the gradients of a model in `f16` are multiplied by on their way (Micikevicius et al. 2018, "Mixed Precision
//! Training").

use serde::{Deserialize, Serialize};

/// The first factor, and the number of steps without overflow after which it doubles; both are PyTorch's (`GradScaler`).
const FIRST: f32 = 65_536.0;
const PATIENCE: usize = 2000;
/// The largest factor: that of a gradient of next to nothing.
const LARGEST: f32 = 16_777_216.0;

/// The factor: a power of two, so that it changes no digit.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Scale {
    pub(crate) factor: f32,
    /// Steps since it changed.
    steps: usize,
}

impl Default for Scale {
    fn default() -> Self {
        Self { factor: FIRST, steps: 0 }
    }
}

impl Scale {
    /// After a gradient that overflowed: half of it; `None` if it is no larger than 1 already.
    pub(super) fn halved(self) -> Option<Self> {
        (self.factor > 1.0).then_some(Self { factor: self.factor / 2.0, steps: 0 })
    }

    /// After a step.
    pub(super) fn stepped(self) -> Self {
        if self.steps + 1 < PATIENCE {
            return Self { steps: self.steps + 1, ..self };
        }
        Self { factor: (self.factor * 2.0).min(LARGEST), steps: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_factor_falls_at_once_and_rises_in_time() {
        let first = Scale::default();
        let half = first.halved().unwrap();
        assert_eq!(half.factor, 32_768.0);
        let later = (0..PATIENCE).fold(half, |scale, _| scale.stepped());
        assert_eq!(later, first);
        let least = (0..16).fold(first, |scale, _| scale.halved().unwrap());
        assert_eq!((least.factor, least.halved()), (1.0, None));
    }
}
