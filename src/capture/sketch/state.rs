//! What a stack of groups keeps between two runs.

use super::codec::write_unit;
use super::schedule::Due;
use crate::capture::Error;
use crate::pca::{Basis, SketchSize};
use crate::runtime::{Session, Value};
use crate::sketch::{self, Ports};
use ndarray::Array2;

/// The tensors that go from run to run.
pub(super) struct State {
    /// `Q` [G, d, l], where the session left it.
    q: Value,
    /// The `Z` [G, d, l] that the rotation belongs to.
    z: Value,
    /// The `Z` that the rotation does not know yet.
    image: Option<Value>,
    /// Means of the rows so far [G, 1, d].
    mean: Value,
    /// The rotation that the next directions are made with [G, 2l, l].
    pub(super) rotation: Value,
    /// Room for the one after that.
    next: Value,
    /// The rotation that leaves the directions as they are, if there may be two runs with each.
    same: Option<Value>,
    /// Whether there are two runs with the present directions.
    paired: bool,
    /// Whether the next run is the second of them.
    second: bool,
}

/// What a run left of the state.
pub(super) struct Left {
    pub(super) q: Value,
    pub(super) z: Value,
    pub(super) mean: Value,
}

impl State {
    /// Every group of so many starts from `first`.
    pub(super) fn new(groups: usize, size: SketchSize, first: &Basis, paired: bool) -> Result<Self, Error> {
        let (d, c) = (size.features, sketch::columns(size));
        let repeated = |a: &Array2<f32>| {
            let columns = a.rows().into_iter().flat_map(|row| row.into_iter().copied().chain([0.0]));
            Value::f32(&[groups, d, c], columns.collect::<Vec<_>>().repeat(groups))
        };
        let mut same = vec![0.0; 2 * c * c];
        write_unit(c, &mut same);
        let rotation = || Value::f32(&[groups, 2 * c, c], same.repeat(groups));
        Ok(Self {
            q: repeated(&first.q)?,
            z: repeated(&first.z)?,
            image: None,
            mean: Value::f32(&[groups, 1, d], vec![0.0; groups * d])?,
            rotation: rotation()?,
            next: rotation()?,
            same: paired.then(rotation).transpose()?,
            paired: false,
            second: false,
        })
    }

    /// Puts the rotations where the device of the session reads them.
    pub(super) fn pin(&mut self, session: &Session) -> Result<(), Error> {
        for rotation in [&mut self.rotation, &mut self.next].into_iter().chain(&mut self.same) {
            *rotation = session.pinned(rotation)?;
        }
        Ok(())
    }

    /// Whether the next run is the second with its directions.
    pub(super) fn is_second(&self) -> bool {
        self.second
    }

    /// The inputs of the next run, and the room for the rotation after it.
    pub(super) fn feeds<'a>(&'a mut self, ports: &'a Ports) -> (Vec<(&'a str, &'a Value)>, &'a mut Value) {
        let Self { q, z, image, mean, rotation, next, same, second, .. } = self;
        let image = image.as_ref().unwrap_or(z);
        let (z_in, before, rotation) = match same.as_ref().filter(|_| *second) {
            Some(same) => (image, &*z, same),
            None => (&*z, image, &*rotation),
        };
        let always = [(&ports.q_in, &*q), (&ports.z_in, z_in), (&ports.mean_in, &*mean), (&ports.rotation, rotation)];
        let all = always.into_iter().chain(ports.before.as_ref().map(|port| (port, before)));
        (all.map(|(port, value)| (port.as_str(), value)).collect(), next)
    }

    /// Takes over what a run left that turned the directions of all that was known; nothing of one without rows.
    pub(super) fn turned(&mut self, left: Left, any: bool) {
        if any {
            Left { q: self.q, z: self.z, mean: self.mean } = left;
        }
    }

    /// Takes over what a run left whose image is unknown to the `next` rotation. A run without rows leaves none. If the
    /// directions turn now, there are two runs with the next ones if `pair` and it can be.
    pub(super) fn went_on(&mut self, Left { q, z, mean }: Left, any: bool, pair: bool) {
        if !self.second {
            self.q = q;
            if let Some(image) = self.image.take() {
                self.z = image;
            }
        }
        if any {
            (self.image, self.mean) = (Some(z), mean);
        }
        self.second = self.paired && !self.second;
        if !self.second {
            std::mem::swap(&mut self.rotation, &mut self.next);
            self.paired = pair && self.same.is_some();
        }
    }

    /// Which groups are decomposed during the next run.
    pub(super) fn due(&self) -> Due {
        match (self.paired, self.second) {
            (false, _) => Due::All,
            (true, false) => Due::Even,
            (true, true) => Due::Odd,
        }
    }

    /// Which groups have no rotation for the next directions yet, when no run comes any more.
    pub(super) fn due_at_the_end(&self) -> Due {
        if self.second { Due::Odd } else { Due::None }
    }

    /// The next directions come now, although the second run of these is yet to come. Returns where they are.
    pub(super) fn cut_short(&mut self) -> &mut Value {
        if std::mem::take(&mut self.second) {
            std::mem::swap(&mut self.rotation, &mut self.next);
        }
        &mut self.rotation
    }

    /// Brings everything to host memory, from where any session takes it.
    pub(super) fn unload(&mut self) -> Result<(), Error> {
        for value in [&mut self.q, &mut self.z, &mut self.mean].into_iter().chain(&mut self.image) {
            *value = value.to_host()?;
        }
        for rotation in [&mut self.rotation, &mut self.next].into_iter().chain(&mut self.same) {
            *rotation = rotation.unpinned()?;
        }
        Ok(())
    }

    /// `Q`, `Z` and the image that came after them in host memory.
    pub(super) fn basis_on_host(&self) -> Result<Vec<Value>, Error> {
        let Self { q, z, image, .. } = self;
        Ok([Some(q), Some(z), image.as_ref()].into_iter().flatten().map(Value::to_host).collect::<Result<_, _>>()?)
    }
}
