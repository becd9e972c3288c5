//! A part of the rows, for one of several machines.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::error::Error;
use super::file_error::FileError;
use super::source::{RowSource, Rows};

/// One of several parts of the rows: those whose number, from 0, has the remainder `index` when divided by `count`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Shard {
    /// Which part, from 0.
    pub index: usize,
    /// How many parts.
    pub count: usize,
}

impl Shard {
    /// The only part.
    pub const ALL: Self = Self { index: 0, count: 1 };

    fn has(self, row: usize) -> bool {
        row % self.count == self.index
    }

    fn empty(self, rows: usize) -> Error {
        FileError::EmptyShard { index: self.index, count: self.count, rows }.into()
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.index, self.count)
    }
}

/// The rows of a shard. All rows are read, as their numbers are not known otherwise; those of others go no further.
pub struct ShardOf {
    source: Box<dyn RowSource + Send>,
    shard: Shard,
}

impl ShardOf {
    /// The part `shard` of a source.
    pub fn new(source: Box<dyn RowSource + Send>, shard: Shard) -> Self {
        Self { source, shard }
    }
}

impl RowSource for ShardOf {
    fn rows(&mut self) -> Result<Rows<'_>, Error> {
        let shard = self.shard;
        let (mut rows, mut number, mut any) = (self.source.rows()?, 0, false);
        Ok(Box::new(std::iter::from_fn(move || {
            loop {
                let Some(row) = rows.next() else {
                    let empty = !any && number > 0;
                    any = true;
                    return empty.then(|| Err(shard.empty(number)));
                };
                // What ends the reading is no row.
                if row.as_ref().err().is_some_and(|error| error.row().is_none()) {
                    return Some(row);
                }
                number += 1;
                if shard.has(number - 1) {
                    any = true;
                    return Some(row);
                }
            }
        })))
    }

    fn permuted(&mut self, permutation: &mut dyn FnMut(usize) -> Vec<usize>) -> Result<Rows<'_>, Error> {
        let (shard, mut rows) = (self.shard, 0);
        let mut order = |all: usize| {
            rows = all;
            let own: Vec<usize> = (0..all).filter(|row| shard.has(*row)).collect();
            permutation(own.len()).into_iter().filter_map(|row| own.get(row).copied()).collect()
        };
        let permuted = self.source.permuted(&mut order)?;
        if rows > 0 && shard.index >= rows {
            return Err(shard.empty(rows));
        }
        Ok(permuted)
    }

    fn fingerprint(&self) -> Result<Option<String>, Error> {
        self.source.fingerprint()
    }
}

#[cfg(test)]
mod tests {
    use super::super::row::Fields;
    use super::super::source::IterSource;
    use super::*;

    fn shard(rows: usize, index: usize, count: usize) -> ShardOf {
        let fields = (0..rows).map(|row| Fields::from([("text", row.to_string())]));
        ShardOf::new(Box::new(IterSource::new("memory", fields.collect::<Vec<_>>())), Shard { index, count })
    }

    fn numbers(rows: Result<Rows<'_>, Error>) -> Vec<String> {
        rows.unwrap().map(|row| row.unwrap().origin.to_string()).collect()
    }

    #[test]
    fn rows_keep_their_numbers() {
        assert_eq!(numbers(shard(5, 1, 2).rows()), ["`memory` row 2", "`memory` row 4"]);
        assert_eq!(numbers(shard(2, 0, 1).rows()), ["`memory` row 1", "`memory` row 2"]);
    }

    #[test]
    fn every_row_is_in_one_shard() {
        for backwards in [false, true] {
            let mut all = Vec::new();
            for index in 0..3 {
                let mut shard = shard(7, index, 3);
                let mut order = |rows: usize| (0..rows).rev().collect();
                all.extend(numbers(if backwards { shard.permuted(&mut order) } else { shard.rows() }));
            }
            all.sort();
            assert_eq!(all, (1..8).map(|row| format!("`memory` row {row}")).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_shard_without_rows_is_an_error() {
        let mut late = shard(3, 5, 8);
        let errors: Vec<_> = late.rows().unwrap().map(Result::unwrap_err).collect();
        assert!(matches!(errors[..], [Error::File(FileError::EmptyShard { rows: 3, .. })]), "{errors:?}");
        let mut order = |rows: usize| (0..rows).collect();
        let mut early = shard(3, 5, 8);
        assert!(matches!(early.permuted(&mut order), Err(Error::File(FileError::EmptyShard { rows: 3, .. }))));
    }
}
