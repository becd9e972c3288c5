//! Which axis is which, and whether layers read tokens in their order, where the numbers of rows do not tell.

use super::compare::{Compared, LITTLE, Probed, unchanged};
use super::error::Error;
use super::probe::{self, Pair};
use super::rows::Layout;
use crate::calib::Batch;
use crate::graph::constant;
use crate::onnx::{Graph, Model, NodeId};
use crate::runtime;

/// A group, if the model takes one sequence for as many sequences of one token: no token changes the rows of another, and
/// another sequence does.
///
/// # Errors
/// When the model does not run.
pub(super) fn swapped(probed: &mut dyn Probed, batch: &Batch, layouts: &[Vec<Layout>]) -> Result<Option<usize>, Error> {
    let Some((tokens, sequences)) = probe::of_one_sequence(batch) else { return Ok(None) };
    if !compared(probed, &tokens, layouts)?.is_some_and(|same| same.into_iter().all(|same| same)) {
        return Ok(None);
    }
    match mixed(probed, &sequences, layouts, &(0..layouts.len()).collect::<Vec<_>>()) {
        Err(Error::Rows { .. } | Error::Runtime(runtime::Error::Run { .. })) => Ok(None),
        mixed => mixed,
    }
}

/// A group of these in which two sequences do not have the same rows together, in whatever order, as each has alone.
///
/// # Errors
/// When the model does not run.
pub(super) fn mixed(
    probed: &mut dyn Probed,
    two: &Batch,
    layouts: &[Vec<Layout>],
    groups: &[usize],
) -> Result<Option<usize>, Error> {
    let mut all = two.clone();
    all.keep.fill(true);
    let encoder = all.encoder.as_ref().map_or(0, |tokens| tokens.attended.ncols());
    let both = probed.sums(&all, layouts)?;
    let [one, other] = [0, 1].map(|at| probed.sums(&all.part(&[at], all.dim().1, encoder), layouts));
    let (one, other) = (one?, other?);
    let differs = |group: &usize| {
        let apart: Vec<f64> = one[*group].iter().zip(&other[*group]).map(|(one, other)| one + other).collect();
        let Compared { change, length, .. } = Compared::of(&apart, &both[*group]);
        change > LITTLE * length
    };
    Ok(groups.iter().copied().find(differs))
}

/// As [`unchanged`]; `None` also where the model takes no such batch.
fn compared(probed: &mut dyn Probed, pair: &Pair, layouts: &[Vec<Layout>]) -> Result<Option<Vec<bool>>, Error> {
    match unchanged(probed, pair, layouts) {
        Err(Error::Rows { .. } | Error::Runtime(runtime::Error::Run { .. })) => Ok(None),
        compared => compared,
    }
}

/// Whether the model has nodes that may turn tokens round, or permute them otherwise.
pub(crate) fn may_turn(model: &Model) -> bool {
    let graph = Graph::new(model);
    (0..graph.scopes()).any(|scope| {
        graph.nodes(scope).any(|(id, node)| match node.op() {
            "ReverseSequence" => true,
            "Slice" => node
                .input(4)
                .is_some_and(|_| integers(&graph, id, 4).is_none_or(|steps| steps.iter().any(|step| *step < 0))),
            "Gather" => integers(&graph, id, 1).is_some_and(|indices| !indices.is_sorted()),
            _ => false,
        })
    })
}

/// The integers that a node reads at `index`, if they are constant.
fn integers(graph: &Graph<'_>, id: NodeId, index: usize) -> Option<Vec<i64>> {
    constant::ints(&constant::operand(graph, id, index)?.tensor)
}

/// The groups that read the tokens of a sequence from the last to the first: another last token changes the first row more
/// than the last.
///
/// # Errors
/// When the model does not run.
pub(super) fn turned(probed: &mut dyn Probed, batch: &Batch, layouts: &[Vec<Layout>]) -> Result<Vec<usize>, Error> {
    let Some(Pair { mut one, mut other }) = probe::other_end(batch) else { return Ok(Vec::new()) };
    let last = one.dim().1 - 1;
    let mut change_at = |row: usize| {
        for batch in [&mut one, &mut other] {
            batch.keep.fill(false);
            batch.keep[[0, row]] = true;
        }
        let (sums, others) = (probed.sums(&one, layouts)?, probed.sums(&other, layouts)?);
        let change = |(sum, other): (&Vec<f64>, &Vec<f64>)| Compared::of(sum, other).change;
        Ok::<_, Error>(sums.iter().zip(&others).map(change).collect::<Vec<f64>>())
    };
    let (at_first, at_last) = (change_at(0)?, change_at(last)?);
    Ok((0..layouts.len()).filter(|group| at_first[*group] > at_last[*group]).collect())
}
