//! The rows that have a target.

use super::names::ROWS;
use crate::onnx::Builder;

/// The rows of a tensor [.., features] of `rank` axes that have a target: [targets, features].
pub(super) fn rows(nodes: &mut Builder, tensor: &str, part: &str, rank: i64) -> String {
    let flat = nodes.op("Flatten", &[tensor]).int("axis", rank - 1).output(&format!("{part}/flat"));
    nodes.op("Gather", &[&flat, ROWS]).int("axis", 0).output(&format!("{part}/chosen"))
}
