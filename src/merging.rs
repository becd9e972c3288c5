//! Merges summaries of several runs, and makes an adapter of them without the model.

use crate::adapter::Base;
use crate::calib::{BadRows, RowCounts};
use crate::capture::Events;
use crate::dtype::DType;
use crate::error::Error;
use crate::eva::{Ranks, Settings, Statistics, Stop};
use crate::group::{Grouping, Module};
use crate::init::{Found, Initialised, Note};
use crate::linear::Targets;
use crate::linear::module::leaf;
use crate::named::{Selection, targets};
use crate::output::{self, SingleFile};
use crate::parallel;
use crate::pca::Summary;
use crate::report::{Run, Seconds, Totals};
use crate::runtime::Device;
use crate::summary::{self, Facts, Joined, Part, SummaryFile, join};
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Most entries of all matrices of an adapter: 64 GiB in 32 bits.
const MOST: u128 = 1 << 34;

/// How summaries become an adapter. What is `None` is as in the run that made them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MergeOptions {
    /// LoRA rank r.
    pub rank: Option<usize>,
    /// LoRA alpha at rank r.
    pub alpha: Option<f64>,
    /// Largest rank of a module, as a multiple of r.
    pub rho: Option<f64>,
    /// |cosine| at which a component counts as converged.
    pub tau: Option<f64>,
    /// Smallest rank of a module.
    pub min_rank: Option<usize>,
    /// How ranks are allocated.
    pub ranks: Option<Ranks>,
    /// Whether rows of A are divided by the square roots of their singular values; they are too if the run said so.
    pub whiten: bool,
    /// Which of the modules get an adapter.
    pub selection: Selection,
    /// What the PEFT config records of the base model.
    pub base: Base,
    /// Element type of the saved matrices; 32 bits where it is `None`.
    pub dtype: Option<DType>,
    /// Whether parts of the data may be missing.
    pub allow_missing: bool,
    /// Threads; 0 for as many as cores. The result does not depend on it.
    pub threads: usize,
    /// The command that started this and its arguments, which eva.json records.
    pub command: Vec<String>,
}

/// Several summaries as one.
#[derive(Clone, Debug)]
pub struct Merged {
    /// Rows that are in no file.
    pub missing: Vec<String>,
    /// The rows, by the runs that saw them.
    pub parts: Vec<Part>,
    joined: Joined,
    files: Vec<PathBuf>,
    started: Instant,
}

/// Merges the summaries in some files: of the same model and options, and of different rows. The order of the files does
/// not matter.
///
/// # Errors
/// When a file cannot be read, is no summary, or does not belong to the others.
pub fn merge(files: &[PathBuf], options: &MergeOptions) -> Result<Merged, Error> {
    let started = Instant::now();
    let joined = join(files, options.allow_missing, threads(options))?;
    let (missing, parts) = (joined.missing.clone(), joined.facts.parts.clone());
    Ok(Merged { missing, parts, joined, files: files.to_vec(), started })
}

fn threads(options: &MergeOptions) -> usize {
    if options.threads == 0 { parallel::cores() } else { options.threads }
}

impl Merged {
    /// What the user should know of the rows.
    pub fn notes(&self) -> Vec<Note> {
        let count = self.parts.iter().map(|part| &part.data).collect::<BTreeSet<_>>().len();
        let several = (count > 1).then_some(Note::SeveralData { count });
        let missing = (!self.missing.is_empty()).then(|| Note::MissingRows { parts: self.missing.clone() });
        several.into_iter().chain(missing).collect()
    }

    /// The rows as JSON.
    pub fn to_json(&self) -> String {
        let document = serde_json::json!({"parts": self.parts, "missing": self.missing});
        serde_json::to_string_pretty(&document).unwrap_or_default() + "\n"
    }

    /// Writes the merged summary, which merges with others in turn. If it is there already, of the same rows, it stays.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_summary(&self, path: &Path, force: bool) -> Result<(), Error> {
        let own = path.canonicalize().ok();
        if own.is_some_and(|own| self.files.iter().any(|file| file.canonicalize().is_ok_and(|file| file == own))) {
            return Err(output::Error::Input { path: path.to_owned() }.into());
        }
        let file = SingleFile::prepare(path)?;
        let bytes = summary::encode(&self.joined.facts, &self.joined.groups)?;
        let same = || std::fs::read(path).is_ok_and(|there| there == bytes);
        if path.exists() && SummaryFile::open(path).is_ok() && same() {
            return Ok(());
        }
        Ok(file.write(&[&bytes], force)?)
    }

    /// The adapter, with ranks allocated by these options.
    ///
    /// # Errors
    /// When the options ask for more than the summary holds.
    pub fn adapter(&self, options: &MergeOptions) -> Result<Initialised, Error> {
        let Joined { facts, groups, .. } = &self.joined;
        let settings = settings(&facts.settings, options);
        let (wanted, followed) = (settings.components(), facts.run.components);
        if wanted > followed {
            return Err(summary::Error::Components { wanted, followed }.into());
        }
        let Chosen { grouping, kept, untargeted } = chosen(facts, &options.selection)?;
        let entries = |module: &Module| {
            (module.in_features + module.out_features) as u128 * wanted.min(module.in_features) as u128
        };
        let entries = grouping.modules.iter().map(entries).sum();
        if entries > MOST {
            return Err(summary::Error::Huge { entries, most: MOST }.into());
        }
        let summaries: Vec<Summary> = kept.iter().map(|g| groups[*g].summary.clone()).collect();
        let failed = |source| summary::Error::Decompose { tensor: facts.grouping.groups[0].tensors[0].clone(), source };
        let found = Statistics::from_summaries(&summaries, wanted, threads(options)).map_err(failed)?;
        let mut statistics = Statistics { stopped_by: stopped_by(&facts.parts), events: events(&facts.parts), ..found };
        for (group, g) in statistics.groups.iter_mut().zip(&kept) {
            group.spectrum.similarity = groups[*g].similarity.iter().take(wanted).copied().collect();
        }
        if statistics.groups.iter().all(|group| group.spectrum.directions() == 0) {
            return Err(summary::Error::NoVariance.into());
        }
        let found = self.found(options, settings, grouping, untargeted, statistics);
        Ok(Initialised::of(found))
    }

    fn found(
        &self,
        options: &MergeOptions,
        settings: Settings,
        grouping: Grouping,
        untargeted: Vec<String>,
        statistics: Statistics,
    ) -> Found {
        let Facts { run, base, notes, parts, .. } = &self.joined.facts;
        let (mut rows, mut bad, mut totals) = (RowCounts::default(), BadRows::default(), Totals::default());
        for part in parts {
            rows.add(&part.rows);
            bad.add(&part.bad_rows);
            totals.batches += part.batches;
            totals.tokens_seen += part.tokens_seen;
            totals.tokens_kept += part.tokens_kept;
        }
        let each = |text: fn(&Part) -> &str| distinct(parts.iter().map(text)).join(",");
        let cpu = Device::Cpu.to_string();
        let on_cpus = parts.iter().flat_map(|part| part.device.split(',')).all(|device| device == cpu);
        let own = Base::from(base);
        Found {
            range: run.capture.range(on_cpus),
            run: Run {
                version: env!("CARGO_PKG_VERSION"),
                model: run.path.clone(),
                data: distinct(parts.iter().flat_map(|part| &part.files).map(String::as_str)),
                names: base.names,
                device: each(|part| &part.device),
                onnxruntime: each(|part| &part.onnxruntime),
                capture: run.capture.as_str(),
                seed: run.options.get("seed").and_then(serde_json::Value::as_u64).unwrap_or(0),
                rank: settings.rank,
                alpha: settings.alpha,
                rho: settings.rho,
                tau: settings.tau,
                command: options.command.clone(),
            },
            unused: distinct(parts.iter().flat_map(|part| &part.unused).map(String::as_str)),
            seconds: Seconds { total: self.started.elapsed().as_secs_f64(), ..Seconds::default() },
            base: Base {
                name: options.base.name.clone().or_else(|| own.name.clone()),
                task_type: options.base.task_type.clone().or_else(|| own.task_type.clone()),
                ..own
            },
            dtype: options.dtype.unwrap_or(DType::F32),
            names: notes.clone(),
            parts: parts.clone(),
            grouping,
            untargeted,
            statistics,
            settings,
            totals,
            rows,
            bad,
        }
    }
}

fn settings(of_run: &Settings, options: &MergeOptions) -> Settings {
    Settings {
        rank: options.rank.unwrap_or(of_run.rank),
        alpha: options.alpha.unwrap_or(of_run.alpha),
        rho: options.rho.unwrap_or(of_run.rho),
        tau: options.tau.unwrap_or(of_run.tau),
        min_rank: options.min_rank.unwrap_or(of_run.min_rank),
        ranks: options.ranks.unwrap_or(of_run.ranks),
        whiten: options.whiten || of_run.whiten,
    }
}

/// Why no more batches were run: what ended the run that had most left.
fn stopped_by(parts: &[Part]) -> Stop {
    let any = |stop: Stop| parts.iter().any(|part| part.stopped_by == stop);
    let order = [Stop::Interrupted, Stop::MaxBatches, Stop::Exhausted];
    order.into_iter().find(|stop| any(*stop)).unwrap_or(Stop::Converged)
}

fn events(parts: &[Part]) -> Events {
    Events {
        split_batches: parts.iter().map(|part| part.events.split_batches).sum(),
        reloaded_in_f32: parts.iter().any(|part| part.events.reloaded_in_f32),
        counted_others: parts.iter().any(|part| part.events.counted_others),
    }
}

fn distinct<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut seen = BTreeSet::new();
    names.filter(|name| seen.insert(*name)).map(str::to_owned).collect()
}

/// The modules that are chosen of a summary.
struct Chosen {
    grouping: Grouping,
    /// Which groups of the summary theirs are.
    kept: Vec<usize>,
    /// Names of all other modules.
    untargeted: Vec<String>,
}

fn chosen(facts: &Facts, selection: &Selection) -> Result<Chosen, Error> {
    let wanted = targets(&selection.target_modules)?;
    let exclude = selection.exclude_modules.as_deref().map(targets).transpose()?;
    let of_target = |target: &Targets, name: &str| matches!(target, Targets::AllLinear) || target.names(name);
    let all = &facts.grouping.modules;
    for target in wanted.each() {
        let uncalibrated = facts.untargeted.iter().find(|name| target.names(name));
        if let Some(module) = uncalibrated.filter(|_| !all.iter().any(|module| of_target(&target, &module.name))) {
            let (targets, module) = (selection.target_modules.clone(), module.clone());
            return Err(summary::Error::NotCalibrated { targets, module }.into());
        }
    }
    let excluded = |name: &str| exclude.as_ref().is_some_and(|exclude| of_target(exclude, name));
    let (mut grouping, mut kept, mut others) = (Grouping::default(), Vec::new(), facts.untargeted.clone());
    let mut known = HashMap::new();
    for module in all {
        if !of_target(&wanted, &module.name) || excluded(&module.name) {
            others.push(module.name.clone());
            continue;
        }
        let group = *known.entry(module.group).or_insert_with(|| {
            kept.push(module.group);
            grouping.groups.push(facts.grouping.groups[module.group].clone());
            kept.len() - 1
        });
        grouping.modules.push(Module { group, ..module.clone() });
    }
    if grouping.modules.is_empty() {
        let leaves: BTreeSet<&str> = all.iter().map(|module| leaf(&module.name)).collect();
        let leaves = leaves.into_iter().map(str::to_owned).collect();
        return Err(summary::Error::NothingTargeted { targets: selection.target_modules.clone(), leaves }.into());
    }
    others.sort();
    Ok(Chosen { grouping, kept, untargeted: others })
}
