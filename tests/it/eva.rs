//! The loop, on a scripted capture: when it stops, what ranks and alphas come out.

use eva_onnx::calib::Batch;
use eva_onnx::capture::{self, Capture, Timing};
use eva_onnx::eva::{self, Next, Outcome, Ranks, Settings, Stop};
use eva_onnx::group::{Group, Grouping, Module};
use eva_onnx::pca::{Spectrum, Summary};
use ndarray::{Array2, array};

/// Two groups of four features; the similarity of every component is `turning[batch]`.
struct Scripted {
    turning: Vec<f64>,
    batches: usize,
    spectra: [Spectrum; 2],
}

impl Scripted {
    fn new(turning: &[f64], singular_values: [[f64; 4]; 2]) -> Self {
        let spectrum = |s: [f64; 4]| Spectrum {
            rows: 10,
            total_variance: s.iter().map(|v| v * v).sum(),
            singular_values: s.to_vec(),
            similarity: Vec::new(),
        };
        Self { turning: turning.to_vec(), batches: 0, spectra: singular_values.map(spectrum) }
    }
}

impl Capture for Scripted {
    fn absorb(&mut self, _: &Batch) -> Result<(), capture::Error> {
        for spectrum in &mut self.spectra {
            spectrum.similarity = if self.batches > 0 { vec![self.turning[self.batches]; 4] } else { Vec::new() };
        }
        self.batches += 1;
        Ok(())
    }

    fn finish(&mut self) -> Result<(), capture::Error> {
        Ok(())
    }

    fn spectrum(&self, group: usize) -> &Spectrum {
        &self.spectra[group]
    }

    fn components(&self) -> Result<Vec<Array2<f64>>, capture::Error> {
        Ok(vec![Array2::eye(4); 2])
    }

    fn summaries(&self) -> Result<Vec<Summary>, capture::Error> {
        Ok(vec![Summary::empty(4); 2])
    }

    fn timing(&self) -> Timing {
        Timing::default()
    }
}

const SPECTRA: [[f64; 4]; 2] = [[8.0, 4.0, 2.0, 1.0], [3.0, 3.0, 3.0, 3.0]];

/// `q` and `k` share the first group, `o` has the second.
fn grouping() -> Grouping {
    let module = |name: &str, group| Module {
        name: name.to_owned(),
        in_features: 4,
        out_features: 6,
        fan_in_fan_out: false,
        group,
    };
    let group = |tensor: &str| Group { tensors: vec![tensor.to_owned()], features: 4, routed: false };
    Grouping { modules: vec![module("q", 0), module("k", 0), module("o", 1)], groups: vec![group("a"), group("b")] }
}

fn settings() -> Settings {
    Settings { rank: 2, alpha: 4.0, rho: 2.0, tau: 0.99, min_rank: 0, ranks: Ranks::Eva, whiten: false }
}

fn batches(n: usize) -> impl Iterator<Item = Batch> {
    (0..n).map(|_| Batch {
        input_ids: array![[1, 2]],
        attention_mask: array![[1, 1]],
        token_type_ids: None,
        keep: array![[true, false]],
        source: None,
        tensors: Vec::new(),
    })
}

fn run(turning: &[f64], end: Stop, settings: &Settings) -> Outcome {
    let mut capture = Scripted::new(turning, SPECTRA);
    let mut go_on = |_: &eva::Progress| Next::Continue;
    eva::run(&mut capture, &grouping(), batches(turning.len()), end, settings, &mut go_on).unwrap()
}

#[test]
fn it_stops_at_convergence() {
    let outcome = run(&[0.0, 0.5, 0.995, 0.999], Stop::Data, &settings());
    assert_eq!((outcome.stopped_by, outcome.progress.batches), (Stop::Converged, 3));
    assert!(outcome.layers.iter().all(|layer| layer.converged));
}

#[test]
fn it_stops_at_the_end_of_the_data() {
    let outcome = run(&[0.0, 0.5, 0.5], Stop::Data, &settings());
    assert_eq!((outcome.stopped_by, outcome.progress.batches), (Stop::Data, 3));
    assert_eq!((outcome.progress.tokens_seen, outcome.progress.tokens_kept), (6, 3));
}

#[test]
fn it_tells_a_limit_from_the_end_of_the_data() {
    assert_eq!(run(&[0.0, 0.5], Stop::MaxBatches, &settings()).stopped_by, Stop::MaxBatches);
}

#[test]
fn at_tau_one_nothing_converges() {
    let outcome = run(&[0.0, 1.0, 1.0], Stop::Data, &Settings { tau: 1.0, ..settings() });
    assert_eq!(outcome.stopped_by, Stop::Data);
}

#[test]
fn an_interrupt_keeps_the_batches_done() {
    let mut capture = Scripted::new(&[0.0; 9], SPECTRA);
    let mut after_two = |progress: &eva::Progress| if progress.batches == 2 { Next::Stop } else { Next::Continue };
    let outcome = eva::run(&mut capture, &grouping(), batches(9), Stop::Data, &settings(), &mut after_two).unwrap();
    assert_eq!((outcome.stopped_by, outcome.progress.batches), (Stop::Interrupted, 2));
    assert!(!outcome.adapter.modules.is_empty());
}

#[test]
fn an_interrupt_before_the_first_batch_gives_nothing() {
    let mut capture = Scripted::new(&[0.0], SPECTRA);
    let mut at_once = |_: &eva::Progress| Next::Stop;
    let error = eva::run(&mut capture, &grouping(), batches(1), Stop::Data, &settings(), &mut at_once).unwrap_err();
    assert!(matches!(error, eva::Error::Interrupted));
}

#[test]
fn ranks_follow_the_explained_variance_and_alpha_follows_the_rank() {
    // Ratios: q and k 64/85, 16/85, 4/85, 1/85; o four times 1/4. The best six: 2 x 0.75, 4 x 0.25.
    let outcome = run(&[0.0, 0.5], Stop::Data, &settings());
    let ranks: Vec<_> = outcome.layers.iter().map(|layer| layer.rank).collect();
    assert_eq!((ranks.as_slice(), outcome.budget), ([1, 1, 4].as_slice(), 6));
    for module in &outcome.adapter.modules {
        assert_eq!(module.alpha / module.rank() as f64, 2.0);
    }
}

#[test]
fn a_module_without_rank_is_left_out() {
    let mut capture = Scripted::new(&[0.0], [[9.0, 9.0, 0.1, 0.1], [5.0, 5.0, 5.0, 5.0]]);
    let mut go_on = |_: &eva::Progress| Next::Continue;
    let settings = Settings { rank: 1, rho: 2.0, ..settings() };
    let mut grouping = grouping();
    grouping.modules.truncate(3);
    let outcome = eva::run(&mut capture, &grouping, batches(1), Stop::Data, &settings, &mut go_on).unwrap();
    assert_eq!(outcome.layers.iter().map(|layer| layer.rank).collect::<Vec<_>>(), [2, 1, 0]);
    assert_eq!(outcome.adapter.untouched, ["o"]);
    assert_eq!(outcome.adapter.modules.len(), 2);
}

#[test]
fn min_rank_and_uniform_ranks_are_kept() {
    let ranks = |settings: &Settings| {
        run(&[0.0], Stop::Data, settings).layers.iter().map(|layer| layer.rank).collect::<Vec<_>>()
    };
    assert_eq!(ranks(&Settings { min_rank: 2, ..settings() }), [2, 2, 2]);
    assert_eq!(ranks(&Settings { ranks: Ranks::Uniform, rank: 3, ..settings() }), [3, 3, 3]);
}

#[test]
fn whitening_divides_once_also_where_modules_share_an_input() {
    let outcome = run(&[0.0], Stop::Data, &Settings { whiten: true, min_rank: 2, ..settings() });
    for module in &outcome.adapter.modules[..2] {
        let lengths: Vec<f32> = module.a.rows().into_iter().map(|row| row.dot(&row).sqrt()).collect();
        for (length, s) in lengths.iter().zip(SPECTRA[0]) {
            assert!((length - (1.0 / s.sqrt()) as f32).abs() < f32::EPSILON, "{} {length}", module.module);
        }
    }
}

#[test]
fn data_that_is_masked_out_is_an_error() {
    let masked = batches(2).map(|batch| Batch { keep: array![[false, false]], ..batch });
    let mut capture = Scripted::new(&[0.0, 0.0], SPECTRA);
    let mut go_on = |_: &eva::Progress| Next::Continue;
    let error = eva::run(&mut capture, &grouping(), masked, Stop::Data, &settings(), &mut go_on).unwrap_err();
    assert!(matches!(error, eva::Error::NoRows { batches: 2 }), "{error}");
}
