//! The heat map of ranks: a row a block, a column a type of module.

use super::cards;
use super::grid::Grid;
use super::record::{Module, RunRecord};
use maud::{Markup, html};

/// Shades of ranks above 0.
const LEVELS: usize = 8;

/// The shade of a rank, where `largest` is the largest one: 0 for no rank, 1 to 8 otherwise.
pub fn level(rank: usize, largest: usize) -> usize {
    (rank * LEVELS).div_ceil(largest.max(1)).min(LEVELS)
}

pub(super) fn section(run: &RunRecord) -> Markup {
    let grid = Grid::of(run.layers.iter().map(|module| module.name.as_str()));
    let largest = run.layers.iter().map(|module| module.rank).max().unwrap_or(0);
    html! {
        section {
            h2 { "Ranks" }
            p { "A module whose input varies in many directions gets more ranks. Point at a cell, or move to it with the \
                 Tab key, to see how much variance each component adds; the vertical line is at the rank." }
            (cards::curves(run))
            div.wide {
                table.heat {
                    caption { "Rank of each module" }
                    thead {
                        tr {
                            th scope="col" { "block" }
                            @for name in &grid.types { th scope="col" { (breakable(name)) } }
                        }
                    }
                    tbody {
                        @for (block, row) in grid.blocks.iter().zip(&grid.cells) {
                            tr {
                                th scope="row" { @if block.is_empty() { "outside of blocks" } @else { (block) } }
                                @for cell in row { (modules(run, cell, largest)) }
                            }
                        }
                    }
                }
            }
            (legend(largest))
        }
    }
}

/// The cell of the modules of one type in one block.
fn modules(run: &RunRecord, cell: &[usize], largest: usize) -> Markup {
    let most = (run.rho * run.rank as f64) as usize;
    let of: Vec<&Module> = cell.iter().map(|&index| &run.layers[index]).collect();
    html! {
        @match of.first() {
            None => td {},
            Some(first) => {
                td class={ "h" (level(first.rank, largest)) } tabindex="0" {
                    @for (i, module) in of.iter().enumerate() {
                        @if i > 0 { " " }
                        (module.rank)
                    }
                    @for module in &of { (cards::card(module, most)) }
                }
            }
        }
    }
}

/// A name that may be broken after its dots.
fn breakable(name: &str) -> Markup {
    html! {
        @for (i, part) in name.split('.').enumerate() {
            @if i > 0 { "." wbr; }
            (part)
        }
    }
}

fn legend(largest: usize) -> Markup {
    let ranks = |level: usize| ((level - 1) * largest / LEVELS + 1, level * largest / LEVELS);
    let shown = (1..=LEVELS).map(|level| (level, ranks(level))).filter(|(_, (from, to))| from <= to);
    html! {
        p.legend {
            span.h0 { "none" }
            @for (level, (from, to)) in shown {
                span class={ "h" (level) } { (from) @if to > from { "–" (to) } }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shades_grow_with_the_rank() {
        assert_eq!([0, 1, 4, 5, 31, 32].map(|rank| level(rank, 32)), [0, 1, 1, 2, 8, 8]);
        assert_eq!((level(0, 0), level(1, 1)), (0, 8));
        for rank in 1..=13 {
            let level = level(rank, 13);
            assert!((level - 1) * 13 / LEVELS < rank && rank <= level * 13 / LEVELS, "{rank}");
        }
    }
}
