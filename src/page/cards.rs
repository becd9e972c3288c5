//! What the heat map shows of one module: its name, its rank, and how much each component adds.

use super::facts::percent;
use super::record::{Module, RunRecord};
use maud::{Markup, PreEscaped, html};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Size of a curve, in units of its own.
const WIDTH: usize = 192;
const HEIGHT: f64 = 96.0;

/// The most points of a curve.
const MAX_POINTS: usize = 32;

/// The curve of each group, which the cards of its modules share. The page has them once.
pub(super) fn curves(run: &RunRecord) -> Markup {
    let mut groups: BTreeMap<usize, &Module> = BTreeMap::new();
    for module in &run.layers {
        groups.entry(module.group).or_insert(module);
    }
    html! {
        svg.shared aria-hidden="true" {
            defs {
                @for (group, module) in groups { path id={ "g" (group) } d=(curve(&module.explained_variance_ratio)) {} }
            }
        }
    }
}

/// The card of a module.
pub(super) fn card(module: &Module, most: usize) -> Markup {
    let components = module.explained_variance_ratio.len();
    let at = (module.rank * WIDTH).checked_div(components).unwrap_or(0).min(WIDTH);
    html! {
        span.card {
            b { (module.name) }
            "rank " (module.rank) " of at most " (most) ", explains " (percent(module.explained()))
            @if !module.converged { ", not converged" }
            svg viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } aria-hidden="true" {
                (PreEscaped(format!("<use href=\"#g{}\"/>", module.group)))
                path d={ "M" (at) " 0V" (HEIGHT) } {}
            }
        }
    }
}

/// The variance explained by the first components together, from none at the lower left to all at the top.
fn curve(ratios: &[f64]) -> String {
    let mut path = format!("M0 {HEIGHT}");
    let (mut sum, mut last) = (0.0, (0, HEIGHT as i64));
    let step = ratios.len().div_ceil(MAX_POINTS).max(1);
    for (i, ratio) in ratios.iter().enumerate() {
        sum += ratio;
        if (i + 1) % step != 0 && i + 1 != ratios.len() {
            continue;
        }
        let point = ((i + 1) * WIDTH / ratios.len(), (HEIGHT * (1.0 - sum.clamp(0.0, 1.0))).round() as i64);
        let _ = write!(path, "l{} {}", point.0 - last.0, point.1 - last.1);
        last = point;
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curves_rise_to_the_share_explained() {
        assert_eq!(curve(&[0.5, 0.25]), "M0 96l96 -48l96 -24");
        assert_eq!(curve(&[]), "M0 96");
        assert_eq!(curve(&[0.01; 100]).matches('l').count(), 25);
    }
}
