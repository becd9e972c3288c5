//! How many blocks a model is cut into.

use super::cut::{Block, Budget, Inside, cut, weights};
use crate::group::Group;
use crate::hint::Hint;
use crate::linear::Linear;
use crate::onnx::Model;
use std::str::FromStr;

/// How large blocks are: `auto`, a number of blocks, or bytes such as `200MB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocks {
    /// No blocks if the model fits into the memory, otherwise blocks that do.
    Auto,
    /// As many blocks as this, or fewer.
    Count(usize),
    /// Bytes of weights a block.
    Bytes(u64),
}

/// How a model runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// As it is.
    Whole,
    /// In blocks.
    Cut(Vec<Block>),
}

/// Why a model cannot be cut.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The text is no size.
    #[error("`{text}` is neither auto, a number of blocks, nor bytes such as 200MB")]
    Unknown {
        /// What was given.
        text: String,
    },
    /// There is no place to cut.
    #[error("the graph cannot be cut into blocks: what it computes from large weights is one node or none")]
    Uncut,
    /// The layers are where a cut does not reach.
    #[error("the graph cannot be cut into parts: `{tensor}` is inside a subgraph or a local function")]
    Inside {
        /// The input of a layer.
        tensor: String,
    },
    /// There are not as many places to cut as devices need.
    #[error("the graph can be cut into {parts} parts, and {devices} devices are named")]
    Few {
        /// Parts that can be made.
        parts: usize,
        /// Devices that are named.
        devices: usize,
    },
    /// Nobody says how much memory there is.
    #[error("--blocks auto: how much memory is free cannot be told")]
    NoRoom,
}

impl From<Inside> for PlanError {
    fn from(Inside(tensor): Inside) -> Self {
        Self::Inside { tensor }
    }
}

impl Hint for PlanError {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Unknown { .. } => "write --blocks auto, --blocks 8 or --blocks 200MB".to_owned(),
            Self::Uncut => "leave out --blocks".to_owned(),
            Self::Inside { .. } => "leave out --blocks or --split layers".to_owned(),
            Self::Few { parts: ..2, .. } => "leave out --split layers".to_owned(),
            Self::Few { parts, .. } => format!("name at most {parts} devices"),
            Self::NoRoom => "give the number of blocks, or the bytes of weights that each may have".to_owned(),
        })
    }
}

/// Units of bytes.
const UNITS: [(&str, u64); 7] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1000),
    ("B", 1),
];
/// Shares of the free memory that the weights of a block, the block that is read ahead, and all else may take.
const SHARES: u64 = 3;

impl FromStr for Blocks {
    type Err = PlanError;

    fn from_str(text: &str) -> Result<Self, PlanError> {
        let unknown = || PlanError::Unknown { text: text.to_owned() };
        if text == "auto" {
            return Ok(Self::Auto);
        }
        let lower = text.to_lowercase();
        let unit = UNITS.iter().find_map(|(unit, size)| Some((lower.strip_suffix(&unit.to_lowercase())?, *size)));
        match unit {
            None => text.parse().ok().filter(|count| *count > 0).map(Self::Count).ok_or_else(unknown),
            Some((number, size)) => {
                let bytes = number.trim().parse::<f64>().ok().map(|number| number * size as f64);
                bytes
                    .filter(|bytes| *bytes >= 1.0 && bytes.is_finite())
                    .map(|b| Self::Bytes(b as u64))
                    .ok_or_else(unknown)
            }
        }
    }
}

/// How a model runs for the inputs of `groups`. `room` is the free memory, and how many times its weights a session takes.
///
/// # Errors
/// [`PlanError`].
pub fn plan(
    model: &Model,
    (linears, groups): (&[Linear], &[Group]),
    blocks: Blocks,
    room: impl FnOnce() -> Option<(u64, f64)>,
) -> Result<Plan, PlanError> {
    let total = weights(model, groups)?;
    let budget = match blocks {
        Blocks::Count(1) => return Ok(Plan::Whole),
        Blocks::Bytes(bytes) if total <= bytes => return Ok(Plan::Whole),
        Blocks::Count(count) => Budget::Count(count),
        Blocks::Bytes(bytes) => Budget::Bytes(bytes),
        Blocks::Auto => {
            let (room, copies) = room().ok_or(PlanError::NoRoom)?;
            if total as f64 * copies <= room as f64 {
                return Ok(Plan::Whole);
            }
            Budget::Bytes((room as f64 / copies) as u64 / SHARES)
        }
    };
    let blocks = cut(model, linears, groups, budget)?;
    if blocks.len() < 2 { Err(PlanError::Uncut) } else { Ok(Plan::Cut(blocks)) }
}

/// The parts of a model for the inputs of `groups`, one a device, of weights as equal as possible.
///
/// # Errors
/// [`PlanError`].
pub fn divide(
    model: &Model,
    (linears, groups): (&[Linear], &[Group]),
    devices: usize,
) -> Result<Vec<Block>, PlanError> {
    let blocks = cut(model, linears, groups, Budget::Exactly(devices))?;
    if blocks.len() < devices { Err(PlanError::Few { parts: blocks.len(), devices }) } else { Ok(blocks) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read() {
        let read = |text: &str| text.parse::<Blocks>().ok();
        assert_eq!(read("auto"), Some(Blocks::Auto));
        assert_eq!(read("8"), Some(Blocks::Count(8)));
        assert_eq!(read("200MB"), Some(Blocks::Bytes(200_000_000)));
        assert_eq!(read("1.5 GiB"), Some(Blocks::Bytes(3 << 29)));
        assert_eq!(read("64kb"), Some(Blocks::Bytes(64_000)));
        for text in ["0", "", "MB", "-1", "0MB", "8x", "nanGB", "infB"] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
