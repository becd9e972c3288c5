//! What a run would do, by its first batches.

use super::options::Init;
use super::progress::Progress;
use super::ran::names;
use crate::calib::{Arrival, Arrivals, Calibration, RowCounts};
use crate::error::Error;
use crate::eva::{self, Next};
use crate::group::Module;
use crate::system;
use serde::Serialize;
use std::time::{Duration, Instant};

/// How long rows are counted.
const COUNTING: Duration = Duration::from_secs(10);

/// What a run would do.
///
/// Serialises as the document of `eva-onnx init --dry-run --json`.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Plan {
    /// The model.
    pub model: String,
    /// The device.
    pub device: String,
    /// Version of ONNX Runtime.
    pub onnxruntime: String,
    /// LoRA rank r that the budget is counted in.
    pub rank: usize,
    /// Largest rank that a module may get.
    pub largest_rank: usize,
    /// Rank budget N * r.
    pub budget: usize,
    /// Groups of modules that read the same tensors.
    pub groups: usize,
    /// The modules, in graph order.
    pub layers: Vec<PlannedModule>,
    /// What becomes of the rows that were counted.
    pub rows: RowCounts,
    /// Batches that were counted.
    pub batches: usize,
    /// Whether those are all: rows are counted for ten seconds.
    pub counted_all: bool,
    /// Tokens in them.
    pub tokens: usize,
    /// Tokens in them, padding included.
    pub padded_tokens: usize,
    /// Sequences, and tokens of each, of the largest of the first batches.
    pub largest_batch: [usize; 2],
    /// Seconds until the first batch.
    pub seconds_until_first_batch: f64,
    /// Seconds of a batch of middle size.
    pub seconds_of_batch: f64,
    /// Seconds of all batches that were counted, if none is spared by convergence.
    pub seconds_of_batches: f64,
    /// Memory.
    pub memory: MemoryNeed,
}

/// A module that would get an adapter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PlannedModule {
    /// Full PyTorch name.
    #[serde(rename = "module")]
    pub name: String,
    /// Number of its group.
    pub group: usize,
    /// Features of the input.
    pub in_features: usize,
    /// Features of the output.
    pub out_features: usize,
}

impl From<&Module> for PlannedModule {
    fn from(module: &Module) -> Self {
        let Module { name, group, in_features, out_features, .. } = module;
        Self { name: name.clone(), group: *group, in_features: *in_features, out_features: *out_features }
    }
}

/// Memory that a run needs; that of a GPU is not in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct MemoryNeed {
    /// Largest resident set of this process, after the largest of the first batches.
    pub peak_rss_bytes: Option<u64>,
    /// What this process may use.
    pub available_bytes: Option<u64>,
}

impl MemoryNeed {
    /// As it is now.
    pub(crate) fn now() -> Self {
        Self { peak_rss_bytes: system::peak_rss(), available_bytes: system::memory() }
    }
}

/// The largest of some batches, which needs most memory, and one of middle size, whose time is typical.
pub(crate) fn sample(data: &Calibration, fits: impl Fn(usize) -> bool) -> Option<[usize; 2]> {
    let sizes = data.sizes();
    let mut order: Vec<usize> = (0..sizes.len()).filter(|index| fits(*index)).collect();
    order.sort_by_key(|index| sizes[*index]);
    Some([*order.last()?, order[order.len() / 2]])
}

impl Init {
    /// Says what the run would do: it opens the model, counts the rows, and runs two batches. Nothing is written.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn plan(self) -> Result<Plan, Error> {
        self.plan_with(|_| Next::Continue)
    }

    /// As [`plan`](Self::plan); `observe` is asked while rows are read, and may stop it.
    ///
    /// # Errors
    /// As [`run_with`](Self::run_with).
    pub fn plan_with(mut self, mut observe: impl FnMut(&Progress) -> Next) -> Result<Plan, Error> {
        if self.blocks.is_some() {
            let hint = "leave out --blocks; `eva-onnx inspect MODEL --blocks` shows the cuts";
            return Err(Error::usage("--dry-run runs the whole model, which --blocks is to avoid", Some(hint)));
        }
        let started = Instant::now();
        let prepared = self.open()?;
        let mut data = self.arrivals(&prepared, &mut observe)?;
        let (runtime, devices) = self.devices()?;
        let parts = self.shared(&prepared, &devices)?;
        let mut capture = self.load(&prepared, &runtime, (&devices, &parts), &mut data)?;
        let until_first = started.elapsed();
        let largest_batch = data.window().largest_dim();
        let [largest, middle] = sample(data.window(), |_| true).ok_or(eva::Error::Interrupted)?;
        let (mut seconds, in_model) = (0.0, |error: Error| error.in_file(prepared.named.path()));
        for index in [largest, middle] {
            let (batch, begun) = (data.window().batch(index), Instant::now());
            capture.absorb(&batch).and_then(|()| capture.wait()).map_err(|error| in_model(error.into()))?;
            seconds = begun.elapsed().as_secs_f64();
        }
        let size = data.window().sizes()[middle];
        capture.finish().map_err(|error| in_model(error.into()))?;
        let memory = MemoryNeed::now();
        let Count { batches, all, tokens, padded } = count(&mut data, &mut observe)?;
        let grouping = &prepared.chosen.grouping;
        Ok(Plan {
            model: prepared.named.path().display().to_string(),
            device: names(&devices),
            onnxruntime: runtime.version.clone(),
            rank: self.settings.rank,
            largest_rank: self.settings.components(),
            budget: self.settings.budget(grouping.modules.len()),
            groups: grouping.groups.len(),
            layers: grouping.modules.iter().map(PlannedModule::from).collect(),
            rows: data.counts(),
            batches,
            counted_all: all,
            tokens,
            padded_tokens: padded,
            largest_batch,
            seconds_until_first_batch: until_first.as_secs_f64(),
            seconds_of_batch: seconds,
            // Several devices run batches at the same time.
            seconds_of_batches: seconds / size as f64 * padded as f64 / devices.len() as f64,
            memory,
        })
    }
}

/// Batches, and the tokens in them.
#[derive(Default)]
struct Count {
    batches: usize,
    /// Whether no others follow.
    all: bool,
    tokens: usize,
    padded: usize,
}

/// Counts batches until the rows end or the time is up.
fn count(data: &mut Arrivals, observe: &mut impl FnMut(&Progress) -> Next) -> Result<Count, Error> {
    let begun = Instant::now();
    let mut count = Count::default();
    while let Some(arrival) = data.next() {
        if let Arrival::Batch(batch) = arrival? {
            let (sequences, length) = batch.dim();
            count.batches += 1;
            count.tokens += batch.attended();
            count.padded += (sequences * length).max(1);
        }
        if observe(&Progress::default()) == Next::Stop {
            return Err(eva::Error::Interrupted.into());
        }
        if data.planned().is_none() && begun.elapsed() > COUNTING {
            return Ok(count);
        }
    }
    Ok(Count { all: true, ..count })
}
