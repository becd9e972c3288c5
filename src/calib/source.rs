//! Where rows come from: [`DataFiles`](super::DataFiles) reads files, [`IterSource`] takes rows from any iterator.
//! A new format of data is one more [`RowSource`].

use std::sync::Arc;

use super::error::Error;
use super::row::{Fields, Row, RowOrigin};

/// Rows as a source yields them. Readers stop at the first error.
pub type Rows<'a> = Box<dyn Iterator<Item = Result<Row, Error>> + 'a>;

/// A source of calibration rows, read once.
pub trait RowSource {
    /// The rows in their own order; the source is read no further than rows are asked for.
    ///
    /// # Errors
    /// When the source cannot be opened or has no rows; what is wrong with a row is an item of the iterator.
    fn rows(&mut self) -> Result<Rows<'_>, Error>;

    /// What is the same in another run that reads the same rows; `None` where that cannot be known before they are read.
    ///
    /// # Errors
    /// When the source cannot be read.
    fn fingerprint(&self) -> Result<Option<String>, Error> {
        Ok(None)
    }

    /// All rows in another order: `permutation` gives the indices of the rows for their number.
    ///
    /// This implementation holds all rows in memory; a source that can reach its rows in any order does better.
    ///
    /// # Errors
    /// As [`RowSource::rows`], and the first error of a row.
    fn permuted(&mut self, permutation: &mut dyn FnMut(usize) -> Vec<usize>) -> Result<Rows<'_>, Error> {
        let mut rows = self.rows()?.map(|row| row.map(Some)).collect::<Result<Vec<Option<Row>>, Error>>()?;
        let order = permutation(rows.len());
        Ok(Box::new(order.into_iter().filter_map(move |index| rows.get_mut(index)?.take()).map(Ok)))
    }
}

impl<S: RowSource + ?Sized> RowSource for Box<S> {
    fn rows(&mut self) -> Result<Rows<'_>, Error> {
        (**self).rows()
    }

    fn fingerprint(&self) -> Result<Option<String>, Error> {
        (**self).fingerprint()
    }

    fn permuted(&mut self, permutation: &mut dyn FnMut(usize) -> Vec<usize>) -> Result<Rows<'_>, Error> {
        (**self).permuted(permutation)
    }
}

/// Rows from an iterator.
#[derive(Debug)]
pub struct IterSource<I> {
    name: Arc<str>,
    rows: I,
}

impl<I> IterSource<I> {
    /// Rows from an iterator, which messages call `name`.
    pub fn new(name: &str, rows: impl IntoIterator<IntoIter = I>) -> Self {
        Self { name: name.into(), rows: rows.into_iter() }
    }
}

impl<I> RowSource for IterSource<I>
where
    I: Iterator,
    I::Item: Into<Fields>,
{
    fn rows(&mut self) -> Result<Rows<'_>, Error> {
        let mut rows = self.rows.by_ref().peekable();
        if rows.peek().is_none() {
            return Err(Error::NoRows { name: self.name.to_string() });
        }
        let origin = |number| RowOrigin::Item { source: self.name.clone(), number };
        Ok(Box::new(
            rows.zip(1..).map(move |(fields, number)| Ok(Row { origin: origin(number), fields: fields.into() })),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(rows: usize) -> IterSource<impl Iterator<Item = Fields>> {
        IterSource::new("memory", (1..=rows).map(|row| Fields::from([("text", format!("text {row}"))])))
    }

    #[test]
    fn rows_know_their_number() {
        let mut source = source(3);
        let rows: Vec<_> = source.rows().unwrap().map(|row| row.unwrap().origin.to_string()).collect();
        assert_eq!(rows, ["`memory` row 1", "`memory` row 2", "`memory` row 3"]);
    }

    #[test]
    fn rows_keep_their_number_in_another_order() {
        let mut source = source(3);
        let rows = source.permuted(&mut |rows| (0..rows).rev().collect()).unwrap();
        let rows: Vec<_> = rows.map(|row| row.unwrap().origin.to_string()).collect();
        assert_eq!(rows, ["`memory` row 3", "`memory` row 2", "`memory` row 1"]);
    }

    #[test]
    fn no_rows_are_an_error() {
        let error = source(0).rows().map(|_| ()).unwrap_err();
        assert_eq!(error.to_string(), "`memory` has no rows");
    }
}
