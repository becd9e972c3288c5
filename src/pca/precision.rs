//! How exact the products in the graph are, and what that leaves of weak components.

/// Largest ratio between the singular values of the leading component and of one that is still recovered: beyond it,
/// rounding in the graph hides the weaker one. A sketch of 32 bits recovers more.
pub const RANGE: f64 = 512.0;
/// As [`RANGE`], where the leading direction is kept apart from the others, as on a CPU.
pub const RANGE_APART: f64 = 1e5;

/// Precision of the products with the rows. Sums are always in 32 bits, and so are all other products.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Precision {
    /// Factors and results of 32 bits.
    #[default]
    F32,
    /// Factors and results of 16 bits (IEEE, 11 of them significant).
    F16,
}

impl Precision {
    /// Smallest scale of a basis column, as a share of the largest. A smaller one would enlarge the rounding errors of
    /// the leading directions beyond the range of 16 bits.
    pub(super) fn min_scale(self) -> f64 {
        match self {
            Self::F32 => 1e-3,
            Self::F16 => 1.0 / 64.0,
        }
    }

    /// Smallest pivot of the correlation matrix of the columns of `Y` that counts as independent: the rounding errors
    /// of `Z` are enlarged by the inverse root of that matrix.
    pub fn min_pivot(self) -> f64 {
        match self {
            Self::F32 => 1e-5,
            Self::F16 => 1e-3,
        }
    }

    /// Share of a sum that may be rounding alone, and of the lengths of `X` and `q` in that of `X q`: factors are rounded,
    /// and so are the products; the factor is for their number. With 16 bits, rounding is measured instead.
    pub(super) fn noise(self) -> f64 {
        match self {
            Self::F32 => 8.0 * f32::EPSILON as f64,
            Self::F16 => 0.0,
        }
    }

    /// Share of the largest eigenvalue that a direction may seem to have without any variance, in a sketch of fewer
    /// directions than features: what `Q` and `Z` have in common is measured twice, and the difference is some roundings.
    pub(super) fn invented(self) -> f64 {
        match self {
            Self::F32 => 4.0 * f32::EPSILON as f64,
            Self::F16 => 4.0 * self.empty_share(),
        }
    }

    /// Share of the total variance below which a direction counts as empty. It stays in the basis.
    ///
    /// `Q` is rounded like all factors, which mixes the leading directions into the others: by 2^-12 at 16 bits, of
    /// which the variance is the square.
    pub(super) fn empty_share(self) -> f64 {
        match self {
            Self::F32 => 1e-13,
            Self::F16 => 6e-8,
        }
    }
}
