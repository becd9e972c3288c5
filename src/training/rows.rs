//! Where the rows of a training come from, which are read once an epoch.

use crate::calib::{DataFiles, Fields, IterSource, RowSource};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// Opens a source again and again.
pub(crate) type Open = dyn Fn() -> Box<dyn RowSource + Send> + Send + Sync;

/// Where rows come from.
#[derive(Clone)]
pub(super) enum TrainRows {
    /// Files.
    Files(Vec<PathBuf>),
    /// Something else that messages call by a name.
    Source(String, Arc<Open>),
}

impl TrainRows {
    /// Rows of iterators.
    pub(super) fn of<I>(name: &str, rows: impl Fn() -> I + Send + Sync + 'static) -> Self
    where
        I: IntoIterator<Item: Into<Fields>, IntoIter: Send + 'static>,
    {
        let of_source = name.to_owned();
        Self::Source(name.to_owned(), Arc::new(move || Box::new(IterSource::new(&of_source, rows()))))
    }

    /// The files, or the name of the source.
    pub(super) fn names(&self) -> Vec<String> {
        match self {
            Self::Files(files) => files.iter().map(|path| path.display().to_string()).collect(),
            Self::Source(name, _) => vec![name.clone()],
        }
    }

    /// The rows, from the first one on.
    pub(super) fn open(&self) -> Box<dyn RowSource + Send> {
        match self {
            Self::Files(files) => Box::new(DataFiles::new(files)),
            Self::Source(_, open) => open(),
        }
    }

    /// Whether there is nothing to read.
    pub(super) fn is_empty(&self) -> bool {
        matches!(self, Self::Files(files) if files.is_empty())
    }
}

impl fmt::Debug for TrainRows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TrainRows").field(&self.names()).finish()
    }
}
