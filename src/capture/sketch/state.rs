//! What a stack of groups keeps between two runs.

use super::codec::encode_identity;
use super::schedule::{Due, Phase};
use crate::capture::error::Error;
use crate::capture::saved::{Floats, ensure};
use crate::pca::SketchSize;
use crate::runtime::{Session, Value};
use crate::sketch::{self, Ports};
use ndarray::Array2;
use serde::{Deserialize, Serialize};
use std::mem;
use std::sync::Arc;

/// The tensors that go from run to run, for G groups. Matrices with l columns have one more, of ones.
pub(super) struct State {
    /// `Q` [G, d, l], where the session left it.
    q: Arc<Value>,
    /// The `Z` [G, d, l] that belongs to the rotation.
    z: Arc<Value>,
    /// The `Z` [G, d, l] of the last run, if the host is one batch late: the rotation does not know it yet.
    last: Option<Arc<Value>>,
    /// Means of the rows so far [G, 1, d].
    mean: Arc<Value>,
    /// The rotation that makes the next `Q` [G, 2l, l].
    pub(super) rotation: Value,
    /// Room for the rotation after that.
    next: Value,
    /// The rotation that keeps `Q`, if a basis may be kept for two runs.
    identity: Option<Value>,
    phase: Phase,
}

/// What a run returned of the state.
pub(super) struct Outputs {
    pub(super) q: Value,
    pub(super) z: Value,
    pub(super) mean: Value,
}

/// `Q`, `Z` and the `Z` of the last run, where it is another, in host memory.
pub(super) struct HostMatrices {
    pub(super) q: Value,
    pub(super) z: Value,
    pub(super) last: Option<Value>,
}

/// A [`State`] to go back to in the same process.
pub(super) struct StateMark {
    q: Arc<Value>,
    z: Arc<Value>,
    last: Option<Arc<Value>>,
    mean: Arc<Value>,
    rotations: [Value; 2],
    phase: Phase,
}

/// A copy of a [`State`].
#[derive(Serialize, Deserialize)]
pub(super) struct SavedState {
    q: Floats,
    z: Floats,
    last: Option<Floats>,
    mean: Floats,
    rotations: [Floats; 2],
    phase: Phase,
}

impl State {
    /// Every group starts from the basis `first` [d, l]. A basis may be kept for two runs if `pairs`.
    pub(super) fn new(groups: usize, size: SketchSize, first: &Array2<f32>, pairs: bool) -> Result<Self, Error> {
        let (d, c) = (size.features, sketch::columns(size));
        let columns = first.rows().into_iter().flat_map(|row| row.into_iter().copied().chain([0.0]));
        let q = columns.collect::<Vec<_>>().repeat(groups);
        let mut identity = vec![0.0; 2 * c * c];
        encode_identity(c, &mut identity);
        let rotation = || Value::f32(&[groups, 2 * c, c], identity.repeat(groups));
        Ok(Self {
            q: Arc::new(Value::f32(&[groups, d, c], q)?),
            z: Arc::new(Value::f32(&[groups, d, c], vec![0.0; groups * d * c])?),
            last: None,
            mean: Arc::new(Value::f32(&[groups, 1, d], vec![0.0; groups * d])?),
            rotation: rotation()?,
            next: rotation()?,
            identity: pairs.then(rotation).transpose()?,
            phase: Phase::Single,
        })
    }

    /// Moves the rotations to where the device of the session reads them fast.
    pub(super) fn pin(&mut self, session: &Session) -> Result<(), Error> {
        for rotation in [&mut self.rotation, &mut self.next].into_iter().chain(&mut self.identity) {
            *rotation = session.pinned(rotation)?;
        }
        Ok(())
    }

    /// Whether the next run is the second on its basis, so that its `Z` adds to that of the first.
    pub(super) fn is_second(&self) -> bool {
        self.phase == Phase::Second
    }

    /// The inputs of the next run, and the room for the rotation after it.
    pub(super) fn inputs<'a>(&'a mut self, ports: &'a Ports) -> (Vec<(&'a str, &'a Value)>, &'a mut Value) {
        let Self { q, z, last, mean, rotation, next, identity, phase } = self;
        let last = last.as_ref().unwrap_or(z);
        let (z_in, previous, rotation) = match identity.as_ref().filter(|_| *phase == Phase::Second) {
            Some(identity) => (last, &*z, identity),
            None => (&*z, last, &*rotation),
        };
        let shared = [(&ports.q_in, &*q), (&ports.z_in, z_in), (&ports.mean_in, &*mean)];
        let shared = shared.into_iter().chain(ports.previous.as_ref().map(|port| (port, previous)));
        let all = shared.map(|(port, value)| (port, &**value)).chain([(&ports.rotation, rotation)]);
        (all.map(|(port, value)| (port.as_str(), value)).collect(), next)
    }

    /// Stores the outputs of a run whose statistics the rotation already knows. A run without rows changes nothing.
    pub(super) fn replace(&mut self, outputs: Outputs, any: bool) {
        if any {
            self.q = Arc::new(outputs.q);
            self.z = Arc::new(outputs.z);
            self.mean = Arc::new(outputs.mean);
        }
    }

    /// Stores the outputs of a run that the next rotation does not know yet; a run without rows only takes the
    /// rotation. If the basis rotates now and `pair` is set, the next two runs share it, where that is possible.
    pub(super) fn advance(&mut self, outputs: Outputs, any: bool, pair: bool) {
        if self.phase != Phase::Second {
            self.q = Arc::new(outputs.q);
            if let Some(last) = self.last.take() {
                self.z = last;
            }
        }
        if any {
            self.last = Some(Arc::new(outputs.z));
            self.mean = Arc::new(outputs.mean);
        }
        self.phase = self.phase.next(pair && self.identity.is_some());
        if self.phase != Phase::Second {
            mem::swap(&mut self.rotation, &mut self.next);
        }
    }

    /// When each of so many groups is decomposed during the next run.
    pub(super) fn due(&self, groups: usize) -> Vec<Due> {
        (0..groups).map(|member| self.phase.due(member)).collect()
    }

    /// Ends the runs: which groups are still without a rotation for the basis of the last run, and where those are
    /// written.
    pub(super) fn end(&mut self, groups: usize) -> (Vec<Due>, &mut Value) {
        let due = (0..groups).map(|member| self.phase.due_at_the_end(member)).collect();
        if self.phase == Phase::Second {
            self.phase = Phase::Single;
            mem::swap(&mut self.rotation, &mut self.next);
        }
        (due, &mut self.rotation)
    }

    /// A copy of everything that changes.
    pub(super) fn save(&self) -> Result<SavedState, Error> {
        Ok(SavedState {
            q: Floats::of(&self.q)?,
            z: Floats::of(&self.z)?,
            last: self.last.as_ref().map(|last| Floats::of(last)).transpose()?,
            mean: Floats::of(&self.mean)?,
            rotations: [Floats::of(&self.rotation)?, Floats::of(&self.next)?],
            phase: self.phase,
        })
    }

    /// Continues from a copy.
    pub(super) fn restore(&mut self, saved: &SavedState, session: &Session) -> Result<(), Error> {
        let pairs = saved.phase == Phase::Single || self.identity.is_some();
        ensure(pairs, "two batches share a basis")?;
        self.last = saved.last.as_ref().map(|last| last.to_value(&self.z)).transpose()?.map(Arc::new);
        self.q = Arc::new(saved.q.to_value(&self.q)?);
        self.z = Arc::new(saved.z.to_value(&self.z)?);
        self.mean = Arc::new(saved.mean.to_value(&self.mean)?);
        let [rotation, next] = &saved.rotations;
        self.rotation = session.pinned(&rotation.to_value(&self.rotation)?)?;
        self.next = session.pinned(&next.to_value(&self.next)?)?;
        self.phase = saved.phase;
        Ok(())
    }

    /// What it is now. The tensors that a run returns are replaced by those of the next one, and stay as they are; the
    /// rotations are written again.
    pub(super) fn mark(&self) -> Result<StateMark, Error> {
        let Self { q, z, last, mean, rotation, next, phase, .. } = self;
        let (q, z, last, mean) = (Arc::clone(q), Arc::clone(z), last.clone(), Arc::clone(mean));
        Ok(StateMark { q, z, last, mean, rotations: [rotation.unpinned()?, next.unpinned()?], phase: *phase })
    }

    /// Goes back to what it was.
    pub(super) fn return_to(&mut self, mark: StateMark, session: &Session) -> Result<(), Error> {
        let StateMark { q, z, last, mean, rotations: [rotation, next], phase } = mark;
        (self.rotation, self.next) = (session.pinned(&rotation)?, session.pinned(&next)?);
        (self.q, self.z, self.last, self.mean, self.phase) = (q, z, last, mean, phase);
        Ok(())
    }

    /// Copies everything to host memory, from where any session takes it.
    pub(super) fn unload(&mut self) -> Result<(), Error> {
        for value in [&mut self.q, &mut self.z, &mut self.mean].into_iter().chain(&mut self.last) {
            *value = Arc::new(value.to_host()?);
        }
        for rotation in [&mut self.rotation, &mut self.next].into_iter().chain(&mut self.identity) {
            *rotation = rotation.unpinned()?;
        }
        Ok(())
    }

    /// Copies the basis to host memory.
    pub(super) fn matrices(&self) -> Result<HostMatrices, Error> {
        let last = self.last.as_ref().map(|last| last.to_host()).transpose()?;
        Ok(HostMatrices { q: self.q.to_host()?, z: self.z.to_host()?, last })
    }
}
