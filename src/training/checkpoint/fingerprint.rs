//! Hashes of the rows and the adapter of a training, which tell whether they are what they were. That of a model is
//! [`Model::fingerprint`](crate::onnx::Model::fingerprint).

use crate::calib::{Batch, Calibration, Tokens};
use crate::fingerprint::Fingerprint;
use crate::tensor::{Tensor, with_array};

/// The hash of rows in their batches.
pub(crate) fn of_rows(rows: &Calibration) -> String {
    let mut hash = Fingerprint::new();
    for batch in rows.batches() {
        let Batch { tokens, encoder, tensors, keep, stripped: _, varied: _ } = batch;
        add_tokens(&mut hash, &tokens);
        if let Some(encoder) = encoder {
            add_tokens(&mut hash, &encoder);
        }
        for named in tensors {
            add_tensor(&mut hash, &named.name, &named.tensor);
        }
        add_flags(&mut hash, keep.iter());
    }
    hash.text()
}

fn add_tokens(hash: &mut Fingerprint, tokens: &Tokens) {
    for (name, tensor) in &tokens.inputs {
        add_tensor(hash, name, tensor);
    }
    add_flags(hash, tokens.attended.iter());
}

fn add_tensor(hash: &mut Fingerprint, name: &str, tensor: &Tensor) {
    hash.bytes(name.as_bytes());
    let shape: Vec<u8> = tensor.shape().iter().flat_map(|size| size.to_le_bytes()).collect();
    hash.bytes(&shape);
    // Their shortest decimal forms differ where the values do.
    let values = with_array!(tensor, array => array.iter().map(|value| format!("{value:?} ")).collect::<String>());
    hash.bytes(values.as_bytes());
}

fn add_flags<'f>(hash: &mut Fingerprint, flags: impl Iterator<Item = &'f bool>) {
    let flags: Vec<u8> = flags.map(|flag| u8::from(*flag)).collect();
    hash.bytes(&flags);
}

/// The hash of a vector and the names and shapes of its parts.
pub(crate) fn of_vector(parts: &str, vector: &[f32]) -> String {
    let mut hash = Fingerprint::new();
    hash.bytes(parts.as_bytes());
    let values: Vec<u8> = vector.iter().flat_map(|value| value.to_le_bytes()).collect();
    hash.bytes(&values);
    hash.text()
}
