//! The state of a capture between two batches: another one that takes it gives the same bits.

use crate::support::case::{Case, case, gpu, padded_case};
use eva_onnx::capture::{Capture, Outputs, Sketch, Strategy};
use eva_onnx::pca::{Spectrum, Summary};
use ndarray::Array2;

/// All that a run gives: the spectrum of a group after each batch, and what is known in the end.
#[derive(PartialEq)]
struct Seen {
    spectra: Vec<Spectrum>,
    components: Vec<Array2<f64>>,
    summaries: Vec<Summary>,
}

/// Runs all batches; before each that `moves` names, another capture takes the state.
fn seen(case: &Case, new: &dyn Fn() -> Box<dyn Capture>, moves: &dyn Fn(usize) -> bool) -> Seen {
    let mut capture = new();
    let mut spectra = Vec::new();
    for (number, batch) in case.data.batches().enumerate() {
        if moves(number) {
            let state = capture.save().unwrap();
            capture = new();
            capture.restore(&state).unwrap();
        }
        capture.absorb(&batch).unwrap();
        spectra.push(capture.spectrum(0).clone());
    }
    capture.finish().unwrap();
    Seen { spectra, components: capture.components().unwrap(), summaries: capture.summaries().unwrap() }
}

#[track_caller]
fn check(case: &Case, what: &str, new: &dyn Fn() -> Box<dyn Capture>) {
    let whole = seen(case, new, &|_| false);
    assert!(seen(case, new, &|_| true) == whole, "{what}: moved before every batch");
    assert!(seen(case, new, &|number| number == 5) == whole, "{what}: moved before the sixth batch");
}

fn sketch(case: &Case) -> Box<dyn Capture> {
    Box::new(Sketch::new(case.setup(8), &case.data.batch(0)).unwrap())
}

#[test]
fn a_sketch_goes_on_to_the_bit() {
    for strategy in [Strategy::Direct].into_iter().chain(gpu()) {
        let case = Case { strategy, ..case("tiny/llama-ts", 9, 2, 32) };
        check(&case, &format!("{strategy:?}"), &|| sketch(&case));
    }
}

/// Padding changes the rows of tokens, so that batches are split, and experts have any number of rows.
#[test]
fn what_was_learnt_of_rows_goes_along() {
    for folder in ["tiny/bert-optimum", "tiny/gpt2-optimum"] {
        let case = padded_case(folder, 7);
        check(&case, folder, &|| sketch(&case));
    }
}

#[test]
fn activations_and_several_devices_go_on_to_the_bit() {
    let case = case("tiny/llama-ts", 8, 2, 32);
    check(&case, "outputs", &|| Box::new(Outputs::new(case.setup(8)).unwrap()));
    check(&case, "devices", &|| Box::new(case.sharded(3, case.setup(8))));
    let late = Case { strategy: gpu()[0], ..case };
    check(&late, "late devices", &|| Box::new(late.sharded(2, late.setup(8))));
}

#[test]
fn states_of_other_runs_are_refused() {
    let case = case("tiny/llama-ts", 2, 2, 32);
    let mut own = sketch(&case);
    own.absorb(&case.data.batch(0)).unwrap();
    let state = own.save().unwrap();
    let refused = |mut other: Box<dyn Capture>, state: &[u8]| {
        let error = other.restore(state).unwrap_err().to_string();
        assert!(error.contains("does not belong to this run"), "{error}");
    };
    refused(Box::new(Sketch::new(case.setup(4), &case.data.batch(0)).unwrap()), &state);
    refused(Box::new(Outputs::new(case.setup(8)).unwrap()), &state);
    refused(Box::new(case.sharded(2, case.setup(8))), &state);
    for end in [0, 1, state.len() / 2, state.len() - 1] {
        refused(sketch(&case), &state[..end]);
    }
    refused(sketch(&case), &[&state[..], b"more"].concat());
    // Nothing that a file may hold ends in a panic; what is refused is not used further.
    for at in (0..state.len()).step_by(state.len() / 40) {
        let mut changed = state.clone();
        changed[at] ^= 0x55;
        let mut other = sketch(&case);
        if other.restore(&changed).is_ok() {
            let _ = other.absorb(&case.data.batch(1));
        }
    }
}
