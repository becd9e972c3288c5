//! Groups of equal sizes that share one subgraph.

use super::layout::Layout;
use super::{Error, Setup};
use crate::calib::Batch;
use crate::pca::{self, Before, Centre, Factors, SketchSize, SketchStats, StreamingPca, Summary};
use crate::runtime::{Session, Value};
use crate::sketch::{self, Ports};
use ndarray::{Array2, ArrayView2};
use std::collections::BTreeMap;

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
}

/// One group of a stack.
pub(super) struct Member {
    /// Number of the group.
    pub(super) group: usize,
    pub(super) tensors: Vec<String>,
    pub(super) pca: StreamingPca,
}

/// One group and what the last run said about it.
pub(super) struct Work<'a> {
    pub(super) member: &'a mut Member,
    rows: usize,
    statistics: &'a [f32],
    rotation: &'a mut [f32],
}

/// The subgraphs that the groups need; groups are stacked as long as their features add up to no more than
/// `setup.placement.stacked_features`, if their rows are laid out in the same way as far as `layouts` tells.
pub(super) fn plans(setup: &Setup<'_>, layouts: Option<&[Vec<Layout>]>) -> Vec<(sketch::Plan, Vec<usize>)> {
    let mut plans: Vec<(sketch::Plan, Vec<usize>)> = Vec::new();
    let mut open = BTreeMap::new();
    for (number, group) in setup.groups.iter().enumerate() {
        let size = SketchSize::new(group.features, setup.components);
        let key = (group.features, layouts.map(|layouts| &layouts[number]));
        let alone = group.routed || group.tensors.len() > 1;
        let room = |at: &usize| (plans[*at].1.len() + 1) * group.features <= setup.placement.stacked_features;
        match open.get(&key).copied().filter(|at: &usize| !alone && room(at)) {
            Some(at) => {
                plans[at].0.groups.push(group.tensors.clone());
                plans[at].1.push(number);
            }
            None => {
                if !alone {
                    open.insert(key, plans.len());
                }
                let groups = vec![group.tensors.clone()];
                let (every_row, overlapped) = (group.routed, setup.placement.overlapped);
                let plan = sketch::Plan { number: plans.len(), groups, every_row, overlapped, size };
                plans.push((plan, vec![number]));
            }
        }
    }
    plans
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
        let sketch::Plan { size, every_row: routed, .. } = plan;
        let shape = [groups.len(), size.features, size.width];
        let repeated = |a: &Array2<f32>| Value::f32(&shape, a.iter().copied().collect::<Vec<_>>().repeat(groups.len()));
        let (q, z) = (repeated(&first.q)?, repeated(&first.z)?);
        let factors = if session.options().tf32 { Factors::Tf32 } else { Factors::F32 };
        let members = groups.iter().zip(plan.groups);
        let members = members.map(|(&group, tensors)| Member { group, tensors, pca: StreamingPca::new(size, factors) });
        let members: Vec<_> = members.collect();
        let mut rotation = Vec::with_capacity(members.len() * rotation_length(size));
        for member in &members {
            let start = rotation.len();
            rotation.resize(start + rotation_length(size), 0.0);
            write_rotation(&member.pca, &mut rotation[start..]);
        }
        let rotation = session.staged(&[groups.len(), 2 * size.width, size.width], &rotation)?;
        let state = State { q, z, before: None, rotation };
        Ok(Self { ports, members, routed, size, state })
    }

    /// What one run is fed, but for the rows; each group has `rows` of them.
    pub(super) fn feeds(&self, rows: usize) -> Result<Vec<(String, Value)>, Error> {
        let (g, d) = (self.members.len(), self.size.features);
        let mut share = Vec::with_capacity(g);
        let mut rest = Vec::with_capacity(g * d);
        let mut keep = Vec::with_capacity(g);
        for Member { pca, .. } in &self.members {
            let centre = match self.routed {
                true => Centre { share: pca.seen() as f64, rest: pca.mean().clone() },
                false => pca.centre(rows),
            };
            share.push(if self.routed { centre.share } else { centre.share / rows as f64 } as f32);
            rest.extend(centre.rest.iter().map(|&v| v as f32));
            keep.push(f32::from(u8::from(self.ports.before.is_none() && pca.is_behind())));
        }
        let mut feeds = vec![
            (self.ports.share.clone(), Value::f32(&[g, 1, 1], share)?),
            (self.ports.rest.clone(), Value::f32(&[g, 1, d], rest)?),
            (self.ports.keep.clone(), Value::f32(&[g, 1, 1], keep)?),
        ];
        if let Some(ones) = &self.ports.ones {
            feeds.push((ones.clone(), Value::f32(&[1, 1, rows], vec![1.0; rows])?));
        }
        Ok(feeds)
    }

    /// Rows that each group had, by the shapes of its tensors and their layouts.
    pub(super) fn rows(
        &self,
        shapes: &[Value],
        layouts: &[Vec<Layout>],
        indices: &BTreeMap<Layout, Vec<i64>>,
        batch: &Batch,
    ) -> Result<usize, Error> {
        let mut rows = 0;
        let mut shapes = shapes.iter();
        for member in &self.members {
            rows = 0;
            let tensors = member.tensors.iter().zip(&layouts[member.group]);
            for ((tensor, layout), shape) in tensors.zip(shapes.by_ref()) {
                let all = row_count(shape.as_i64()?);
                if !layout.allows(all, batch) {
                    return Err(out_of_line(tensor, all, batch));
                }
                rows += if self.routed { all } else { indices[layout].len() };
            }
        }
        Ok(rows)
    }

    /// Fails when the rows of a group, in batch number `batch`, had an entry that is not finite.
    pub(super) fn check_finite(&self, rows: usize, statistics: &Value, batch: usize) -> Result<(), Error> {
        let statistics = statistics.as_f32()?.1;
        let of_each = statistics.chunks_exact(statistics.len() / self.members.len());
        let finite = |each: &[f32]| each[each.len() - rows..].iter().all(|square| square.is_finite());
        match self.members.iter().zip(of_each).find(|(_, each)| !finite(each)) {
            None => Ok(()),
            Some((Member { group, tensors, .. }, _)) => {
                Err(Error::NotFinite { group: *group, tensor: tensors.join("`, `"), batch })
            }
        }
    }

    /// Takes over what a run over `rows` rows left, and hands out what it said about each group.
    ///
    /// `caught_up` tells that the rotation of each member is one for the basis of this run.
    pub(super) fn update<'a>(
        &'a mut self,
        rows: usize,
        [q, z]: [Value; 2],
        statistics: &'a Value,
        caught_up: bool,
    ) -> Result<impl Iterator<Item = Work<'a>>, Error> {
        self.state.take_over(q, z, rows, caught_up);
        let (l, d) = (self.size.width, self.size.features);
        let squares = if self.ports.before.is_some() { 5 } else { 3 };
        let statistics = statistics.as_f32()?.1.chunks_exact(squares * l * l + d + rows);
        let rotations = self.state.rotation.as_f32_mut()?.chunks_exact_mut(rotation_length(self.size));
        let members = self.members.iter_mut().zip(statistics).zip(rotations);
        Ok(members.map(move |((member, statistics), rotation)| Work { member, rows, statistics, rotation }))
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
        let (d, l) = (self.size.features, self.size.width);
        let pca = &self.members[member].pca;
        let basis = basis.iter().map(|stack| slice(stack, member, (d, l))).collect::<Result<Vec<_>, _>>()?;
        Ok(match basis[..] {
            [q, z, image] => behind(pca, [q, z, image], slice(&self.state.rotation, member, (2 * l, l))?),
            _ => of_basis(pca, basis[0], basis[1]),
        })
    }
}

impl State {
    /// The inputs of the next run.
    pub(super) fn feeds<'a>(&'a self, ports: &'a Ports) -> impl Iterator<Item = (&'a str, &'a Value)> {
        let before = ports.before.iter().map(|port| (port.as_str(), self.before.as_ref().unwrap_or(&self.z)));
        [(ports.q_in.as_str(), &self.q), (&ports.z_in, &self.z), (&ports.rotation, &self.rotation)]
            .into_iter()
            .chain(before)
    }

    /// A run without rows leaves no image; then the state before stays, unless the rotation moves on.
    fn take_over(&mut self, q: Value, z: Value, rows: usize, caught_up: bool) {
        if caught_up {
            self.q = q;
            if let Some(before) = self.before.take() {
                self.z = before;
            }
            self.before = (rows > 0).then_some(z);
        } else if rows > 0 {
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
    /// Does something with the statistics, if there are any, and puts the rotation down for the next run.
    pub(super) fn done(
        &mut self,
        step: impl Fn(&mut StreamingPca, SketchStats) -> Result<(), pca::Error>,
    ) -> Result<(), Error> {
        let pca = &mut self.member.pca;
        if self.rows > 0 {
            let stats = statistics(self.rows, self.statistics, pca.size());
            step(pca, stats).map_err(|source| self.member.undone(source))?;
        }
        write_rotation(&self.member.pca, self.rotation);
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

    fn undone(&self, source: pca::Error) -> Error {
        Error::Decompose { tensor: self.tensors.join("`, `"), source }
    }
}

fn rotation_length(size: SketchSize) -> usize {
    2 * size.width * size.width
}

fn write_rotation(pca: &StreamingPca, to: &mut [f32]) {
    let rotation = pca.rotation();
    let values = rotation.q.iter().chain(&rotation.z);
    to.iter_mut().zip(values).for_each(|(to, &value)| *to = value as f32);
}

/// Takes the statistics of one group apart, in the order of [`Ports::statistics`].
fn statistics(rows: usize, values: &[f32], size: SketchSize) -> SketchStats {
    let l = size.width;
    let (squares, rest) = values.split_at(values.len() - size.features - rows);
    let (sum, squares_of_rows) = rest.split_at(size.features);
    let mut squares = squares.chunks_exact(l * l).map(|values| {
        let values = values.iter().map(|&v| f64::from(v)).collect();
        Array2::from_shape_vec((l, l), values).unwrap_or_else(|_| unreachable!("l * l = length"))
    });
    let mut next = || squares.next().unwrap_or_default();
    let (qq, yy, zz) = (next(), next(), next());
    let before = squares.next().zip(squares.next()).map(|(q, z)| Before { q, z });
    let mean = sum.iter().map(|&sum| f64::from(sum) / rows as f64).collect();
    SketchStats { rows, qq, yy, zz, mean, squares: squares_of_rows.iter().map(|&s| f64::from(s)).sum(), before }
}

pub(super) fn row_count(shape: &[i64]) -> usize {
    shape.split_last().map_or(0, |(_, outer)| outer.iter().product::<i64>().max(0) as usize)
}

/// The rows of a tensor are not what its layout says.
pub(super) fn out_of_line(tensor: &str, rows: usize, batch: &Batch) -> Error {
    let (batch, length) = batch.input_ids.dim();
    Error::Rows { tensor: tensor.to_owned(), rows, batch, length }
}
