//! Into which parts a model is cut.

use super::options::{Init, Split};
use super::prepared::Prepared;
use crate::blocks::{self, Block, Blocks, Plan};
use crate::error::Error;
use crate::fingerprint::Fingerprint;
use crate::linear;
use crate::runtime::{self, Device};
use crate::system;

/// How a model runs on devices.
///
/// # Errors
/// When it cannot be cut, or blocks are to run on several devices.
pub(crate) fn plan(prepared: &Prepared, blocks: Blocks, devices: &[Device]) -> Result<Plan, Error> {
    let half = linear::in_half(prepared.linears());
    let room = || match devices {
        // The weights, and their copies in the order and type that products on a CPU take.
        [Device::Cpu] => Some((system::available()?, if half { 4.0 } else { 2.0 })),
        [Device::Cuda(number)] => Some((runtime::free_memory(*number)?, 1.25)),
        _ => None,
    };
    if devices.len() > 1 {
        let hint = "name one device, or leave out --blocks";
        return Err(Error::usage("blocks run on one device, and --device names several", Some(hint)));
    }
    let groups = &prepared.chosen.grouping.groups;
    Ok(blocks::plan(prepared.model(), (prepared.linears(), groups), blocks, room)?)
}

/// What tells blocks from others.
pub(super) fn fingerprint(blocks: &[Block]) -> String {
    let mut hash = Fingerprint::new();
    for block in blocks {
        block.nodes.iter().for_each(|node| hash.bytes(&(*node as u64).to_le_bytes()));
        hash.bytes(b"end");
    }
    hash.text()
}

impl Init {
    /// The parts of the model that devices share, one a device; none if each device has the whole model.
    ///
    /// # Errors
    /// When there is one device, or the model cannot be cut into as many parts.
    pub(super) fn shared(&self, prepared: &Prepared, devices: &[Device]) -> Result<Vec<Block>, Error> {
        if self.split == Split::Rows {
            return Ok(Vec::new());
        }
        if self.blocks.is_some() {
            let hint = "leave out --blocks, or name one device and leave out --split layers";
            return Err(Error::usage("blocks run on one device, and --split layers is for several", Some(hint)));
        }
        if devices.len() < 2 {
            let hint =
                "name the devices, such as --device cuda:0,cuda:1; --blocks runs a model that does not fit on one";
            return Err(Error::usage("--split layers divides a model among devices, and there is one", Some(hint)));
        }
        let groups = &prepared.chosen.grouping.groups;
        let divided = blocks::divide(prepared.model(), (prepared.linears(), groups), devices.len());
        divided.map_err(|error| Error::from(error).in_file(prepared.named.path()))
    }
}
