//! Statistics from the graph: only small matrices come back.

mod codec;
mod half;
mod member;
mod overlap;
mod plans;
mod schedule;
mod stack;
mod state;
mod strategy;

pub use strategy::Placement;

use super::probe::{first_sequence, probe};
use super::rows::{Choice, Layout, out_of_line, row_count};
use super::{Capture, Error, Events, Setup, Timing};
use crate::calib::Batch;
use crate::feeds::Feeds;
use crate::onnx::Model;
use crate::parallel::{each, joined, map_each};
use crate::pca::{Spectrum, StreamingPca, Summary};
use crate::runtime::{self, Memory, Runtime, Session, Value};
use crate::sketch::{self, Ports, Rows};
use member::{Member, is_hard};
use ndarray::Array2;
use plans::plans;
use stack::{Counted, Returned, Stack, Work};
use state::Left;
use std::collections::BTreeMap;
use std::time::Instant;

/// Passes over the first sequence that turn the random basis towards the data before rows are counted.
const WARM_UP: usize = 2;

/// Batches after each of which the directions turn; later, every second one turns them, which changes little by then.
const EAGER: usize = 4;

/// What becomes of the statistics of a batch.
#[derive(Clone, Copy)]
enum Step {
    /// They turn the directions and do not count.
    WarmUp,
    /// They count, and turn directions that are hard to find.
    Collect,
    /// They count and turn the directions.
    Turn,
    /// They count, and are read and turn the directions while the next batches run.
    PutOff,
}

/// The model with the summarising subgraphs of [`sketch`](mod@crate::sketch), and the state of every group.
pub struct Sketch {
    /// `None` only if the model could not be loaded again.
    session: Option<Session>,
    spare: Option<Spare>,
    feeds: Feeds,
    stacks: Vec<Stack>,
    /// Layouts of the tensors of every group.
    layouts: Vec<Vec<Layout>>,
    /// Which stack holds each group, and where.
    places: Vec<(usize, usize)>,
    overlapped: bool,
    threads: usize,
    batches: usize,
    /// Whether what was put off is read and decomposed already, because a run failed after that.
    caught_up: bool,
    events: Events,
    timing: Timing,
}

/// The model with subgraphs for the same stacks that bear all that the others do not.
struct Spare {
    runtime: Runtime,
    model: Model,
    ports: Vec<Ports>,
}

impl Sketch {
    /// Adds the subgraphs to the model, loads it, and learns from a few tokens of `example` how the rows of every
    /// tensor are laid out.
    ///
    /// # Errors
    /// [`Error::Model`] or [`Error::Runtime`]; [`Error::Rows`] when rows are neither tokens nor sequences.
    pub fn new(setup: Setup<'_>, example: &Batch) -> Result<Self, Error> {
        let mut sketch = Self::load(setup, None)?;
        let fixed = setup.feeds.shape().is_fixed();
        let example = if fixed { example.clone() } else { probe(example) };
        let layouts = match sketch.learn_layouts(&example) {
            // Groups of different layouts do not fit in a stack, unless their rows are gathered.
            Err(Error::Runtime(runtime::Error::Run { .. })) if sketch.spare.is_some() => {
                sketch.fall_back()?;
                sketch.learn_layouts(&example)?
            }
            learned => learned?,
        };
        if plans(&setup, Some(&layouts)).len() != sketch.stacks.len() {
            drop(sketch);
            sketch = Self::load(setup, Some(&layouts))?;
        }
        sketch.layouts = layouts;
        Ok(sketch)
    }

    /// What happened so far.
    pub fn events(&self) -> Events {
        self.events
    }

    fn load(setup: Setup<'_>, layouts: Option<&[Vec<Layout>]>) -> Result<Self, Error> {
        let plans = plans(&setup, layouts);
        let (patch, ports) = sketch::patch(&plans, setup.model.opset());
        let model = setup.model.apply(&patch)?;
        let spare = Spare::of(&setup, &plans)?;
        let mut places = vec![(0, 0); setup.groups.len()];
        for (at, plan) in plans.iter().enumerate() {
            plan.order.iter().enumerate().for_each(|(member, &group)| places[group] = (at, member));
        }
        let load = || Session::load(setup.runtime, &model, setup.options);
        let make = || stacks(&setup, plans, ports);
        let (session, stacks) = if setup.placement.overlapped {
            std::thread::scope(|scope| {
                let stacks = scope.spawn(make);
                (load(), joined(stacks))
            })
        } else {
            (load(), make())
        };
        let (session, mut stacks) = (session?, stacks?);
        stacks.iter_mut().try_for_each(|stack| stack.pin(&session))?;
        let threads = match setup.options.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            n => n,
        };
        let (feeds, timing) = (setup.feeds.clone(), Timing::default());
        Ok(Self {
            session: Some(session),
            spare,
            feeds,
            stacks,
            layouts: Vec::new(),
            places,
            overlapped: setup.placement.overlapped,
            threads,
            batches: 0,
            caught_up: false,
            events: Events::default(),
            timing,
        })
    }

    /// The layout of every tensor of every group, by what a small batch makes of it.
    fn learn_layouts(&mut self, batch: &Batch) -> Result<Vec<Vec<Layout>>, Error> {
        let choices: Vec<_> = self.stacks.iter().map(|stack| Choice::probe(stack.members[0].tensors.len())).collect();
        let returned = self.run(batch, &choices, false)?;
        let mut layouts = vec![Vec::new(); self.places.len()];
        for (stack, returned) in self.stacks.iter().zip(returned) {
            let mut shapes = returned.shapes.iter();
            for member in &stack.members {
                for (tensor, shape) in member.tensors.iter().zip(shapes.by_ref()) {
                    let rows = row_count(shape.as_i64()?);
                    let layout = if stack.routed { Some(Layout::Routed) } else { Layout::infer(rows, batch) };
                    layouts[member.group].push(layout.ok_or_else(|| out_of_line(tensor, rows, batch))?);
                }
            }
        }
        Ok(layouts)
    }

    /// Runs one batch; what was put off is read and decomposed meanwhile if `catch_up`.
    fn run(&mut self, batch: &Batch, choices: &[Choice], catch_up: bool) -> Result<Vec<Returned>, Error> {
        let started = Instant::now();
        let inputs = self.feeds.bind(batch)?;
        let mut added = Vec::new();
        for (stack, choice) in self.stacks.iter().zip(choices) {
            added.extend(stack.feeds(choice, batch.keep.len())?);
        }
        let fed = inputs.iter().chain(&added).map(|(name, value)| (name.as_str(), value));
        let counts: Vec<_> = self.stacks.iter().map(Stack::shapes).collect();
        let catch_up = catch_up && !self.caught_up;
        let (state, put_off): (Vec<_>, Vec<_>) = self.stacks.iter_mut().map(|stack| stack.run(catch_up)).unzip();
        let session = self.session.as_mut().ok_or(Error::Unloaded)?;
        let run = || session.run_to(fed.chain(state.into_iter().flatten()), place).map_err(Error::from);
        let outputs = if catch_up {
            self.caught_up = true;
            // One is left to start the operations of the device.
            let threads = self.threads.saturating_sub(1).max(1);
            std::thread::scope(|scope| {
                let host = scope.spawn(|| overlap::catch_up(put_off.into_iter().flatten().collect(), threads));
                let outputs = run();
                joined(host).and(outputs)
            })?
        } else {
            run()?
        };
        let mut outputs = outputs.into_iter();
        let returned = counts.into_iter().map_while(|(shapes, ends)| {
            let returned = Returned {
                left: Left { q: outputs.next()?, z: outputs.next()?, mean: outputs.next()? },
                statistics: outputs.next()?,
                check: outputs.next()?,
                shapes: outputs.by_ref().take(shapes).collect(),
            };
            outputs.by_ref().take(ends).for_each(drop);
            Some(returned)
        });
        let returned = returned.collect();
        self.timing.forward += started.elapsed();
        Ok(returned)
    }

    /// One run over the rows of a batch that count.
    fn run_kept(&mut self, batch: &Batch, catch_up: bool) -> Result<Vec<Counted>, Error> {
        let layouts = |stack: &Stack| &self.layouts[stack.members[0].group];
        let choices: Vec<_> = self.stacks.iter().map(|stack| Choice::of(layouts(stack), batch)).collect();
        let returned = self.run(batch, &choices, catch_up)?;
        let stacks = self.stacks.iter().zip(returned).zip(&choices);
        stacks.map(|((stack, returned), choice)| stack.count(returned, choice, (batch, self.batches + 1))).collect()
    }

    /// Learns how long rows are from a batch, which the range of 16 bits depends on.
    fn measure(&mut self, batch: &Batch) -> Result<(), Error> {
        let counted = self.run_kept(batch, false)?;
        self.stacks.iter_mut().zip(&counted).for_each(|(stack, counted)| stack.learn_lengths(&counted.seen));
        Ok(())
    }

    /// One pass over a batch.
    fn pass(&mut self, batch: &Batch, step: Step) -> Result<(), Error> {
        let put_off = matches!(step, Step::PutOff);
        let counted = self.run_kept(batch, put_off)?;

        let started = Instant::now();
        if !counted.iter().all(|counted| counted.fits) {
            drop(counted);
            self.fall_back()?;
            return self.pass(batch, step);
        }
        self.caught_up = false;
        if put_off {
            self.stacks.iter_mut().zip(counted).for_each(|(stack, counted)| stack.put_off(counted));
            return Ok(());
        }
        let said =
            counted.into_iter().map(|Counted { returned, seen, .. }| ((returned.left, seen), returned.statistics));
        let (left, statistics): (Vec<_>, Vec<_>) = said.unzip();
        let mut work: Vec<Work<'_>> = Vec::with_capacity(self.places.len());
        for ((stack, (left, seen)), statistics) in self.stacks.iter_mut().zip(left).zip(&statistics) {
            work.extend(stack.update(left, seen, statistics)?);
        }
        each(work, self.threads, |mut work| {
            work.done(|pca, stats| match step {
                Step::WarmUp => pca.warm_up(stats),
                Step::Collect if !is_hard(pca) => {
                    pca.collect(stats);
                    Ok(())
                }
                _ => pca.absorb(stats),
            })
        })?;
        self.timing.decompose += started.elapsed();
        Ok(())
    }

    /// Goes on with the spare subgraphs. The last run has changed nothing yet.
    fn fall_back(&mut self) -> Result<(), Error> {
        let Spare { runtime, model, ports } = self.spare.take().ok_or(Error::Unloaded)?;
        self.stacks.iter_mut().try_for_each(Stack::unload)?;
        let options = self.session.take().map(|session| session.options()).ok_or(Error::Unloaded)?;
        let session = Session::load(&runtime, &model, options)?;
        self.stacks.iter_mut().zip(ports).try_for_each(|(stack, ports)| stack.reload(&session, ports))?;
        self.session = Some(session);
        self.events.reloaded_in_f32 = true;
        Ok(())
    }

    /// One pass over a batch that counts; in halves when the device has no room for all of it.
    fn count(&mut self, batch: &Batch) -> Result<(), Error> {
        let step = match self.batches {
            ..EAGER => Step::Turn,
            _ if self.overlapped => Step::PutOff,
            number if number % 2 == 1 => Step::Turn,
            _ => Step::Collect,
        };
        let full = match self.pass(batch, step) {
            Err(Error::Runtime(full @ runtime::Error::OutOfMemory { .. })) => full,
            done => return done,
        };
        let divisible = self.feeds.shape().batch.is_none();
        let halves = batch.halves().filter(|_| divisible).ok_or(full)?;
        self.events.split_batches += 1;
        halves.iter().filter(|half| half.kept() > 0).try_for_each(|half| self.count(half))
    }

    /// What `read` makes of every group, from its place in a stack and the basis of that in host memory.
    fn of_groups<T: Send>(
        &self,
        read: impl Fn(&Stack, usize, &[Value]) -> Result<T, Error> + Sync,
    ) -> Result<Vec<T>, Error> {
        let bases = self.stacks.iter().map(Stack::host_basis).collect::<Result<Vec<_>, _>>()?;
        let stacks = &self.stacks;
        map_each(&self.places, self.threads, |&(at, member)| read(&stacks[at], member, &bases[at]))
    }
}

impl Spare {
    /// Of plans that mask rows or work in 16 bits; none where they do not.
    fn of(setup: &Setup<'_>, plans: &[sketch::Plan]) -> Result<Option<Self>, Error> {
        if !plans.iter().any(|plan| plan.half || plan.rows == Rows::Masked) {
            return Ok(None);
        }
        let plain = plans.iter().map(|plan| sketch::Plan {
            half: false,
            rows: if plan.rows == Rows::All { Rows::All } else { Rows::Gathered },
            ..plan.clone()
        });
        let (patch, ports) = sketch::patch(&plain.collect::<Vec<_>>(), setup.model.opset());
        Ok(Some(Self { runtime: setup.runtime.clone(), model: setup.model.apply(&patch)?, ports }))
    }
}

impl Capture for Sketch {
    fn absorb(&mut self, batch: &Batch) -> Result<(), Error> {
        if batch.kept() == 0 {
            return Ok(());
        }
        if self.batches == 0 {
            let fixed = self.feeds.shape().is_fixed();
            let first = if fixed { batch.clone() } else { first_sequence(batch) };
            if self.stacks.iter().any(Stack::in_half) {
                self.measure(&first)?;
            }
            for _ in 0..WARM_UP {
                self.pass(&first, Step::WarmUp)?;
            }
        }
        self.count(batch)?;
        self.batches += 1;
        Ok(())
    }

    fn finish(&mut self) -> Result<Events, Error> {
        let started = Instant::now();
        if self.overlapped {
            overlap::catch_up(self.stacks.iter_mut().map(Stack::end).collect(), self.threads)?;
        }
        let members = self.stacks.iter_mut().flat_map(|stack| &mut stack.members);
        let members = members.filter(|member| member.pca.is_behind()).collect();
        let step = if self.overlapped { StreamingPca::catch_up } else { StreamingPca::settle };
        each(members, self.threads, |member: &mut Member| member.decompose(step))?;
        self.timing.decompose += started.elapsed();
        Ok(self.events)
    }

    fn spectrum(&self, group: usize) -> &Spectrum {
        let (stack, member) = self.places[group];
        self.stacks[stack].members[member].pca.spectrum()
    }

    fn components(&self) -> Result<Vec<Array2<f64>>, Error> {
        self.of_groups(Stack::components)
    }

    fn summaries(&self) -> Result<Vec<Summary>, Error> {
        self.of_groups(Stack::summary)
    }

    fn timing(&self) -> Timing {
        self.timing
    }
}

/// The stacks of the subgraphs, before any rows; groups of equal sizes start from the same basis.
fn stacks(setup: &Setup<'_>, plans: Vec<sketch::Plan>, ports: Vec<Ports>) -> Result<Vec<Stack>, Error> {
    let mut bases = BTreeMap::new();
    let stacks = plans.into_iter().zip(ports).map(|(plan, ports)| {
        let random = || StreamingPca::initial_basis(plan.size, setup.seed);
        let first = bases.entry(plan.size.features).or_insert_with(random);
        Stack::new(plan, ports, first)
    });
    stacks.collect()
}

/// Where a run leaves an output.
fn place(output: &str) -> Memory {
    match output {
        _ if Ports::KEPT.iter().any(|end| output.ends_with(end)) => Memory::Device,
        _ if output.ends_with(Ports::STATISTICS) => Memory::Pinned,
        _ => Memory::Host,
    }
}
