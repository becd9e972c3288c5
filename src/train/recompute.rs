//! Whether activations are kept for the backward pass, or computed again.

use crate::runtime::Device;
use crate::system;

/// Whether activations are kept for the backward pass, or computed again, which takes about a third more time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Recompute {
    /// Computed again where they would fill more than half of the memory; on a GPU, once its memory runs out.
    #[default]
    Auto,
    /// Computed again.
    On,
    /// Kept.
    Off,
}

impl Recompute {
    /// Its name on the command line and in files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::On => "on",
            Self::Off => "off",
        }
    }

    /// Whether this many bytes of activations are computed again from the start.
    pub(super) fn applies(self, bytes: f64, device: Device) -> bool {
        let half = || system::memory().map_or(f64::INFINITY, |memory| memory as f64 / 2.0);
        match self {
            Self::Auto => device == Device::Cpu && bytes > half(),
            Self::On => true,
            Self::Off => false,
        }
    }

    /// Whether they are computed again once memory runs out.
    pub(super) fn is_spare(self, device: Device) -> bool {
        self == Self::Auto && device != Device::Cpu
    }
}
