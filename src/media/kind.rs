//! What is processed: pictures or sounds, and what transformers calls their processors.

use std::fmt;

/// What is processed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Pictures.
    Pictures,
    /// Sounds.
    Sounds,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pictures => "pictures",
            Self::Sounds => "sounds",
        })
    }
}

impl Kind {
    /// What transformers calls such a processor.
    pub(super) fn class(self) -> &'static str {
        match self {
            Self::Pictures => "image processor",
            Self::Sounds => "feature extractor",
        }
    }

    /// The setting that names the class.
    pub(super) fn class_field(self) -> &'static str {
        match self {
            Self::Pictures => "image_processor_type",
            Self::Sounds => "feature_extractor_type",
        }
    }

    /// What can be done without the processor.
    pub(super) fn instead(self) -> &'static str {
        match self {
            Self::Pictures => {
                "rows may hold what the model's processor makes of each picture, as arrays `pixel_values` [3, height, width]"
            }
            Self::Sounds => {
                "rows may hold what the model's feature extractor makes of each sound, as arrays `input_values` or \
                 `input_features`"
            }
        }
    }

    /// Where a file with the settings of several processors has those of this kind.
    pub(super) fn nested(self) -> &'static str {
        match self {
            Self::Pictures => "image_processor",
            Self::Sounds => "feature_extractor",
        }
    }
}
