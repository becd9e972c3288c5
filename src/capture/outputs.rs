//! Activations read back and decomposed on the host, as in the paper.

use super::probe::probe;
use super::rows::Layout;
use super::{Capture, Error, Events, Setup, Timing};
use crate::calib::Batch;
use crate::feeds::Feeds;
use crate::onnx::{Node, Output, Patch};
use crate::pca::{IncrementalSvd, Spectrum, Summary};
use crate::runtime::Session;
use ndarray::{Array2, ArrayView2, Axis};
use std::collections::BTreeMap;
use std::time::Instant;

/// The model with the layer inputs as its outputs, and an incremental SVD per group.
pub struct Outputs {
    session: Session,
    feeds: Feeds,
    groups: Vec<State>,
    /// By output, where a batch with an encoder makes the layout of its rows ambiguous.
    layouts: BTreeMap<usize, Layout>,
    batches: usize,
    timing: Timing,
}

struct State {
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
        let mut patch = Patch { drop_outputs: true, ..Patch::default() };
        let fed: Vec<String> = setup.model.inputs().into_iter().map(|input| input.name).collect();
        let mut place: BTreeMap<String, usize> = BTreeMap::new();
        let mut groups = Vec::with_capacity(setup.groups.len());
        for group in setup.groups {
            let tensors = group.tensors.iter().map(|tensor| {
                let next = place.len();
                let at = *place.entry(tensor.clone()).or_insert_with(|| {
                    expose(&mut patch, tensor, fed.contains(tensor));
                    next
                });
                (tensor.clone(), at)
            });
            let tensors = tensors.collect();
            groups.push(State {
                tensors,
                routed: group.routed,
                svd: IncrementalSvd::new(group.features, setup.components),
            });
        }
        let session = Session::load(setup.runtime, &setup.model.apply(&patch)?, setup.options)?;
        Ok(Self {
            session,
            feeds: setup.feeds.clone(),
            groups,
            layouts: BTreeMap::new(),
            batches: 0,
            timing: Timing::default(),
        })
    }
}

impl Outputs {
    /// Learns the layout of every tensor from a small batch whose sizes differ.
    fn learn_layouts(&mut self, batch: &Batch) -> Result<(), Error> {
        let feeds = self.feeds.bind(batch)?;
        let outputs = self.session.run(feeds.iter().map(|(name, value)| (name.as_str(), value)))?;
        for state in &self.groups {
            for (_, at) in &state.tensors {
                let rows = outputs[*at].to_f64()?.1.len() / state.svd.mean().len();
                self.layouts.extend(Layout::infer(rows, batch).map(|layout| (*at, layout)));
            }
        }
        Ok(())
    }
}

/// A graph input cannot be a graph output, so it is passed through an Identity.
fn expose(patch: &mut Patch, tensor: &str, is_input: bool) {
    let mut name = tensor.to_owned();
    if is_input {
        name = format!("eva/outputs/{tensor}");
        patch.nodes.push(Node {
            name: format!("{name}/Identity"),
            op: "Identity",
            inputs: vec![tensor.to_owned()],
            outputs: vec![name.clone()],
            attributes: vec![],
        });
    }
    patch.outputs.push(Output { name, dtype: None });
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
        let feeds = self.feeds.bind(batch)?;
        let outputs = self.session.run(feeds.iter().map(|(name, value)| (name.as_str(), value)))?;
        self.timing.forward += started.elapsed();

        let started = Instant::now();
        let (b, s) = batch.dim();
        for (group, state) in self.groups.iter_mut().enumerate() {
            let mut kept = Array2::zeros((0, state.svd.mean().len()));
            for (tensor, at) in &state.tensors {
                let (_, data) = outputs[*at].to_f64()?;
                let rows = data.len() / kept.ncols();
                let view = ArrayView2::from_shape((rows, kept.ncols()), &data);
                let layout = match self.layouts.get(at) {
                    _ if state.routed => Some(Layout::Routed),
                    Some(layout) => Some(*layout).filter(|layout| layout.allows(rows, batch)),
                    None => Layout::infer(rows, batch),
                };
                let (Some(layout), Ok(view)) = (layout, view) else {
                    return Err(Error::Rows { tensor: tensor.clone(), rows, batch: b, length: s });
                };
                let selected = if layout == Layout::Routed {
                    view.to_owned()
                } else {
                    let indices: Vec<usize> = layout.rows(batch).into_iter().map(|i| i as usize).collect();
                    view.select(Axis(0), &indices)
                };
                if !selected.iter().all(|v| v.is_finite()) {
                    return Err(Error::NotFinite { group, tensor: tensor.clone(), batch: self.batches + 1 });
                }
                kept = ndarray::concatenate![Axis(0), kept, selected];
            }
            if kept.is_empty() {
                continue;
            }
            let failed = |source| Error::Decompose { tensor: state.tensors[0].0.clone(), source };
            state.svd.absorb(kept.view()).map_err(failed)?;
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
        Ok(self.groups.iter().map(|state| state.svd.components().clone()).collect())
    }

    fn summaries(&self) -> Result<Vec<Summary>, Error> {
        Ok(self.groups.iter().map(|state| state.svd.summary()).collect())
    }

    fn timing(&self) -> Timing {
        self.timing
    }
}
