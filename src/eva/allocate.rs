//! Ranks from statistics, and which components have converged.

use super::ranks::{Bid, redistribute, uniform};
use super::settings::{Ranks, Settings};
use super::statistics::Statistics;
use crate::group::Module;
use crate::pca::Spectrum;

/// The rank of one module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allocation {
    /// Rank, which may be 0.
    pub rank: usize,
    /// Whether that many components have converged.
    pub converged: bool,
}

/// Distributes the rank budget over the modules by the explained variance of their inputs (paper section 3.5), one
/// entry a module.
pub fn allocate(statistics: &Statistics, modules: &[Module], settings: &Settings) -> Vec<Allocation> {
    allocate_by(&statistics.spectra(), modules, settings)
}

/// As [`allocate`], from the spectrum of every group.
pub(super) fn allocate_by(spectra: &[&Spectrum], modules: &[Module], settings: &Settings) -> Vec<Allocation> {
    let ratios: Vec<Vec<f64>> = spectra.iter().map(|spectrum| spectrum.explained_variance_ratio()).collect();
    let cap = settings.components();
    let bids: Vec<_> = modules.iter().map(|module| Bid { scores: &ratios[module.group], cap }).collect();
    let ranks = match settings.ranks {
        Ranks::Eva => redistribute(&bids, settings.budget(modules.len()), settings.min_rank),
        Ranks::Uniform => uniform(&bids, settings.rank),
    };
    let converged = |module: &Module, rank: usize| has_converged(spectra[module.group], rank, settings.tau);
    modules.iter().zip(ranks).map(|(module, rank)| Allocation { rank, converged: converged(module, rank) }).collect()
}

fn has_converged(spectrum: &Spectrum, rank: usize, tau: f64) -> bool {
    let similarity = &spectrum.similarity;
    tau < 1.0 && similarity.len() >= rank.max(1) && similarity[..rank].iter().all(|cosine| *cosine >= tau)
}
