//! An iterable of Python as a source of rows.

use super::value::fields;
use super::watch::Raised;
use crate::calib::{self, Row, RowOrigin, RowSource, Rows};
use pyo3::prelude::*;
use pyo3::types::PyIterator;
use std::iter;
use std::sync::Arc;

/// What messages call the rows of an iterable.
pub(super) const NAME: &str = "data";

/// The rows of an iterable. The GIL is held while one is made.
pub(super) struct PyRows {
    iterable: Py<PyAny>,
    name: Arc<str>,
    raised: Raised,
}

impl PyRows {
    /// The rows of an iterable that messages call `name`; `raised` gets the exception that ends them.
    pub(super) fn new(iterable: Py<PyAny>, name: &str, raised: Raised) -> Self {
        Self { iterable, name: name.into(), raised }
    }

    fn failed(&self, error: PyErr) -> calib::Error {
        let reason = error.to_string();
        self.raised.set(error);
        calib::Error::Source { name: self.name.to_string(), reason }
    }

    /// The next row, the one of this number.
    fn next(&self, iterator: &Py<PyIterator>, number: usize) -> Option<Result<Row, calib::Error>> {
        Python::attach(|py| match iterator.bind(py).clone().next()? {
            Ok(row) => {
                let origin = RowOrigin::Item { source: self.name.clone(), number };
                Some(fields(&row, &origin).map(|fields| Row { origin, fields }))
            }
            Err(error) => Some(Err(self.failed(error))),
        })
    }
}

impl RowSource for PyRows {
    fn rows(&mut self) -> Result<Rows<'_>, calib::Error> {
        let iterator = Python::attach(|py| self.iterable.bind(py).try_iter().map(Bound::unbind));
        let iterator = iterator.map_err(|error| self.failed(error))?;
        let mut numbers = 1..;
        let rows = iter::from_fn(move || self.next(&iterator, numbers.next()?));
        let mut rows = rows.peekable();
        if rows.peek().is_none() {
            return Err(calib::Error::NoRows { name: NAME.to_owned() });
        }
        Ok(Box::new(rows))
    }
}
