//! The result of a run, and its files.

use super::block_states;
use super::findings;
use super::note::Note;
use super::options::Init;
use super::prepared::Prepared;
use super::ran::{Ran, names};
use crate::adapter::{Adapter, Base};
use crate::calib::{BadRows, RowCounts};
use crate::dtype::DType;
use crate::error::Error;
use crate::eva::{self, BatchRecord, Settings, Statistics, Stop};
use crate::formats::peft;
use crate::group::Grouping;
use crate::named::NamedModel;
use crate::output::Destination;
use crate::report::{self, GroupReport, ModuleReport, Report, Run, Seconds, Totals};
use crate::runtime::Device;
use crate::splice::Form;
use crate::splicing;
use crate::summary::Part;
use crate::system;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// An adapter initialised by EVA, and what the run found.
#[non_exhaustive]
pub struct Initialised {
    /// The modules chosen, in graph order, those of rank 0 included.
    pub modules: Vec<ModuleReport>,
    /// The groups of modules that read the same tensors.
    pub groups: Vec<GroupReport>,
    /// What each batch added; empty if summaries were merged.
    pub history: Vec<BatchRecord>,
    /// What all batches added.
    pub totals: Totals,
    /// The rows that were merged, by the runs that saw them; empty if they were seen here.
    pub parts: Vec<Part>,
    /// Why the run ended.
    pub stopped_by: Stop,
    /// Rank budget N * r.
    pub budget: usize,
    /// What the user of the adapter should know.
    pub notes: Vec<Note>,
    /// What became of the calibration rows.
    pub rows: RowCounts,
    /// Rows that were passed over.
    pub bad_rows: BadRows,
    /// What the run was given.
    pub run: Run,
    /// Where the time went, until now.
    pub seconds: Seconds,
    /// The adapter.
    pub adapter: Adapter,
    /// What its PEFT config records of the base model.
    pub base: Base,
    dtype: DType,
    /// The model, and the forms in which it is written with the adapter.
    model: Option<(NamedModel, Vec<Form>)>,
    /// The checkpoint to remove when the adapter is written.
    checkpoint: Option<PathBuf>,
}

/// What an adapter and its report are made of.
pub(crate) struct Found {
    /// The modules and their groups.
    pub(crate) grouping: Grouping,
    /// Names of the other modules of the model.
    pub(crate) untargeted: Vec<String>,
    /// Components and variances.
    pub(crate) statistics: Statistics,
    /// The parameters of the method.
    pub(crate) settings: Settings,
    /// Largest ratio of singular values at which weak components are exact.
    pub(crate) range: f64,
    /// Tokens and batches.
    pub(crate) totals: Totals,
    /// The rows, where several runs have seen them.
    pub(crate) parts: Vec<Part>,
    /// What became of the rows.
    pub(crate) rows: RowCounts,
    /// Rows that were passed over.
    pub(crate) bad: BadRows,
    /// Fields of the rows that change nothing.
    pub(crate) unused: Vec<String>,
    /// Remarks on names.
    pub(crate) names: Vec<String>,
    /// What the run was given.
    pub(crate) run: Run,
    /// Where the time went.
    pub(crate) seconds: Seconds,
    /// What the PEFT config records of the base model.
    pub(crate) base: Base,
    /// Element type of the saved matrices.
    pub(crate) dtype: DType,
}

impl Initialised {
    pub(super) fn new(init: Init, prepared: Prepared, base: Base, ran: Ran) -> Self {
        let Ran { statistics, met, .. } = ran;
        let Prepared { named, chosen, .. } = prepared;
        let (tokens_seen, tokens_kept) = statistics.tokens();
        let found = Found {
            range: init.capture.range(met.devices.iter().all(|device| *device == Device::Cpu)),
            totals: Totals { batches: statistics.history.len(), tokens_seen, tokens_kept },
            run: run(&init, named.path(), &met.devices, &met.onnxruntime),
            seconds: Seconds {
                load: met.loaded.as_secs_f64(),
                forward_and_sketch: statistics.timing.forward.as_secs_f64(),
                decompose: statistics.timing.decompose.as_secs_f64(),
                write: 0.0,
                total: met.started.elapsed().as_secs_f64(),
            },
            parts: Vec::new(),
            grouping: chosen.grouping,
            untargeted: chosen.untargeted,
            statistics,
            settings: init.settings,
            rows: met.rows,
            bad: met.bad,
            unused: met.unused,
            names: named.layers.notes.clone(),
            base,
            dtype: init.dtype,
        };
        let mut made = Self::of(found);
        made.notes.extend(met.notes);
        Self { model: Some((named, init.forms)), checkpoint: met.checkpoint, ..made }
    }

    /// The adapter and the report of what was found.
    pub(crate) fn of(found: Found) -> Self {
        let Found { grouping, statistics, settings, .. } = found;
        let allocations = eva::allocate(&statistics, &grouping.modules, &settings);
        let mut adapter = eva::factors(&statistics, &grouping.modules, &allocations, &settings);
        adapter.unadapted.extend(found.untargeted);
        let names = found.names.into_iter().map(Note::Names);
        let unused = (!found.unused.is_empty()).then_some(Note::UnusedFields { fields: found.unused });
        let first = found.bad.first.first();
        let bad = first.map(|first| Note::BadRows { count: found.bad.count, first: first.clone() });
        let on_run = findings::notes(&grouping, &statistics, &allocations, (settings.rank, found.range));
        Self {
            modules: findings::modules(&grouping, &statistics, &allocations, &settings),
            groups: findings::groups(&grouping, &statistics),
            budget: settings.budget(grouping.modules.len()),
            notes: names.chain(unused).chain(bad).chain(on_run).collect(),
            run: found.run,
            seconds: found.seconds,
            history: statistics.history,
            totals: found.totals,
            parts: found.parts,
            stopped_by: statistics.stopped_by,
            rows: found.rows,
            bad_rows: found.bad,
            adapter,
            base: found.base,
            dtype: found.dtype,
            model: None,
            checkpoint: None,
        }
    }

    /// Writes a PEFT folder with eva.json, and the models of [`Init::emit`], to the folder `dir`, which must not exist or
    /// be empty, and appears whole or not at all.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn save(&self, dir: impl AsRef<Path>) -> Result<(), Error> {
        self.save_to(Destination::prepare(dir.as_ref(), false)?).map(drop)
    }

    /// As [`save`](Self::save), to a folder that was prepared before; returns what eva.json says. A checkpoint of the run is
    /// removed then.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn save_to(&self, mut destination: Destination) -> Result<Report<'_>, Error> {
        let writing = Instant::now();
        let weights = peft::weights(&self.adapter, self.dtype)?;
        let config = peft::config(&self.adapter, &self.base);
        if let Some((named, forms)) = &self.model {
            splicing::put_all(named, forms, &self.adapter, &self.base, &mut destination)
                .map_err(|e| e.in_file(named.path()))?;
        }
        let mut report = self.report();
        report.seconds.write = writing.elapsed().as_secs_f64();
        report.seconds.total += report.seconds.write;
        destination.commit(&[
            (peft::WEIGHTS, weights),
            (peft::CONFIG, config.into_bytes()),
            (report::REPORT, report.to_json().into_bytes()),
        ])?;
        self.checkpoint.as_deref().map_or(Ok(()), block_states::remove)?;
        Ok(report)
    }

    /// What eva.json says, before anything is written.
    pub fn report(&self) -> Report<'_> {
        Report {
            run: &self.run,
            budget: self.budget,
            ranks_total: self.modules.iter().map(|module| module.rank).sum(),
            totals: self.totals,
            converged: self.modules.iter().all(|module| module.converged),
            stopped_by: self.stopped_by,
            notes: self.notes.iter().map(Note::to_string).collect(),
            bad_rows: &self.bad_rows,
            seconds: self.seconds,
            peak_rss_bytes: system::peak_rss(),
            parts: &self.parts,
            layers: &self.modules,
            groups: &self.groups,
            history: &self.history,
        }
    }
}

fn run(init: &Init, model: &Path, devices: &[Device], onnxruntime: &str) -> Run {
    Run {
        version: env!("CARGO_PKG_VERSION"),
        model: model.display().to_string(),
        data: init.rows.names.clone(),
        names: init.naming.names,
        device: names(devices),
        onnxruntime: onnxruntime.to_owned(),
        capture: init.capture.as_str(),
        seed: init.data.seed,
        rank: init.settings.rank,
        alpha: init.settings.alpha,
        rho: init.settings.rho,
        tau: init.settings.tau,
        command: init.command.clone(),
    }
}
