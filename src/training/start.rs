//! What a training starts from, or goes on with.

use super::checkpoint::{self, Newest, Record};
use super::labels::Labelled;
use super::options::Train;
use super::progress::TrainProgress;
use super::task::Task;
use crate::adapter::{Adapter, Base, BaseWeights};
use crate::error::Error as RunError;
use crate::eva::Next;
use crate::formats::peft::Contents;
use crate::init::{Prepared, hash};
use crate::splice::SavedParameter;
use crate::splicing::read_contents;
use crate::train::{Error, Heads, Parameters};
use std::path::Path;

/// What a training starts from.
pub(super) struct Start {
    pub(super) adapter: Adapter,
    /// Layers that are trained whole.
    pub(super) heads: Heads,
    pub(super) base: Base,
    /// What the result depends on, but for the rows.
    pub(super) record: Record,
}

impl Train {
    /// The adapter that the training starts from, or goes on with, and what the result depends on.
    pub(super) fn start(
        &self,
        prepared: &Prepared,
        task: &Task,
        newest: Option<&Newest>,
        observe: &mut impl FnMut(&TrainProgress) -> Next,
    ) -> Result<Start, RunError> {
        let mut record = Record::of(&self.settings, &self.data_options);
        if self.checkpoints.is_some() {
            record.add("the model", hash(&prepared.named.model)?);
            for (name, other) in [("--encoder", &prepared.encoder), ("--embed-tokens", &prepared.embedder)] {
                if let Some(other) = other {
                    record.add(name, hash(&other.model)?);
                }
            }
        }
        record.add("--loss", task.loss().as_str().to_owned());
        record.add("--train-modules", self.modules.join(","));
        let Contents { adapter, mut base, saved } = match (&self.adapter, newest) {
            (Some(path), _) => self.read_adapter(path)?,
            (None, Some(newest)) => read_contents(&newest.path)?,
            (None, None) => self.initialised(task, observe)?,
        };
        let heads = self.heads(prepared, &adapter, &saved)?;
        if self.adapter.is_some() {
            let parameters = Parameters::of(&adapter, heads.clone());
            let parts = format!("{:?}", parameters.places().collect::<Vec<_>>());
            record.add("the adapter", checkpoint::of_vector(&parts, &parameters.flatten(&adapter)));
        } else {
            record.add_method(&self.method);
            record.add("--target-modules", self.selection.target_modules.clone());
            record.add("--exclude-modules", format!("{:?}", self.selection.exclude_modules));
        }
        base.name = self.base.name.clone().or(base.name);
        base.task_type = self.base.task_type.clone().or(base.task_type);
        Ok(Start { adapter, heads, base, record })
    }

    pub(super) fn read_adapter(&self, path: &Path) -> Result<Contents, RunError> {
        let contents = read_contents(path)?;
        if contents.base.weights == BaseWeights::Original {
            return Ok(contents);
        }
        let what = "weights of its own for the model";
        Err(RunError::from(Error::Adapter { what }).in_file(path))
    }

    /// The run that initialises the adapter by EVA.
    pub(super) fn init(&self, task: &Task) -> crate::Init {
        let rows = Labelled { labels: task.labels.clone(), source: self.data.open() };
        crate::Init::new(&self.model)
            .source(self.data.names(), rows)
            .settings(self.method)
            .naming(self.naming.clone())
            .selection(self.selection.clone())
            .data_options(self.data_options.clone())
            .runtime(self.runtime.clone())
    }

    /// The adapter that EVA initialises, unless `observe` stops it.
    fn initialised(&self, task: &Task, observe: &mut impl FnMut(&TrainProgress) -> Next) -> Result<Contents, RunError> {
        let mut stopped = false;
        let run = self.init(task).run_with(|_| {
            let next = observe(&TrainProgress::default());
            stopped |= next == Next::Stop;
            next
        })?;
        if stopped {
            return Err(Error::Interrupted.into());
        }
        Ok(Contents { adapter: run.adapter, base: run.base, saved: Vec::new() })
    }

    /// The layers that are trained whole: those asked for, and those that the adapter holds.
    pub(super) fn heads(
        &self,
        prepared: &Prepared,
        adapter: &Adapter,
        saved: &[SavedParameter],
    ) -> Result<Heads, RunError> {
        let mut names = self.modules.clone();
        for SavedParameter { module, .. } in saved {
            if !names.contains(module) {
                names.push(module.clone());
            }
        }
        let heads = Heads::find(prepared.model(), prepared.linears(), &names, saved)
            .map_err(|error| RunError::from(error).in_file(&self.model))?;
        match heads.modules().into_iter().find(|head| adapter.modules.iter().any(|module| module.module == *head)) {
            None => Ok(heads),
            Some(module) => {
                let reason = "the adapter has matrices for it";
                Err(RunError::from(Error::NoHeadModule { module: module.to_owned(), reason }).in_file(&self.model))
            }
        }
    }
}
