//! The heat map of ranks in a terminal.

use super::printed::visible;
use eva_onnx::results::{Grid, RunRecord, level};
use std::collections::HashSet;
use std::env;
use std::fmt::Write as _;
use std::io::{self, IsTerminal};

/// What colours a terminal shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Colors {
    /// 24 bits.
    True,
    /// The palette of 256.
    Ansi256,
    /// The 16 of old.
    Ansi16,
    /// None: bars stand for them.
    None,
}

/// The shades of the page, as red, green and blue.
const TRUE: [(u8, u8, u8); 8] = [
    (0xe4, 0xee, 0xf8),
    (0xcf, 0xe1, 0xf2),
    (0xa9, 0xcd, 0xea),
    (0x7f, 0xb6, 0xdc),
    (0x5a, 0x9f, 0xd0),
    (0x2d, 0x72, 0xb0),
    (0x1f, 0x5f, 0x9e),
    (0x0b, 0x3f, 0x78),
];
/// Shades from this one on have white letters.
const DARK: usize = 6;
const ANSI_256: [u8; 8] = [195, 153, 117, 75, 39, 25, 19, 17];
const ANSI_16: [&str; 8] = ["30;47", "30;47", "30;106", "30;106", "30;46", "30;46", "97;44", "97;44"];
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

impl Colors {
    /// What the terminal at stdout says of itself; none where that is no terminal or `NO_COLOR` is set.
    pub(crate) fn of_terminal() -> Self {
        let is_terminal = io::stdout().is_terminal() && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let [color, term] = ["COLORTERM", "TERM"].map(|name| env::var(name).unwrap_or_default());
        if is_terminal { Self::named(&color, &term) } else { Self::None }
    }

    fn named(color: &str, term: &str) -> Self {
        match (color, term) {
            (_, "" | "dumb") => Self::None,
            ("truecolor" | "24bit", _) => Self::True,
            (_, term) if term.contains("256") => Self::Ansi256,
            _ => Self::Ansi16,
        }
    }

    /// Text in the shade of a level.
    fn paint(self, text: &str, level: usize) -> String {
        let Some(at) = level.checked_sub(1) else {
            return if self == Self::None { format!("{text}  ") } else { text.to_owned() };
        };
        let (letters_256, letters) = if level >= DARK { (231, "97") } else { (16, "30") };
        match self {
            Self::True => {
                let (red, green, blue) = TRUE[at];
                format!("\x1b[{letters};48;2;{red};{green};{blue}m{text}\x1b[0m")
            }
            Self::Ansi256 => format!("\x1b[38;5;{letters_256};48;5;{}m{text}\x1b[0m", ANSI_256[at]),
            Self::Ansi16 => format!("\x1b[{}m{text}\x1b[0m", ANSI_16[at]),
            Self::None => format!("{text} {}", BARS[at]),
        }
    }
}

/// A line a block and a column a type of module. Types are called by the last part of their names where that is enough.
pub(crate) fn heat_map(run: &RunRecord, colors: Colors) -> String {
    let grid = Grid::of(run.layers.iter().map(|module| module.name.as_str()));
    let largest = run.layers.iter().map(|module| module.rank).max().unwrap_or(0);
    let types: Vec<String> = short(&grid.types).into_iter().map(visible).collect();
    let blocks: Vec<String> =
        grid.blocks.iter().map(|name| if name.is_empty() { "-".into() } else { visible(name) }).collect();
    let width = |text: &String| text.chars().count();
    let first = blocks.iter().map(width).max().unwrap_or(0);
    let bar = if colors == Colors::None { 2 } else { 0 };
    let columns: Vec<usize> = types.iter().map(|name| width(name).max(4 + bar)).collect();
    let mut text = format!("{:first$}", "");
    for (name, column) in types.iter().zip(&columns) {
        let _ = write!(text, " {name:>column$}");
    }
    text.push('\n');
    for (block, row) in blocks.iter().zip(&grid.cells) {
        let _ = write!(text, "{block:first$}");
        for (cell, column) in row.iter().zip(&columns) {
            let ranks: Vec<String> = cell.iter().map(|&index| run.layers[index].rank.to_string()).collect();
            let ranks = format!("{:>1$}", ranks.join(" "), column - bar);
            let shade = cell.first().map_or(0, |&index| level(run.layers[index].rank, largest));
            text.push(' ');
            text += &colors.paint(&ranks, shade);
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

/// The last parts of names, or whole names if two would be the same.
fn short<'a>(names: &[&'a str]) -> Vec<&'a str> {
    let last: Vec<&str> = names.iter().map(|name| name.rsplit('.').next().unwrap_or(name)).collect();
    let unique = last.iter().collect::<HashSet<_>>().len() == last.len();
    if unique { last } else { names.to_vec() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminals_say_what_they_show() {
        assert_eq!(Colors::named("truecolor", "xterm"), Colors::True);
        assert_eq!(Colors::named("", "xterm-256color"), Colors::Ansi256);
        assert_eq!(Colors::named("", "xterm"), Colors::Ansi16);
        assert_eq!(Colors::named("truecolor", "dumb"), Colors::None);
    }

    #[test]
    fn every_shade_is_painted() {
        assert_eq!(Colors::True.paint("7", 1), "\x1b[30;48;2;228;238;248m7\x1b[0m");
        assert_eq!(Colors::Ansi256.paint("7", 8), "\x1b[38;5;231;48;5;17m7\x1b[0m");
        assert_eq!(Colors::Ansi16.paint("7", 5), "\x1b[30;46m7\x1b[0m");
        assert_eq!(Colors::None.paint("7", 8), "7 █");
        assert_eq!(Colors::True.paint("0", 0), "0");
    }

    #[test]
    fn types_are_short_where_that_is_enough() {
        assert_eq!(short(&["attn.q", "mlp.up"]), ["q", "up"]);
        assert_eq!(short(&["attn.out", "mlp.out"]), ["attn.out", "mlp.out"]);
    }
}
