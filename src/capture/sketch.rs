//! Statistics from the graph: only small matrices come back.

use super::layout::{Layout, first_sequence, probe};
use super::{Capture, Error, Setup, Timing};
use crate::calib::Batch;
use crate::feeds::Plan;
use crate::pca::{self, Centre, SketchSize, SketchStats, Spectrum, StreamingPca};
use crate::runtime::{Session, Value};
use crate::sketch::{self, Ports};
use ndarray::{Array2, ArrayView2};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Instant;

/// Passes over the first sequence that turn the random basis towards the data before rows are counted.
const WARM_UP: usize = 2;

/// Batches after each of which the directions turn; later, every second one turns them, which changes little by then.
const EAGER: usize = 4;
/// Share of the variance below which the components of a group are hard to tell from what lies below them: its
/// directions always turn.
const HARD: f64 = 0.45;

/// What becomes of the statistics of a batch.
#[derive(Clone, Copy)]
enum Step {
    /// They turn the directions and do not count.
    WarmUp,
    /// They count, and turn directions that are hard to find.
    Collect,
    /// They count and turn the directions.
    Turn,
}

/// The model with the summarising subgraphs of [`sketch`](mod@crate::sketch), and the state of every group.
pub struct Sketch {
    session: Session,
    feeds: Plan,
    groups: Vec<State>,
    threads: usize,
    batches: usize,
    timing: Timing,
}

struct State {
    tensors: Vec<String>,
    routed: bool,
    ports: Ports,
    layouts: Vec<Layout>,
    pca: StreamingPca,
    basis: Basis,
}

/// `Q` and `Z` of the last run, where the session left them.
#[derive(Clone)]
struct Basis {
    q: Rc<Value>,
    z: Rc<Value>,
}

/// The outputs of one group in one run.
struct Returned {
    basis: Basis,
    statistics: Value,
    shapes: Vec<Value>,
}

impl Sketch {
    /// Adds the subgraphs to the model and loads it.
    ///
    /// # Errors
    /// [`Error::Model`] or [`Error::Runtime`].
    pub fn new(setup: Setup<'_>) -> Result<Self, Error> {
        let plans: Vec<_> = setup
            .groups
            .iter()
            .enumerate()
            .map(|(group, g)| sketch::Plan {
                group,
                tensors: g.tensors.clone(),
                every_row: g.routed,
                size: SketchSize::new(g.features, setup.components),
            })
            .collect();
        let (patch, ports) = sketch::patch(&plans, setup.model.opset());
        let session = Session::load(setup.runtime, &setup.model.apply(&patch)?, setup.options)?;

        let mut bases: BTreeMap<usize, Basis> = BTreeMap::new();
        let mut groups = Vec::with_capacity(plans.len());
        for (plan, ports) in plans.into_iter().zip(ports) {
            let basis = match bases.get(&plan.size.features) {
                Some(basis) => basis.clone(),
                None => bases.entry(plan.size.features).or_insert(initial(plan.size, setup.seed)?).clone(),
            };
            let pca = StreamingPca::new(plan.size);
            groups.push(State {
                tensors: plan.tensors,
                routed: plan.every_row,
                ports,
                layouts: Vec::new(),
                pca,
                basis,
            });
        }
        let threads = match setup.options.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            n => n,
        };
        let (feeds, timing) = (setup.feeds.clone(), Timing::default());
        Ok(Self { session, feeds, groups, threads, batches: 0, timing })
    }

    /// Learns the layout of every tensor from a small batch.
    fn learn_layouts(&mut self, batch: &Batch) -> Result<(), Error> {
        let (b, s) = batch.input_ids.dim();
        let returned = self.run(batch, |_, _| vec![0])?;
        for (state, returned) in self.groups.iter_mut().zip(returned) {
            for (tensor, shape) in state.tensors.iter().zip(&returned.shapes) {
                let rows = row_count(shape.as_i64()?);
                let unknown = || Error::Rows { tensor: tensor.clone(), rows, batch: b, length: s };
                let layout = if state.routed { Some(Layout::Routed) } else { Layout::infer(rows, batch) };
                state.layouts.push(layout.ok_or_else(unknown)?);
            }
        }
        Ok(())
    }

    /// Runs one batch; `rows(group, tensor)` says which rows of a tensor to keep.
    fn run(&mut self, batch: &Batch, rows: impl Fn(usize, usize) -> Vec<i64>) -> Result<Vec<Returned>, Error> {
        let started = Instant::now();
        let inputs = self.feeds.bind(batch)?;
        let mut added = Vec::new();
        for (g, state) in self.groups.iter().enumerate() {
            let mut count = 0;
            for (t, port) in state.ports.rows.iter().enumerate() {
                let indices = rows(g, t);
                count += indices.len();
                added.push((port.as_str(), Value::i64(&[indices.len()], indices)?));
            }
            let centre = match state.routed {
                true => Centre { share: state.pca.seen() as f64, rest: state.pca.mean().clone() },
                false => state.pca.centre(count),
            };
            let rest: Vec<f32> = centre.rest.iter().map(|&v| v as f32).collect();
            added.push((state.ports.share.as_str(), Value::f32(&[1], vec![centre.share as f32])?));
            added.push((state.ports.rest.as_str(), Value::f32(&[1, rest.len()], rest)?));
            let keep = f32::from(u8::from(state.pca.is_collecting()));
            added.push((state.ports.keep.as_str(), Value::f32(&[1], vec![keep])?));
            let rotation = state.pca.rotation();
            added.push((state.ports.rotation_q.as_str(), value(&rotation.q)?));
            added.push((state.ports.rotation_z.as_str(), value(&rotation.z)?));
        }
        let model = inputs.iter().map(|(name, value)| (name.as_str(), value));
        let bases = self.groups.iter().flat_map(|state| {
            [(state.ports.q_in.as_str(), &*state.basis.q), (state.ports.z_in.as_str(), &*state.basis.z)]
        });
        let feeds = model.chain(added.iter().map(|(name, value)| (*name, value))).chain(bases);
        let mut outputs = self.session.run_keeping(feeds, is_kept)?.into_iter();
        let returned = self.groups.iter().map_while(|state| {
            Some(Returned {
                basis: Basis { q: Rc::new(outputs.next()?), z: Rc::new(outputs.next()?) },
                statistics: outputs.next()?,
                shapes: outputs.by_ref().take(state.tensors.len()).collect(),
            })
        });
        let returned = returned.collect();
        self.timing.forward += started.elapsed();
        Ok(returned)
    }

    /// One pass over a batch.
    fn pass(&mut self, batch: &Batch, step: Step) -> Result<(), Error> {
        let (b, s) = batch.input_ids.dim();
        let mut indices: BTreeMap<Layout, Vec<i64>> = BTreeMap::new();
        for layout in self.groups.iter().flat_map(|state| &state.layouts) {
            indices.entry(*layout).or_insert_with(|| layout.rows(batch));
        }
        let layouts: Vec<Vec<Layout>> = self.groups.iter().map(|state| state.layouts.clone()).collect();
        let returned = self.run(batch, |group, tensor| indices[&layouts[group][tensor]].clone())?;

        let started = Instant::now();
        let mut work = Vec::with_capacity(returned.len());
        for (group, (state, returned)) in self.groups.iter_mut().zip(returned).enumerate() {
            let mut rows = 0;
            for ((tensor, shape), layout) in state.tensors.iter().zip(&returned.shapes).zip(&state.layouts) {
                let all = row_count(shape.as_i64()?);
                if !layout.allows(all, batch) {
                    return Err(Error::Rows { tensor: tensor.clone(), rows: all, batch: b, length: s });
                }
                rows += if state.routed { all } else { indices[layout].len() };
            }
            if rows == 0 {
                continue;
            }
            let stats = statistics(rows, &returned.statistics, state.pca.size())?;
            if !stats.squares.is_finite() {
                let tensor = state.tensors.join("`, `");
                return Err(Error::NotFinite { group, tensor, batch: self.batches + 1 });
            }
            state.basis = returned.basis;
            work.push((&mut state.pca, stats, &state.tensors));
        }
        each(&mut work, self.threads, |(pca, stats, tensors)| {
            let done = match step {
                Step::WarmUp => pca.warm_up(stats),
                Step::Collect if pca.spectrum().explained_variance_ratio().iter().sum::<f64>() > HARD => {
                    pca.collect(stats);
                    Ok(())
                }
                Step::Collect | Step::Turn => pca.absorb(stats),
            };
            done.map_err(|source| undone(tensors, source))
        })?;
        self.timing.decompose += started.elapsed();
        Ok(())
    }
}

impl Capture for Sketch {
    fn absorb(&mut self, batch: &Batch) -> Result<(), Error> {
        if batch.kept() == 0 {
            return Ok(());
        }
        if self.batches == 0 {
            let shape = self.feeds.shape();
            let fixed = shape.batch.is_some() || shape.length.is_some();
            self.learn_layouts(&if fixed { batch.clone() } else { probe(batch) })?;
            let first = if fixed { batch.clone() } else { first_sequence(batch) };
            for _ in 0..WARM_UP {
                self.pass(&first, Step::WarmUp)?;
            }
        }
        let turn = self.batches < EAGER || self.batches % 2 == 1;
        self.pass(batch, if turn { Step::Turn } else { Step::Collect })?;
        self.batches += 1;
        Ok(())
    }

    fn finish(&mut self) -> Result<(), Error> {
        let started = Instant::now();
        let mut work: Vec<_> = self.groups.iter_mut().map(|state| (&mut state.pca, &state.tensors)).collect();
        each(&mut work, self.threads, |(pca, tensors)| pca.settle().map_err(|source| undone(tensors, source)))?;
        self.timing.decompose += started.elapsed();
        Ok(())
    }

    fn spectrum(&self, group: usize) -> &Spectrum {
        self.groups[group].pca.spectrum()
    }

    fn components(&self, group: usize) -> Result<Array2<f64>, Error> {
        let state = &self.groups[group];
        let (q, z) = (state.basis.q.to_host()?, state.basis.z.to_host()?);
        let ((q_shape, q), (z_shape, z)) = (q.as_f32()?, z.as_f32()?);
        Ok(state.pca.components(matrix(&q_shape, q), matrix(&z_shape, z)))
    }

    fn timing(&self) -> Timing {
        self.timing
    }
}

/// Does something to each item, to a share of them on each thread.
fn each<T: Send>(
    items: &mut [T],
    threads: usize,
    work: impl Fn(&mut T) -> Result<(), Error> + Sync,
) -> Result<(), Error> {
    let share = items.len().div_ceil(threads).max(1);
    let work = &work;
    std::thread::scope(|scope| {
        let threads: Vec<_> =
            items.chunks_mut(share).map(|share| scope.spawn(move || share.iter_mut().try_for_each(work))).collect();
        threads.into_iter().try_for_each(|thread| match thread.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })
}

fn undone(tensors: &[String], source: pca::Error) -> Error {
    Error::Decompose { tensor: tensors.join("`, `"), source }
}

/// Takes the statistics of one group apart, in the order of [`Ports::statistics`].
fn statistics(rows: usize, values: &Value, size: SketchSize) -> Result<SketchStats, Error> {
    let mut rest = values.as_f32()?.1.iter().map(|&v| f64::from(v));
    let l = size.width;
    let mut square = || Array2::from_shape_fn((l, l), |_| rest.next().unwrap_or(f64::NAN));
    let (qq, yy, zz) = (square(), square(), square());
    let mean = rest.by_ref().take(size.features).collect();
    Ok(SketchStats { rows, qq, yy, zz, mean, squares: rest.next().unwrap_or(f64::NAN) })
}

/// The first basis of a group.
fn initial(size: SketchSize, seed: u64) -> Result<Basis, Error> {
    let basis = StreamingPca::initial_basis(size, seed);
    let value = |a: Array2<f32>| Value::f32(&[a.nrows(), a.ncols()], a.into_raw_vec_and_offset().0);
    Ok(Basis { q: Rc::new(value(basis.q)?), z: Rc::new(value(basis.z)?) })
}

fn is_kept(output: &str) -> bool {
    Ports::KEPT.iter().any(|end| output.ends_with(end))
}

fn value(a: &Array2<f64>) -> Result<Value, Error> {
    Ok(Value::f32(&[a.nrows(), a.ncols()], a.iter().map(|&v| v as f32).collect())?)
}

fn matrix<'a>(shape: &[usize], data: &'a [f32]) -> ArrayView2<'a, f32> {
    let columns = shape.last().copied().unwrap_or(1).max(1);
    let rows = data.len() / columns;
    ArrayView2::from_shape((rows, columns), data).unwrap_or_else(|_| unreachable!("rows * columns = length"))
}

fn row_count(shape: &[i64]) -> usize {
    shape.split_last().map_or(0, |(_, outer)| outer.iter().product::<i64>().max(0) as usize)
}
