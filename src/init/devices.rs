//! The devices that run the model, and the statistics gathered on them.

use super::prepared::Prepared;
use crate::blocks::{Block, Pipeline};
use crate::calib::Calibration;
use crate::capture::{
    self, Capture, CaptureMethod, Demands, Outputs, PartCapture, Passing, Setup, Sharded, Sketch, Strategy,
};
use crate::error::Error;
use crate::feeds::Feeds;
use crate::group::Group;
use crate::linear;
use crate::onnx::Model;
use crate::runtime::{self, Device, Runtime, SessionOptions};
use std::thread;

/// The devices of `auto`, which is the first GPU when the library has a CUDA provider that starts, or of a list.
pub(crate) fn devices(named: &str, runtime: &Runtime) -> Result<Vec<Device>, Error> {
    match named {
        "auto" if runtime::cuda_works(runtime) => Ok(vec![Device::Cuda(0)]),
        "auto" => Ok(vec![Device::Cpu]),
        named => Ok(Device::list(named)?),
    }
}

/// What a capture on a device is loaded with.
#[derive(Clone, Copy)]
pub struct Load<'a> {
    /// The model.
    pub prepared: &'a Prepared,
    /// ONNX Runtime.
    pub runtime: &'a Runtime,
    /// How statistics are gathered.
    pub method: CaptureMethod,
    /// Threads; 0 for as many as cores.
    pub threads: usize,
    /// Components wanted of each group.
    pub components: usize,
    /// Seed of the first basis.
    pub seed: u64,
    /// Whether the run ends when components have converged.
    pub may_end: bool,
}

impl Load<'_> {
    /// Loads the model on every device, for batches such as the first ones; several share the threads and the batches.
    ///
    /// # Errors
    /// When ONNX Runtime refuses the model or a device.
    pub fn on(self, devices: &[Device], first: &Calibration) -> Result<Box<dyn Capture>, Error> {
        if let [device] = *devices {
            return Ok(self.on_one(device, first, self.threads)?);
        }
        let (threads, each) = self.threads_among(devices);
        let shards: Result<Vec<_>, Error> = thread::scope(|scope| {
            let load = |&device| scope.spawn(move || self.on_one(device, first, each));
            let loading: Vec<_> = devices.iter().map(load).collect();
            let loaded = loading.into_iter().map(|thread| thread.join());
            loaded.map(|shard| shard.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
        });
        let groups = &self.prepared.chosen.grouping.groups;
        Ok(Box::new(Sharded::new(shards?, groups, self.components, threads)))
    }

    /// Loads the parts of the model, one a device, for batches such as the first ones; they share the threads.
    ///
    /// # Errors
    /// As [`on`](Self::on).
    pub(super) fn in_parts(
        self,
        devices: &[Device],
        blocks: &[Block],
        first: &Calibration,
    ) -> Result<Box<dyn Capture>, Error> {
        let (_, threads) = self.threads_among(devices);
        let options = |device| SessionOptions { device, threads };
        let feeds = self.prepared.feeds_on(self.runtime, options(devices[0]))?;
        let all = &self.prepared.chosen.grouping.groups;
        let (model, demands) = (self.prepared.model().clone(), Demands::of(all));
        let of_all = (all.len(), &first.batch(0));
        let mut pipeline = Pipeline::new(model, blocks.to_vec(), feeds, of_all, self.may_end);
        for (&device, block) in devices.iter().zip(blocks) {
            let groups: Vec<Group> = block.groups.iter().map(|group| all[*group].clone()).collect();
            let (model, feeds) = pipeline.next_part().map_err(capture::Error::from)?;
            let part = Loaded { model: &model, feeds: &feeds, groups: &groups, demands };
            pipeline.add(self.capture(options(device), first, part)?, block.groups.clone());
        }
        Ok(Box::new(pipeline))
    }

    /// All threads, and those of each device.
    fn threads_among(self, devices: &[Device]) -> (usize, usize) {
        let threads = match self.threads {
            0 => thread::available_parallelism().map_or(1, usize::from),
            n => n,
        };
        (threads, (threads / devices.len()).max(1))
    }

    fn on_one(self, device: Device, first: &Calibration, threads: usize) -> Result<Box<dyn Capture + Send>, Error> {
        let options = SessionOptions { device, threads };
        let feeds = self.prepared.feeds_on(self.runtime, options)?;
        let groups = &self.prepared.chosen.grouping.groups[..];
        let whole = Loaded { model: self.prepared.model(), feeds: &feeds, groups, demands: Demands::default() };
        Ok(self.capture(options, first, whole)?)
    }

    /// A capture of the model or of a part of it, for batches such as the first ones.
    ///
    /// # Errors
    /// When ONNX Runtime refuses it.
    pub(super) fn capture(
        self,
        options: SessionOptions,
        first: &Calibration,
        Loaded { model, feeds, groups, demands }: Loaded<'_>,
    ) -> Result<Box<dyn PartCapture + Send>, capture::Error> {
        let half = linear::in_half(self.prepared.linears());
        let setup = Setup {
            runtime: self.runtime,
            options,
            model,
            feeds,
            groups,
            components: self.components,
            strategy: Strategy::for_device(options.device, first.largest(), half),
            seed: self.seed,
            demands,
            may_turn: capture::may_turn(self.prepared.model()),
        };
        if groups.is_empty() {
            return Ok(Box::new(Passing::new(setup)?));
        }
        Ok(match self.method {
            CaptureMethod::Sketch => Box::new(Sketch::new(setup, &first.batch(0))?),
            CaptureMethod::Outputs => {
                let mut outputs = Outputs::new(setup)?;
                outputs.try_out(&first.batch(0))?;
                Box::new(outputs)
            }
        })
    }
}

/// A model, or a part of one, that is loaded for a capture.
#[derive(Clone, Copy)]
pub(super) struct Loaded<'a> {
    pub(super) model: &'a Model,
    pub(super) feeds: &'a Feeds,
    pub(super) groups: &'a [Group],
    /// What other parts are known to demand of batches.
    pub(super) demands: Demands,
}
