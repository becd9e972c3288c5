//! The result of a run, and its files.

use super::{Init, Note, Prepared};
use crate::adapter::{Adapter, Base};
use crate::calib::{BadRows, RowCounts};
use crate::dtype::DType;
use crate::error::Error;
use crate::eva::{self, Allocation, BatchRecord, Settings, Statistics, Stop};
use crate::formats::peft;
use crate::group::Grouping;
use crate::named::NamedModel;
use crate::output::Destination;
use crate::report::{self, GroupReport, ModuleReport, Report, Run, Seconds};
use crate::runtime::Device;
use crate::splice::Form;
use crate::splicing;
use crate::system;
use std::path::Path;
use std::time::{Duration, Instant};

/// An adapter initialised by EVA, and what the run found.
#[non_exhaustive]
pub struct Initialised {
    /// The modules chosen, in graph order, those of rank 0 included.
    pub modules: Vec<ModuleReport>,
    /// The groups of modules that read the same tensors.
    pub groups: Vec<GroupReport>,
    /// What each batch added.
    pub history: Vec<BatchRecord>,
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
    forms: Vec<Form>,
    named: NamedModel,
}

/// What a run met.
pub(super) struct Circumstances<'a> {
    pub(super) onnxruntime: String,
    pub(super) devices: &'a [Device],
    pub(super) rows: RowCounts,
    pub(super) bad: BadRows,
    /// Fields of the rows that change nothing.
    pub(super) unused: Vec<String>,
    /// Time until the first batch.
    pub(super) loaded: Duration,
    pub(super) started: Instant,
}

impl Initialised {
    pub(super) fn new(init: Init, prepared: Prepared, statistics: Statistics, met: Circumstances<'_>) -> Self {
        let Prepared { named, chosen, .. } = prepared;
        let grouping = &chosen.grouping;
        let allocations = eva::allocate(&statistics, &grouping.modules, &init.settings);
        let mut adapter = eva::factors(&statistics, &grouping.modules, &allocations, &init.settings);
        adapter.unadapted.extend(chosen.untargeted);
        let names = named.layers.notes.iter().cloned().map(Note::Names);
        let unused = (!met.unused.is_empty()).then(|| Note::UnusedFields { fields: met.unused.clone() });
        let bad = met.bad.first.first().map(|first| Note::BadRows { count: met.bad.count, first: first.clone() });
        let on_run = notes(grouping, &statistics, &allocations, (init.settings.rank, init.capture.range(met.devices)));
        let notes = names.chain(unused).chain(bad).chain(on_run).collect();
        let base = Base {
            name: init.base.name.clone().or_else(|| named.config.base_model.clone()),
            task_type: init.base.task_type.clone().or_else(|| named.config.task_type.clone()),
            names: init.naming.names,
            ..Base::default()
        };
        Self {
            modules: modules(grouping, &statistics, &allocations, &init.settings),
            groups: groups(grouping, &statistics),
            budget: init.settings.budget(grouping.modules.len()),
            run: run(&init, named.path(), &met),
            seconds: Seconds {
                load: met.loaded.as_secs_f64(),
                forward_and_sketch: statistics.timing.forward.as_secs_f64(),
                decompose: statistics.timing.decompose.as_secs_f64(),
                write: 0.0,
                total: met.started.elapsed().as_secs_f64(),
            },
            history: statistics.history,
            stopped_by: statistics.stopped_by,
            rows: met.rows,
            bad_rows: met.bad,
            adapter,
            notes,
            base,
            dtype: init.dtype,
            forms: init.forms,
            named,
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

    /// As [`save`](Self::save), to a folder that was prepared before; returns what eva.json says.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub fn save_to(&self, mut destination: Destination) -> Result<Report<'_>, Error> {
        let writing = Instant::now();
        let weights = peft::weights(&self.adapter, self.dtype)?;
        let config = peft::config(&self.adapter, &self.base);
        splicing::put_all(&self.named, &self.forms, &self.adapter, &self.base, &mut destination)
            .map_err(|e| e.in_file(self.named.path()))?;
        let mut report = self.report();
        report.seconds.write = writing.elapsed().as_secs_f64();
        report.seconds.total += report.seconds.write;
        destination.commit(&[
            (peft::WEIGHTS, weights),
            (peft::CONFIG, config.into_bytes()),
            (report::REPORT, report.to_json().into_bytes()),
        ])?;
        Ok(report)
    }

    /// What eva.json says, before anything is written.
    pub fn report(&self) -> Report<'_> {
        Report {
            run: &self.run,
            budget: self.budget,
            ranks_total: self.modules.iter().map(|module| module.rank).sum(),
            batches: self.history.len(),
            tokens_seen: self.history.iter().map(|batch| batch.tokens_seen).sum(),
            tokens_kept: self.history.iter().map(|batch| batch.tokens_kept).sum(),
            converged: self.modules.iter().all(|module| module.converged),
            stopped_by: self.stopped_by,
            notes: self.notes.iter().map(Note::to_string).collect(),
            bad_rows: &self.bad_rows,
            seconds: self.seconds,
            peak_rss_bytes: system::peak_rss(),
            layers: &self.modules,
            groups: &self.groups,
            history: &self.history,
        }
    }
}

fn modules(
    grouping: &Grouping,
    statistics: &Statistics,
    allocations: &[Allocation],
    settings: &Settings,
) -> Vec<ModuleReport> {
    let modules = grouping.modules.iter().zip(allocations);
    let report = modules.map(|(module, &Allocation { rank, converged })| {
        let spectrum = &statistics.groups[module.group].spectrum;
        let ratio = spectrum.explained_variance_ratio();
        ModuleReport {
            name: module.name.clone(),
            group: module.group,
            rank,
            alpha: settings.alpha_at(rank),
            in_features: module.in_features,
            out_features: module.out_features,
            explained_variance: ratio.iter().take(rank).sum(),
            explained_variance_ratio: ratio,
            similarity: spectrum.similarity.clone(),
            converged,
        }
    });
    report.collect()
}

fn groups(grouping: &Grouping, statistics: &Statistics) -> Vec<GroupReport> {
    let groups = grouping.groups.iter().zip(&statistics.groups).enumerate();
    let report = groups.map(|(id, (group, found))| GroupReport {
        id,
        tensors: group.tensors.clone(),
        features: group.features,
        rows: found.spectrum.rows,
        total_variance: found.spectrum.total_variance,
        singular_values: found.spectrum.singular_values.clone(),
        directions: found.spectrum.directions(),
    });
    report.collect()
}

fn run(init: &Init, model: &Path, met: &Circumstances<'_>) -> Run {
    Run {
        version: env!("CARGO_PKG_VERSION"),
        model: model.display().to_string(),
        data: init.rows.names.clone(),
        names: init.naming.names,
        device: met.devices.iter().map(Device::to_string).collect::<Vec<_>>().join(","),
        onnxruntime: met.onnxruntime.clone(),
        capture: init.capture.as_str(),
        seed: init.data.seed,
        rank: init.settings.rank,
        alpha: init.settings.alpha,
        rho: init.settings.rho,
        tau: init.settings.tau,
        command: init.command.clone(),
    }
}

/// Notes on the statistics of a run with this `rank`; `range` is the largest ratio of singular values at which weak components are exact.
fn notes(
    grouping: &Grouping,
    statistics: &Statistics,
    allocations: &[Allocation],
    (rank, range): (usize, f64),
) -> Vec<Note> {
    let mut notes = Vec::new();
    if statistics.events.split_batches > 0 {
        notes.push(Note::SplitBatches { count: statistics.events.split_batches });
    }
    if statistics.events.reloaded_in_f32 {
        notes.push(Note::Reloaded);
    }
    let spectrum = |group: usize| &statistics.groups[group].spectrum;
    let modules = grouping.modules.iter().zip(allocations);
    let weak = modules.filter(|(module, allocation)| {
        let spectrum = spectrum(module.group);
        spectrum.spread(allocation.rank.min(spectrum.directions())) > range
    });
    let weak = weak.count();
    if weak > 0 {
        notes.push(Note::WeakComponents { modules: weak, of: grouping.modules.len(), range });
    }
    if statistics.events.saw_padding {
        notes.push(Note::SawPadding);
    }
    if statistics.events.counted_others {
        notes.push(Note::RoutedTokens);
    }
    let unreached = grouping.modules.iter().filter(|module| spectrum(module.group).rows == 0);
    let unreached: Vec<String> = unreached.map(|module| module.name.clone()).collect();
    if !unreached.is_empty() {
        notes.push(Note::NoRows { modules: unreached });
    }
    notes.extend(few_directions(grouping, statistics, allocations, rank));
    notes
}

/// Notes on modules whose input has fewer directions than `rank`, though it has the features for them.
fn few_directions(grouping: &Grouping, statistics: &Statistics, allocations: &[Allocation], rank: usize) -> Vec<Note> {
    let (mut constant, mut few, mut arbitrary) = (Vec::new(), Vec::new(), 0);
    for (module, allocation) in grouping.modules.iter().zip(allocations) {
        let spectrum = &statistics.groups[module.group].spectrum;
        let directions = spectrum.directions();
        arbitrary += if spectrum.rows > 0 { allocation.rank.saturating_sub(directions) } else { 0 };
        match directions {
            0 if spectrum.rows > 0 => constant.push(module.name.clone()),
            1.. if directions < rank.min(module.in_features) => few.push((module.name.clone(), directions)),
            _ => {}
        }
    }
    let mut notes = Vec::new();
    if !constant.is_empty() {
        notes.push(Note::NoVariance { modules: constant });
    }
    if !few.is_empty() {
        let (modules, counts): (Vec<_>, Vec<_>) = few.into_iter().unzip();
        let directions = counts.iter().fold((rank, 0), |(least, most), &n: &usize| (least.min(n), most.max(n)));
        notes.push(Note::FewDirections { modules, of: grouping.modules.len(), rank, directions });
    }
    if arbitrary > 0 {
        notes.push(Note::ArbitraryRanks { count: arbitrary });
    }
    notes
}
