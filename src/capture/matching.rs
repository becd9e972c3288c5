//! Which rows of which tensor belong to which tokens of a batch, found by running the model on batches that differ.
//!
//! The number of rows of a tensor at two sizes of a batch says whether they are tokens or sequences. Their order is
//! found with two batches that have one sequence in common: its rows are the same in both. Whether padding changes the
//! rows of tokens is found with two batches that differ in padding alone. Where rows cannot be matched, or padding
//! changes them, batches are split so that no part has padding; then all rows count, in whatever order they are.

use super::axes;
use super::compare::{Probed, unchanged};
use super::error::Error;
use super::probe::{self, Pair};
use super::rows::{Layout, Order};
use crate::calib::{Batch, FixedDims};
use crate::group::Group;
use crate::runtime;
use ndarray::s;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How the rows of all tensors are matched with tokens.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Matching {
    /// Of every tensor of every group.
    pub(super) layouts: Vec<Vec<Layout>>,
    /// The first tensor of every group.
    tensors: Vec<String>,
    /// The groups whose rows are not matched, but for those that a router chose.
    unmatched: Vec<usize>,
    /// The sizes of the batch that the model fixes.
    fixed: FixedDims,
    /// Whether the model takes the first tokens of sequences alone, so that the batches that are run first are short.
    takes_short: bool,
    /// Whether the rows of several sequences have been told apart.
    knows_order: bool,
    /// Whether it is known what padding does.
    knows_padding: bool,
    demands: Demands,
    /// Whether the axes of a batch of one sequence have been looked at.
    knows_axes: bool,
    /// Whether the model has nodes that may turn tokens round.
    pub(super) may_turn: bool,
    /// Whether rows were counted that no token is known for, and that may be padding or prompts.
    pub(super) counted_others: bool,
}

/// What the rows of some tensors demand of all batches, which also hold for tensors that do not ask for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Demands {
    split: Split,
    /// Whether padding changes the rows of tokens.
    reads_padding: bool,
}

impl Demands {
    /// What is known of groups before anything has run.
    pub(crate) fn of(groups: &[Group]) -> Self {
        let routed = groups.iter().any(|group| group.routed);
        Self { split: if routed { Split::Lengths } else { Split::Whole }, reads_padding: false }
    }

    /// What both demand.
    pub(crate) fn and(self, other: Self) -> Self {
        let reads_padding = self.reads_padding || other.reads_padding;
        Self { split: self.split.max(other.split), reads_padding }
    }

    /// The parts of a batch that are run; none if it is run as it is. `matched` says whether all rows are those of tokens
    /// or sequences.
    pub(crate) fn parts(self, batch: &Batch, fixed: FixedDims, matched: bool) -> Vec<Batch> {
        match self.split {
            Split::Whole => Vec::new(),
            split if !fixed.is_fixed() => parts(batch, split, 0),
            split if self.reads_padding && matched && fixed.length.is_none() => {
                parts(batch, split, fixed.batch.unwrap_or(0))
            }
            _ => Vec::new(),
        }
    }
}

/// How batches are split.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Split {
    #[default]
    Whole,
    /// In parts of sequences of equal lengths.
    Lengths,
    /// In single sequences.
    Sequences,
}

/// What batches may still tell of whose rows are whose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unlearnt {
    fixed: FixedDims,
    takes_short: bool,
    axes: bool,
    turned: bool,
    order: bool,
    padding: bool,
}

impl Unlearnt {
    /// Nothing is left to learn.
    pub(super) const NOTHING: Self = Self {
        fixed: FixedDims { batch: None, length: None },
        takes_short: false,
        axes: false,
        turned: false,
        order: false,
        padding: false,
    };

    /// Whether nothing is left to learn.
    pub(crate) fn is_nothing(self) -> bool {
        !(self.axes || self.turned || self.order || self.padding)
    }

    /// Whether this batch tells something.
    pub(crate) fn is_told_by(self, batch: &Batch) -> bool {
        let turned = self.turned && batch.kept() < batch.attended();
        let order = || self.order && self.order_pair(batch).is_some();
        self.axes || turned || order() || (self.padding && self.padding_pair(batch).is_some())
    }

    /// Two batches that tell the order of rows.
    fn order_pair(self, batch: &Batch) -> Option<Pair> {
        let short = probe::cut(batch).filter(|_| self.takes_short);
        let pair = short.and_then(|short| probe::other_sequences(&short, self.fixed.is_fixed()));
        pair.or_else(|| probe::other_sequences(batch, self.fixed.is_fixed()))
    }

    /// Two batches that tell what padding does.
    fn padding_pair(self, batch: &Batch) -> Option<Pair> {
        let short = probe::cut_with_padding(batch).filter(|_| self.takes_short);
        probe::other_padding(short.as_ref().unwrap_or(batch), self.fixed.is_fixed())
    }
}

impl Matching {
    /// What batches may still tell.
    pub(super) fn unlearnt(&self) -> Unlearnt {
        Unlearnt {
            fixed: self.fixed,
            takes_short: self.takes_short,
            axes: !self.knows_axes,
            turned: self.may_turn,
            order: !self.knows_order,
            padding: self.demands.split == Split::Whole && !self.knows_padding,
        }
    }

    /// Learns what the rows of all tensors are from their numbers in two batches made of `example`.
    ///
    /// # Errors
    /// When the model does not run.
    pub(super) fn learn(
        probed: &mut dyn Probed,
        groups: &[Group],
        example: &Batch,
        fixed: FixedDims,
    ) -> Result<Self, Error> {
        let is_fixed = fixed.is_fixed();
        let whole = probe::few(example, is_fixed);
        let short = probe::cut(&whole).filter(|_| !is_fixed && !example.varied);
        let short = short.and_then(|short| Some((probed.counts(&short).ok()?, short)));
        let takes_short = short.is_some();
        let (counts, few) = match short {
            Some(short) => short,
            None => (probed.counts(&whole)?, whole),
        };
        let shorter = probe::shorter(&few).filter(|_| !is_fixed);
        // Some models take only some lengths, and not every part of a text.
        let fewer = match shorter.map(|batch| Ok((probed.counts(&batch)?, batch))) {
            // The rows have lost the padding that they came with, and may have come with the only lengths that work.
            Some(Err(error)) if example.stripped => return Err(error),
            fewer => fewer.and_then(Result::ok),
        };
        let mut matching = Self { fixed, takes_short, ..Self::default() };
        for (g, group) in groups.iter().enumerate() {
            let infer = |t: usize| {
                let mut counts = vec![(counts[g][t], &few)];
                counts.extend(fewer.as_ref().map(|(fewer, batch)| (fewer[g][t], batch)));
                match Layout::infer(&counts) {
                    Layout::PerSequence(..) if example.varied => Layout::All,
                    _ if example.varied && few.dim().1 == 1 => Layout::All,
                    layout => layout,
                }
            };
            let mut layouts: Vec<Layout> = (0..counts[g].len()).map(infer).collect();
            if group.routed || layouts.contains(&Layout::Unmatched) {
                layouts.fill(Layout::Unmatched);
                matching.demands.split = Split::Lengths;
            }
            if layouts.contains(&Layout::Unmatched) && !group.routed {
                matching.unmatched.push(g);
            }
            matching.tensors.push(group.tensors[0].clone());
            matching.layouts.push(layouts);
        }
        Ok(matching)
    }

    /// Whether it is of the same tensors as another.
    pub(super) fn is_of(&self, other: &Self) -> bool {
        let counts = |matching: &Self| matching.layouts.iter().map(Vec::len).collect::<Vec<_>>();
        let known = self.unmatched.iter().all(|group| *group < self.layouts.len());
        known && counts(self) == counts(other) && self.tensors == other.tensors && self.fixed == other.fixed
    }

    /// Learns in which order the rows of several sequences are, if the sequences of the batch differ.
    ///
    /// # Errors
    /// When the model does not run.
    pub(super) fn learn_order(&mut self, probed: &mut dyn Probed, batch: &Batch) -> Result<(), Error> {
        self.learn_axes(probed, batch)?;
        if self.knows_order {
            return Ok(());
        }
        let Some(pair) = self.unlearnt().order_pair(batch) else { return Ok(()) };
        let is_matched = |g: &usize| !self.layouts[*g].iter().any(|layout| layout.is_open());
        let mut open: Vec<usize> = (0..self.layouts.len()).filter(is_matched).collect();
        for order in [Order::Sequences, Order::Positions] {
            if open.is_empty() {
                break;
            }
            let ordered = |layouts: &Vec<Layout>| layouts.iter().map(|layout| layout.in_order(order)).collect();
            let layouts: Vec<Vec<Layout>> = self.layouts.iter().map(ordered).collect();
            let Some(same) = unchanged(probed, &pair, &layouts)? else { return Ok(()) };
            open.retain(|g| {
                if same[*g] {
                    self.layouts[*g].clone_from(&layouts[*g]);
                }
                !same[*g]
            });
        }
        self.knows_order = true;
        if !open.is_empty() {
            self.check_independent(probed, &pair.one, &open)?;
            self.demands.split = Split::Sequences;
            self.unmatched.extend(open);
        }
        Ok(())
    }

    /// Checks, on the first batch, what batches of one sequence do not tell, and which layers read tokens turned round if
    /// some tokens should not count.
    fn learn_axes(&mut self, probed: &mut dyn Probed, batch: &Batch) -> Result<(), Error> {
        if !self.knows_axes && batch.dim().0 == 1 && !self.fixed.is_fixed() {
            self.check_axes(probed, batch)?;
        }
        self.knows_axes = true;
        if self.may_turn && batch.kept() < batch.attended() {
            self.may_turn = false;
            let turned = match self.fixed.is_fixed() {
                true => (0..self.layouts.len()).collect(),
                false => axes::turned(probed, batch, &self.layouts)?,
            };
            self.unmatched.extend(turned);
        }
        Ok(())
    }

    /// Checks that the model does not take a sequence for as many sequences of one token.
    fn check_axes(&self, probed: &mut dyn Probed, batch: &Batch) -> Result<(), Error> {
        match axes::swapped(probed, batch, &self.layouts)? {
            Some(group) => Err(Error::Mixed { tensor: self.tensors[group].clone() }),
            None => Ok(()),
        }
    }

    /// Checks that two sequences have the same rows together, in whatever order, as each has alone.
    fn check_independent(&self, probed: &mut dyn Probed, two: &Batch, groups: &[usize]) -> Result<(), Error> {
        if self.fixed.is_fixed() {
            return Ok(());
        }
        match axes::mixed(probed, two, &self.layouts, groups)? {
            Some(group) => Err(Error::Mixed { tensor: self.tensors[group].clone() }),
            None => Ok(()),
        }
    }

    /// Splits batches in single sequences from here on, as the order of the rows of several cannot be followed.
    pub(super) fn split_sequences(&mut self) {
        self.demands.split = Split::Sequences;
    }

    /// What the rows demand of all batches, as far as that is known.
    pub(super) fn demands(&self) -> Demands {
        self.demands
    }

    /// Splits batches as other tensors demand too.
    pub(super) fn obey(&mut self, demands: Demands) {
        self.demands = self.demands.and(demands);
    }

    /// Learns whether padding changes the rows of tokens, if the batch has any.
    ///
    /// # Errors
    /// When the model does not run.
    pub(super) fn learn_padding(&mut self, probed: &mut dyn Probed, batch: &Batch) -> Result<(), Error> {
        if self.demands.split != Split::Whole || self.knows_padding {
            return Ok(());
        }
        let Some(pair) = self.unlearnt().padding_pair(batch) else { return Ok(()) };
        let harmless = match unchanged(probed, &pair, &self.layouts) {
            Ok(None) => return Ok(()),
            Ok(Some(same)) => same.into_iter().all(|same| same),
            // There are rows for attended tokens only.
            Err(Error::Rows { .. } | Error::Runtime(runtime::Error::Run { .. })) => false,
            Err(error) => return Err(error),
        };
        self.knows_padding = true;
        if !harmless {
            self.demands = Demands { split: Split::Lengths, reads_padding: true };
        }
        Ok(())
    }

    /// The parts of a batch in which the rows that count are known; none if it is run as it is.
    ///
    /// # Errors
    /// [`Error::Unmatched`] if a part has padding or tokens that are not kept, and rows that may be theirs;
    /// [`Error::ReadsPadding`] if padding changes the rows of a part.
    pub(super) fn parts(&mut self, batch: &Batch) -> Result<Vec<Batch>, Error> {
        let matched = !self.layouts.iter().flatten().any(|layout| *layout == Layout::Unmatched);
        let parts = self.demands.parts(batch, self.fixed, matched);
        let all = if parts.is_empty() { std::slice::from_ref(batch) } else { &parts };
        if all.iter().any(|part| probe::is_padded(part) || part.kept() < part.keep.len()) {
            if let Some(group) = self.unmatched.first() {
                return Err(Error::Unmatched { tensor: self.tensors[*group].clone() });
            }
            self.counted_others |= !matched;
        }
        if let Some(padded) = all.iter().find(|part| self.demands.reads_padding && probe::is_padded(part)) {
            return Err(Error::ReadsPadding { length: padded.dim().1 });
        }
        Ok(parts)
    }
}

/// The sequences of a batch by their lengths, each part without the padding at its end, and with at least `least`
/// sequences: the first one again and again, which does not count.
fn parts(batch: &Batch, split: Split, least: usize) -> Vec<Batch> {
    let mut lengths: BTreeMap<(usize, usize, usize), Vec<usize>> = BTreeMap::new();
    for sequence in batch.sequences() {
        let at = sequence as usize;
        let encoder = batch.encoder.as_ref().map_or(0, |tokens| tokens.used(at));
        let alone = if split == Split::Sequences { at } else { 0 };
        lengths.entry((batch.tokens.used(at), encoder, alone)).or_default().push(at);
    }
    let part = |((length, encoder, _), mut sequences): ((usize, usize, usize), Vec<usize>)| {
        let count = sequences.len();
        sequences.resize(count.max(least), sequences[0]);
        let mut part = batch.part(&sequences, length, encoder);
        part.keep.slice_mut(s![count.., ..]).fill(false);
        part
    };
    lengths.into_iter().map(part).collect()
}
