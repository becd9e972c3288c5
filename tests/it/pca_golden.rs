//! The incremental SVD against recorded states of the reference implementations.

use crate::support::eva::root;
use crate::support::tolerance::{decomposed, within};
use eva_onnx::pca::IncrementalSvd;
use ndarray::{Array1, Array2};
use safetensors::SafeTensors;

const BATCHES: usize = 4;
const COMPONENTS: usize = 6;

struct Golden<'a>(SafeTensors<'a>);

impl Golden<'_> {
    fn values(&self, name: &str) -> Vec<f64> {
        let bytes = self.0.tensor(name).unwrap().data();
        bytes.chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect()
    }

    fn matrix(&self, name: &str) -> Array2<f64> {
        let shape = self.0.tensor(name).unwrap().shape().to_vec();
        Array2::from_shape_vec((shape[0], shape[1]), self.values(name)).unwrap()
    }
}

#[track_caller]
fn close(found: impl IntoIterator<Item = f64>, golden: impl IntoIterator<Item = f64>, scale: f64, what: &str) {
    let golden: Vec<f64> = golden.into_iter().collect();
    let found: Vec<f64> = found.into_iter().collect();
    assert_eq!(found.len(), golden.len(), "{what}");
    for (found, golden) in found.iter().zip(&golden) {
        within(found - golden, BATCHES as f64 * decomposed(24) * scale, what);
    }
}

#[track_caller]
fn check(file: &str) {
    let bytes = std::fs::read(root().join("fixtures/golden").join(file)).unwrap();
    let golden = Golden(SafeTensors::deserialize(&bytes).unwrap());
    let mut svd = IncrementalSvd::new(24, COMPONENTS);
    for i in 0..BATCHES {
        svd.absorb(golden.matrix(&format!("batch.{i}")).view()).unwrap();
        let singular = golden.values(&format!("singular_values.{i}"));
        // A component is as well determined as its singular value is apart from the next.
        let gap = singular.windows(2).map(|w| (w[0] - w[1]) / singular[0]).fold(f64::INFINITY, f64::min);
        let components = golden.matrix(&format!("components.{i}"));
        close(svd.spectrum().singular_values.clone(), singular.clone(), singular[0], "singular values");
        close(svd.components().iter().copied(), components.iter().copied(), 1.0 / gap, "components");
        let mean = Array1::from(golden.values(&format!("mean.{i}")));
        close(svd.mean().iter().copied(), mean.iter().copied(), mean.dot(&mean).sqrt(), "mean");
        let ratio = golden.values(&format!("explained_variance_ratio.{i}"));
        close(svd.spectrum().explained_variance_ratio(), ratio, 1.0, "explained variance ratio");
    }
}

#[test]
fn agrees_with_scikit_learn() {
    check("sklearn.safetensors");
}

#[test]
fn agrees_with_peft() {
    check("peft.safetensors");
}
