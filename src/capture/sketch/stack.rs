//! Groups of equal sizes that share one subgraph.

use super::codec::{Seen, statistics, write_rotation};
use super::half::fits_half;
use super::member::{Member, is_hard};
use super::overlap::{Behind, Waiting};
use super::state::{Left, State};
use crate::calib::Batch;
use crate::capture::Error;
use crate::capture::rows::{Choice, out_of_line, row_count};
use crate::pca::{self, Factors, SketchSize, SketchStats, StreamingPca, Summary};
use crate::runtime::{Session, Value};
use crate::sketch::{self, Ports, Rows};
use ndarray::{Array2, ArrayView2, Axis, s};

/// A stack of groups, and what the session keeps for them between two runs.
pub(super) struct Stack {
    pub(super) ports: Ports,
    pub(super) members: Vec<Member>,
    /// Whether any number of rows may come.
    pub(super) routed: bool,
    size: SketchSize,
    piece: usize,
    overlapped: bool,
    state: State,
    waiting: Option<Waiting>,
}

/// What one run returned of a stack.
pub(super) struct Returned {
    pub(super) left: Left,
    pub(super) statistics: Value,
    pub(super) check: Value,
    pub(super) shapes: Vec<Value>,
}

/// What one run returned of a stack, and the rows that counted.
pub(super) struct Counted {
    pub(super) returned: Returned,
    /// Of each group.
    pub(super) seen: Vec<Seen>,
    /// Whether rows could be masked, which takes finite ones, and numbers stayed in the range of 16 bits, where that is
    /// asked of them.
    pub(super) fits: bool,
}

/// One group and what the last run said about it.
pub(super) struct Work<'a> {
    member: &'a mut Member,
    seen: Seen,
    statistics: &'a [f32],
    rotation: &'a mut [f32],
}

impl Stack {
    /// Every group starts from `first`.
    pub(super) fn new(plan: sketch::Plan, ports: Ports, first: &pca::Basis) -> Result<Self, Error> {
        let sketch::Plan { size, piece, rows, overlapped, summed, .. } = plan;
        let factors = if plan.half { Factors::Half } else { Factors::F32 };
        let state = State::new(plan.order.len(), size, first, overlapped && summed)?;
        let members = plan.order.into_iter().zip(plan.groups).map(|(group, tensors)| {
            let length = (size.features as f64).sqrt();
            Member { group, tensors, pca: StreamingPca::new(size, factors), length }
        });
        let (members, routed) = (members.collect(), rows == Rows::All);
        Ok(Self { ports, members, routed, size, piece, overlapped, state, waiting: None })
    }

    /// What one run over the rows chosen of a batch of so many tokens is fed, but for the [`State`].
    pub(super) fn feeds(&self, choice: &Choice, tokens: usize) -> Result<Vec<(String, Value)>, Error> {
        let mut feeds = Vec::new();
        for (port, kept) in self.ports.rows.iter().zip(&choice.kept) {
            feeds.push((port.clone(), Value::i64(&[kept.len()], kept.clone())?));
        }
        if let Some(port) = &self.ports.mask {
            let mask: Vec<f32> = choice.mask().into_iter().map(|kept| f32::from(u8::from(kept))).collect();
            feeds.push((port.clone(), Value::f32(&[1, mask.len(), 1], mask)?));
        }
        let mut numbers = |port: &String, number: &dyn Fn(usize, &Member) -> f32| -> Result<(), Error> {
            let values = self.members.iter().enumerate().map(|(i, member)| number(i, member)).collect();
            feeds.push((port.clone(), Value::f32(&[self.members.len(), 1, 1], values)?));
            Ok(())
        };
        let waiting = |i: usize| self.waiting.as_ref().map_or(0, |waiting| waiting.seen[i].rows as u64);
        numbers(&self.ports.seen, &|i, member| (member.pca.seen() + waiting(i)) as f32)?;
        if let Some(port) = &self.ports.scale {
            let rows = choice.count().unwrap_or(0).max(tokens);
            numbers(port, &|_, member| member.scale(rows))?;
        }
        if let Some(port) = &self.ports.keep {
            let kept = |member: &Member| if self.overlapped { self.state.is_second() } else { member.pca.is_behind() };
            numbers(port, &|_, member| f32::from(u8::from(kept(member))))?;
        }
        Ok(feeds)
    }

    /// How many shapes of tensors, and of results that nobody reads, a run returns.
    pub(super) fn shapes(&self) -> (usize, usize) {
        (self.ports.shapes.iter().map(Vec::len).sum(), self.ports.ends.len())
    }

    /// The state as the next run is fed it, and if `catch_up` what the host does meanwhile.
    pub(super) fn run(&mut self, catch_up: bool) -> (Vec<(&str, &Value)>, Option<Behind<'_>>) {
        let due = self.state.due();
        let (feeds, rotations) = self.state.feeds(&self.ports);
        let (members, waiting) = (&mut self.members, &mut self.waiting);
        (feeds, catch_up.then(|| Behind { members, waiting: waiting.take(), rotations, due }))
    }

    /// What is left to do before the last decomposition, when no run comes any more.
    pub(super) fn end(&mut self) -> Behind<'_> {
        let due = self.state.due_at_the_end();
        let rotations = self.state.cut_short();
        Behind { members: &mut self.members, waiting: self.waiting.take(), rotations, due }
    }

    /// Counts the rows chosen in each group.
    ///
    /// Fails when rows are not as many as their layouts say, or when rows that count are not finite.
    pub(super) fn count(&self, returned: Returned, choice: &Choice, batch: (&Batch, usize)) -> Result<Counted, Error> {
        let (batch, number) = batch;
        let check = returned.check.as_f32()?.1;
        let mut of_each = check.chunks_exact(check.len() / self.members.len());
        let mut shapes = returned.shapes.iter();
        let (mut fits, mut all_seen) = (true, Vec::with_capacity(self.members.len()));
        for member in &self.members {
            let mut all = 0;
            for ((tensor, wanted), shape) in member.tensors.iter().zip(&choice.all).zip(shapes.by_ref()) {
                let rows = row_count(shape.as_i64()?);
                if wanted.is_some_and(|wanted| wanted != rows) {
                    return Err(out_of_line(tensor, rows, batch));
                }
                all += rows;
            }
            let Some((squares, sixteen_bits)) = of_each.next().and_then(<[f32]>::split_first) else { break };
            let rows = choice.count().unwrap_or(all);
            let nothing = sketch::squares_of_nothing(rows * (self.size.features / self.piece));
            let seen = Seen { rows, squares: self.piece as f64 * (f64::from(*squares) - nothing) };
            if seen.squares.is_finite() {
                fits &= rows == 0 || self.ports.scale.is_none() || fits_half(sixteen_bits, seen);
            } else if self.ports.mask.is_some() {
                fits = false;
            } else {
                let Member { group, tensors, .. } = member;
                return Err(Error::NotFinite { group: *group, tensor: tensors.join("`, `"), batch: number });
            }
            all_seen.push(seen);
        }
        Ok(Counted { returned, seen: all_seen, fits })
    }

    /// Whether products are of 16 bits, whose range depends on how long rows are.
    pub(super) fn in_half(&self) -> bool {
        self.ports.scale.is_some()
    }

    /// Takes over how long the rows of a run without other consequences were.
    pub(super) fn learn_lengths(&mut self, seen: &[Seen]) {
        self.members.iter_mut().zip(seen).for_each(|(member, seen)| member.learn_length(*seen));
    }

    /// Takes over what a run left whose statistics are to be read while the next one runs.
    pub(super) fn put_off(&mut self, Counted { returned, seen, .. }: Counted) {
        self.learn_lengths(&seen);
        let hard = self.members.iter().any(|member| is_hard(&member.pca));
        self.state.went_on(returned.left, seen.iter().any(|seen| seen.rows > 0), !hard);
        self.waiting = Some(Waiting { statistics: returned.statistics, seen });
    }

    /// Takes over what a run left, and hands out what it said about each group.
    pub(super) fn update<'a>(
        &'a mut self,
        left: Left,
        seen: Vec<Seen>,
        statistics: &'a Value,
    ) -> Result<impl Iterator<Item = Work<'a>>, Error> {
        self.learn_lengths(&seen);
        self.state.turned(left, seen.iter().any(|seen| seen.rows > 0));
        let c = sketch::columns(self.size);
        let statistics = statistics.as_f32()?.1;
        let statistics = statistics.chunks_exact(statistics.len() / self.members.len());
        let rotations = self.state.rotation.as_f32_mut()?.chunks_exact_mut(2 * c * c);
        let members = self.members.iter_mut().zip(seen).zip(statistics).zip(rotations);
        Ok(members.map(|(((member, seen), statistics), rotation)| Work { member, seen, statistics, rotation }))
    }

    /// Brings the state to host memory, from where any session takes it.
    pub(super) fn unload(&mut self) -> Result<(), Error> {
        self.state.unload()
    }

    /// Goes on with another subgraph for the same groups, in another session.
    pub(super) fn reload(&mut self, session: &Session, ports: Ports) -> Result<(), Error> {
        self.ports = ports;
        self.pin(session)
    }

    /// Puts what every run takes from the host where the device of the session reads it.
    pub(super) fn pin(&mut self, session: &Session) -> Result<(), Error> {
        self.state.pin(session)
    }

    /// `Q`, `Z` and the image that came after them in host memory.
    pub(super) fn host_basis(&self) -> Result<Vec<Value>, Error> {
        self.state.basis_on_host()
    }

    /// Components of one member, from the [`host_basis`](Self::host_basis) of the stack.
    pub(super) fn components(&self, member: usize, basis: &[Value]) -> Result<Array2<f64>, Error> {
        self.known(member, basis, StreamingPca::components, StreamingPca::components_behind)
    }

    /// All that is known of one member, likewise.
    pub(super) fn summary(&self, member: usize, basis: &[Value]) -> Result<Summary, Error> {
        self.known(member, basis, StreamingPca::summary, StreamingPca::summary_behind)
    }

    fn known<T>(
        &self,
        member: usize,
        basis: &[Value],
        of_basis: impl Fn(&StreamingPca, ArrayView2<'_, f32>, ArrayView2<'_, f32>) -> T,
        behind: impl Fn(&StreamingPca, [ArrayView2<'_, f32>; 3], ArrayView2<'_, f32>) -> T,
    ) -> Result<T, Error> {
        let (d, c) = (self.size.features, sketch::columns(self.size));
        let pca = &self.members[member].pca;
        let (directions, turned) = (s![.., ..self.size.width], s![..self.size.width, ..self.size.width]);
        let basis = basis.iter().map(|stack| Ok(slice(stack, member, (d, c))?.slice_move(directions)));
        let basis = basis.collect::<Result<Vec<_>, Error>>()?;
        let [q, z, image] = basis[..] else { return Ok(of_basis(pca, basis[0], basis[1])) };
        let halves = slice(&self.state.rotation, member, (2 * c, c))?;
        let halves = [halves.slice(s![..c, ..]), halves.slice(s![c.., ..])].map(|half| half.slice_move(turned));
        let last = ndarray::concatenate(Axis(0), &halves).unwrap_or_else(|_| unreachable!("both are l wide"));
        Ok(behind(pca, [q, z, image], last.view()))
    }
}

/// The matrix of one member in a stack of them.
fn slice(stack: &Value, member: usize, (m, n): (usize, usize)) -> Result<ArrayView2<'_, f32>, Error> {
    let data = &stack.as_f32()?.1[member * m * n..][..m * n];
    Ok(ArrayView2::from_shape((m, n), data).unwrap_or_else(|_| unreachable!("m * n = length")))
}

impl Work<'_> {
    /// Does something with the statistics, if there are any, and puts the rotation down for the next run.
    pub(super) fn done(
        &mut self,
        step: impl Fn(&mut StreamingPca, SketchStats) -> Result<(), pca::Error>,
    ) -> Result<(), Error> {
        let pca = &mut self.member.pca;
        if self.seen.rows > 0 {
            let stats = statistics(self.seen, self.statistics, pca.size());
            step(pca, stats).map_err(|source| self.member.undone(source))?;
        }
        write_rotation(&self.member.pca, self.rotation);
        Ok(())
    }
}
