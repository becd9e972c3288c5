//! The subgraphs that take what faster ones do not.

use super::plans;
use crate::capture::error::Error;
use crate::capture::setup::Setup;
use crate::onnx::Model;
use crate::runtime::Runtime;
use crate::sketch::{self, Plan, Ports};

/// The model with the subgraphs of [`plans::fallback`], not loaded yet.
pub(super) struct Fallback {
    pub(super) runtime: Runtime,
    pub(super) model: Model,
    pub(super) ports: Vec<Ports>,
}

impl Fallback {
    /// For these plans; `None` if they need none.
    pub(super) fn of(setup: &Setup<'_>, plans: &[Plan]) -> Result<Option<Self>, Error> {
        let Some(plans) = plans::fallback(plans) else { return Ok(None) };
        let (mut patch, ports) = sketch::patch(&plans, setup.model.opset());
        setup.return_carried(&mut patch);
        Ok(Some(Self { runtime: setup.runtime.clone(), model: setup.model.apply(&patch)?, ports }))
    }
}
