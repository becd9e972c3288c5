//! Activations read back and decomposed on the host, as in the paper.

use super::compare::Probed;
use super::error::Error;
use super::interface::{Capture, Events, PartCapture, Timing};
use super::matching::{Demands, Matching, Unlearnt};
use super::rows::{Layout, wrong_rows};
use super::saved::{decode, encode, ensure};
use super::setup::Setup;
use crate::calib::Batch;
use crate::feeds::Feeds;
use crate::group::Group;
use crate::onnx::{Builder, Output, Patch};
use crate::pca::{IncrementalSvd, Spectrum, Summary};
use crate::runtime::{Session, Value};
use ndarray::{Array2, ArrayView2, Axis};
use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

/// The model with the layer inputs as its outputs, and an incremental SVD per group.
pub struct Outputs {
    session: Session,
    feeds: Feeds,
    /// Which outputs of the session other parts of the model read.
    returned: Vec<usize>,
    demands: Demands,
    wanted: Vec<Group>,
    groups: Vec<Analysed>,
    /// Whose rows are those of the tensors of every group; unknown before the first batch.
    matching: Option<Matching>,
    /// Whether the model has nodes that may turn tokens round.
    may_turn: bool,
    batches: usize,
    timing: Timing,
    /// States to go back to, the last one last.
    marks: VecDeque<Mark>,
}

/// The state after a batch.
struct Mark {
    number: usize,
    batches: usize,
    matching: Option<Matching>,
    analyses: Vec<IncrementalSvd>,
}

/// One group.
struct Analysed {
    /// Tensor names and which output of the session holds each.
    tensors: Vec<(String, usize)>,
    svd: IncrementalSvd,
}

impl Outputs {
    /// Makes the inputs of the layers outputs of the model and loads it.
    ///
    /// # Errors
    /// [`Error::Model`] or [`Error::Runtime`].
    pub fn new(setup: Setup<'_>) -> Result<Self, Error> {
        let mut indices: BTreeMap<&str, usize> = BTreeMap::new();
        let mut tensors: Vec<&str> = Vec::new();
        let mut groups = Vec::with_capacity(setup.groups.len());
        for group in setup.groups {
            for tensor in &group.tensors {
                indices.entry(tensor).or_insert_with(|| {
                    tensors.push(tensor);
                    tensors.len() - 1
                });
            }
            groups.push(Analysed {
                tensors: group.tensors.iter().map(|tensor| (tensor.clone(), indices[tensor.as_str()])).collect(),
                svd: IncrementalSvd::new(group.features, setup.components),
            });
        }
        let patch = exposing(&setup, &tensors);
        let place = |name: &String| patch.outputs.iter().position(|output| output.name == *name);
        let returned = setup.feeds.returned().iter().filter_map(place).collect();
        let model = setup.model.apply(&patch)?;
        let session = Session::load(setup.runtime, &model, setup.options)?;
        setup.feeds.loaded(&session.outputs());
        Ok(Self {
            session,
            feeds: setup.feeds.clone(),
            returned,
            demands: setup.demands,
            wanted: setup.groups.to_vec(),
            groups,
            matching: None,
            may_turn: setup.may_turn,
            batches: 0,
            timing: Timing::default(),
            marks: VecDeque::new(),
        })
    }

    /// Learns from sequences of `example` how the rows of every tensor are laid out. Otherwise the first batch tells.
    ///
    /// # Errors
    /// [`Error::Runtime`].
    pub fn try_out(&mut self, example: &Batch) -> Result<(), Error> {
        self.learn_order(example)?;
        self.learn_padding(example)?;
        self.parts(example).map(drop)
    }

    fn run(&mut self, batch: &Batch) -> Result<Vec<Value>, Error> {
        let feeds = self.feeds.bind(batch)?;
        let outputs = self.session.run(feeds.iter().map(|(name, value)| (name.as_str(), value)))?;
        self.feeds.keep(batch, &self.returned.iter().map(|output| &outputs[*output]).collect::<Vec<_>>())?;
        Ok(outputs)
    }

    /// Whose rows are whose, as far as that is known; the first batch tells.
    fn take_matching(&mut self, batch: &Batch) -> Result<Matching, Error> {
        if let Some(matching) = self.matching.take() {
            return Ok(matching);
        }
        let (groups, fixed) = (self.wanted.clone(), self.feeds.shape());
        let mut learned = Matching::learn(self, &groups, batch, fixed)?;
        learned.obey(self.demands);
        learned.may_turn = self.may_turn;
        Ok(learned)
    }

    /// The parts that a batch is run in, none for the whole batch.
    fn parts(&mut self, batch: &Batch) -> Result<Vec<Batch>, Error> {
        self.matching.as_mut().map_or_else(|| Ok(Vec::new()), |matching| matching.parts(batch))
    }

    /// The kept rows of one group [n, d].
    fn kept(&self, number: usize, layouts: &[Layout], batch: &Batch, outputs: &[Value]) -> Result<Array2<f64>, Error> {
        let group = &self.groups[number];
        let features = group.svd.mean().len();
        let mut kept = Array2::zeros((0, features));
        for ((tensor, output), layout) in group.tensors.iter().zip(layouts) {
            let (_, data) = outputs[*output].to_f64()?;
            let rows = data.len() / features;
            let all = ArrayView2::from_shape((rows, features), &data).ok().filter(|_| layout.allows(rows, batch));
            let selected = select(all.ok_or_else(|| wrong_rows(tensor, rows, batch))?, *layout, batch);
            kept = ndarray::concatenate![Axis(0), kept, selected];
        }
        Ok(kept)
    }

    /// Runs a batch, or a part of one, and counts its rows.
    fn count(&mut self, batch: &Batch) -> Result<(), Error> {
        let started = Instant::now();
        let outputs = self.run(batch)?;
        self.timing.forward += started.elapsed();

        let started = Instant::now();
        let layouts = self.matching.as_ref().map(|matching| matching.layouts.clone()).unwrap_or_default();
        let mut broken = Vec::new();
        for (number, layouts) in layouts.iter().enumerate() {
            let kept = self.kept(number, layouts, batch, &outputs)?;
            let group = &mut self.groups[number];
            if !kept.iter().all(|value| value.is_finite()) {
                broken.push(number);
            } else if !kept.is_empty() {
                let absorbed = group.svd.absorb(kept.view());
                absorbed.map_err(|source| Error::Decompose { tensor: group.tensors[0].0.clone(), source })?;
            }
        }
        self.timing.decompose += started.elapsed();
        let Some(&group) = broken.first() else { return Ok(()) };
        let tensor = self.groups[group].tensors[0].0.clone();
        Err(Error::NotFinite { group, tensor, batch: self.batches + 1, others: broken.len() - 1 })
    }
}

impl Probed for Outputs {
    fn counts(&mut self, batch: &Batch) -> Result<Vec<Vec<usize>>, Error> {
        let outputs = self.run(batch)?;
        let rows = |group: &Analysed, output: usize| Ok(outputs[output].to_f64()?.1.len() / group.svd.mean().len());
        let counts = |group: &Analysed| group.tensors.iter().map(|(_, output)| rows(group, *output)).collect();
        self.groups.iter().map(counts).collect()
    }

    fn sums(&mut self, batch: &Batch, layouts: &[Vec<Layout>]) -> Result<Vec<Vec<f64>>, Error> {
        let outputs = self.run(batch)?;
        let groups = layouts.iter().enumerate();
        groups.map(|(g, layouts)| Ok(self.kept(g, layouts, batch, &outputs)?.sum_axis(Axis(0)).to_vec())).collect()
    }
}

/// The edit that makes tensors the only outputs. A graph input cannot be one, so it is passed through an `Identity`.
fn exposing(setup: &Setup<'_>, tensors: &[&str]) -> Patch {
    let inputs = setup.model.inputs();
    let mut patch = Patch { drop_outputs: true, ..Patch::default() };
    let mut graph = Builder::new("eva/outputs", setup.model.opset());
    for &tensor in tensors {
        let is_input = inputs.iter().any(|input| input.name == tensor);
        let name = if is_input { graph.op("Identity", &[tensor]).output(tensor) } else { tensor.to_owned() };
        patch.outputs.push(Output { name, dtype: None });
    }
    graph.add_to(&mut patch);
    setup.return_carried(&mut patch);
    patch
}

impl PartCapture for Outputs {
    fn demands(&self) -> Demands {
        self.matching.as_ref().map_or(self.demands, Matching::demands)
    }

    fn obey(&mut self, demands: Demands) {
        self.demands = self.demands.and(demands);
        self.matching.iter_mut().for_each(|matching| matching.obey(demands));
    }

    fn unlearnt(&self) -> Unlearnt {
        self.matching.as_ref().map_or_else(|| Matching::default().unlearnt(), Matching::unlearnt)
    }

    fn learn_order(&mut self, batch: &Batch) -> Result<(), Error> {
        let mut matching = self.take_matching(batch)?;
        matching.learn_order(self, batch)?;
        self.matching = Some(matching);
        Ok(())
    }

    fn learn_padding(&mut self, batch: &Batch) -> Result<(), Error> {
        let mut matching = self.take_matching(batch)?;
        matching.learn_padding(self, batch)?;
        self.matching = Some(matching);
        Ok(())
    }

    fn mark(&mut self, number: usize, most: usize) -> Result<(), Error> {
        let analyses = self.groups.iter().map(|group| group.svd.clone()).collect();
        self.marks.push_back(Mark { number, batches: self.batches, matching: self.matching.clone(), analyses });
        while self.marks.len() > most {
            self.marks.pop_front();
        }
        Ok(())
    }

    fn return_to(&mut self, number: usize) -> Result<(), Error> {
        let found = self.marks.drain(..).find(|mark| mark.number == number);
        let Mark { batches, matching, analyses, .. } = found.ok_or(Error::State { what: "it is forgotten" })?;
        self.groups.iter_mut().zip(analyses).for_each(|(group, svd)| group.svd = svd);
        (self.batches, self.matching) = (batches, matching);
        Ok(())
    }

    fn forward(&mut self, batch: &Batch) -> Result<(), Error> {
        self.run(batch).map(drop)
    }
}

/// What a state holds.
type Saved = (usize, Option<Matching>, Vec<IncrementalSvd>);

/// Whether bytes are the state of a capture of outputs.
pub(super) fn is_state(bytes: &[u8]) -> bool {
    decode::<Saved>(bytes).is_ok()
}

fn select(all: ArrayView2<'_, f64>, layout: Layout, batch: &Batch) -> Array2<f64> {
    if layout.is_open() {
        return all.to_owned();
    }
    let indices: Vec<usize> = layout.rows(batch).into_iter().map(|i| i as usize).collect();
    all.select(Axis(0), &indices)
}

impl Capture for Outputs {
    fn absorb(&mut self, batch: &Batch) -> Result<(), Error> {
        if batch.kept() == 0 {
            return Ok(());
        }
        self.learn_order(batch)?;
        self.learn_padding(batch)?;
        let parts = self.parts(batch)?;
        if parts.is_empty() {
            self.count(batch)?;
        }
        parts.iter().filter(|part| part.kept() > 0).try_for_each(|part| self.count(part))?;
        self.batches += 1;
        Ok(())
    }

    fn finish(&mut self) -> Result<Events, Error> {
        let Some(Matching { counted_others, .. }) = self.matching else { return Ok(Events::default()) };
        Ok(Events { counted_others, ..Events::default() })
    }

    fn spectrum(&self, group: usize) -> &Spectrum {
        self.groups[group].svd.spectrum()
    }

    fn components(&self) -> Result<Vec<Array2<f64>>, Error> {
        Ok(self.groups.iter().map(|group| group.svd.components().clone()).collect())
    }

    fn summaries(&self) -> Result<Vec<Summary>, Error> {
        Ok(self.groups.iter().map(|group| group.svd.summary()).collect())
    }

    fn save(&mut self) -> Result<Vec<u8>, Error> {
        let analyses: Vec<&IncrementalSvd> = self.groups.iter().map(|group| &group.svd).collect();
        encode(&(self.batches, &self.matching, analyses))
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), Error> {
        let (batches, matching, analyses): Saved = decode(state)?;
        ensure(analyses.len() == self.groups.len(), "it has other groups")?;
        let known = matching.as_ref().zip(self.matching.as_ref());
        ensure(known.is_none_or(|(saved, own)| saved.is_of(own)), "it has other tensors")?;
        for (group, svd) in self.groups.iter_mut().zip(analyses) {
            ensure(svd.is_sound_for(&group.svd), "a group has other sizes")?;
            group.svd = svd;
        }
        (self.batches, self.matching) = (batches, matching);
        Ok(())
    }

    fn timing(&self) -> Timing {
        self.timing
    }
}
