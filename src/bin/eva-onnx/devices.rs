//! What runs where: the devices asked for, and the captures on them.

use super::Failure;
use super::args::{CaptureArg, Init};
use super::init::EncoderFile;
use eva_onnx::calib::Batch;
use eva_onnx::capture::{Capture, Outputs, Placement, Setup, Sharded, Sketch};
use eva_onnx::feeds::Encoder;
use eva_onnx::runtime::{self, Device, Runtime, SessionOptions};
use std::thread;

/// `auto` takes the first GPU when the library has a CUDA provider that starts.
pub(crate) fn devices(args: &Init, runtime: &Runtime) -> Result<Vec<Device>, Failure> {
    match args.runtime.device.as_str() {
        "auto" => Ok(vec![if runtime::cuda_works(runtime) { Device::Cuda(0) } else { Device::Cpu }]),
        named => Ok(Device::list(named)?),
    }
}

/// The devices as `--device` takes them.
pub(crate) fn named(devices: &[Device]) -> String {
    devices.iter().map(Device::to_string).collect::<Vec<_>>().join(",")
}

/// What a capture on a device is loaded with.
#[derive(Clone, Copy)]
pub(crate) struct Load<'a> {
    pub(crate) args: &'a Init,
    /// The encoder that the decoder reads from, and its file.
    pub(crate) encoder: Option<&'a EncoderFile>,
    pub(crate) example: &'a Batch,
    /// Tokens of the largest batch.
    pub(crate) tokens: usize,
    /// Whether the weights are of 16 bits.
    pub(crate) half: bool,
}

impl Load<'_> {
    /// Loads the model on every device; several share the threads and the batches.
    pub(crate) fn on(self, devices: &[Device], setup: Setup<'_>) -> Result<Box<dyn Capture>, Failure> {
        if let [device] = *devices {
            return Ok(self.on_one(device, setup)?);
        }
        let threads = match setup.options.threads {
            0 => thread::available_parallelism().map_or(1, usize::from),
            n => n,
        };
        let options = SessionOptions { threads: (threads / devices.len()).max(1), ..setup.options };
        let setup = Setup { options, ..setup };
        let shards: Result<Vec<_>, Failure> = thread::scope(|scope| {
            let load = |&device| scope.spawn(move || self.on_one(device, setup));
            let loading: Vec<_> = devices.iter().map(load).collect();
            let loaded = loading.into_iter().map(|thread| thread.join());
            loaded.map(|shard| shard.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
        });
        Ok(Box::new(Sharded::new(shards?, setup.groups, setup.components, threads)))
    }

    fn on_one(self, device: Device, setup: Setup<'_>) -> Result<Box<dyn Capture + Send>, Failure> {
        let options = SessionOptions { device, ..setup.options };
        let mut feeds = setup.feeds.clone();
        if let Some((path, model)) = self.encoder {
            let encoder = Encoder::load(setup.runtime, model, options);
            feeds = feeds.with_encoder(encoder.map_err(|e| Failure::from(e).in_file(path))?);
        }
        let placement = Placement::on(device, self.tokens, self.half);
        let setup = Setup { options, feeds: &feeds, placement, ..setup };
        Ok(match self.args.method.capture {
            CaptureArg::Sketch => Box::new(Sketch::new(setup, self.example)?),
            CaptureArg::Outputs => Box::new(Outputs::new(setup)?),
        })
    }
}
