//! How statistics are gathered.

use crate::pca;
use serde::{Deserialize, Serialize};

/// How statistics are gathered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CaptureMethod {
    /// The graph summarises its own activations; only small matrices come back to the host.
    #[default]
    Sketch,
    /// Activations are read back and decomposed on the host, as in the paper. Slower.
    Outputs,
}

impl CaptureMethod {
    /// Largest ratio of singular values at which the weaker component is found well, on CPUs alone or not.
    pub(crate) fn range(self, on_cpus: bool) -> f64 {
        match self {
            Self::Sketch if on_cpus => pca::RANGE_APART,
            Self::Sketch => pca::RANGE,
            Self::Outputs => f64::INFINITY,
        }
    }

    /// The word for it in reports.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sketch => "sketch",
            Self::Outputs => "outputs",
        }
    }
}
