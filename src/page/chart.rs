//! Line charts as SVG.

use super::ticks::{label, ticks};
use maud::{Markup, html};
use std::fmt::Write as _;

/// Size of a chart and its margins, in units of its own.
const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 240.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 40.0;

/// The most points of a line that are drawn.
const MAX_POINTS: usize = 400;

/// A line with its name.
pub(super) struct Line<'a> {
    pub(super) name: &'a str,
    /// Pairs of x and y, x ascending. Those that are not finite are left out.
    pub(super) points: Vec<(f64, f64)>,
}

/// Lines over one x axis.
pub(super) struct Chart<'a> {
    /// What the chart shows, for those who do not see it.
    pub(super) summary: String,
    pub(super) x: &'a str,
    pub(super) y: &'a str,
    /// What the y axis begins and ends with at least.
    pub(super) range: Option<(f64, f64)>,
    pub(super) lines: Vec<Line<'a>>,
}

impl Chart<'_> {
    /// The drawing; nothing if no line has a point.
    pub(super) fn to_svg(&self) -> Markup {
        let lines: Vec<Vec<(f64, f64)>> = self.lines.iter().map(|line| thinned(&line.points)).collect();
        let all = || lines.iter().flatten();
        let Some((x_low, x_high)) = extent(all().map(|point| point.0)) else { return html! {} };
        let Some((low, high)) = extent(all().map(|point| point.1)) else { return html! {} };
        let (low, high) = self.range.map_or((low, high), |(from, to)| (low.min(from), high.max(to)));
        let (low, high) = if low < high { (low, high) } else { (low - 0.5, high + 0.5) };
        let x = |value: f64| LEFT + (value - x_low) / (x_high - x_low).max(f64::MIN_POSITIVE) * (WIDTH - LEFT - RIGHT);
        let y = |value: f64| HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM);
        html! {
            figure {
                svg.chart viewBox={ "0 0 " (WIDTH) " " (HEIGHT) } role="img" {
                    title { (self.summary) }
                    @for tick in ticks(low, high) {
                        path.rule d={ "M" (LEFT) " " (round(y(tick))) "H" (WIDTH - RIGHT) } {}
                        text x=(LEFT - 6.0) y=(round(y(tick) + 4.0)) text-anchor="end" { (label(tick)) }
                    }
                    // Batches and steps are whole numbers.
                    @for tick in ticks(x_low, x_high).into_iter().filter(|tick| tick.fract() == 0.0) {
                        text x=(round(x(tick))) y=(HEIGHT - BOTTOM + 16.0) text-anchor="middle" { (label(tick)) }
                    }
                    text x=((LEFT + WIDTH - RIGHT) / 2.0) y=(HEIGHT - 6.0) text-anchor="middle" { (self.x) }
                    @for (number, line) in lines.iter().enumerate() {
                        @if let [(at, value)] = line[..] {
                            circle class={ "dot l" (number) } cx=(round(x(at))) cy=(round(y(value))) r="3" {}
                        } @else {
                            path class={ "line l" (number) } d=(path(line.iter().map(|p| (x(p.0), y(p.1))))) {}
                        }
                    }
                }
                figcaption {
                    (self.y)
                    @if self.lines.len() > 1 {
                        @for (number, line) in self.lines.iter().enumerate() {
                            " " span class={ "key k" (number) } { (line.name) }
                        }
                    }
                }
            }
        }
    }
}

/// The finite points, of which so many are left out evenly that few enough remain; the last one stays.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let finite: Vec<_> = points.iter().copied().filter(|(x, y)| x.is_finite() && y.is_finite()).collect();
    let step = finite.len().div_ceil(MAX_POINTS).max(1);
    let last = finite.len().saturating_sub(1);
    finite.iter().enumerate().filter(|(i, _)| (last - i) % step == 0).map(|(_, point)| *point).collect()
}

fn extent(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.fold(None, |extent, value| match extent {
        None => Some((value, value)),
        Some((low, high)) => Some((value.min(low), value.max(high))),
    })
}

/// The path through points, to a tenth of a unit.
fn path(points: impl Iterator<Item = (f64, f64)>) -> String {
    let mut path = String::new();
    for (i, (x, y)) in points.enumerate() {
        let _ = write!(path, "{}{} {}", if i == 0 { "M" } else { "L" }, round(x), round(y));
    }
    path
}

/// A coordinate to a tenth of a unit.
fn round(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(points: Vec<(f64, f64)>) -> String {
        let lines = vec![Line { name: "loss", points }];
        Chart { summary: "s".into(), x: "step", y: "loss", range: None, lines }.to_svg().into_string()
    }

    #[test]
    fn lines_span_the_drawing() {
        let svg = chart(vec![(1.0, 2.0), (2.0, f64::NAN), (3.0, 1.0)]);
        assert!(svg.contains("M56 12L628 200"), "{svg}");
    }

    #[test]
    fn batches_are_whole_numbers() {
        let svg = chart(vec![(2.0, 0.0), (3.0, 0.5), (4.0, 1.0)]);
        assert!(svg.contains(">3</text>") && !svg.contains(">2.5</text>"), "{svg}");
    }

    #[test]
    fn one_point_is_a_dot_and_none_is_nothing() {
        assert!(chart(vec![(1.0, 2.0)]).contains("<circle"));
        assert_eq!(chart(vec![(1.0, f64::NAN)]), "");
    }

    #[test]
    fn long_lines_are_thinned() {
        let points: Vec<_> = (0..10_001).map(|i| (f64::from(i), 0.0)).collect();
        let thinned = thinned(&points);
        assert!(thinned.len() <= MAX_POINTS && thinned.len() > MAX_POINTS / 2);
        assert_eq!(thinned.last(), points.last());
    }
}
