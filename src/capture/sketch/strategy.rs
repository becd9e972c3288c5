//! How the sketch is laid out for a device.

use crate::group::Group;
use crate::pca::{Precision, SketchSize};
use crate::runtime::Device;
use crate::sketch::{self, Plan, Rows};

/// How the sketch is laid out for a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// For a CPU. Each group has a subgraph of its own, the kept rows are gathered, and the host decomposes a batch
    /// when its run is over.
    Direct,
    /// For a GPU, where starting small operations is slow and the processor is idle. Groups of equal sizes share a
    /// subgraph, rows that are not kept are masked, and the host decomposes a batch while the next one runs.
    Batched {
        /// Precision of the products with the rows.
        precision: Precision,
        /// Groups that have no more features than this together share the products with their rows as well. The rows
        /// have to be copied for that, so they are gathered while they are; and a run is then shorter than the
        /// decomposition of all groups, so that each basis is kept for two batches.
        features: usize,
        /// Sums over features are taken in pieces of at most so many: fewer keep the sums short, more keep them few.
        piece: usize,
    },
}

/// Largest number of elements of one batched matrix: 128 MiB in 32 bits.
const BATCHED: usize = 1 << 25;
/// Largest number of elements of rows that are copied: 32 MiB in 32 bits.
const COPIED: usize = 1 << 23;
/// Fewest groups that are worth a copy of their rows.
const WORTHWHILE: usize = 4;
/// Features of a piece.
const PIECE: usize = 1024;

impl Strategy {
    /// The strategy for a device when the largest batch has so many tokens. `half` says whether the weights of the
    /// model are of 16 bits.
    pub fn for_device(device: Device, tokens: usize, half: bool) -> Self {
        match device {
            Device::Cpu => Self::Direct,
            Device::Cuda(_) => Self::Batched {
                precision: if half { Precision::F16 } else { Precision::F32 },
                features: COPIED / tokens.max(1),
                piece: PIECE,
            },
        }
    }

    /// The plan of subgraph `number` with one group in it, the one of this `index`; more of its size may join as long
    /// as [`capacity`](Self::capacity) allows.
    pub(super) fn plan(self, number: usize, index: usize, group: &Group, size: SketchSize) -> Plan {
        let gathered = if group.routed { Rows::All } else { Rows::Gathered };
        let plan = Plan {
            number,
            groups: vec![group.tensors.clone()],
            order: vec![index],
            rows: gathered,
            joined: 1,
            precision: Precision::F32,
            centred: true,
            late: false,
            accumulates: true,
            piece: size.features,
            size,
        };
        let Self::Batched { precision, features, piece } = self else { return plan };
        let joined = if stands_alone(group) { 1 } else { joined_groups(features, size.features) };
        let rows = if gathered == Rows::Gathered && joined == 1 { Rows::Masked } else { gathered };
        let piece = even_piece(piece, size.features);
        Plan { rows, joined, precision, centred: false, late: true, accumulates: joined > 1, piece, ..plan }
    }

    /// How many groups of these sizes fit in one subgraph.
    pub(super) fn capacity(self, size: SketchSize) -> usize {
        match self {
            Self::Direct => 1,
            Self::Batched { .. } => (BATCHED / (size.features * sketch::columns(size))).max(1),
        }
    }

    /// Whether the host decomposes a batch while the next one runs, so that it is one batch late.
    pub(super) fn is_late(self) -> bool {
        matches!(self, Self::Batched { .. })
    }
}

/// Whether a group cannot share a subgraph, because nobody knows how many rows it has or they are in several tensors.
pub(super) fn stands_alone(group: &Group) -> bool {
    group.routed || group.tensors.len() > 1
}

/// How many groups of `of_group` features each share a product.
fn joined_groups(features: usize, of_group: usize) -> usize {
    let groups = features / of_group;
    if groups >= WORTHWHILE { groups } else { 1 }
}

/// The largest divisor of `features` between a quarter of `piece` and `piece`; `features` if there is none.
fn even_piece(piece: usize, features: usize) -> usize {
    let pieces = 1..=features / (piece / 4).max(1);
    let mut even = pieces.filter(|pieces| features.is_multiple_of(*pieces)).map(|pieces| features / pieces);
    even.find(|even| *even <= piece).unwrap_or(features)
}
