//! The parameters of the method.

use super::ranks::rank_cap;

/// How ranks are allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ranks {
    /// By explained variance.
    Eva,
    /// The same rank for every module.
    Uniform,
}

/// The parameters of the method, with the names of PEFT's `EvaConfig` where it has them.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Settings {
    /// LoRA rank r; the budget is r times the number of modules.
    pub rank: usize,
    /// LoRA alpha at rank r, see [`alpha_at`](Self::alpha_at).
    pub alpha: f64,
    /// Largest rank of a module, as a multiple of r.
    pub rho: f64,
    /// |cosine| between a component and its value one batch earlier at which it counts as converged; at 1 the run
    /// never stops early.
    pub tau: f64,
    /// Smallest rank of a module.
    pub min_rank: usize,
    /// How ranks are allocated.
    pub ranks: Ranks,
    /// Whether every row of A is divided by the square root of its singular value, as PEFT's `whiten` does.
    pub whiten: bool,
}

impl Default for Settings {
    /// The defaults of the command line.
    fn default() -> Self {
        Self { rank: 16, alpha: 16.0, rho: 2.0, tau: 0.99, min_rank: 0, ranks: Ranks::Eva, whiten: false }
    }
}

impl Settings {
    /// Components to follow in each group: the largest rank that a module may get.
    pub fn components(&self) -> usize {
        match self.ranks {
            Ranks::Eva => rank_cap(self.rank, self.rho).max(self.min_rank),
            Ranks::Uniform => self.rank,
        }
    }

    /// Ranks to allocate to so many modules.
    pub fn budget(&self, modules: usize) -> usize {
        modules * self.rank
    }

    /// LoRA alpha of a module of this rank: in proportion to the rank, so that the scale `alpha / rank` is the same for
    /// all modules (PEFT's `adjust_scaling_factors`).
    pub fn alpha_at(&self, rank: usize) -> f64 {
        self.alpha * rank as f64 / self.rank as f64
    }
}
