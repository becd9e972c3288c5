//! Both ways of gathering statistics, on real models in ONNX Runtime, against an exact PCA of the activations.

use crate::support;
use crate::support::case;

use case::{Case, case, gpu};
use eva_onnx::capture::{Capture, Outputs, Sketch, Strategy};
use eva_onnx::pca::Precision;
use eva_onnx::runtime::Device;
use support::orthonormality_error;
use support::tolerance::{F16_DRIFT, SKETCH_LOSS, decomposed, rounded_away, summed, within};

/// Every group of a model: orthonormal components that miss at most a share of `loss` of the best possible variance, and
/// the right total.
#[track_caller]
fn check(case: &Case, capture: &dyn Capture, k: usize, loss: f64) {
    let components = capture.components().unwrap();
    for (g, truth) in case.truth().iter().enumerate() {
        let name = &case.grouping.groups[g].tensors[0];
        let a = &components[g];
        let exact = decomposed(a.ncols());
        within(orthonormality_error(a.view()), exact, &format!("{name}: orthonormality"));
        let a = a.slice(ndarray::s![..k.min(a.nrows()), ..]);
        let captured = truth.captured(a);
        assert!(captured >= 1.0 - loss && captured <= 1.0 + k as f64 * exact, "{name}: {captured}");
        let total: f64 = truth.eigenvalues.iter().sum();
        let error = capture.spectrum(g).total_variance / total - 1.0;
        // Products of 16 bits round the mean, whose square is taken from that of the rows.
        let alike = truth.mean.dot(&truth.mean) * capture.spectrum(g).rows as f64 / total;
        let mean = if is_half(case.strategy) { F16_DRIFT * alike } else { 0.0 };
        within(error, summed(a.ncols()) * (alike + 1.0) + mean, &format!("{name}: total variance"));
    }
}

fn is_half(strategy: Strategy) -> bool {
    matches!(strategy, Strategy::Batched { precision: Precision::F16, .. })
}

#[test]
fn the_sketch_finds_the_directions_of_the_example() {
    let cpu = Strategy::Direct;
    let on_cpu = [("example/dynamo", cpu), ("example/optimum", cpu)];
    for (exporter, strategy) in on_cpu.into_iter().chain(gpu().map(|gpu| ("example/dynamo", gpu))) {
        let case = Case { strategy, ..case(exporter, 24, 4, 256) };
        let mut sketch = Sketch::new(case.setup(32), &case.data.batch(0)).unwrap();
        let events = case.run(&mut sketch);
        assert!(!events.reloaded_in_f32, "{exporter} {strategy:?}");
        check(&case, &sketch, 16, SKETCH_LOSS);
        check(&case, &sketch, 32, SKETCH_LOSS);
    }
}

#[test]
fn shards_find_the_directions_of_the_example_together() {
    for (devices, strategy) in
        [(2, Strategy::Direct), (3, Strategy::Direct), (2, Strategy::for_device(Device::Cuda(0), 1 << 14, false))]
    {
        let case = Case { strategy, ..case("example/dynamo", 24, 4, 256) };
        let mut sharded = case.sharded(devices, case.setup(32));
        case.run(&mut sharded);
        check(&case, &sharded, 16, SKETCH_LOSS);
        check(&case, &sharded, 32, SKETCH_LOSS);
    }
}

/// What is known after each batch, and in the end, depends on the batches alone and not on the threads.
#[test]
fn shards_know_the_same_at_the_same_time_in_every_run() {
    let case = case("tiny/llama-ts", 7, 2, 32);
    let run = || {
        let mut sharded = case.sharded(3, case.setup(8));
        let mut spectra = Vec::new();
        for batch in case.data.batches() {
            sharded.absorb(&batch).unwrap();
            spectra.push(sharded.spectrum(0).clone());
        }
        sharded.finish().unwrap();
        spectra.push(sharded.spectrum(0).clone());
        (spectra, sharded.components().unwrap())
    };
    let (spectra, components) = run();
    assert_eq!((spectra, components.clone()), run());
    let rows: Vec<u64> = run().0.iter().map(|spectrum| spectrum.rows).collect();
    let kept: Vec<u64> = case.data.batches().map(|batch| batch.kept() as u64).collect();
    // Batch i is handed out when batch i - 3 is done.
    let want: Vec<u64> = (0..7).map(|i| kept[..(i + 1_usize).saturating_sub(3)].iter().sum()).collect();
    assert_eq!((&rows[..7], rows[7]), (want.as_slice(), kept.iter().sum()));
}

/// The batch up to which each group is known after each batch. Where groups share products with their rows, two batches
/// are seen in the same directions, and in each run half of the groups learn what the two before said.
#[test]
fn the_host_is_one_batch_behind_or_decomposes_pairs() {
    let behind = [0, 1, 2, 3, 3, 4, 5, 6, 7, 8];
    let (even, odd) = ([0, 1, 2, 3, 3, 4, 4, 6, 6, 8], [0, 1, 2, 3, 3, 3, 4, 4, 6, 6]);
    let [joined, masked, _] = gpu();
    for (strategy, want) in [(joined, [even, odd]), (masked, [behind, behind])] {
        let case = Case { strategy, ..case("tiny/llama-ts", 10, 2, 32) };
        let groups = case.grouping.groups.len();
        let mut sketch = Sketch::new(case.setup(32), &case.data.batch(0)).unwrap();
        let mut known = vec![Vec::new(); groups];
        let mut kept = vec![0];
        for batch in case.data.batches() {
            sketch.absorb(&batch).unwrap();
            kept.push(kept[kept.len() - 1] + batch.kept() as u64);
            for (g, known) in known.iter_mut().enumerate() {
                let rows = sketch.spectrum(g).rows;
                known.push(kept[1..].iter().position(|kept| *kept == rows).unwrap());
            }
        }
        assert!(want.iter().all(|want| known.iter().any(|known| known == want)), "{strategy:?} {known:?}");
        assert!(known.iter().all(|known| want.iter().any(|want| known == want)), "{strategy:?} {known:?}");
        sketch.finish().unwrap();
        assert!((0..groups).all(|g| sketch.spectrum(g).rows == kept[10]), "{strategy:?}");
        check(&case, &sketch, 8, rounded_away());
    }
}

#[test]
fn a_shard_without_a_batch_changes_nothing() {
    let case = case("tiny/bert-dynamo", 2, 4, 64);
    let mut sharded = case.sharded(3, case.setup(64));
    case.run(&mut sharded);
    check(&case, &sharded, 8, rounded_away());
    assert!(sharded.spectrum(0).similarity.is_empty(), "nothing tells how much its components turn");
}

#[test]
fn incremental_svd_of_one_batch_of_activations_is_exact() {
    // One batch is decomposed exactly; what several lose is checked against the reference implementations.
    let case = case("example/dynamo", 1, 12, 128);
    let mut outputs = Outputs::new(case.setup(16)).unwrap();
    case.run(&mut outputs);
    check(&case, &outputs, 16, decomposed(12 * 128));
}

#[test]
fn every_committed_export_runs() {
    let tiny = [
        "gpt2-dynamo",
        "gpt2-optimum",
        "bert-dynamo",
        "bert-optimum",
        "llama-dynamo-noopt",
        "llama-ts",
        "llama-external",
    ];
    for name in tiny {
        // Groups of few features are followed whole, so nothing is lost but rounding. Stacks of any number of groups,
        // in which BERT's pooler with its one row a sequence does not fit.
        for strategy in [Strategy::Direct].into_iter().chain(gpu()) {
            let case = Case { strategy, ..case(&format!("tiny/{name}"), 6, 4, 64) };
            let widest = case.grouping.groups.iter().map(|g| g.features).max().unwrap();
            let mut sketch = Sketch::new(case.setup(widest), &case.data.batch(0)).unwrap();
            let events = case.run(&mut sketch);
            // Only BERT's pooler reads rows, one a sequence, of which 16 bits hold little but the mean.
            assert_eq!(events.reloaded_in_f32, is_half(strategy) && name.starts_with("bert"), "{name} {strategy:?}");
            check(&case, &sketch, 8, rounded_away());
        }
    }
}

#[test]
fn batch_size_and_order_do_not_matter_at_full_width() {
    let components = |batches: usize, batch_size: usize| {
        let case = case("tiny/llama-ts", batches, batch_size, 64);
        let mut sketch = Sketch::new(case.setup(64), &case.data.batch(0)).unwrap();
        case.run(&mut sketch);
        sketch.components().unwrap().swap_remove(0)
    };
    let (one, four) = (components(16, 1), components(4, 4));
    for j in 0..8 {
        let cosine = one.row(j).dot(&four.row(j)).abs();
        within(1.0 - cosine, rounded_away(), &format!("component {j}"));
    }
}
