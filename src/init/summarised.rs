//! What a run knows of its rows, written as a file.

use super::block_states;
use super::error::Error as InitError;
use super::findings;
use super::note::Note;
use super::options::{Init, SummaryOptions};
use super::ran::{Ran, names};
use crate::error::Error;
use crate::named::NamedModel;
use crate::output::{self, SingleFile};
use crate::pca::Summary;
use crate::summary::{self, Facts, GroupSummary, Part, SummaryFile};
use std::path::{Path, PathBuf};

/// The summary of a run.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Summarised {
    /// Its file.
    pub file: PathBuf,
    /// The rows that it holds.
    pub part: Part,
    /// Whether the file was there already, of the same run, so that nothing was run.
    pub was_there: bool,
    /// What the user should know.
    pub notes: Vec<Note>,
}

impl Summarised {
    /// What it holds, as JSON.
    pub fn to_json(&self) -> String {
        let Self { file, part, was_there, .. } = self;
        let document = serde_json::json!({"summary": file.display().to_string(), "was_there": was_there, "part": part});
        serde_json::to_string_pretty(&document).unwrap_or_default() + "\n"
    }
}

/// A summary that is about to be written.
pub(super) struct Draft {
    pub(super) facts: Facts,
    file: SingleFile,
    force: bool,
}

/// What is at the place of a summary.
pub(super) enum Place {
    /// The summary of the same run.
    Done(Facts),
    /// Nothing, or what may be replaced.
    Free(Draft),
}

impl Place {
    /// Looks what is at the place of the summary of a run, and holds the place. What the run reads is never replaced.
    ///
    /// # Errors
    /// When something else is there, or nothing can be written.
    pub(super) fn find(options: &SummaryOptions, facts: Facts, inputs: &[PathBuf]) -> Result<Self, Error> {
        let SummaryOptions { file, force } = options;
        let real = file.canonicalize().ok();
        if real.is_some_and(|real| inputs.iter().any(|input| input.canonicalize().is_ok_and(|input| input == real))) {
            return Err(output::Error::Input { path: file.clone() }.into());
        }
        if let Some(there) = same(file, &facts, *force)? {
            return Ok(Self::Done(there));
        }
        let draft = SingleFile::prepare(file)?;
        // Another run may have ended meanwhile.
        Ok(match same(file, &facts, *force)? {
            Some(there) => Self::Done(there),
            None => Self::Free(Draft { facts, file: draft, force: *force }),
        })
    }

    /// The place for a run that is run again where its summary is there.
    pub(super) fn again(self, options: &SummaryOptions, facts: Facts) -> Result<Draft, Error> {
        match self {
            Self::Free(draft) => Ok(draft),
            Self::Done(_) => Ok(Draft { facts, file: SingleFile::prepare(&options.file)?, force: true }),
        }
    }
}

/// The facts of the file at `path` if it is the summary of the same run; `None` if there is nothing.
fn same(path: &Path, facts: &Facts, force: bool) -> Result<Option<Facts>, Error> {
    if path.symlink_metadata().is_err() {
        return Ok(None);
    }
    match SummaryFile::open(path) {
        Ok(there) => {
            let what = facts.differences_in_all(&there.facts);
            match what.is_empty() {
                true => Ok(Some(there.facts)),
                false if force => Ok(None),
                false => Err(InitError::Another { path: path.to_owned(), what }.into()),
            }
        }
        Err(_) if force => Ok(None),
        Err(error) => Err(error.into()),
    }
}

impl Draft {
    /// Writes what a run found.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(super) fn write(mut self, ran: &Ran, summaries: &[Summary]) -> Result<Part, Error> {
        let statistics = &ran.statistics;
        let (tokens_seen, tokens_kept) = statistics.tokens();
        let part = Part {
            batches: statistics.history.len(),
            tokens_seen,
            tokens_kept,
            rows: ran.met.rows,
            bad_rows: ran.met.bad.clone(),
            unused: ran.met.unused.clone(),
            stopped_by: statistics.stopped_by,
            events: statistics.events,
            device: names(&ran.met.devices),
            onnxruntime: ran.met.onnxruntime.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..self.facts.parts.swap_remove(0)
        };
        self.facts.parts = vec![part.clone()];
        let groups = summaries.iter().zip(&statistics.groups);
        let groups = groups.map(|(summary, group)| GroupSummary {
            summary: summary.clone(),
            similarity: group.spectrum.similarity.clone(),
        });
        let bytes = summary::encode(&self.facts, &groups.collect::<Vec<_>>())?;
        self.file.write(&[&bytes], self.force)?;
        Ok(part)
    }
}

impl Init {
    /// The files that a run reads.
    pub(super) fn inputs(&self, named: &NamedModel) -> Vec<PathBuf> {
        let data = self.rows.names.iter().map(PathBuf::from);
        let weights = named.model.data_files().map(|name| named.model.dir().join(name));
        data.chain(weights).chain([named.path().to_owned()]).collect()
    }
}

/// The summary of a run, which `run` runs unless it is there.
///
/// # Errors
/// Those of the run; [`InitError::Incomplete`].
pub(super) fn write(
    file: &Path,
    place: Place,
    named: &NamedModel,
    run: &mut dyn FnMut(&Facts) -> Result<Ran, Error>,
) -> Result<Summarised, Error> {
    let names: Vec<Note> = named.layers.notes.iter().cloned().map(Note::Names).collect();
    let (part, was_there, of_run) = match place {
        Place::Done(facts) => (facts.parts.into_iter().next().ok_or(summary::Error::NoFiles)?, true, Vec::new()),
        Place::Free(draft) => {
            let ran = run(&draft.facts)?;
            let batches = ran.statistics.history.len();
            let summaries = ran.summaries.as_deref().ok_or(InitError::Incomplete { batches })?;
            let part = draft.write(&ran, summaries)?;
            ran.met.checkpoint.as_deref().map_or(Ok(()), block_states::remove)?;
            (part, false, ran.met.notes)
        }
    };
    let notes = notes(names, &part).into_iter().chain(of_run).collect();
    Ok(Summarised { file: file.to_owned(), notes, part, was_there })
}

/// What the user of a summary should know.
fn notes(names: Vec<Note>, part: &Part) -> Vec<Note> {
    let unused = (!part.unused.is_empty()).then(|| Note::UnusedFields { fields: part.unused.clone() });
    let bad = part.bad_rows.first.first();
    let bad = bad.map(|first| Note::BadRows { count: part.bad_rows.count, first: first.clone() });
    let on_run = findings::of_device(&part.events).chain(findings::of_rows(&part.events));
    names.into_iter().chain(unused).chain(bad).chain(on_run).collect()
}
