//! The loop, on a scripted capture: when it stops, what ranks and alphas come out.

use crate::support;
use eva_onnx::adapter::Adapter;
use eva_onnx::calib::{self, Arrival, Batch, Tokens};
use eva_onnx::capture::{self, Capture, Events, Timing};
use eva_onnx::eva::{self, Allocation, Next, Ranks, Settings, Statistics, Stop, allocate, factors, gather};
use eva_onnx::group::{Group, Grouping, Module};
use eva_onnx::pca::{IncrementalSvd, Spectrum, Summary};
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
            noise: 0.0,
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

    fn finish(&mut self) -> Result<Events, capture::Error> {
        Ok(Events::default())
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

    fn save(&mut self) -> Result<Vec<u8>, capture::Error> {
        Ok(vec![self.batches as u8])
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), capture::Error> {
        self.batches = usize::from(state[0]);
        Ok(())
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

/// Batches whose first or no token counts.
fn batches_of(n: usize, keep: bool) -> impl Iterator<Item = Result<Arrival, calib::Error>> {
    let tokens = Tokens::new(array![[1, 2]], array![[true, true]]);
    (0..n).map(move |_| Ok(Batch { keep: array![[keep, false]], ..Batch::of_tokens(tokens.clone()) }.into()))
}

fn batches(n: usize) -> impl Iterator<Item = Result<Arrival, calib::Error>> {
    batches_of(n, true)
}

/// The three steps.
struct Run {
    statistics: Statistics,
    allocations: Vec<Allocation>,
    adapter: Adapter,
}

fn finished(statistics: Statistics, grouping: &Grouping, settings: &Settings) -> Run {
    let allocations = allocate(&statistics, &grouping.modules, settings);
    let adapter = factors(&statistics, &grouping.modules, &allocations, settings);
    Run { statistics, allocations, adapter }
}

fn run(turning: &[f64], settings: &Settings) -> Run {
    let mut capture = Scripted::new(turning, SPECTRA);
    let mut go_on = |_: &eva::Progress| Next::Continue;
    let statistics = gather(&mut capture, &grouping(), batches(turning.len()), settings, &mut go_on).unwrap();
    finished(statistics, &grouping(), settings)
}

fn ranks(run: &Run) -> Vec<usize> {
    run.allocations.iter().map(|allocation| allocation.rank).collect()
}

#[test]
fn it_stops_at_convergence() {
    let Run { statistics, allocations, .. } = run(&[0.0, 0.5, 0.995, 0.999], &settings());
    assert_eq!((statistics.stopped_by, statistics.history.len()), (Stop::Converged, 3));
    assert!(allocations.iter().all(|allocation| allocation.converged));
}

#[test]
fn it_stops_at_the_end_of_the_data() {
    let Run { statistics, .. } = run(&[0.0, 0.5, 0.5], &settings());
    assert_eq!((statistics.stopped_by, statistics.history.len()), (Stop::Exhausted, 3));
    assert_eq!(statistics.tokens(), (6, 3));
}

#[test]
fn the_history_has_what_each_batch_added() {
    let history = run(&[0.0, 0.5, 0.995], &settings()).statistics.history;
    assert!(history.iter().all(|batch| (batch.tokens_seen, batch.tokens_kept) == (2, 1)));
    assert_eq!(history.iter().map(|batch| batch.converged).collect::<Vec<_>>(), [0, 0, 3]);
    assert_eq!(history.iter().map(|batch| batch.similarity).collect::<Vec<_>>(), [None, Some(0.5), Some(0.995)]);
}

#[test]
fn at_tau_one_nothing_converges() {
    let Run { statistics, .. } = run(&[0.0, 1.0, 1.0], &Settings { tau: 1.0, ..settings() });
    assert_eq!(statistics.stopped_by, Stop::Exhausted);
}

#[test]
fn an_interrupt_keeps_the_batches_done() {
    let mut capture = Scripted::new(&[0.0; 9], SPECTRA);
    let mut after_two = |progress: &eva::Progress| if progress.batches == 2 { Next::Stop } else { Next::Continue };
    let statistics = gather(&mut capture, &grouping(), batches(9), &settings(), &mut after_two).unwrap();
    assert_eq!((statistics.stopped_by, statistics.history.len()), (Stop::Interrupted, 2));
    assert!(!finished(statistics, &grouping(), &settings()).adapter.modules.is_empty());
}

#[test]
fn an_interrupt_before_the_first_batch_gives_nothing() {
    let mut capture = Scripted::new(&[0.0], SPECTRA);
    let mut at_once = |_: &eva::Progress| Next::Stop;
    let error = gather(&mut capture, &grouping(), batches(1), &settings(), &mut at_once).unwrap_err();
    assert!(matches!(error, eva::Error::Interrupted));
}

#[test]
fn an_interrupt_while_rows_are_waited_for_keeps_the_batches_done() {
    let waiting = || std::iter::repeat_with(|| Ok(Arrival::Waiting));
    let mut asked = 0;
    let mut after_five = |_: &eva::Progress| {
        asked += 1;
        if asked == 5 { Next::Stop } else { Next::Continue }
    };
    let mut capture = Scripted::new(&[0.0; 9], SPECTRA);
    let statistics =
        gather(&mut capture, &grouping(), batches(2).chain(waiting()), &settings(), &mut after_five).unwrap();
    assert_eq!((statistics.stopped_by, statistics.history.len()), (Stop::Interrupted, 2));
    let mut third = 0;
    let mut after_three = |_: &eva::Progress| {
        third += 1;
        if third == 3 { Next::Stop } else { Next::Continue }
    };
    let mut capture = Scripted::new(&[0.0], SPECTRA);
    let error = gather(&mut capture, &grouping(), waiting(), &settings(), &mut after_three).unwrap_err();
    assert!(matches!(error, eva::Error::Interrupted), "{error}");
}

#[test]
fn rows_that_cannot_be_read_end_the_run() {
    let mut capture = Scripted::new(&[0.0; 9], SPECTRA);
    let broken = batches(1).chain([Err(calib::Error::NoFiles)]);
    let mut go_on = |_: &eva::Progress| Next::Continue;
    let error = gather(&mut capture, &grouping(), broken, &settings(), &mut go_on).unwrap_err();
    assert!(matches!(error, eva::Error::Data(_)), "{error}");
}

#[test]
fn ranks_follow_the_explained_variance_and_alpha_follows_the_rank() {
    // Ratios: q and k 64/85, 16/85, 4/85, 1/85; o four times 1/4. The best six: 2 x 0.75, 4 x 0.25.
    let run = run(&[0.0, 0.5], &settings());
    assert_eq!((ranks(&run).as_slice(), settings().budget(3)), ([1, 1, 4].as_slice(), 6));
    for module in &run.adapter.modules {
        assert_eq!(module.alpha / module.rank() as f64, 2.0);
    }
}

#[test]
fn a_module_without_rank_is_left_out() {
    let mut capture = Scripted::new(&[0.0], [[9.0, 9.0, 0.1, 0.1], [5.0, 5.0, 5.0, 5.0]]);
    let mut go_on = |_: &eva::Progress| Next::Continue;
    let settings = Settings { rank: 1, rho: 2.0, ..settings() };
    let statistics = gather(&mut capture, &grouping(), batches(1), &settings, &mut go_on).unwrap();
    let run = finished(statistics, &grouping(), &settings);
    assert_eq!(ranks(&run), [2, 1, 0]);
    assert_eq!(run.adapter.unadapted, ["o"]);
    assert_eq!(run.adapter.modules.len(), 2);
}

#[test]
fn min_rank_and_uniform_ranks_are_kept() {
    let ranks = |settings: &Settings| ranks(&run(&[0.0], settings));
    assert_eq!(ranks(&Settings { min_rank: 2, ..settings() }), [2, 2, 2]);
    assert_eq!(ranks(&Settings { ranks: Ranks::Uniform, rank: 3, ..settings() }), [3, 3, 3]);
}

#[test]
fn whitening_divides_once_also_where_modules_share_an_input() {
    let run = run(&[0.0], &Settings { whiten: true, min_rank: 2, ..settings() });
    for module in &run.adapter.modules[..2] {
        let lengths: Vec<f32> = module.a.rows().into_iter().map(|row| row.dot(&row).sqrt()).collect();
        for (length, s) in lengths.iter().zip(SPECTRA[0]) {
            assert!((length - (1.0 / s.sqrt()) as f32).abs() < f32::EPSILON, "{} {length}", module.module);
        }
    }
}

#[test]
fn data_that_is_masked_out_is_an_error() {
    let mut capture = Scripted::new(&[0.0, 0.0], SPECTRA);
    let mut go_on = |_: &eva::Progress| Next::Continue;
    let error = gather(&mut capture, &grouping(), batches_of(2, false), &settings(), &mut go_on).unwrap_err();
    assert!(matches!(error, eva::Error::NoRows { batches: 2 }), "{error}");
}

/// What two machines know of their rows is enough for ranks and factors.
#[test]
fn summaries_from_elsewhere_give_an_adapter() {
    let half = |seed: u64| {
        let rows = support::rows(60, 4, 0.3, seed);
        let mut svd = IncrementalSvd::new(4, 4);
        svd.absorb(rows.view()).unwrap();
        (rows, svd.summary())
    };
    let ((first, a), (second, b)) = (half(1), half(2));
    let merged = Summary::merge(&[a, b]);
    let statistics = Statistics::from_summaries(&[merged.clone(), merged], settings().components(), 2).unwrap();
    let run = finished(statistics, &grouping(), &settings());
    assert_eq!(ranks(&run).iter().sum::<usize>(), 6);
    let truth = support::exact(ndarray::concatenate![ndarray::Axis(0), first, second].view());
    for module in &run.adapter.modules {
        let cosines = truth.cosines(module.a.mapv(f64::from).view());
        assert!(cosines.iter().all(|cosine| 1.0 - cosine < 4.0 * f64::from(f32::EPSILON)), "{cosines:?}");
    }
}
