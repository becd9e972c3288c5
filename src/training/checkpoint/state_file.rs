//! A checkpoint as one safetensors file: the vectors as tensors, everything else in its metadata.

use super::record::Record;
use crate::train::{Scale, Snapshot};
use crate::training::history::{Done, Evaluation, StepRecord};
use flate2::Crc;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView, serialize};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// The key of the metadata, whose value is a JSON object.
const KEY: &str = "eva_onnx_training";
/// The form of the file.
const VERSION: u32 = 1;

/// A training between two steps.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Checkpoint {
    /// Steps planned in all.
    pub(crate) planned: usize,
    /// The next batch.
    pub(crate) position: Position,
    /// Parameters and moments.
    pub(crate) state: Snapshot,
    /// What was done so far.
    pub(crate) done: Done,
    /// Batches that were split because memory ran out.
    pub(crate) split_batches: usize,
    /// Whether activations are computed again.
    pub(crate) again: bool,
    /// What the result depends on.
    pub(crate) record: Record,
}

/// A place between two batches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Position {
    /// Passes over the data that are complete or left.
    pub(crate) epoch: u64,
    /// Batches of this one that are done.
    pub(crate) batch: usize,
}

/// What the metadata hold.
#[derive(Serialize, Deserialize)]
struct Header {
    version: u32,
    program: String,
    steps: usize,
    planned: usize,
    position: Position,
    split_batches: usize,
    again: bool,
    scale: Scale,
    /// Checksum of all tensors, in the order in which they are written.
    crc32: u32,
    record: Record,
}

/// A tensor with one axis before it is written.
struct Column {
    name: &'static str,
    dtype: Dtype,
    bytes: Vec<u8>,
}

/// The names of the tensors.
const FLOATS: [&str; 3] = ["theta", "mean", "square"];
const STEPS: [&str; 5] = ["loss", "rate", "norm", "seconds", "targets"];
const EVALUATIONS: [&str; 3] = ["evaluation_step", "evaluation_loss", "evaluation_targets"];

impl Checkpoint {
    /// The bytes of the file.
    ///
    /// # Errors
    /// When safetensors refuses them, which it does for no checkpoint.
    pub(super) fn to_bytes(&self) -> Result<Vec<u8>, String> {
        let columns = self.columns();
        let header = Header {
            version: VERSION,
            program: env!("CARGO_PKG_VERSION").to_owned(),
            steps: self.state.steps,
            planned: self.planned,
            position: self.position,
            split_batches: self.split_batches,
            again: self.again,
            scale: self.state.scale,
            crc32: checksum(columns.iter().map(|column| column.bytes.as_slice())),
            record: self.record.clone(),
        };
        let header = serde_json::to_string(&header).map_err(|error| error.to_string())?;
        let views = columns.iter().map(|Column { name, dtype, bytes }| {
            let count = bytes.len() / (dtype.bitsize() / 8);
            Ok((*name, TensorView::new(*dtype, vec![count], bytes)?))
        });
        let metadata = HashMap::from([(KEY.to_owned(), header)]);
        let file = views.collect::<Result<Vec<_>, _>>().and_then(|views| serialize(views, Some(metadata)));
        file.map_err(|error: safetensors::SafeTensorError| error.to_string())
    }

    fn columns(&self) -> Vec<Column> {
        let Snapshot { theta, mean, square, steps: _, scale: _ } = &self.state;
        let floats = FLOATS.into_iter().zip([theta, mean, square]).map(|(name, vector)| Column {
            name,
            dtype: Dtype::F32,
            bytes: vector.iter().flat_map(|value| value.to_le_bytes()).collect(),
        });
        let wide = |name, values: Vec<f64>| Column {
            name,
            dtype: Dtype::F64,
            bytes: values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        };
        let counts = |name, values: Vec<usize>| Column {
            name,
            dtype: Dtype::U64,
            bytes: values.iter().flat_map(|value| (*value as u64).to_le_bytes()).collect(),
        };
        let Done { history, evaluations } = &self.done;
        let of_steps = |value: fn(&StepRecord) -> f64| history.iter().map(value).collect();
        let [loss, rate, norm, seconds, targets] = STEPS;
        let [at, evaluated, predicted] = EVALUATIONS;
        floats
            .chain([
                wide(loss, of_steps(|step| step.loss)),
                wide(rate, of_steps(|step| step.rate)),
                wide(norm, of_steps(|step| step.norm)),
                wide(seconds, of_steps(|step| step.seconds)),
                counts(targets, history.iter().map(|step| step.targets).collect()),
                counts(at, evaluations.iter().map(|evaluation| evaluation.step).collect()),
                wide(evaluated, evaluations.iter().map(|evaluation| evaluation.loss).collect()),
                counts(predicted, evaluations.iter().map(|evaluation| evaluation.targets).collect()),
            ])
            .collect()
    }

    /// Reads the bytes of a file.
    ///
    /// # Errors
    /// What is wrong with them.
    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(|error| error.to_string())?;
        let header = metadata.metadata().as_ref().and_then(|metadata| metadata.get(KEY));
        let header = header.ok_or("it is not the state of a training")?;
        let header: Header = serde_json::from_str(header).map_err(|error| error.to_string())?;
        if header.version != VERSION {
            return Err(format!("eva-onnx {} wrote it in another form", header.program));
        }
        let tensors = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
        let names = FLOATS.into_iter().chain(STEPS).chain(EVALUATIONS);
        let views = names.map(|name| tensors.tensor(name).map_err(|error| format!("`{name}`: {error}")));
        let views = views.collect::<Result<Vec<_>, String>>()?;
        if checksum(views.iter().map(TensorView::data)) != header.crc32 {
            return Err("its checksum differs".to_owned());
        }
        let [theta, mean, square] = [0, 1, 2].map(|index| floats(views[index].data()));
        let whole = theta.len() == mean.len() && theta.len() == square.len();
        let done = Done { history: history(&views[3..8]), evaluations: evaluations(&views[8..]) };
        if !whole || done.history.len() != header.steps {
            return Err("its tensors do not belong together".to_owned());
        }
        Ok(Self {
            planned: header.planned,
            position: header.position,
            state: Snapshot { theta, mean, square, steps: header.steps, scale: header.scale },
            done,
            split_batches: header.split_batches,
            again: header.again,
            record: header.record,
        })
    }
}

fn checksum<'b>(tensors: impl Iterator<Item = &'b [u8]>) -> u32 {
    let mut crc = Crc::new();
    tensors.for_each(|bytes| crc.update(bytes));
    crc.sum()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

fn wides(bytes: &[u8]) -> impl Iterator<Item = f64> {
    bytes.as_chunks().0.iter().map(|bytes| f64::from_le_bytes(*bytes))
}

fn counts(bytes: &[u8]) -> impl Iterator<Item = usize> {
    bytes.as_chunks().0.iter().map(|bytes| u64::from_le_bytes(*bytes) as usize)
}

/// The tensors of [`STEPS`] as records; as many as the shortest has.
fn history(views: &[TensorView<'_>]) -> Vec<StepRecord> {
    let [loss, rate, norm, seconds] = [0, 1, 2, 3].map(|index| wides(views[index].data()));
    let numbers = loss.zip(rate).zip(norm).zip(seconds).zip(counts(views[4].data()));
    let record =
        |(step, ((((loss, rate), norm), seconds), targets))| StepRecord { step, loss, rate, norm, targets, seconds };
    (1..).zip(numbers).map(record).collect()
}

/// The tensors of [`EVALUATIONS`] as records.
fn evaluations(views: &[TensorView<'_>]) -> Vec<Evaluation> {
    let numbers = counts(views[0].data()).zip(wides(views[1].data())).zip(counts(views[2].data()));
    numbers.map(|((step, loss), targets)| Evaluation { step, loss, targets }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint() -> Checkpoint {
        let step = |step: usize| StepRecord {
            step,
            loss: 0.1 * step as f64,
            rate: 1.0 / 3.0,
            norm: f64::MIN_POSITIVE,
            targets: step,
            seconds: 0.5,
        };
        let mut record = Record::default();
        record.add("--lr", "0.1".to_owned());
        Checkpoint {
            planned: 9,
            position: Position { epoch: 1, batch: 2 },
            state: Snapshot {
                theta: vec![1.5, f32::MIN_POSITIVE],
                mean: vec![-0.0, 1e-30],
                square: vec![0.1, 3.0],
                steps: 2,
                scale: Scale::default(),
            },
            done: Done {
                history: vec![step(1), step(2)],
                evaluations: vec![Evaluation { step: 2, loss: 0.7, targets: 5 }],
            },
            split_batches: 3,
            again: true,
            record,
        }
    }

    #[test]
    fn a_checkpoint_survives_its_file() {
        let whole = checkpoint();
        let bytes = whole.to_bytes().unwrap();
        assert_eq!(bytes, whole.to_bytes().unwrap());
        assert_eq!(Checkpoint::from_bytes(&bytes).unwrap(), whole);
        let empty = Checkpoint { done: Done { evaluations: Vec::new(), ..whole.done.clone() }, ..whole };
        assert_eq!(Checkpoint::from_bytes(&empty.to_bytes().unwrap()).unwrap(), empty);
    }

    #[test]
    fn every_damage_is_seen() {
        let bytes = checkpoint().to_bytes().unwrap();
        for end in 0..bytes.len() {
            assert!(Checkpoint::from_bytes(&bytes[..end]).is_err(), "cut at {end}");
        }
        let tensors = 2 * 3 * 4 + 2 * 5 * 8 + 3 * 8;
        for at in bytes.len() - tensors..bytes.len() {
            let mut bytes = bytes.clone();
            bytes[at] ^= 1;
            assert_eq!(Checkpoint::from_bytes(&bytes).unwrap_err(), "its checksum differs", "at {at}");
        }
    }
}
