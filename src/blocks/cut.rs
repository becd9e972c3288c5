//! Where a model is cut into blocks that run one after the other.
//!
//! A place between two stages is a cut. What is handed on there are the results of stages before that stages after it read:
//! at a residual point one tensor, or two in files whose sums and normalisations are fused. Blocks are as large as a budget
//! of weights allows, and end where the least is handed on.

use super::flow::Flow;
use super::sizes::Sizes;
use crate::group::Group;
use crate::linear::Linear;
use crate::onnx::{Graph, Model, Origin};
use std::collections::{BTreeSet, HashMap, HashSet};

/// The input of a layer is not a tensor of the main graph.
pub(super) struct Inside(pub(super) String);

/// How large blocks are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Budget {
    /// As many blocks as this, or fewer.
    Count(usize),
    /// Bytes of weights a block.
    Bytes(u64),
    /// As many parts as this, fewer only where there are no more places to cut.
    Exactly(usize),
}

/// A part of a model that runs before the next one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Indices of its nodes in the main graph, ascending; those that cost little are in several blocks.
    pub nodes: Vec<usize>,
    /// The inputs of the model that it reads.
    pub inputs: Vec<String>,
    /// The stored tensors that it reads.
    pub tensors: Vec<String>,
    /// What it reads of blocks before.
    pub reads: Vec<Carried>,
    /// What blocks after it read of it.
    pub returns: Vec<Carried>,
    /// The groups whose rows are complete in it, by their numbers.
    pub groups: Vec<usize>,
    /// Bytes of its weights.
    pub weights: u64,
}

/// A tensor that is handed from block to block.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Carried {
    /// Its name.
    pub tensor: String,
    /// Bytes for each token, 0 for a shape; `None` where the graph does not tell.
    pub bytes_per_token: Option<u64>,
}

/// Most bytes for each token that are kept at one time for blocks that run one after the other: what they have returned and
/// what this one returns. `None` where the graph does not tell.
pub(crate) fn handed_on(blocks: &[Block]) -> Option<u64> {
    let kept = |at: usize| -> Option<u64> {
        let read = |name: &str| blocks[at..].iter().any(|block| block.reads.iter().any(|read| read.tensor == name));
        let before = blocks[..at].iter().flat_map(|block| &block.returns).filter(|carried| read(&carried.tensor));
        before.chain(&blocks[at].returns).map(|carried| carried.bytes_per_token).sum()
    };
    (0..blocks.len()).map(kept).try_fold(0, |most, bytes| Some(bytes?.max(most)))
}

/// The blocks of a model for the inputs of `groups`, in the order in which they run; none if nothing has to run.
///
/// # Errors
/// [`Inside`].
pub(super) fn cut(model: &Model, linears: &[Linear], groups: &[Group], budget: Budget) -> Result<Vec<Block>, Inside> {
    let graph = Graph::new(model);
    let wanted = wanted(&graph, groups)?;
    let flow = Flow::new(&graph, &wanted);
    let sizes = Sizes::new(&flow, linears);
    let lives = Lives::new(&flow, &sizes, groups);
    let starts = match budget {
        Budget::Bytes(bytes) => lives.starts(bytes),
        Budget::Count(count) => lives.at_most(count),
        Budget::Exactly(count) => lives.exactly(count),
    };
    let ends = starts.iter().skip(1).copied().chain([flow.stages.len()]);
    Ok(starts.iter().zip(ends).map(|(start, end)| lives.block(*start, end)).collect())
}

/// Bytes of all weights that run for the inputs of `groups`.
///
/// # Errors
/// As [`cut`].
pub(super) fn weights(model: &Model, groups: &[Group]) -> Result<u64, Inside> {
    let graph = Graph::new(model);
    let wanted = wanted(&graph, groups)?;
    Ok(Flow::new(&graph, &wanted).weights.total)
}

/// The inputs of groups, which must be tensors of the main graph.
fn wanted<'g>(graph: &Graph<'_>, groups: &'g [Group]) -> Result<Vec<&'g str>, Inside> {
    let tensors = groups.iter().flat_map(|group| &group.tensors).map(String::as_str);
    let found = |name: &'g str| graph.home(0, name).map(|_| name).ok_or_else(|| Inside(name.to_owned()));
    tensors.map(found).collect()
}

/// From where to where the results of stages are needed.
struct Lives<'m> {
    flow: &'m Flow<'m>,
    sizes: &'m Sizes<'m>,
    groups: &'m [Group],
    /// The last stage that needs each tensor.
    last: HashMap<&'m str, usize>,
    /// The stage at which the rows of each group are complete.
    complete: Vec<usize>,
    /// What a cut before each stage hands on, in bytes for each token.
    costs: Vec<u64>,
    names: Vec<Vec<&'m str>>,
}

impl<'m> Lives<'m> {
    fn new(flow: &'m Flow<'m>, sizes: &'m Sizes<'m>, groups: &'m [Group]) -> Self {
        let mut last: HashMap<&'m str, usize> = HashMap::new();
        let mut use_at = |name: &'m str, place: usize| {
            let last = last.entry(name).or_insert(place);
            *last = (*last).max(place);
        };
        for (place, &stage) in flow.stages.iter().enumerate() {
            flow.needs(stage).into_iter().for_each(|name| use_at(name, place));
        }
        let names: Vec<Vec<&str>> = groups
            .iter()
            .map(|group| group.tensors.iter().flat_map(|tensor| flow.stages_of(tensor)).collect())
            .collect();
        let complete: Vec<usize> =
            names.iter().map(|names| names.iter().filter_map(|name| flow.place(name)).max().unwrap_or(0)).collect();
        names.iter().zip(&complete).for_each(|(names, at)| names.iter().for_each(|name| use_at(name, *at)));
        let mut steps = vec![0i128; flow.stages.len() + 2];
        for (name, last) in &last {
            if let Some(place) = flow.place(name) {
                steps[place + 1] += i128::from(sizes.cost(name));
                steps[last + 1] -= i128::from(sizes.cost(name));
            }
        }
        let mut live = 0;
        let costs = steps.iter().map(|step| {
            live += step;
            u64::try_from(live).unwrap_or(u64::MAX)
        });
        let costs = costs.collect();
        Self { flow, sizes, groups, last, complete, costs, names }
    }

    /// The first stages of blocks of at most so many bytes, as far as that is possible.
    fn starts(&self, budget: u64) -> Vec<usize> {
        let weights = &self.flow.weights;
        let mut starts = if self.flow.stages.is_empty() { Vec::new() } else { vec![0] };
        while let Some(&start) = starts.last() {
            // Bytes of the block if it ends before each stage.
            let (mut held, mut seen, mut total, mut end) = (vec![0], HashSet::new(), 0, None);
            for (place, &stage) in self.flow.stages.iter().enumerate().skip(start) {
                let new = weights.numbers(stage).iter().filter(|number| seen.insert(**number));
                let new: u64 = new.map(|number| weights.bytes(*number)).sum();
                if total > 0 && new > 0 && total + new > budget {
                    end = Some(place);
                    break;
                }
                total += new;
                held.push(total);
            }
            let Some(end) = end else { break };
            let least = if total >= budget / 2 { (budget / 2).max(1) } else { 1 };
            let first = (start + 1..=end).find(|place| held[place - start] >= least).unwrap_or(end);
            let best = (first..=end).min_by_key(|place| (self.costs[*place], end - place)).unwrap_or(end);
            starts.push(best);
        }
        starts
    }

    /// The first stages of at most so many blocks, of weights as equal as possible.
    fn at_most(&self, count: usize) -> Vec<usize> {
        let (mut too_small, mut enough) = (0, self.flow.weights.total.max(1));
        while enough - too_small > 1 + enough / 1000 {
            let middle = too_small + (enough - too_small) / 2;
            if self.starts(middle).len() <= count.max(1) {
                enough = middle;
            } else {
                too_small = middle;
            }
        }
        self.starts(enough)
    }

    /// The first stages of so many blocks, of weights as equal as possible: those of at most so many, where that are as many,
    /// or smaller ones of which neighbours are joined.
    fn exactly(&self, count: usize) -> Vec<usize> {
        let mut starts = self.at_most(count);
        let mut budget = self.flow.weights.total;
        while starts.len() < count && budget > 1 {
            budget -= budget.div_ceil(16);
            starts = self.starts(budget);
        }
        while starts.len() > count.max(1) {
            let ends = || starts.iter().skip(2).copied().chain([self.flow.stages.len()]);
            let joined = starts.iter().zip(ends()).map(|(start, end)| self.bytes(*start, end));
            let least = joined.enumerate().min_by_key(|(_, bytes)| *bytes).map_or(0, |(at, _)| at);
            starts.remove(least + 1);
        }
        starts
    }

    /// Bytes of the weights that the stages from `start` to `end` read.
    fn bytes(&self, start: usize, end: usize) -> u64 {
        let weights = &self.flow.weights;
        let stages = &self.flow.stages[start..end];
        let numbers: BTreeSet<usize> = stages.iter().flat_map(|stage| weights.numbers(*stage)).copied().collect();
        numbers.into_iter().map(|number| weights.bytes(number)).sum()
    }

    /// The stages from `start` to `end` as a block.
    fn block(&self, start: usize, end: usize) -> Block {
        let flow = self.flow;
        let own = start..end;
        let groups: Vec<usize> = (0..self.groups.len()).filter(|group| own.contains(&self.complete[*group])).collect();
        let stages = &flow.stages[own.clone()];
        let tensors = groups.iter().flat_map(|group| &self.groups[*group].tensors).map(String::as_str);
        let read = stages.iter().flat_map(|stage| flow.reads(*stage).iter().copied());
        let others = flow.others_for(read.chain(tensors.clone()));
        let of_groups = groups.iter().flat_map(|group| &self.names[*group]).copied();
        let needs = stages.iter().flat_map(|stage| flow.needs(*stage)).chain(of_groups);
        let before: BTreeSet<(usize, &str)> =
            needs.filter_map(|name| Some((flow.place(name)?, name))).filter(|(place, _)| *place < start).collect();
        let mut returns = Vec::new();
        for place in own {
            let outputs = flow.node(place).outputs().iter();
            returns.extend(outputs.filter(|name| self.last.get(name.as_str()).is_some_and(|last| *last >= end)));
        }
        let all = || stages.iter().chain(&others).copied();
        let numbers: BTreeSet<usize> = all().flat_map(|node| flow.weights.numbers(node)).copied().collect();
        let names: BTreeSet<&str> = all().flat_map(|node| flow.reads(node).iter().copied()).chain(tensors).collect();
        let of_model = |name: &&str| matches!(flow.graph.origin(0, name), Some(Origin::Input));
        let carried = |tensor: &str| Carried { tensor: tensor.to_owned(), bytes_per_token: self.sizes.bytes(tensor) };
        Block {
            inputs: names.into_iter().filter(of_model).map(str::to_owned).collect(),
            tensors: numbers.iter().map(|number| flow.weights.name(*number).to_owned()).collect(),
            nodes: stages.iter().copied().chain(others).collect::<BTreeSet<_>>().into_iter().collect(),
            reads: before.into_iter().map(|(_, name)| carried(name)).collect(),
            returns: returns.into_iter().map(|name| carried(name)).collect(),
            groups,
            weights: numbers.into_iter().map(|number| flow.weights.bytes(number)).sum(),
        }
    }
}
