//! Ranks from scores and a budget.

use std::cmp::Ordering;

/// What one module may get.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Bid<'a> {
    /// Score of each available component, non-increasing: the explained variance ratio.
    pub(super) scores: &'a [f64],
    /// Largest rank the module may get.
    pub(super) cap: usize,
}

/// Largest rank of a module: `round(rho * r)`, half to even as in PEFT (`eva.py`), at least 1.
pub(super) fn rank_cap(rank: usize, rho: f64) -> usize {
    ((rank as f64 * rho).round_ties_even() as usize).max(1)
}

/// Redistributes `budget` ranks (paper section 3.5; PEFT's `get_eva_state_dict`).
///
/// Every module first gets `min_rank`; the rest goes to the best remaining scores of all modules, pooled. Ties
/// go to the earlier module, then to the earlier component; components without variance get none. The sum is `budget`
/// exactly, unless the modules together cannot take as much, or `min_rank` alone asks for more.
pub(super) fn redistribute(modules: &[Bid<'_>], budget: usize, min_rank: usize) -> Vec<usize> {
    let available = |m: &Bid<'_>| m.scores.len().min(m.cap);
    let mut ranks: Vec<usize> = modules.iter().map(|m| min_rank.min(available(m))).collect();
    let mut pool: Vec<(f64, usize, usize)> = modules
        .iter()
        .enumerate()
        .flat_map(|(i, m)| (ranks[i]..available(m)).map(move |j| (m.scores[j], i, j)))
        .filter(|(score, ..)| *score > 0.0)
        .collect();
    pool.sort_by(|a, b| b.0.partial_cmp(&a.0).unwrap_or(Ordering::Equal).then((a.1, a.2).cmp(&(b.1, b.2))));
    let left = budget.saturating_sub(ranks.iter().sum());
    for &(_, module, _) in pool.iter().take(left) {
        ranks[module] += 1;
    }
    ranks
}

/// The same rank everywhere, as far as the module has components.
pub(super) fn uniform(modules: &[Bid<'_>], rank: usize) -> Vec<usize> {
    modules.iter().map(|m| rank.min(m.scores.len())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[track_caller]
    fn check(scores: &[&[f64]], cap: usize, budget: usize, min_rank: usize, want: &[usize]) {
        let modules: Vec<_> = scores.iter().map(|&scores| Bid { scores, cap }).collect();
        assert_eq!(redistribute(&modules, budget, min_rank), want);
    }

    #[test]
    fn best_scores_win() {
        check(&[&[0.5, 0.3, 0.1], &[0.9, 0.05, 0.01]], 3, 3, 0, &[2, 1]);
    }

    #[test]
    fn the_cap_limits_one_module() {
        check(&[&[0.5, 0.4, 0.3], &[0.2, 0.1, 0.1]], 2, 4, 0, &[2, 2]);
    }

    #[test]
    fn a_module_may_get_nothing() {
        check(&[&[0.5, 0.4], &[0.1, 0.05]], 2, 2, 0, &[2, 0]);
    }

    #[test]
    fn min_rank_is_served_first() {
        check(&[&[0.5, 0.4], &[0.1, 0.05]], 2, 2, 1, &[1, 1]);
    }

    #[test]
    fn ties_go_to_the_earlier_module() {
        check(&[&[0.5, 0.25], &[0.5, 0.25]], 2, 3, 0, &[2, 1]);
    }

    #[test]
    fn a_budget_too_large_takes_all_there_is() {
        check(&[&[0.5], &[0.5, 0.2]], 8, 100, 0, &[1, 2]);
    }

    #[test]
    fn components_without_variance_get_what_min_rank_asks_for() {
        check(&[&[0.5, 0.5, 0.0], &[0.0, 0.0, 0.0]], 3, 6, 0, &[2, 0]);
        check(&[&[0.5, 0.5, 0.0], &[0.0, 0.0, 0.0]], 3, 6, 1, &[2, 1]);
    }

    #[test]
    fn caps_round_half_to_even_as_python_does() {
        let caps: Vec<_> = [(1, 1.5), (3, 1.5), (16, 2.0), (4, 0.1)].map(|(r, rho)| rank_cap(r, rho)).into();
        assert_eq!(caps, [2, 4, 32, 1]);
    }

    fn falling(mut scores: Vec<f64>) -> Vec<f64> {
        scores.sort_by(|a, b| b.total_cmp(a));
        scores
    }

    proptest! {
        #[test]
        fn budget_is_met_and_no_better_score_is_left(
            scores in prop::collection::vec(prop::collection::vec(0.0..1.0f64, 4..9).prop_map(falling), 1..7),
            cap in 1usize..9,
            rank in 0usize..5,
        ) {
            let modules: Vec<_> = scores.iter().map(|scores| Bid { scores, cap }).collect();
            let budget = modules.len() * rank;
            let ranks = redistribute(&modules, budget, 0);
            let room: usize = scores.iter().map(|s| s.len().min(cap)).sum();
            prop_assert_eq!(ranks.iter().sum::<usize>(), budget.min(room));
            let taken = scores.iter().zip(&ranks).flat_map(|(s, &r)| &s[..r]).copied().fold(1.0, f64::min);
            let left = scores.iter().zip(&ranks).flat_map(|(s, &r)| &s[r..s.len().min(cap).max(r)]).copied();
            prop_assert!(left.fold(0.0, f64::max) <= taken);
        }
    }
}
