//! The linear algebra of the host: `cargo bench --bench micro`.
//!
//! `absorb` runs once for each group and batch; `merge` and `decompose` end a run on several devices; `allocation` runs
//! once for each batch.

#![allow(missing_docs, clippy::unwrap_used)]

#[path = "../tests/it/support/stream.rs"]
#[allow(dead_code, unreachable_pub)]
mod stream;

use divan::Bencher;
use eva_onnx::eva::{Settings, Statistics, allocate};
use eva_onnx::group::Module;
use eva_onnx::pca::{Precision, SketchSize, SketchStats, StreamingPca, Summary};
use ndarray::Array2;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

const COMPONENTS: usize = 32;
/// Features of the layer inputs of SmolLM2-135M, a 1B and an 8B Llama.
const FEATURES: [usize; 3] = [576, 2048, 4096];
/// Tokens of a batch.
const ROWS: usize = 512;

fn main() {
    divan::main();
}

/// Rows with a falling spectrum.
fn rows(features: usize, seed: u64) -> Array2<f64> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut uniform = || (rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64 - 0.5;
    Array2::from_shape_fn((ROWS, features), |(_, feature)| uniform() / (1.0 + feature as f64).sqrt())
}

/// An analysis that has seen some batches, and the statistics of the next one.
fn running(features: usize) -> (StreamingPca, SketchStats) {
    let size = SketchSize::new(features, COMPONENTS);
    let mut pca = StreamingPca::new(size, Precision::F32);
    let (stats, mut basis) = stream::sketch(rows(features, 0).view(), &pca, &stream::Basis::initial(size));
    pca.warm_up(stats).unwrap();
    for seed in 0..3 {
        let (stats, next) = stream::sketch(rows(features, seed).view(), &pca, &basis);
        basis = next;
        pca.absorb(stats).unwrap();
    }
    let (stats, _) = stream::sketch(rows(features, 3).view(), &pca, &basis);
    (pca, stats)
}

#[divan::bench(args = FEATURES)]
fn absorb(bencher: Bencher<'_, '_>, features: usize) {
    let start = running(features);
    bencher.with_inputs(|| start.clone()).bench_values(|(mut pca, stats)| {
        pca.absorb(stats).unwrap();
        pca
    });
}

/// What one device knows of its rows.
fn summary(features: usize, seed: u64) -> Summary {
    let width = SketchSize::new(features, COMPONENTS).width;
    let factor = rows(features, seed).slice(ndarray::s![..width, ..]).to_owned();
    let total_variance = factor.iter().map(|value| value * value).sum();
    Summary { rows: ROWS as u64, mean: factor.row(0).to_owned(), total_variance, factor, noise: 0.0 }
}

#[divan::bench(args = FEATURES)]
fn merge(bencher: Bencher<'_, '_>, features: usize) {
    let parts = [summary(features, 0), summary(features, 1)];
    bencher.bench(|| Summary::merge(&parts));
}

#[divan::bench(args = FEATURES)]
fn decompose(bencher: Bencher<'_, '_>, features: usize) {
    let merged = Summary::merge(&[summary(features, 0), summary(features, 1)]);
    bencher.bench(|| merged.decompose(COMPONENTS).unwrap());
}

/// Seven modules a block, which share four inputs.
#[divan::bench(args = [16, 64])]
fn allocation(bencher: Bencher<'_, '_>, blocks: usize) {
    let summaries: Vec<_> = (0..4 * blocks).map(|group| summary(128, group as u64)).collect();
    let statistics = Statistics::from_summaries(&summaries, COMPONENTS, 1).unwrap();
    let module = |index: usize| Module {
        name: format!("layers.{index}"),
        in_features: 128,
        out_features: 128,
        fan_in_fan_out: false,
        group: index / 7 * 4 + [0, 0, 0, 1, 2, 2, 3][index % 7],
    };
    let modules: Vec<_> = (0..7 * blocks).map(module).collect();
    let settings = Settings::default();
    bencher.bench(|| allocate(&statistics, &modules, &settings));
}
