//! The basis of a sketch, which stays in the graph, and the rotation that the host sends there.

use ndarray::{Array2, ArrayView2, Axis, s};
use serde::{Deserialize, Serialize};

/// The matrices in the graph, read back to the host, of which the directions found are combinations.
#[derive(Clone, Debug)]
pub enum Basis<'a> {
    /// Of a host that has decomposed every batch on the basis `[Q Z]` of the last one: the directions are `[Q Z] T`
    /// with the rotation `T` now known.
    Settled {
        /// Basis of the last batch, `Q` [d, l].
        q: ArrayView2<'a, f32>,
        /// Its projection by the scatter matrix, `Z = C Q` [d, l].
        z: ArrayView2<'a, f32>,
    },
    /// Of a host that is one batch late: the last batch was projected on `Q`, but the rotation now known is one of the
    /// basis `[Q' Z_last]`, where `Q' = [Q Z] T_sent` is what the next batch would have been projected on.
    Late {
        /// Basis of the last batch, `Q` [d, l].
        q: ArrayView2<'a, f32>,
        /// The projection that belongs to `sent` [d, l].
        z: ArrayView2<'a, f32>,
        /// Projection of the last batch, `Z_last` [d, l].
        last: ArrayView2<'a, f32>,
        /// The rotation that the graph has not applied yet, `T_sent` [2l, l].
        sent: Array2<f32>,
    },
}

/// How the directions after a batch are made of the basis `[Q Z]`: `Q rotation.q + Z rotation.z`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rotation {
    /// Factor of `Q` [l, l].
    pub q: Array2<f64>,
    /// Factor of `Z` [l, l].
    pub z: Array2<f64>,
}

impl Rotation {
    /// Keeps `Q` as it is.
    pub(super) fn identity(width: usize) -> Self {
        Self { q: Array2::eye(width), z: Array2::zeros((width, width)) }
    }

    /// The first `count` directions [d, count].
    pub(super) fn leading(&self, basis: &Basis<'_>, count: usize) -> Array2<f64> {
        let (by_q, by_z) = (self.q.slice(s![.., ..count]), self.z.slice(s![.., ..count]));
        match basis {
            Basis::Settled { q, z } => product(*q, by_q) + product(*z, by_z),
            Basis::Late { q, z, last, sent } => {
                let sent = product(sent.view(), by_q);
                let (sent_q, sent_z) = sent.view().split_at(Axis(0), self.q.nrows());
                product(*q, sent_q) + product(*z, sent_z) + product(*last, by_z)
            }
        }
    }
}

fn product(basis: ArrayView2<'_, f32>, factor: ArrayView2<'_, f64>) -> Array2<f64> {
    basis.mapv(f64::from).dot(&factor)
}
