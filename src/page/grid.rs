//! Modules by block and type: `model.layers.0` and `self_attn.q_proj`.

use crate::linear::module::split_block;
use std::collections::HashMap;

/// The places of modules in a table with a row a block and a column a type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grid<'a> {
    /// Blocks in the order of their first modules; empty for modules outside of blocks.
    pub blocks: Vec<&'a str>,
    /// Types of modules in the order of their first modules.
    pub types: Vec<&'a str>,
    /// For each block and type the indices of the modules, most often one, `cells[block][type]`.
    pub cells: Vec<Vec<Vec<usize>>>,
}

impl<'a> Grid<'a> {
    /// The grid of modules with these full names.
    pub fn of(names: impl IntoIterator<Item = &'a str>) -> Self {
        let (mut blocks, mut types) = (Numbered::default(), Numbered::default());
        let places: Vec<(usize, usize)> = names
            .into_iter()
            .map(|name| {
                let (block, kind) = split_block(name);
                (blocks.number(block), types.number(kind))
            })
            .collect();
        let mut cells = vec![vec![Vec::new(); types.names.len()]; blocks.names.len()];
        for (index, (block, kind)) in places.into_iter().enumerate() {
            cells[block][kind].push(index);
        }
        Self { blocks: blocks.names, types: types.names, cells }
    }

    /// The modules of each type, in the order of [`types`](Self::types).
    pub fn by_type(&self) -> impl Iterator<Item = (&'a str, Vec<usize>)> + '_ {
        let of = |kind: usize| self.cells.iter().flat_map(move |row| row[kind].iter().copied()).collect();
        self.types.iter().enumerate().map(move |(kind, name)| (*name, of(kind)))
    }
}

/// Names in the order in which they are met.
#[derive(Default)]
struct Numbered<'a> {
    names: Vec<&'a str>,
    numbers: HashMap<&'a str, usize>,
}

impl<'a> Numbered<'a> {
    fn number(&mut self, name: &'a str) -> usize {
        *self.numbers.entry(name).or_insert_with(|| {
            self.names.push(name);
            self.names.len() - 1
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_placed_by_block_and_type() {
        let grid = Grid::of(["h.0.a", "h.0.b", "h.1.b", "head"]);
        assert_eq!(grid.blocks, ["h.0", "h.1", ""]);
        assert_eq!(grid.types, ["a", "b", "head"]);
        assert_eq!(grid.cells[1], [vec![], vec![2], vec![]]);
        assert_eq!(grid.by_type().nth(1), Some(("b", vec![1, 2])));
    }
}
