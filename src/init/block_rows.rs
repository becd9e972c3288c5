//! The rows of a run in blocks, which come again for every block.

use super::error::Error as InitError;
use super::progress::Progress;
use crate::calib::{Arrivals, Batch, Calibration};
use crate::error::Error;
use crate::eva::{self, Next};
use std::path::{Path, PathBuf};

/// How the files of rows begin.
pub(super) const PREFIX: &str = "eva-rows-";

/// All batches, window by window. Tensors of rows, such as pictures, may be in files; token ids are in memory.
pub(super) struct Rows {
    windows: Vec<Calibration>,
    folder: Option<PathBuf>,
}

impl Rows {
    /// Reads all rows. Tensors of the first window stay in memory, those of the others are written to `folder` if there is
    /// one.
    ///
    /// # Errors
    /// Those of the rows; when a file cannot be written, or `observe` stops the run.
    pub(super) fn read(
        data: Arrivals,
        folder: Option<&Path>,
        observe: &mut dyn FnMut(&Progress) -> Next,
    ) -> Result<Self, Error> {
        let mut rows = Self { windows: Vec::new(), folder: folder.map(Path::to_owned) };
        let mut go_on = || observe(&Progress::default()) == Next::Continue;
        let all = data.each_window(&mut go_on, &mut |mut window| {
            let number = rows.windows.len();
            if let Some(path) = rows.path(number).filter(|_| number > 0) {
                window.spill(path.clone()).map_err(|source| InitError::Io { path, source })?;
            }
            rows.windows.push(window);
            Ok::<_, Error>(())
        })?;
        if all { Ok(rows) } else { Err(eva::Error::Interrupted.into()) }
    }

    /// The batches that are planned first, of which there are some.
    pub(super) fn first(&self) -> &Calibration {
        &self.windows[0]
    }

    /// What is known of the rows when all are read.
    pub(super) fn last(&self) -> &Calibration {
        self.windows.last().unwrap_or(&self.windows[0])
    }

    /// Number of batches.
    pub(super) fn len(&self) -> usize {
        self.windows.iter().map(Calibration::len).sum()
    }

    /// Tokens of all batches, padding included.
    pub(super) fn padded(&self) -> u64 {
        self.windows.iter().flat_map(Calibration::sizes).map(|tokens| tokens as u64).sum()
    }

    /// All batches in order.
    pub(super) fn batches(&self) -> impl Iterator<Item = Result<Batch, InitError>> {
        self.windows.iter().enumerate().flat_map(|(number, window)| {
            let loaded = window.loaded().map_err(|source| {
                let path = self.path(number).unwrap_or_default();
                InitError::Io { path, source }
            });
            let (loaded, failed) = match loaded {
                Ok(loaded) => (Some(loaded), None),
                Err(error) => (None, Some(Err(error))),
            };
            let batches = loaded.into_iter().flat_map(|window| (0..window.len()).map(move |at| Ok(window.batch(at))));
            failed.into_iter().chain(batches)
        })
    }

    /// Keeps the padding that rows came with; `false` if no row of the first window came with any.
    pub(super) fn pad_as_given(&mut self) -> bool {
        let changes = self.windows.first_mut().is_some_and(Calibration::pad_as_given);
        if changes {
            self.windows[1..].iter_mut().for_each(|window| {
                window.pad_as_given();
            });
        }
        changes
    }

    fn path(&self, number: usize) -> Option<PathBuf> {
        self.folder.as_ref().map(|folder| folder.join(format!("{PREFIX}{number}")))
    }
}
