//! Groups of equal sizes that share one subgraph.

use super::Error;
use super::choice::Choice;
use super::matrices::{statistics, write_rotation};
use crate::calib::Batch;
use crate::pca::{self, Factors, SketchSize, SketchStats, StreamingPca, Summary};
use crate::runtime::{Session, Value};
use crate::sketch::{self, EPSILON, Ports, Rows};
use ndarray::{Array2, ArrayView2, Axis, s};

/// What the entries of `R^T Y` may be in 16 bits, which go up to 65504, as far as the rows before tell and as long as
/// columns of `Y` have unit variance. Columns of directions that had little before, or in which rounding leaves a part of
/// an overwhelming one, have hundreds of times as much.
const REACH: f64 = 8.0;
/// How many times the variance of rows their squared mean may be for 16 bits to tell them apart.
const MOST_ALIKE: f64 = 256.0;

/// A stack of groups, and what the session keeps for them between two runs.
pub(super) struct Stack {
    pub(super) ports: Ports,
    pub(super) members: Vec<Member>,
    /// Whether any number of rows may come.
    pub(super) routed: bool,
    size: SketchSize,
    pub(super) state: State,
}

/// What goes from run to run.
pub(super) struct State {
    /// `Q` [G, d, l], where the session left it.
    q: Value,
    /// The `Z` [G, d, l] that the rotation belongs to.
    z: Value,
    /// The `Z` that the rotation does not know yet.
    before: Option<Value>,
    /// The rotation of the next run [G, 2l, l].
    rotation: Value,
    /// Means of the rows so far [G, 1, d].
    mean: Value,
}

/// One group of a stack.
pub(super) struct Member {
    /// Number of the group.
    pub(super) group: usize,
    pub(super) tensors: Vec<String>,
    pub(super) pca: StreamingPca,
    /// Root of the mean square of the rows seen last.
    length: f64,
}

/// What one run returned of a stack.
pub(super) struct Returned {
    pub(super) basis: [Value; 2],
    pub(super) statistics: Value,
    pub(super) lengths: Value,
    pub(super) shapes: Vec<Value>,
}

/// Rows of a group that counted in one run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Seen {
    pub(super) rows: usize,
    /// Sum of the squares of their entries.
    pub(super) squares: f64,
}

/// What one run returned of a stack, and the rows that counted.
pub(super) struct Counted {
    pub(super) returned: Returned,
    /// Of each group.
    pub(super) seen: Vec<Seen>,
    /// Whether all rows that do not count could be masked, which takes finite ones.
    maskable: bool,
}

/// One group and what the last run said about it.
pub(super) struct Work<'a> {
    pub(super) member: &'a mut Member,
    seen: Seen,
    statistics: &'a [f32],
    rotation: &'a mut [f32],
    mean: &'a mut [f32],
}

impl Stack {
    /// Every group starts from `first`.
    pub(super) fn new(
        session: &Session,
        plan: sketch::Plan,
        groups: &[usize],
        ports: Ports,
        first: &pca::Basis,
    ) -> Result<Self, Error> {
        let (g, c) = (groups.len(), plan.columns());
        let sketch::Plan { size, rows, .. } = plan;
        let shape = [g, size.features, c];
        let repeated = |a: &Array2<f32>| {
            let columns = a.rows().into_iter().flat_map(|row| row.into_iter().copied().chain([0.0]));
            Value::f32(&shape, columns.collect::<Vec<_>>().repeat(g))
        };
        let (q, z) = (repeated(&first.q)?, repeated(&first.z)?);
        let factors = match (plan.half, session.options().tf32) {
            (true, _) => Factors::Half,
            (false, true) => Factors::Tf32,
            (false, false) => Factors::F32,
        };
        let members = groups.iter().zip(plan.groups).map(|(&group, tensors)| {
            let length = (size.features as f64).sqrt();
            Member { group, tensors, pca: StreamingPca::new(size, factors), length }
        });
        let members: Vec<_> = members.collect();
        let mut rotation = vec![0.0; g * 2 * c * c];
        for (member, rotation) in members.iter().zip(rotation.chunks_exact_mut(2 * c * c)) {
            write_rotation(&member.pca, rotation);
        }
        let rotation = session.staged(&[g, 2 * c, c], &rotation)?;
        let mean = session.staged(&[g, 1, size.features], &vec![0.0; g * size.features])?;
        let state = State { q, z, before: None, rotation, mean };
        Ok(Self { ports, members, routed: rows == Rows::All, size, state })
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
        let mut numbers = |port: &String, number: &dyn Fn(&Member) -> f32| -> Result<(), Error> {
            let values = self.members.iter().map(number).collect();
            feeds.push((port.clone(), Value::f32(&[self.members.len(), 1, 1], values)?));
            Ok(())
        };
        numbers(&self.ports.seen, &|member| member.pca.seen() as f32)?;
        if let Some(port) = &self.ports.scale {
            let rows = choice.count().unwrap_or(0).max(tokens);
            numbers(port, &|member| member.scale(rows))?;
        }
        if let Some(port) = &self.ports.keep {
            numbers(port, &|member| f32::from(u8::from(member.pca.is_behind())))?;
        }
        Ok(feeds)
    }

    /// Counts the rows chosen in each group.
    ///
    /// Fails when rows are not as many as their layouts say, or when rows that count are not finite.
    pub(super) fn count(&self, returned: Returned, choice: &Choice, batch: (&Batch, usize)) -> Result<Counted, Error> {
        let (batch, number) = batch;
        let lengths = returned.lengths.as_f32()?.1;
        let mask = self.ports.mask.as_ref().map(|_| choice.mask());
        let mut shapes = returned.shapes.iter();
        let (mut from, mut maskable, mut all_seen) = (0, true, Vec::with_capacity(self.members.len()));
        for member in &self.members {
            let mut all = 0;
            for ((tensor, wanted), shape) in member.tensors.iter().zip(&choice.all).zip(shapes.by_ref()) {
                let rows = row_count(shape.as_i64()?);
                if wanted.is_some_and(|wanted| wanted != rows) {
                    return Err(out_of_line(tensor, rows, batch));
                }
                all += rows;
            }
            let measured = if self.ports.rows.is_empty() { all } else { choice.kept.iter().map(Vec::len).sum() };
            let lengths = &lengths[from..from + measured];
            from += measured;
            let mean_square = |&inverse: &f32| 1.0 / (f64::from(inverse) * f64::from(inverse)) - f64::from(EPSILON);
            let (rows, sum) = match &mask {
                None => (lengths.len(), lengths.iter().map(mean_square).sum::<f64>()),
                Some(mask) => {
                    maskable &= lengths.iter().all(|inverse| inverse.is_finite() && *inverse > 0.0);
                    let kept = lengths.iter().zip(mask).filter(|(_, kept)| **kept).map(|(inverse, _)| inverse);
                    (kept.clone().count(), kept.map(mean_square).sum())
                }
            };
            let seen = Seen { rows, squares: self.size.features as f64 * sum };
            if !seen.squares.is_finite() {
                let Member { group, tensors, .. } = member;
                return Err(Error::NotFinite { group: *group, tensor: tensors.join("`, `"), batch: number });
            }
            all_seen.push(seen);
        }
        Ok(Counted { returned, seen: all_seen, maskable })
    }

    /// Whether rows could be masked and numbers stayed in the range of 16 bits, where that is asked of them.
    pub(super) fn fits(&self, Counted { returned, seen, maskable }: &Counted) -> Result<bool, Error> {
        let statistics = returned.statistics.as_f32()?.1;
        let mut of_each = statistics.chunks_exact(statistics.len() / self.members.len()).zip(seen);
        let half_fits = |(each, seen): (&[f32], &Seen)| seen.rows == 0 || self.fits_half(each, *seen);
        Ok(*maskable && (!self.in_half() || of_each.all(half_fits)))
    }

    /// Whether 16 bits were enough for the products of a group.
    fn fits_half(&self, statistics: &[f32], seen: Seen) -> bool {
        let sum = &statistics[statistics.len() - self.size.features..];
        let of_mean = sum.iter().map(|&sum| f64::from(sum).powi(2)).sum::<f64>() / seen.rows as f64;
        let (c, triangle) = (sketch::columns(self.size), sketch::triangle(self.size));
        let finite = |triangle: &[f32]| (0..c).all(|i| triangle[i * (i + 3) / 2].is_finite());
        // One row has no variance, and nothing to be told from.
        let alike = seen.rows > 1 && of_mean > MOST_ALIKE * (seen.squares - of_mean);
        statistics.chunks_exact(triangle).take(3).all(finite) && !alike
    }

    /// Whether products are of 16 bits, whose range depends on how long rows are.
    pub(super) fn in_half(&self) -> bool {
        self.ports.scale.is_some()
    }

    /// Takes over how long the rows of a run without other consequences were.
    pub(super) fn learn_lengths(&mut self, seen: &[Seen]) {
        self.members.iter_mut().zip(seen).for_each(|(member, seen)| member.learn_length(*seen));
    }

    /// Takes over what a run left, and hands out what it said about each group.
    ///
    /// `caught_up` tells that the rotation of each member is one for the basis of this run.
    pub(super) fn update<'a>(
        &'a mut self,
        seen: Vec<Seen>,
        [q, z]: [Value; 2],
        statistics: &'a Value,
        caught_up: bool,
    ) -> Result<impl Iterator<Item = Work<'a>>, Error> {
        let any = seen.iter().any(|seen| seen.rows > 0);
        self.state.take_over(q, z, any, caught_up);
        let (c, d) = (sketch::columns(self.size), self.size.features);
        let statistics = statistics.as_f32()?.1;
        let statistics = statistics.chunks_exact(statistics.len() / self.members.len());
        let rotations = self.state.rotation.as_f32_mut()?.chunks_exact_mut(2 * c * c);
        let means = self.state.mean.as_f32_mut()?.chunks_exact_mut(d);
        let members = self.members.iter_mut().zip(seen).zip(statistics).zip(rotations.zip(means));
        Ok(members.map(move |(((member, seen), statistics), (rotation, mean))| Work {
            member,
            seen,
            statistics,
            rotation,
            mean,
        }))
    }

    /// Brings the state to host memory, from where any session takes it.
    pub(super) fn unload(&mut self) -> Result<(), Error> {
        let State { q, z, before, rotation, mean } = &mut self.state;
        for value in [q, z, rotation, mean].into_iter().chain(before) {
            *value = value.to_host()?;
        }
        Ok(())
    }

    /// Goes on in a new session with another subgraph for the same groups.
    pub(super) fn reload(&mut self, session: &Session, ports: Ports) -> Result<(), Error> {
        self.ports = ports;
        for value in [&mut self.state.rotation, &mut self.state.mean] {
            let (shape, data) = value.as_f32()?;
            *value = session.staged(&shape, data)?;
        }
        Ok(())
    }

    /// `Q`, `Z` and the image that came after them in host memory.
    pub(super) fn host_basis(&self) -> Result<Vec<Value>, Error> {
        let State { q, z, before, .. } = &self.state;
        Ok([Some(q), Some(z), before.as_ref()].into_iter().flatten().map(Value::to_host).collect::<Result<_, _>>()?)
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

impl State {
    /// The inputs of the next run.
    pub(super) fn feeds<'a>(&'a self, ports: &'a Ports) -> impl Iterator<Item = (&'a str, &'a Value)> {
        let before = ports.before.iter().map(|port| (port.as_str(), self.before.as_ref().unwrap_or(&self.z)));
        let always = [(&ports.q_in, &self.q), (&ports.z_in, &self.z), (&ports.rotation, &self.rotation)];
        always.into_iter().chain([(&ports.mean, &self.mean)]).map(|(port, value)| (port.as_str(), value)).chain(before)
    }

    /// A run without rows leaves no image; then the state before stays, unless the rotation moves on.
    fn take_over(&mut self, q: Value, z: Value, any: bool, caught_up: bool) {
        if caught_up {
            self.q = q;
            if let Some(before) = self.before.take() {
                self.z = before;
            }
            self.before = any.then_some(z);
        } else if any {
            (self.q, self.z) = (q, z);
        }
    }
}

/// The matrix of one member in a stack of them.
fn slice(stack: &Value, member: usize, (m, n): (usize, usize)) -> Result<ArrayView2<'_, f32>, Error> {
    let data = &stack.as_f32()?.1[member * m * n..][..m * n];
    Ok(ArrayView2::from_shape((m, n), data).unwrap_or_else(|_| unreachable!("m * n = length")))
}

impl Work<'_> {
    /// Does something with the statistics, if there are any, and puts rotation and mean down for the next run.
    pub(super) fn done(
        &mut self,
        step: impl Fn(&mut StreamingPca, SketchStats) -> Result<(), pca::Error>,
    ) -> Result<(), Error> {
        let pca = &mut self.member.pca;
        if self.seen.rows > 0 {
            let stats = statistics(self.seen, self.statistics, pca.size());
            step(pca, stats).map_err(|source| self.member.undone(source))?;
        }
        self.member.learn_length(self.seen);
        let pca = &self.member.pca;
        write_rotation(pca, self.rotation);
        self.mean.iter_mut().zip(pca.mean()).for_each(|(to, &value)| *to = value as f32);
        Ok(())
    }
}

impl Member {
    /// Adds the batch that was put off or the batches that were collected.
    pub(super) fn decompose(
        &mut self,
        step: impl Fn(&mut StreamingPca) -> Result<(), pca::Error>,
    ) -> Result<(), Error> {
        step(&mut self.pca).map_err(|source| self.undone(source))
    }

    fn learn_length(&mut self, seen: Seen) {
        if seen.rows > 0 && seen.squares > 0.0 {
            self.length = (seen.squares / seen.rows as f64).sqrt();
        }
    }

    /// The power of two that makes the entries of `R^T Y` about [`REACH`] at most, for so many rows and columns of `Y` of
    /// unit variance.
    fn scale(&self, rows: usize) -> f32 {
        let exponent = (REACH / (rows.max(1) as f64 * self.length)).log2().floor();
        // As far as 16 bits go.
        exponent.clamp(-24.0, 15.0).exp2() as f32
    }

    fn undone(&self, source: pca::Error) -> Error {
        Error::Decompose { tensor: self.tensors.join("`, `"), source }
    }
}

pub(super) fn row_count(shape: &[i64]) -> usize {
    shape.split_last().map_or(0, |(_, outer)| outer.iter().product::<i64>().max(0) as usize)
}

/// The rows of a tensor are not what its layout says.
pub(super) fn out_of_line(tensor: &str, rows: usize, batch: &Batch) -> Error {
    let (batch, length) = batch.input_ids.dim();
    Error::Rows { tensor: tensor.to_owned(), rows, batch, length }
}
