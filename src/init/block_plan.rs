//! Into which blocks a model is cut.

use super::prepared::Prepared;
use crate::blocks::{self, Blocks, Plan};
use crate::error::Error;
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
