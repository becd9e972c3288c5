//! Activations read back and decomposed on the host, as in the paper.

use super::error::Error;
use super::interface::{Capture, Events, Timing};
use super::probe::probe;
use super::rows::{Layout, wrong_rows};
use super::setup::Setup;
use crate::calib::Batch;
use crate::feeds::Feeds;
use crate::onnx::{Builder, Output, Patch};
use crate::pca::{IncrementalSvd, Spectrum, Summary};
use crate::runtime::{Session, Value};
use ndarray::{Array2, ArrayView2, Axis};
use std::collections::BTreeMap;
use std::time::Instant;

/// The model with the layer inputs as its outputs, and an incremental SVD per group.
pub struct Outputs {
    session: Session,
    feeds: Feeds,
    groups: Vec<Analysed>,
    /// By output, where a batch with an encoder makes the layout of its rows ambiguous.
    layouts: BTreeMap<usize, Layout>,
    batches: usize,
    timing: Timing,
}

/// One group.
struct Analysed {
    /// Tensor names and which output of the session holds each.
    tensors: Vec<(String, usize)>,
    routed: bool,
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
                routed: group.routed,
                svd: IncrementalSvd::new(group.features, setup.components),
            });
        }
        let model = setup.model.apply(&exposing(&setup, &tensors))?;
        Ok(Self {
            session: Session::load(setup.runtime, &model, setup.options)?,
            feeds: setup.feeds.clone(),
            groups,
            layouts: BTreeMap::new(),
            batches: 0,
            timing: Timing::default(),
        })
    }

    fn run(&mut self, batch: &Batch) -> Result<Vec<Value>, Error> {
        let feeds = self.feeds.bind(batch)?;
        Ok(self.session.run(feeds.iter().map(|(name, value)| (name.as_str(), value)))?)
    }

    /// Learns the layout of every tensor from a small batch whose sizes differ.
    fn learn_layouts(&mut self, batch: &Batch) -> Result<(), Error> {
        let outputs = self.run(batch)?;
        for group in &self.groups {
            for (_, output) in &group.tensors {
                let rows = outputs[*output].to_f64()?.1.len() / group.svd.mean().len();
                self.layouts.extend(Layout::infer(rows, batch).map(|layout| (*output, layout)));
            }
        }
        Ok(())
    }

    /// The kept rows of one group [n, d].
    fn kept(&self, number: usize, batch: &Batch, outputs: &[Value]) -> Result<Array2<f64>, Error> {
        let group = &self.groups[number];
        let features = group.svd.mean().len();
        let mut kept = Array2::zeros((0, features));
        for (tensor, output) in &group.tensors {
            let (_, data) = outputs[*output].to_f64()?;
            let rows = data.len() / features;
            let layout = match self.layouts.get(output) {
                _ if group.routed => Some(Layout::Routed),
                Some(layout) => Some(*layout).filter(|layout| layout.allows(rows, batch)),
                None => Layout::infer(rows, batch),
            };
            let (Some(layout), Ok(all)) = (layout, ArrayView2::from_shape((rows, features), &data)) else {
                return Err(wrong_rows(tensor, rows, batch));
            };
            let selected = select(all, layout, batch);
            if !selected.iter().all(|v| v.is_finite()) {
                return Err(Error::NotFinite { group: number, tensor: tensor.clone(), batch: self.batches + 1 });
            }
            kept = ndarray::concatenate![Axis(0), kept, selected];
        }
        Ok(kept)
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
    patch
}

fn select(all: ArrayView2<'_, f64>, layout: Layout, batch: &Batch) -> Array2<f64> {
    if layout == Layout::Routed {
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
        if self.batches == 0 && batch.encoder.is_some() {
            self.learn_layouts(&probe(batch))?;
        }
        let started = Instant::now();
        let outputs = self.run(batch)?;
        self.timing.forward += started.elapsed();

        let started = Instant::now();
        for number in 0..self.groups.len() {
            let kept = self.kept(number, batch, &outputs)?;
            if !kept.is_empty() {
                let group = &mut self.groups[number];
                let failed = |source| Error::Decompose { tensor: group.tensors[0].0.clone(), source };
                group.svd.absorb(kept.view()).map_err(failed)?;
            }
        }
        self.timing.decompose += started.elapsed();
        self.batches += 1;
        Ok(())
    }

    fn finish(&mut self) -> Result<Events, Error> {
        Ok(Events::default())
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

    fn timing(&self) -> Timing {
        self.timing
    }
}
