//! The batches that were run through blocks, and how far.

use crate::calib::{Batch, Tokens};
use crate::fingerprint::Fingerprint;
use crate::runtime;
use crate::tensor::Tensor;
use std::collections::{HashMap, HashSet};

/// How far a batch was run.
#[derive(Clone, Debug, Default)]
pub(super) struct Request {
    /// Its content, unless it comes again by itself.
    batch: Option<Batch>,
    /// Blocks that it was run through; `None` before the first is begun.
    pub(super) reached: Option<usize>,
    /// Why it cannot be run further.
    pub(super) failed: Option<Failure>,
}

/// Why a batch cannot be run.
#[derive(Clone, Debug)]
pub(super) enum Failure {
    Run(String),
    Memory(String),
}

impl Failure {
    /// What an error says of the batch; nothing if it is about something else.
    pub(super) fn of(error: &runtime::Error) -> Option<Self> {
        match error {
            runtime::Error::Run { reason } => Some(Self::Run(reason.clone())),
            runtime::Error::OutOfMemory { reason, running: true } => Some(Self::Memory(reason.clone())),
            _ => None,
        }
    }

    pub(super) fn error(self) -> runtime::Error {
        match self {
            Self::Run(reason) => runtime::Error::Run { reason },
            Self::Memory(reason) => runtime::Error::OutOfMemory { reason, running: true },
        }
    }
}

/// Batches by what they feed.
#[derive(Debug, Default)]
pub(super) struct Requests {
    known: HashMap<String, Request>,
    /// In the order of their coming.
    order: Vec<String>,
    data: HashSet<String>,
}

impl Requests {
    pub(super) fn get(&self, key: &str) -> Option<Request> {
        let Request { reached, failed, .. } = self.known.get(key)?;
        Some(Request { batch: None, reached: *reached, failed: failed.clone() })
    }

    /// Announces a batch.
    pub(super) fn announce(&mut self, batch: Batch) {
        let key = key(&batch);
        if !self.data.contains(&key) {
            self.entry(&key).batch = Some(batch);
        }
    }

    /// Announces a batch of the data.
    pub(super) fn announce_data(&mut self, batch: &Batch) {
        self.data.insert(key(batch));
    }

    /// Notes that a batch is run from the first block on.
    pub(super) fn begin(&mut self, key: &str, batch: &Batch) {
        let of_data = self.data.contains(key);
        let request = self.entry(key);
        request.reached = Some(0);
        if !of_data && request.batch.is_none() {
            request.batch = Some(batch.clone());
        }
    }

    pub(super) fn reach(&mut self, key: &str, blocks: usize) {
        let request = self.entry(key);
        request.reached = request.reached.max(Some(blocks));
    }

    pub(super) fn fail(&mut self, key: &str, failure: Failure) {
        self.entry(key).failed = Some(failure);
    }

    /// Takes the batches of the data that were fed to block `at` and came to no end for too large: all others were run.
    pub(super) fn fail_left(&mut self, at: usize) {
        let Self { known, data, .. } = self;
        let left = known.iter_mut().filter(|(key, request)| data.contains(*key) && request.reached == Some(at));
        left.for_each(|(_, request)| {
            request.failed.get_or_insert_with(|| Failure::Memory(format!("block {} ran it in halves", at + 1)));
        });
    }

    /// The batches that were not run through block `at` yet and do not come again by themselves.
    pub(super) fn waiting(&self, at: usize) -> Vec<(String, Batch)> {
        let waiting = self.order.iter().filter_map(|key| {
            let Request { batch, reached, failed } = &self.known[key];
            let waits = failed.is_none() && reached.unwrap_or(0) == at;
            batch.as_ref().filter(|_| waits).map(|batch| (key.clone(), batch.clone()))
        });
        waiting.collect()
    }

    /// How far all batches are.
    pub(super) fn save(&self) -> Vec<(String, usize)> {
        let reached = |key: &String| Some((key.clone(), self.known[key].reached?));
        self.order.iter().filter(|key| self.known[*key].failed.is_none()).filter_map(reached).collect()
    }

    pub(super) fn restore(&mut self, saved: Vec<(String, usize)>) {
        for (key, reached) in saved {
            self.entry(&key).reached = Some(reached);
        }
    }

    fn entry(&mut self, key: &str) -> &mut Request {
        if !self.known.contains_key(key) {
            self.order.push(key.to_owned());
        }
        self.known.entry(key.to_owned()).or_default()
    }
}

/// What tells batches apart that feed a model other values.
pub(super) fn key(batch: &Batch) -> String {
    let mut hash = Fingerprint::new();
    add_tokens(&mut hash, &batch.tokens);
    hash.bytes(&[u8::from(batch.encoder.is_some())]);
    batch.encoder.iter().for_each(|tokens| add_tokens(&mut hash, tokens));
    for named in &batch.tensors {
        add(&mut hash, &named.name, &named.tensor);
    }
    hash.text()
}

fn add_tokens(hash: &mut Fingerprint, tokens: &Tokens) {
    for (name, tensor) in &tokens.inputs {
        add(hash, name, tensor);
    }
    let attended: Vec<u8> = tokens.attended.iter().map(|attended| u8::from(*attended)).collect();
    hash.bytes(&(tokens.attended.ncols() as u64).to_le_bytes());
    hash.bytes(&attended);
}

fn add(hash: &mut Fingerprint, name: &str, tensor: &Tensor) {
    hash.bytes(name.as_bytes());
    hash.bytes(&tensor.dtype().to_onnx().to_le_bytes());
    tensor.shape().iter().for_each(|size| hash.bytes(&(*size as u64).to_le_bytes()));
    hash.bytes(&tensor.raw());
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::{Array2, array};

    fn batch(ids: Array2<i64>) -> Batch {
        let attended = Array2::from_elem(ids.dim(), true);
        Batch::of_tokens(Tokens::new(ids, attended))
    }

    #[test]
    fn batches_are_told_apart_by_what_they_feed() {
        let one = batch(array![[1, 2], [3, 4]]);
        let mut kept = one.clone();
        kept.keep.fill(true);
        assert_eq!(key(&one), key(&kept));
        let mut padded = one.clone();
        padded.tokens.attended[[1, 1]] = false;
        let others = [padded, batch(array![[1, 2, 3, 4]]), batch(array![[1, 2], [3, 5]])];
        assert!(others.iter().all(|other| key(other) != key(&one)));
    }

    #[test]
    fn batches_wait_that_do_not_come_again() {
        let (data, probe) = (batch(array![[1]]), batch(array![[2]]));
        let mut requests = Requests::default();
        requests.announce_data(&data);
        requests.announce(data.clone());
        requests.announce(probe.clone());
        assert_eq!(requests.waiting(0), [(key(&probe), probe.clone())]);
        requests.begin(&key(&probe), &probe);
        requests.reach(&key(&probe), 1);
        assert!(requests.waiting(0).is_empty() && requests.waiting(1).len() == 1);
        requests.fail(&key(&probe), Failure::Run("no".to_owned()));
        assert!(requests.waiting(1).is_empty() && requests.save().is_empty());
    }
}
