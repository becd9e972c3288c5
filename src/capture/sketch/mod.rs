//! Statistics from the graph: only small matrices come back.

mod codec;
mod fallback;
mod half;
mod marks;
mod member;
mod overlap;
mod plans;
mod probed;
mod schedule;
mod stack;
mod state;
pub(super) mod strategy;

pub use strategy::Strategy;

use super::error::Error;
use super::interface::{Capture, Events, PartCapture, Timing};
use super::matching::Matching;
use super::probe::first_sequence;
use super::rows::{Choice, Layout};
use super::saved::{decode, encode, ensure};
use super::setup::Setup;
use crate::calib::Batch;
use crate::feeds::Feeds;
use crate::parallel::{each, joined, map_each};
use crate::pca::{Basis, Spectrum, StreamingPca, Summary};
use crate::runtime::{self, Memory, Session, Value};
use crate::sketch::{self, Plan, Ports};
use fallback::Fallback;
use marks::Mark;
use member::{Member, is_hard};
use ndarray::Array2;
use plans::plans;
use schedule::Step;
use stack::{Counted, Fresh, Returned, SavedStack, Stack};
use std::collections::VecDeque;
use std::time::Instant;

/// Passes over the first sequence that rotate the random basis towards the data before rows are counted.
const WARM_UP: usize = 2;

/// The model with the subgraphs of [`sketch`](mod@crate::sketch), and the state of every group.
pub struct Sketch {
    /// `None` only if the model could not be loaded again.
    session: Option<Session>,
    fallback: Option<Fallback>,
    feeds: Feeds,
    stacks: Vec<Stack>,
    /// Whose rows are those of the tensors of every group.
    matching: Matching,
    /// The stack of each group, and its place there.
    places: Vec<(usize, usize)>,
    strategy: Strategy,
    threads: usize,
    batches: usize,
    /// Whether the host has done its work beside this batch already, in a run that then failed.
    host_is_done: bool,
    events: Events,
    timing: Timing,
    /// States to go back to, the last one last.
    marks: VecDeque<Mark>,
}

impl Sketch {
    /// Adds the subgraphs to the model, loads it, and learns from sequences of `example` how the rows of every tensor
    /// are laid out.
    ///
    /// # Errors
    /// [`Error::Model`] or [`Error::Runtime`].
    pub fn new(setup: Setup<'_>, example: &Batch) -> Result<Self, Error> {
        let fixed = setup.feeds.shape();
        let mut sketch = Self::load(setup, None)?;
        let mut matching = match Matching::learn(&mut sketch, setup.groups, example, fixed) {
            // Groups of different layouts share a subgraph, which works only where their rows are gathered.
            Err(Error::Runtime(runtime::Error::Run { .. })) if sketch.fallback.is_some() => {
                sketch.fall_back()?;
                Matching::learn(&mut sketch, setup.groups, example, fixed)?
            }
            learned => learned?,
        };
        matching.obey(setup.demands);
        matching.may_turn = setup.may_turn;
        let mut plan = plans(&setup, None);
        sketch = sketch.planned(setup, &mut plan, &matching)?;
        matching.learn_order(&mut sketch, example)?;
        sketch = sketch.planned(setup, &mut plan, &matching)?;
        sketch.matching = matching;
        Ok(sketch)
    }

    /// The sketch with subgraphs for these layouts, loaded again if they are others than those of `plan`.
    fn planned(self, setup: Setup<'_>, plan: &mut Vec<Plan>, matching: &Matching) -> Result<Self, Error> {
        let wanted = plans(&setup, Some(&matching.layouts));
        if wanted == *plan {
            return Ok(self);
        }
        *plan = wanted;
        drop(self);
        Self::load(setup, Some(&matching.layouts))
    }

    /// What happened so far.
    pub fn events(&self) -> Events {
        self.events
    }

    fn load(setup: Setup<'_>, layouts: Option<&[Vec<Layout>]>) -> Result<Self, Error> {
        let plans = plans(&setup, layouts);
        plans::log(&setup, &plans);
        let (mut patch, ports) = sketch::patch(&plans, setup.model.opset());
        setup.return_carried(&mut patch);
        let model = setup.model.apply(&patch)?;
        let fallback = Fallback::of(&setup, &plans)?;
        let mut places = vec![(0, 0); setup.groups.len()];
        for (at, plan) in plans.iter().enumerate() {
            plan.order.iter().enumerate().for_each(|(member, &group)| places[group] = (at, member));
        }
        let load = || Session::load(setup.runtime, &model, setup.options);
        let make = || stack::all(&setup, plans, ports);
        let (session, stacks) = if setup.strategy.is_late() {
            std::thread::scope(|scope| {
                let stacks = scope.spawn(make);
                (load(), joined(stacks))
            })
        } else {
            (load(), make())
        };
        let (session, mut stacks) = (session?, stacks?);
        setup.feeds.loaded(&session.outputs());
        stacks.iter_mut().try_for_each(|stack| stack.pin(&session))?;
        let threads = match setup.options.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            n => n,
        };
        Ok(Self {
            session: Some(session),
            fallback,
            feeds: setup.feeds.clone(),
            stacks,
            matching: Matching::default(),
            places,
            strategy: setup.strategy,
            threads,
            batches: 0,
            host_is_done: false,
            events: Events::default(),
            timing: Timing::default(),
            marks: VecDeque::new(),
        })
    }

    /// Runs one batch. If the host is `late`, it reads and decomposes meanwhile what the run before returned.
    fn run(&mut self, batch: &Batch, choices: &[Choice], late: bool) -> Result<Vec<Returned>, Error> {
        let started = Instant::now();
        let inputs = self.feeds.bind(batch)?;
        let mut added = Vec::new();
        for (stack, choice) in self.stacks.iter().zip(choices) {
            added.extend(stack.inputs(choice, batch.keep.len())?);
        }
        let host_works = late && !self.host_is_done;
        let (states, work): (Vec<_>, Vec<_>) = self.stacks.iter_mut().map(|stack| stack.run(host_works)).unzip();
        let session = self.session.as_mut().ok_or(Error::Unloaded)?;
        let named = inputs.iter().chain(&added).map(|(name, value)| (name.as_str(), value));
        let all = named.chain(states.into_iter().flatten());
        let run = || session.run_to(all, memory).map_err(Error::from);
        let outputs = if host_works {
            self.host_is_done = true;
            overlap::beside(run, work.into_iter().flatten().collect(), self.threads)?
        } else {
            run()?
        };
        let mut outputs = outputs.into_iter();
        let returned = self.stacks.iter().map_while(|stack| stack.take_outputs(&mut outputs)).collect();
        let rest: Vec<Value> = outputs.collect();
        self.feeds.keep(batch, &rest.iter().collect::<Vec<_>>())?;
        self.timing.forward += started.elapsed();
        Ok(returned)
    }

    /// The kept rows of a batch for each stack, whose members have equal layouts.
    fn choices(&self, layouts: &[Vec<Layout>], batch: &Batch) -> Vec<Choice> {
        self.stacks.iter().map(|stack| Choice::of(&layouts[stack.members[0].group], batch)).collect()
    }

    /// One run over the kept rows of a batch.
    fn run_kept(&mut self, batch: &Batch, late: bool) -> Result<Vec<Counted>, Error> {
        let choices = self.choices(&self.matching.layouts, batch);
        let returned = self.run(batch, &choices, late)?;
        let stacks = self.stacks.iter().zip(returned).zip(&choices);
        let counted = stacks.map(|((stack, returned), choice)| stack.count(returned, choice, batch));
        let counted = counted.collect::<Result<Vec<_>, _>>()?;
        self.check_finite(&counted)?;
        Ok(counted)
    }

    /// Checks that all rows that count are finite.
    ///
    /// # Errors
    /// [`Error::NotFinite`] for the first group in the model whose rows are not.
    fn check_finite(&self, counted: &[Counted]) -> Result<(), Error> {
        let mut broken: Vec<&Member> = Vec::new();
        for (stack, counted) in self.stacks.iter().zip(counted) {
            broken.extend(counted.not_finite.iter().map(|&member| &stack.members[member]));
        }
        let Some(first) = broken.iter().min_by_key(|member| member.group) else { return Ok(()) };
        let (group, tensor) = (first.group, first.tensors.join("`, `"));
        Err(Error::NotFinite { group, tensor, batch: self.batches + 1, others: broken.len() - 1 })
    }

    /// Learns how long rows are from a batch, which the range of 16 bits depends on.
    fn measure(&mut self, batch: &Batch) -> Result<(), Error> {
        let counted = self.run_kept(batch, false)?;
        self.stacks.iter_mut().zip(&counted).for_each(|(stack, counted)| stack.learn_lengths(counted));
        Ok(())
    }

    /// One pass over a batch, repeated with the fallback if that is needed.
    fn pass(&mut self, batch: &Batch, step: Step) -> Result<(), Error> {
        let counted = self.run_kept(batch, step == Step::Defer)?;
        let started = Instant::now();
        if !counted.iter().all(|counted| counted.fits) {
            drop(counted);
            self.fall_back()?;
            return self.pass(batch, step);
        }
        self.host_is_done = false;
        if step == Step::Defer {
            self.stacks.iter_mut().zip(counted).for_each(|(stack, counted)| stack.defer(counted));
            return Ok(());
        }
        self.absorb_now(counted, step)?;
        self.timing.decompose += started.elapsed();
        Ok(())
    }

    fn absorb_now(&mut self, counted: Vec<Counted>, step: Step) -> Result<(), Error> {
        let takes = |stack: &Stack| step != Step::WarmUpDisplaced || stack.was_displaced();
        let stacks = self.stacks.iter_mut().zip(counted).filter(|(stack, _)| takes(stack));
        let mut unread: Vec<_> = stacks.map(|(stack, counted)| (stack.replace(counted), stack)).collect();
        let mut groups: Vec<Fresh<'_>> = Vec::with_capacity(self.places.len());
        for (unread, stack) in &mut unread {
            groups.extend(stack.fresh(unread)?);
        }
        each(groups, self.threads, |Fresh { member, encoded, rotation }| {
            member.absorb(encoded, rotation, |pca, statistics| match step {
                Step::WarmUp | Step::WarmUpDisplaced => pca.warm_up(statistics),
                Step::Accumulate if !is_hard(pca) && !pca.is_dominated() => {
                    pca.accumulate(statistics);
                    Ok(())
                }
                _ => pca.absorb(statistics),
            })
        })
    }

    /// Continues with the fallback. The last run has changed nothing yet.
    fn fall_back(&mut self) -> Result<(), Error> {
        let Fallback { runtime, model, ports } = self.fallback.take().ok_or(Error::Unloaded)?;
        self.stacks.iter_mut().try_for_each(Stack::unload)?;
        let options = self.session.take().map(|session| session.options()).ok_or(Error::Unloaded)?;
        let session = Session::load(&runtime, &model, options)?;
        self.stacks.iter_mut().zip(ports).try_for_each(|(stack, ports)| stack.reload(&session, ports))?;
        self.session = Some(session);
        tracing::debug!(batch = self.batches + 1, "reloaded with subgraphs of 32 bits");
        self.events.reloaded_in_f32 = true;
        Ok(())
    }

    /// One pass over a batch that counts; in halves when the device has not enough memory for all of it.
    fn count(&mut self, batch: &Batch) -> Result<(), Error> {
        let step = Step::of(self.batches, self.strategy.is_late());
        let full = match self.pass(batch, step) {
            Err(Error::Runtime(full @ runtime::Error::OutOfMemory { .. })) => full,
            done => return done,
        };
        let divisible = self.feeds.shape().batch.is_none();
        let halves = batch.halves().filter(|_| divisible).ok_or(full)?;
        tracing::debug!(batch = self.batches + 1, sequences = batch.dim().0, "out of memory: batch split");
        self.events.split_batches += 1;
        halves.iter().filter(|half| half.kept() > 0).try_for_each(|half| self.count(half))
    }

    /// What `read` makes of every group and its basis.
    fn of_groups<T: Send>(&self, read: impl Fn(&StreamingPca, &Basis<'_>) -> T + Sync) -> Result<Vec<T>, Error> {
        let matrices = self.stacks.iter().map(Stack::matrices).collect::<Result<Vec<_>, _>>()?;
        let stacks = &self.stacks;
        map_each(&self.places, self.threads, |&(at, member)| {
            let basis = stacks[at].basis(member, &matrices[at])?;
            Ok(read(&stacks[at].members[member].pca, &basis))
        })
    }
}

impl Capture for Sketch {
    fn absorb(&mut self, batch: &Batch) -> Result<(), Error> {
        if batch.kept() == 0 {
            return Ok(());
        }
        self.learn_order(batch)?;
        self.learn_padding(batch)?;
        let parts = self.matching.parts(batch)?;
        if self.batches == 0 {
            let fixed = self.feeds.shape().is_fixed();
            let first = if fixed { batch.clone() } else { first_sequence(batch) };
            if self.stacks.iter().any(Stack::in_half) {
                self.measure(&first)?;
            }
            for _ in 0..WARM_UP {
                self.pass(&first, Step::WarmUp)?;
            }
            if self.stacks.iter().any(Stack::was_displaced) {
                self.pass(&first, Step::WarmUpDisplaced)?;
            }
        }
        if parts.is_empty() {
            self.count(batch)?;
        }
        parts.iter().filter(|part| part.kept() > 0).try_for_each(|part| self.count(part))?;
        self.batches += 1;
        Ok(())
    }

    fn finish(&mut self) -> Result<Events, Error> {
        let started = Instant::now();
        let late = self.strategy.is_late();
        if late {
            overlap::do_all(self.stacks.iter_mut().map(Stack::end).collect(), self.threads)?;
        }
        let members = self.stacks.iter_mut().flat_map(|stack| &mut stack.members);
        let pending: Vec<&mut Member> = members.filter(|member| member.pca.has_pending()).collect();
        each(pending, self.threads, if late { Member::apply_deferred } else { Member::flush })?;
        self.timing.decompose += started.elapsed();
        self.events.counted_others = self.matching.counted_others;
        Ok(self.events)
    }

    fn spectrum(&self, group: usize) -> &Spectrum {
        let (stack, member) = self.places[group];
        self.stacks[stack].members[member].pca.spectrum()
    }

    fn components(&self) -> Result<Vec<Array2<f64>>, Error> {
        self.of_groups(StreamingPca::components)
    }

    fn summaries(&self) -> Result<Vec<Summary>, Error> {
        self.of_groups(StreamingPca::summary)
    }

    fn save(&mut self) -> Result<Vec<u8>, Error> {
        let stacks = self.stacks.iter().map(Stack::save).collect::<Result<Vec<_>, _>>()?;
        encode(&(self.batches, self.events, &self.matching, stacks))
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), Error> {
        let (batches, events, matching, stacks): Saved = decode(state)?;
        if events.reloaded_in_f32 && self.fallback.is_some() {
            self.fall_back()?;
        }
        ensure(events.reloaded_in_f32 || !self.events.reloaded_in_f32, "it has products of 16 bits")?;
        ensure(stacks.len() == self.stacks.len(), "it has other subgraphs")?;
        ensure(matching.is_of(&self.matching), "it has other tensors")?;
        let session = self.session.as_ref().ok_or(Error::Unloaded)?;
        self.stacks.iter_mut().zip(stacks).try_for_each(|(stack, saved)| stack.restore(saved, session))?;
        (self.batches, self.events, self.matching) = (batches, events, matching);
        Ok(())
    }

    fn timing(&self) -> Timing {
        self.timing
    }
}

/// What a state holds.
type Saved = (usize, Events, Matching, Vec<SavedStack<Member>>);

/// Whether bytes are the state of a sketch.
pub(super) fn is_state(bytes: &[u8]) -> bool {
    decode::<Saved>(bytes).is_ok()
}

/// Where a run leaves an output.
fn memory(output: &str) -> Memory {
    match output {
        _ if Ports::KEPT.iter().any(|end| output.ends_with(end)) => Memory::Device,
        _ if output.ends_with(Ports::STATISTICS) => Memory::Pinned,
        _ => Memory::Host,
    }
}
