//! What subgraphs do with the rows of their groups, by device.

use crate::runtime::Device;

/// How the sketch is laid out for a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// Groups of equal sizes share one subgraph as long as a matrix of all of them has no more numbers; 0 keeps all
    /// apart. A device that is slow to start small operations gains by it.
    pub stacked: usize,
    /// Groups of a subgraph share the products with their rows as well, which have to be copied for it, as long as they
    /// have no more features together; if that is but a few groups, none do.
    pub joined_features: usize,
    /// Rows that do not count are masked instead of left out, where groups do not share the products with them.
    pub masked: bool,
    /// Sums over features are taken in pieces of so many at most.
    pub piece: usize,
    /// Products with the rows are of 16 bits (IEEE floats, which hold all digits of bfloat16).
    pub half: bool,
    /// The host decomposes what one batch told while the next one runs, for devices that leave the processor idle. Where
    /// groups share products with their rows, a run is shorter than that, and directions stay for two batches.
    pub overlapped: bool,
}

impl Default for Placement {
    fn default() -> Self {
        Self { stacked: 0, joined_features: 0, masked: false, piece: usize::MAX, half: false, overlapped: false }
    }
}

impl Placement {
    /// Numbers of a matrix of a stack on a GPU, 128 MiB in 32 bits.
    const STACKED: usize = 1 << 25;
    /// Numbers of the rows that are copied on a GPU at most, 32 MiB in 32 bits.
    const JOINED: usize = 1 << 23;
    /// Groups for which that pays.
    const WORTHWHILE: usize = 4;

    /// Features of a piece on a GPU: fewer keep the sums short, more keep them few.
    const PIECE: usize = 1024;

    /// What suits a device when the largest batch has `tokens` tokens and the weights are of 16 bits or not.
    pub fn on(device: Device, tokens: usize, half: bool) -> Self {
        match device {
            Device::Cpu => Self::default(),
            Device::Cuda(_) => Self {
                stacked: Self::STACKED,
                joined_features: Self::JOINED / tokens.max(1),
                masked: true,
                piece: Self::PIECE,
                half,
                overlapped: true,
            },
        }
    }

    /// Features of a piece of so many; all if they have no divisor that is a good part of what a piece may have.
    pub(super) fn piece(self, features: usize) -> usize {
        let pieces = 1..=features / (self.piece / 4).max(1);
        let mut even = pieces.filter(|pieces| features.is_multiple_of(*pieces)).map(|pieces| features / pieces);
        even.find(|piece| *piece <= self.piece).unwrap_or(features)
    }

    /// How many groups of so many features share a product.
    pub(super) fn joined_groups(self, features: usize) -> usize {
        Some(self.joined_features / features).filter(|groups| *groups >= Self::WORTHWHILE).unwrap_or(1)
    }
}
