//! Groups of equal sizes that share one subgraph.

use super::codec::{Seen, decode_sum};
use super::half::fits_half;
use super::member::{Encoded, Member, is_hard};
use super::overlap::{HostWork, Unread};
use super::state::{HostMatrices, Outputs, SavedState, State, StateMark};
use crate::calib::Batch;
use crate::capture::error::Error;
use crate::capture::rows::{Choice, row_count, wrong_rows};
use crate::capture::saved::{Floats, ensure};
use crate::capture::setup::Setup;
use crate::pca::{Basis, SketchSize, StreamingPca};
use crate::runtime::{Session, Value};
use crate::sketch::{self, Plan, Ports};
use ndarray::{Array2, ArrayView2, Axis, s};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A stack of groups, and what the session keeps for them between two runs.
pub(super) struct Stack {
    pub(super) ports: Ports,
    pub(super) members: Vec<Member>,
    size: SketchSize,
    piece: usize,
    late: bool,
    state: State,
    unread: Option<Unread>,
}

/// What one run returned of a stack.
pub(super) struct Returned {
    state: Outputs,
    statistics: Value,
    check: Value,
    /// Shape of each tensor of each group.
    pub(super) shapes: Vec<Value>,
}

/// What one run over kept rows returned of a stack.
pub(super) struct Counted {
    state: Outputs,
    pub(super) statistics: Value,
    /// The kept rows of each group.
    seen: Vec<Seen>,
    /// Whether masked rows were finite and 16-bit products in range, where that is needed.
    pub(super) fits: bool,
    /// Members whose kept rows are not finite.
    pub(super) not_finite: Vec<usize>,
}

/// One group and what the last run returned of it.
pub(super) struct Fresh<'a> {
    pub(super) member: &'a mut Member,
    pub(super) encoded: Encoded<'a>,
    pub(super) rotation: &'a mut [f32],
}

/// All that changes in a [`Stack`] from run to run, in the same process.
pub(super) struct StackMark {
    members: Vec<Member>,
    state: StateMark,
    unread: Option<Unread>,
}

/// A copy of all that changes in a [`Stack`] from run to run.
#[derive(Serialize, Deserialize)]
pub(super) struct SavedStack<M> {
    members: Vec<M>,
    state: SavedState,
    unread: Option<(Floats, Vec<Seen>)>,
}

impl Stack {
    /// Every group starts from the basis `first` [d, l].
    pub(super) fn new(plan: Plan, ports: Ports, first: &Array2<f32>) -> Result<Self, Error> {
        let Plan { size, piece, precision, late, accumulates, .. } = plan;
        let state = State::new(plan.order.len(), size, first, late && accumulates)?;
        let groups = plan.order.into_iter().zip(plan.groups);
        let member = |(group, tensors)| Member::new(group, tensors, StreamingPca::new(size, precision));
        let members = groups.map(member).collect();
        Ok(Self { ports, members, size, piece, late, state, unread: None })
    }

    /// The inputs of one run over the chosen rows of a batch of so many tokens, without those of the [`State`].
    pub(super) fn inputs(&self, choice: &Choice, tokens: usize) -> Result<Vec<(String, Value)>, Error> {
        let mut inputs = Vec::new();
        for (port, kept) in self.ports.rows.iter().zip(&choice.kept) {
            inputs.push((port.clone(), Value::i64(&[kept.len()], kept.clone())?));
        }
        if let Some(port) = &self.ports.mask {
            let mask: Vec<f32> = choice.mask().into_iter().map(|kept| f32::from(u8::from(kept))).collect();
            inputs.push((port.clone(), Value::f32(&[1, mask.len(), 1], mask)?));
        }
        let unread = |i: usize| self.unread.as_ref().map_or(0, |unread| unread.seen[i].rows as u64);
        let seen = self.members.iter().enumerate().map(|(i, member)| (member.pca.seen() + unread(i)) as f32);
        inputs.push((self.ports.seen.clone(), self.of_each_group(seen)?));
        if let Some(port) = &self.ports.scale {
            let rows = choice.count().unwrap_or(0).max(tokens);
            let scales = self.members.iter().map(|member| member.scale(rows));
            inputs.push((port.clone(), self.of_each_group(scales)?));
        }
        if let Some(port) = &self.ports.keep {
            let adds = |member: &Member| if self.late { self.state.is_second() } else { member.pca.has_pending() };
            let keep = self.members.iter().map(|member| f32::from(u8::from(adds(member))));
            inputs.push((port.clone(), self.of_each_group(keep)?));
        }
        if let Some(port) = &self.ports.deflate {
            inputs.push((port.clone(), self.deflated_columns()?));
        }
        Ok(inputs)
    }

    /// For each group the columns from which the leading one is taken [G, 1, l].
    fn deflated_columns(&self) -> Result<Value, Error> {
        let l = self.size.width;
        let columns = self.members.iter().flat_map(|member| {
            let on = member.pca.is_dominated() && !member.pca.has_pending();
            (0..=l).map(move |j| f32::from(u8::from(on && j > 0 && j < l)))
        });
        Ok(Value::f32(&[self.members.len(), 1, l + 1], columns.collect())?)
    }

    /// One number a group [G, 1, 1].
    fn of_each_group(&self, numbers: impl Iterator<Item = f32>) -> Result<Value, Error> {
        Ok(Value::f32(&[self.members.len(), 1, 1], numbers.collect())?)
    }

    /// The state as the next run takes it, and what the host does meanwhile if it is `late`.
    pub(super) fn run(&mut self, late: bool) -> (Vec<(&str, &Value)>, Option<HostWork<'_>>) {
        let due = self.state.due(self.members.len());
        let (inputs, rotations) = self.state.inputs(&self.ports);
        let (members, unread) = (&mut self.members, &mut self.unread);
        (inputs, late.then(|| HostWork { members, unread: unread.take(), rotations, due }))
    }

    /// What is left to do when no run follows.
    pub(super) fn end(&mut self) -> HostWork<'_> {
        let (due, rotations) = self.state.end(self.members.len());
        HostWork { members: &mut self.members, unread: self.unread.take(), rotations, due }
    }

    /// Takes the outputs of this stack from those of a run.
    pub(super) fn take_outputs(&self, outputs: &mut impl Iterator<Item = Value>) -> Option<Returned> {
        let shapes = self.ports.shapes.iter().map(Vec::len).sum();
        let returned = Returned {
            state: Outputs { q: outputs.next()?, z: outputs.next()?, mean: outputs.next()? },
            statistics: outputs.next()?,
            check: outputs.next()?,
            shapes: outputs.by_ref().take(shapes).collect(),
        };
        outputs.take(self.ports.ends.len()).for_each(drop);
        Some(returned)
    }

    /// The sum of the chosen rows of each group.
    pub(super) fn sums(&self, returned: &Returned, choice: &Choice) -> Result<Vec<Vec<f64>>, Error> {
        let values = returned.statistics.as_f32()?.1;
        let taken = if self.ports.deflate.is_some() { 2 * sketch::columns(self.size) } else { 0 };
        let mut shapes = returned.shapes.iter();
        let mut sums = Vec::new();
        for (values, member) in values.chunks_exact(values.len() / self.members.len()).zip(&self.members) {
            let mut rows = 0;
            for shape in shapes.by_ref().take(member.tensors.len()) {
                rows += row_count(shape.as_i64()?);
            }
            let rows = choice.count().unwrap_or(rows) as f64;
            let about = if self.ports.centred { rows } else { 0.0 };
            let sum = decode_sum(&values[..values.len() - taken], self.size).iter().zip(member.pca.mean());
            sums.push(sum.map(|(&sum, mean)| f64::from(sum) + about * mean).collect());
        }
        Ok(sums)
    }

    /// Counts the chosen rows of each group.
    ///
    /// # Errors
    /// [`Error::Rows`] when there are not as many rows as their layouts say.
    pub(super) fn count(&self, returned: Returned, choice: &Choice, batch: &Batch) -> Result<Counted, Error> {
        let check = returned.check.as_f32()?.1;
        let checks = check.chunks_exact(check.len() / self.members.len());
        let mut shapes = returned.shapes.iter();
        let (mut fits, mut all_seen, mut not_finite) = (true, Vec::with_capacity(self.members.len()), Vec::new());
        for (place, (member, check)) in self.members.iter().zip(checks).enumerate() {
            let mut all = 0;
            for ((tensor, wanted), shape) in member.tensors.iter().zip(&choice.all).zip(shapes.by_ref()) {
                let rows = row_count(shape.as_i64()?);
                if wanted.is_some_and(|wanted| wanted != rows) {
                    return Err(wrong_rows(tensor, rows, batch));
                }
                all += rows;
            }
            let Some((squares, of_half)) = check.split_first() else { break };
            let seen = self.seen(choice.count().unwrap_or(all), *squares);
            if seen.squares.is_finite() {
                fits &= seen.rows == 0 || self.ports.scale.is_none() || fits_half(of_half, seen);
            } else if self.ports.mask.is_some() {
                fits = false;
            } else {
                not_finite.push(place);
            }
            all_seen.push(seen);
        }
        Ok(Counted { state: returned.state, statistics: returned.statistics, seen: all_seen, fits, not_finite })
    }

    /// So many rows, the mean squares of whose pieces sum up to `squares`.
    fn seen(&self, rows: usize, squares: f32) -> Seen {
        let nothing = sketch::squares_of_nothing(rows * (self.size.features / self.piece));
        let squares = self.piece as f64 * (f64::from(squares) - nothing);
        Seen { rows, squares, centred: self.ports.centred, deflated: self.ports.deflate.is_some() }
    }

    /// Whether products are of 16 bits, whose range depends on the lengths of the rows.
    pub(super) fn in_half(&self) -> bool {
        self.ports.scale.is_some()
    }

    /// Whether the warm-up has only learnt where the rows of a group are.
    pub(super) fn was_displaced(&self) -> bool {
        self.members.iter().any(|member| member.pca.was_displaced())
    }

    /// Notes how long the rows of a run were.
    pub(super) fn learn_lengths(&mut self, counted: &Counted) {
        self.members.iter_mut().zip(&counted.seen).for_each(|(member, seen)| member.learn_length(*seen));
    }

    /// Stores the outputs of a run whose statistics are read while the next one runs.
    pub(super) fn defer(&mut self, counted: Counted) {
        self.learn_lengths(&counted);
        let Counted { state, statistics, seen, .. } = counted;
        let hard = self.members.iter().any(|member| is_hard(&member.pca));
        self.state.advance(state, seen.iter().any(|seen| seen.rows > 0), !hard);
        self.unread = Some(Unread { statistics: Arc::new(statistics), seen });
    }

    /// Stores the outputs of a run, but for the statistics, which come back to be read at once.
    pub(super) fn replace(&mut self, counted: Counted) -> Unread {
        self.learn_lengths(&counted);
        let Counted { state, statistics, seen, .. } = counted;
        self.state.replace(state, seen.iter().any(|seen| seen.rows > 0));
        Unread { statistics: Arc::new(statistics), seen }
    }

    /// What a run returned of each group.
    pub(super) fn fresh<'a>(&'a mut self, unread: &'a Unread) -> Result<impl Iterator<Item = Fresh<'a>>, Error> {
        let c = sketch::columns(self.size);
        let values = unread.statistics.as_f32()?.1;
        let encoded = unread.seen.iter().copied().zip(values.chunks_exact(values.len() / self.members.len()));
        let rotations = self.state.rotation.as_f32_mut()?.chunks_exact_mut(2 * c * c);
        let members = self.members.iter_mut().zip(encoded).zip(rotations);
        Ok(members.map(|((member, encoded), rotation)| Fresh { member, encoded, rotation }))
    }

    /// Copies the state to host memory, from where any session takes it.
    pub(super) fn unload(&mut self) -> Result<(), Error> {
        self.state.unload()
    }

    /// Continues with another subgraph for the same groups, in another session.
    pub(super) fn reload(&mut self, session: &Session, ports: Ports) -> Result<(), Error> {
        self.ports = ports;
        self.pin(session)
    }

    /// Moves what every run takes from the host to where the device of the session reads it fast.
    pub(super) fn pin(&mut self, session: &Session) -> Result<(), Error> {
        self.state.pin(session)
    }

    /// A copy of all that changes from run to run.
    pub(super) fn save(&self) -> Result<SavedStack<&Member>, Error> {
        let unread = self.unread.as_ref();
        let unread = unread.map(|unread| Ok::<_, Error>((Floats::of(&unread.statistics)?, unread.seen.clone())));
        Ok(SavedStack {
            members: self.members.iter().collect(),
            state: self.state.save()?,
            unread: unread.transpose()?,
        })
    }

    /// Continues from a copy.
    pub(super) fn restore(&mut self, saved: SavedStack<Member>, session: &Session) -> Result<(), Error> {
        let count = self.members.len();
        let alike = saved.members.len() == count && saved.members.iter().zip(&self.members).all(|(a, b)| a.is_of(b));
        ensure(alike, "it has other groups")?;
        let deflates = self.ports.deflate.is_some();
        let alike = |(values, seen): &(Floats, Vec<Seen>)| {
            let seen = seen.len() == count && seen.iter().all(|seen| seen.deflated == deflates);
            seen && values.len() == count * self.numbers()
        };
        ensure(saved.unread.as_ref().is_none_or(alike), "it has other statistics")?;
        self.state.restore(&saved.state, session)?;
        self.members = saved.members;
        let unread =
            saved.unread.map(|(values, seen)| Ok::<_, Error>(Unread { statistics: Arc::new(values.to_any()?), seen }));
        self.unread = unread.transpose()?;
        Ok(())
    }

    /// What it is now.
    pub(super) fn mark(&self) -> Result<StackMark, Error> {
        Ok(StackMark { members: self.members.clone(), state: self.state.mark()?, unread: self.unread.clone() })
    }

    /// Goes back to what it was.
    pub(super) fn return_to(&mut self, mark: StackMark, session: &Session) -> Result<(), Error> {
        self.state.return_to(mark.state, session)?;
        (self.members, self.unread) = (mark.members, mark.unread);
        Ok(())
    }

    /// How many numbers the statistics of a group are.
    fn numbers(&self) -> usize {
        let c = sketch::columns(self.size);
        let squares = usize::from(self.in_half()) + if self.late { 2 } else { 0 };
        let taken = if self.ports.deflate.is_some() { 2 * c } else { 0 };
        3 * sketch::triangle(self.size) + squares * c * c + self.size.features + taken
    }

    /// Copies the basis of all groups to host memory.
    pub(super) fn matrices(&self) -> Result<HostMatrices, Error> {
        self.state.matrices()
    }

    /// The basis of one member.
    pub(super) fn basis<'a>(&self, member: usize, matrices: &'a HostMatrices) -> Result<Basis<'a>, Error> {
        let (d, l, c) = (self.size.features, self.size.width, sketch::columns(self.size));
        let of_member = |stack: &'a Value| Ok::<_, Error>(slice(stack, member, (d, c))?.slice_move(s![.., ..l]));
        let (q, z) = (of_member(&matrices.q)?, of_member(&matrices.z)?);
        let Some(last) = &matrices.last else { return Ok(Basis::Settled { q, z }) };
        let rotation = slice(&self.state.rotation, member, (2 * c, c))?;
        let halves = [rotation.slice(s![..l, ..l]), rotation.slice(s![c..c + l, ..l])];
        let sent = ndarray::concatenate(Axis(0), &halves).unwrap_or_else(|_| unreachable!("both are l wide"));
        Ok(Basis::Late { q, z, last: of_member(last)?, sent })
    }
}

/// The stacks of the subgraphs, before any rows; groups of equal sizes start from the same basis.
pub(super) fn all(setup: &Setup<'_>, plans: Vec<Plan>, ports: Vec<Ports>) -> Result<Vec<Stack>, Error> {
    let mut bases = BTreeMap::new();
    let stacks = plans.into_iter().zip(ports).map(|(plan, ports)| {
        let random = || StreamingPca::initial_basis(plan.size, setup.seed);
        let first = bases.entry(plan.size.features).or_insert_with(random);
        Stack::new(plan, ports, first)
    });
    stacks.collect()
}

/// The matrix of one member in a stack of them.
fn slice(stack: &Value, member: usize, (m, n): (usize, usize)) -> Result<ArrayView2<'_, f32>, Error> {
    let data = &stack.as_f32()?.1[member * m * n..][..m * n];
    Ok(ArrayView2::from_shape((m, n), data).unwrap_or_else(|_| unreachable!("m * n = length")))
}
