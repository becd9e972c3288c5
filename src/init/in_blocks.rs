//! A run in blocks: every batch through one block, then through the next.
//!
//! All batches are run and count in all groups, as in a run of the whole model that does not stop early. What the rows of one
//! block demand of batches, that they are split by their lengths, holds for all blocks: when a block is the first to ask for
//! it, the run begins anew with what is known then.

use super::block_plan;
use super::block_rows::Rows;
use super::block_states::{Begun, BlockFound, GroupFound, Manner, States};
use super::devices::{Load, Loaded};
use super::error::Error as InitError;
use super::note::Note;
use super::options::{BlockOptions, Init};
use super::prepared::Prepared;
use super::progress::{BlockProgress, Progress};
use super::ran::{Circumstances, Ran};
use crate::blocks::{self, Block, Chain};
use crate::calib::{Arrivals, Batch};
use crate::capture::{self, Demands, Events, PartCapture, Timing};
use crate::error::Error;
use crate::eva::{self, BatchRecord, GroupStatistics, Next, Statistics, Stop};
use crate::group::Group;
use crate::pca::{Spectrum, Summary};
use crate::runtime::{Device, Runtime, SessionOptions};
use crate::summary::Facts;
use crate::system;
use std::sync::Arc;
use std::time::Instant;

/// What a run in blocks is given.
pub(super) struct Given<'a> {
    pub(super) prepared: &'a Prepared,
    pub(super) runtime: Runtime,
    pub(super) devices: Vec<Device>,
    pub(super) options: BlockOptions,
    pub(super) facts: Option<&'a Facts>,
    pub(super) started: Instant,
}

/// A run of all batches in blocks.
struct Run<'a> {
    given: &'a Given<'a>,
    init: &'a Init,
    blocks: &'a [Block],
    rows: &'a Rows,
    batches: usize,
    states: Option<&'a States>,
    observe: &'a mut dyn FnMut(&Progress) -> Next,
}

/// What the last pass over all blocks found, and what is to be said of those before.
struct Passes {
    found: Vec<BlockFound>,
    /// The most bytes of hidden states.
    states_bytes: u64,
    notes: Vec<Note>,
}

/// How a pass over all blocks ended.
enum Passed {
    Done(Vec<BlockFound>, u64),
    /// A block, by its number from 1, demands more of batches than was known.
    Demands(Demands, usize),
}

impl Init {
    /// Runs batches through the blocks of a model.
    pub(super) fn gathered_in_blocks(
        &self,
        given: Given<'_>,
        blocks: Vec<Block>,
        data: Arrivals,
        observe: &mut dyn FnMut(&Progress) -> Next,
    ) -> Result<Ran, Error> {
        let (spill, facts) = (given.options.spill.as_deref(), given.facts);
        let states = spill.zip(facts).map(|(folder, facts)| {
            States::new(folder, facts, (self.machine(&given.devices), block_plan::fingerprint(&blocks)))
        });
        let states = states.transpose()?;
        let begun = states.as_ref().map(|states| states.begun(given.options.resume)).transpose()?.unwrap_or_default();
        let mut rows = Rows::read(data, spill, observe)?;
        let loaded = given.started.elapsed();
        let Passes { found, states_bytes, notes: anew } =
            self.passes(&given, (&blocks, &mut rows), (states.as_ref(), begun), observe)?;
        let (statistics, summaries) = self.joined(given.prepared, found, &rows)?;
        let last = rows.last();
        let converged =
            statistics.history.iter().position(|b| b.converged == given.prepared.chosen.grouping.modules.len());
        let note = Note::Blocks {
            blocks: blocks.len(),
            largest: blocks.iter().map(|block| block.weights).max().unwrap_or(0),
            states: states_bytes,
            spilled: spill.is_some(),
            converged: converged.map(|at| at + 1).filter(|batches| *batches < statistics.history.len()),
        };
        let met = Circumstances {
            onnxruntime: given.runtime.version.clone(),
            devices: given.devices,
            rows: last.counts(),
            bad: last.bad().clone(),
            unused: last.unused().map(str::to_owned).collect(),
            loaded,
            started: given.started,
            notes: [note]
                .into_iter()
                .chain(anew)
                .chain(self.other_threads(states.as_ref().and_then(States::other_threads)))
                .collect(),
            checkpoint: states.and(given.options.spill),
        };
        Ok(Ran { statistics, summaries: self.summary.is_some().then_some(summaries), met })
    }

    /// Passes over all blocks until no block asks for more.
    fn passes(
        &self,
        given: &Given<'_>,
        (blocks, rows): (&[Block], &mut Rows),
        (states, mut begun): (Option<&States>, Begun),
        observe: &mut dyn FnMut(&Progress) -> Next,
    ) -> Result<Passes, Error> {
        let mut notes = Vec::new();
        let groups = &given.prepared.chosen.grouping.groups;
        let first = Manner { demands: Demands::of(groups), as_given: false };
        let mut manner = begun.manner.unwrap_or(first);
        if manner.as_given {
            rows.pad_as_given();
        }
        loop {
            let batches = rows.len();
            let mut run = Run { given, init: self, blocks, rows, batches, states, observe: &mut *observe };
            let passed = run.pass(manner, std::mem::take(&mut begun));
            match passed {
                Ok(Passed::Done(found, bytes)) => return Ok(Passes { found, states_bytes: bytes, notes }),
                Ok(Passed::Demands(demands, block)) => {
                    tracing::debug!(?demands, block, "batches are split otherwise: the run begins anew");
                    manner.demands = demands;
                    notes.push(Note::Anew { block: (block, blocks.len()) });
                }
                // Some models take only some lengths: those that the rows came with, if these were padded.
                Err(error) if error.is_of_run() && !manner.as_given && rows.pad_as_given() => {
                    manner.as_given = true;
                }
                Err(error) if error.is_of_model() => return Err(error.in_file(given.prepared.named.path())),
                Err(error) => return Err(error),
            }
            states.map_or(Ok(()), States::clear)?;
        }
    }

    /// The statistics of all blocks together.
    fn joined(
        &self,
        prepared: &Prepared,
        found: Vec<BlockFound>,
        rows: &Rows,
    ) -> Result<(Statistics, Vec<Summary>), Error> {
        let grouping = &prepared.chosen.grouping;
        let nothing = Spectrum::default();
        let mut spectra: Vec<Vec<&Spectrum>> = Vec::new();
        let (mut events, mut timing) = (Events::default(), Timing::default());
        for block in &found {
            let batches = spectra.len().max(block.trace.len());
            spectra.resize(batches, vec![&nothing; grouping.groups.len()]);
            for (of_batch, trace) in spectra.iter_mut().zip(&block.trace) {
                block.groups.iter().zip(trace).for_each(|((group, ..), spectrum)| of_batch[*group] = spectrum);
            }
            events = events.and(block.events);
            timing.forward += block.timing.forward;
            timing.decompose += block.timing.decompose;
        }
        let record = |(batch, spectra): (Result<Batch, InitError>, &Vec<&Spectrum>)| {
            let batch = batch?;
            Ok(eva::record((batch.attended(), batch.kept()), spectra, grouping, &self.settings))
        };
        let history: Result<Vec<BatchRecord>, InitError> = rows.batches().zip(&spectra).map(record).collect();
        let history = history?;
        let kept = history.iter().map(|batch| batch.tokens_kept).sum();
        if kept == 0 {
            return Err(eva::Error::NoRows { batches: history.len() }.into());
        }
        let mut groups: Vec<_> = found.into_iter().flat_map(|block| block.groups).collect();
        groups.sort_by_key(|(group, ..)| *group);
        let (groups, summaries): (Vec<GroupStatistics>, Vec<_>) = groups.into_iter().map(|(_, g, s)| (g, s)).unzip();
        eva::check_variance(&groups, kept)?;
        let limited = self.data.max_batches.is_some_and(|most| history.len() >= most);
        let stopped_by = if limited { Stop::MaxBatches } else { Stop::Exhausted };
        Ok((Statistics { groups, history, stopped_by, events, timing }, summaries.into_iter().flatten().collect()))
    }
}

impl Run<'_> {
    /// All batches through all blocks that were not run yet.
    fn pass(&mut self, manner: Manner, begun: Begun) -> Result<Passed, Error> {
        let prepared = self.given.prepared;
        if begun.found.is_empty() {
            self.check_all_room()?;
        }
        let options = SessionOptions { device: self.given.devices[0], threads: self.init.runtime.threads };
        let feeds = prepared.feeds_on(&self.given.runtime, options)?;
        let shape = feeds.shape();
        let spill = self.given.options.spill.clone();
        let on = (self.given.runtime.clone(), options);
        let chain = Arc::new(Chain::new(prepared.model().clone(), self.blocks.to_vec(), feeds, on, spill));
        for batch in self.rows.batches() {
            chain.announce_data([batch?]);
        }
        match begun.chain {
            Some(saved) => chain.restore(saved).map_err(capture::Error::from)?,
            // A file that cannot be read any more is an error where its batch is run.
            None => chain.announce(capture::foreseen(self.rows.batches().map_while(Result::ok), shape.is_fixed())),
        }
        let mut found = begun.found;
        for at in found.len()..self.blocks.len() {
            chain.enter(at);
            chain.read_ahead(at + 1);
            let ran = match self.gathered(&chain, at, options, manner.demands)? {
                Ok(found) => found,
                Err(demands) => return Ok(Passed::Demands(demands, at + 1)),
            };
            if let Some(states) = self.states {
                states.write(at, (&ran, manner, &chain.save(at + 1)))?;
            }
            found.push(ran);
        }
        Ok(Passed::Done(found, chain.bytes().1))
    }

    /// The statistics of the groups of a block, or what its rows demand of batches if that is new.
    fn gathered(
        &mut self,
        chain: &Arc<Chain>,
        at: usize,
        options: SessionOptions,
        demands: Demands,
    ) -> Result<Result<BlockFound, Demands>, Error> {
        let given = self.given;
        let numbers = &self.blocks[at].groups;
        let grouping = &given.prepared.chosen.grouping;
        let named = |error: capture::Error| eva::with_modules(error.with_numbers(numbers), &grouping.modules);
        let groups: Vec<Group> = numbers.iter().map(|group| grouping.groups[*group].clone()).collect();
        let model = chain.part(at).map_err(capture::Error::from)?;
        let feeds = chain.feeds(&model).carried_by(Arc::clone(chain) as _);
        let load = Load {
            prepared: given.prepared,
            runtime: &given.runtime,
            method: self.init.capture,
            threads: options.threads,
            components: self.init.settings.components(),
            seed: self.init.data.seed,
            may_end: false,
        };
        let loaded = Loaded { model: &model, feeds: &feeds, groups: &groups, demands };
        let mut capture = load.capture(options, self.rows.first(), loaded)?;
        self.learn(&mut *capture)?;
        let mut watch = Watch { of: self.progress(at), first: None };
        let mut trace = Vec::with_capacity(self.batches);
        let rows = self.rows;
        for batch in rows.batches() {
            let batch = batch?;
            if capture.demands() != demands {
                return Ok(Err(capture.demands()));
            }
            capture.absorb(&batch).map_err(named)?;
            trace.push((0..groups.len()).map(|group| capture.spectrum(group).clone()).collect());
            self.after(chain, &mut watch, &batch)?;
        }
        if capture.demands() != demands {
            return Ok(Err(capture.demands()));
        }
        let events = capture.finish().map_err(named)?;
        chain.for_rest(at, &mut |batch| capture.forward(batch))?;
        let groups = self.found(&*capture, numbers).map_err(named)?;
        Ok(Ok(BlockFound { groups, trace, events, timing: capture.timing() }))
    }

    /// Lets a block learn from all batches how they must be split, before it runs the first one.
    fn learn(&self, capture: &mut dyn PartCapture) -> Result<(), Error> {
        for batch in self.rows.batches() {
            let unlearnt = capture.unlearnt();
            if unlearnt.is_nothing() {
                break;
            }
            let batch = batch?;
            if batch.kept() > 0 && unlearnt.is_told_by(&batch) {
                capture.learn_order(&batch)?;
                capture.learn_padding(&batch)?;
            }
        }
        Ok(())
    }

    /// What was found of each group of a block.
    fn found(&self, capture: &dyn PartCapture, numbers: &[usize]) -> Result<Vec<GroupFound>, capture::Error> {
        let components = capture.components()?;
        let summaries = match self.init.summary {
            Some(_) => capture.summaries()?.into_iter().map(Some).collect(),
            None => vec![None; numbers.len()],
        };
        let all = numbers.iter().zip(components).zip(summaries).enumerate();
        let found = all.map(|(at, ((group, components), summary))| {
            (*group, GroupStatistics { spectrum: capture.spectrum(at).clone(), components }, summary)
        });
        Ok(found.collect())
    }

    /// The state before the first batch of a block.
    fn progress(&self, at: usize) -> Progress {
        Progress {
            planned: Some(self.batches),
            modules: self.given.prepared.chosen.grouping.modules.len(),
            block: Some(BlockProgress { block: at + 1, of: self.blocks.len(), states: 0 }),
            ..Progress::default()
        }
    }

    /// Shows the state after a batch, and checks that what is handed on will fit.
    fn after(&mut self, chain: &Chain, watch: &mut Watch, batch: &Batch) -> Result<(), Error> {
        let bytes = chain.bytes().0;
        let progress = &mut watch.of;
        progress.batches += 1;
        progress.tokens_seen += batch.attended();
        progress.tokens_kept += batch.kept();
        let Some(at) = &mut progress.block else { return Ok(()) };
        at.states = bytes;
        let (block, of) = (at.block, at.of);
        let (batches, progress) = (progress.batches, *progress);
        match watch.first {
            None => watch.first = Some(bytes),
            Some(first) if batches == 2 => {
                let more = bytes.saturating_sub(first) * (self.batches as u64).saturating_sub(2);
                self.check_room(more, bytes)?;
            }
            Some(_) => {}
        }
        if (self.observe)(&progress) == Next::Stop {
            let path = self.states.and(self.given.options.spill.clone());
            return Err(InitError::StoppedInBlock { block, of, path }.into());
        }
        Ok(())
    }

    /// Checks that what the blocks hand on of all batches fits, where the graph tells how much that is.
    fn check_all_room(&self) -> Result<(), InitError> {
        let of_token = blocks::handed_on(self.blocks);
        of_token.map_or(Ok(()), |bytes| self.check_room(bytes.saturating_mul(self.rows.padded()), 0))
    }

    /// Checks that as many bytes fit beside those that are there.
    fn check_room(&self, more: u64, there: u64) -> Result<(), InitError> {
        let path = self.given.options.spill.clone();
        let free = path.as_deref().map_or_else(system::available, system::space);
        match free {
            Some(free) if more > free => {
                let (batches, needed, free) = (self.batches, there + more, there + free);
                Err(InitError::States { batches, needed, free, path })
            }
            _ => Ok(()),
        }
    }
}

/// What is known of the batches of a block so far.
struct Watch {
    of: Progress,
    /// Bytes that were handed on after the first one.
    first: Option<u64>,
}
