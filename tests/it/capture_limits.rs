//! What becomes of activations and batches that are too much: for 16 bits, for the memory, for 32 bits.

use crate::support::case;
use crate::support::tolerance::{EPS, SKETCH_LOSS, rounded_away, within};
use eva_onnx::Hint;

use case::{Case, case, gpu, padded_case};
use eva_onnx::capture::{Capture, Outputs, Setup, Sketch, Strategy};
use eva_onnx::eva::{self, Next, Ranks, Settings};
use eva_onnx::onnx::{Constant, Node, Patch};
use ndarray::Array2;

const MADE: &str = "eva/test/made";

/// Rows of padding that are not finite, and rows that 16 bits do not tell apart or not from nothing.
#[test]
fn what_the_fast_subgraphs_cannot_bear_the_others_do() {
    let in_padding = |tensor: &str| {
        let nodes = vec![
            cast_to(1, "attention_mask", "eva/test/mask"),
            node("Log", &["eva/test/mask"], "eva/test/log"),
            node("Unsqueeze", &["eva/test/log", "eva/test/2"], "eva/test/column"),
            node("Add", &[tensor, "eva/test/column"], MADE),
        ];
        (nodes, ("eva/test/2".to_owned(), Constant::I64(vec![1], vec![2])))
    };
    let alike = |tensor: &str| {
        let nodes = vec![node("Add", &[tensor, "eva/test/far"], MADE)];
        (nodes, ("eva/test/far".to_owned(), Constant::F32(vec![1], vec![100.0])))
    };
    let tiny = |tensor: &str| {
        let nodes = vec![node("Mul", &[tensor, "eva/test/tiny"], MADE)];
        (nodes, ("eva/test/tiny".to_owned(), Constant::F32(vec![1], vec![1e-10])))
    };
    let [_, masked, half] = gpu();
    type Made<'a> = &'a dyn Fn(&str) -> (Vec<Node>, (String, Constant));
    let cases = [(&in_padding as Made<'_>, masked, 1.0), (&in_padding, half, 1.0), (&alike, half, 1.0)];
    for (make, strategy, length) in cases.into_iter().chain([(&tiny as Made<'_>, half, 1e-10)]) {
        let mut case = Case { strategy, ..padded_case("tiny/llama-ts", 6) };
        case.grouping.groups.truncate(2);
        let truth = case.truth();
        let (nodes, constant) = make(&case.grouping.groups[1].tensors[0]);
        let constants = vec![constant];
        case.model = case.model.apply(&Patch { nodes, constants, ..Patch::default() }).unwrap();
        case.grouping.groups[1].tensors[0] = MADE.to_owned();
        let mut sketch = Sketch::new(case.setup(16), &case.data.batch(0)).unwrap();
        assert!(!sketch.events().reloaded_in_f32);
        let events = case.run(&mut sketch);
        assert!(events.reloaded_in_f32, "{strategy:?}");
        for (g, truth) in truth.iter().enumerate() {
            let captured = truth.captured(sketch.components().unwrap()[g].view());
            within(1.0 - captured, rounded_away(), "variance");
            let total: f64 = truth.eigenvalues.iter().sum();
            // 100 is far from the rows: the lengths of rows are rounded, and so is what they are computed from.
            let alike = 1e4 * (case.grouping.groups[g].features as f64) * sketch.spectrum(g).rows as f64 / total;
            let made: f64 = if g == 1 { length } else { 1.0 };
            let error = sketch.spectrum(g).total_variance / (total * made.powi(2)) - 1.0;
            within(error, 4.0 * EPS * alike, "total variance");
        }
    }
}

/// 16-bit floats hold all digits of bfloat16.
#[test]
fn products_of_16_bits_take_rows_of_bfloat16() {
    let [.., strategy] = gpu();
    let mut case = Case { strategy, ..padded_case("tiny/llama-ts", 6) };
    case.grouping.groups.truncate(1);
    let tensor = case.grouping.groups[0].tensors[0].clone();
    let rounded = "eva/test/rounded";
    let nodes = vec![cast_to(16, &tensor, rounded), cast_to(1, rounded, MADE)];
    case.model = case.model.apply(&Patch { nodes, ..Patch::default() }).unwrap();
    case.grouping.groups[0].tensors[0] = MADE.to_owned();
    let truth = &case.truth()[0];
    case.grouping.groups[0].tensors[0] = rounded.to_owned();
    let mut sketch = Sketch::new(case.setup(16), &case.data.batch(0)).unwrap();
    let events = case.run(&mut sketch);
    assert!(!events.reloaded_in_f32);
    let captured = truth.captured(sketch.components().unwrap()[0].view());
    within(1.0 - captured, rounded_away(), "variance");
}

const OVERFLOWN: &str = "eva/test/overflown";

/// Adds a tensor that is `tensor` times 1e38, squared.
fn overflow(tensor: &str) -> Patch {
    Patch {
        nodes: vec![
            node("Mul", &[tensor, "eva/test/huge"], "eva/test/scaled"),
            node("Mul", &["eva/test/scaled", "eva/test/scaled"], OVERFLOWN),
        ],
        constants: vec![("eva/test/huge".to_owned(), Constant::F32(vec![1], vec![1e38]))],
        ..Patch::default()
    }
}

/// A conversion to an element type by its number in ONNX.
fn cast_to(element: i64, input: &str, output: &str) -> Node {
    Node { attributes: vec![("to", eva_onnx::onnx::Attribute::Int(element))], ..node("Cast", &[input], output) }
}

fn node(op: &'static str, inputs: &[&str], output: &str) -> Node {
    Node {
        name: format!("{output}/{op}"),
        op,
        inputs: inputs.iter().map(|&i| i.to_owned()).collect(),
        outputs: vec![output.to_owned()],
        attributes: vec![],
    }
}

const HUNGRY: &str = "eva/test/hungry";

/// Adds a tensor equal to `tensor` whose making takes 4 * 4096^b bytes, b the rows of a batch.
fn hunger(tensor: &str) -> Patch {
    Patch {
        nodes: vec![
            node("Shape", &["input_ids"], "eva/test/shape"),
            node("Gather", &["eva/test/shape", "eva/test/0"], "eva/test/rows"),
            node("Pow", &["eva/test/4096", "eva/test/rows"], "eva/test/size"),
            node("Expand", &["eva/test/zero", "eva/test/size"], "eva/test/zeros"),
            node("ReduceMax", &["eva/test/zeros"], "eva/test/most"),
            node("Add", &[tensor, "eva/test/most"], HUNGRY),
        ],
        constants: vec![
            ("eva/test/0".to_owned(), Constant::I64(vec![1], vec![0])),
            ("eva/test/4096".to_owned(), Constant::I64(vec![1], vec![4096])),
            ("eva/test/zero".to_owned(), Constant::F32(vec![1], vec![0.0])),
        ],
        ..Patch::default()
    }
}

/// Batches of 4 rows would take 2^50 bytes, more than an address space has, so that no setting of the system grants
/// them; their halves fit.
#[test]
fn a_batch_that_does_not_fit_is_run_in_halves() {
    for strategy in [Strategy::Direct].into_iter().chain(gpu()) {
        let case = Case { strategy, ..case("tiny/llama-ts", 6, 4, 64) };
        let mut groups = case.grouping.groups.clone();
        groups.truncate(1);
        let model = case.model.apply(&hunger(&groups[0].tensors[0])).unwrap();
        groups[0].tensors[0] = HUNGRY.to_owned();
        let setup = Setup { model: &model, groups: &groups, ..case.setup(8) };
        let mut sketch = Sketch::new(setup, &case.data.batch(0)).unwrap();
        let events = case.run(&mut sketch);
        assert_eq!(events.split_batches, 6);
        let truth = &case.truth()[0];
        let captured = truth.captured(sketch.components().unwrap()[0].view());
        within(1.0 - captured, SKETCH_LOSS, &format!("{strategy:?}: variance"));
        assert_eq!(sketch.spectrum(0).rows as usize, case.data.kept());
    }
}

#[test]
fn a_row_that_does_not_fit_says_what_to_lower() {
    let case = case("tiny/llama-ts", 1, 4, 64);
    let mut groups = case.grouping.groups.clone();
    groups.truncate(1);
    let mut patch = hunger(&groups[0].tensors[0]);
    // The model is tried with two rows, which would take 2^50 bytes.
    patch.constants[1].1 = Constant::I64(vec![1], vec![1 << 24]);
    let model = case.model.apply(&patch).unwrap();
    groups[0].tensors[0] = HUNGRY.to_owned();
    let setup = Setup { model: &model, groups: &groups, ..case.setup(8) };
    let Err(error) = Sketch::new(setup, &case.data.batch(0)) else { panic!("it cannot fit") };
    assert!(error.to_string().starts_with("out of memory: "), "{error}");
    assert!(error.hint().unwrap().contains("--batch-size"), "{error}");
}

#[test]
fn infinite_activations_name_the_layer_input_and_the_batch() {
    let case = case("tiny/llama-ts", 1, 2, 32);
    let mut groups = case.grouping.groups.clone();
    groups.truncate(1);
    let patch = overflow(&groups[0].tensors[0]);
    let model = case.model.apply(&patch).unwrap();
    groups[0].tensors[0] = OVERFLOWN.to_owned();
    let setup = Setup { model: &model, groups: &groups, ..case.setup(8) };
    for mut capture in [
        Box::new(Sketch::new(setup, &case.data.batch(0)).unwrap()) as Box<dyn Capture>,
        Box::new(Outputs::new(setup).unwrap()) as Box<dyn Capture>,
    ] {
        let error = capture.absorb(&case.data.batch(0)).unwrap_err().to_string();
        assert_eq!(error, "the layer input `eva/test/overflown` is not finite in batch 1");
    }
}

/// One batch of seven has an entry above the bound of a square root.
#[test]
fn an_error_in_a_shard_names_the_layer_and_the_batch_of_all() {
    const LAST: usize = 7;
    let mut case = case("tiny/llama-ts", 7, 2, 32);
    let activations = case.activations();
    let largest = |groups: &Vec<Array2<f64>>| groups[LAST].iter().fold(f64::NEG_INFINITY, |most, v| v.max(most));
    let mut batches: Vec<(f64, usize)> = activations.iter().map(largest).zip(1..).collect();
    batches.sort_by(|a, b| b.0.total_cmp(&a.0));
    let (bound, batch) = ((batches[0].0 + batches[1].0) / 2.0, batches[0].1);
    assert!(batches[0].0 > 1.01 * batches[1].0, "{batches:?}");
    let tensor = case.grouping.groups[LAST].tensors[0].clone();
    let nodes =
        [node("Sub", &["eva/test/bound", &tensor], "eva/test/below"), node("Sqrt", &["eva/test/below"], OVERFLOWN)];
    let constants = vec![("eva/test/bound".to_owned(), Constant::F32(vec![1], vec![bound as f32]))];
    case.model = case.model.apply(&Patch { nodes: nodes.into(), constants, ..Patch::default() }).unwrap();
    case.grouping.groups[LAST].tensors[0] = OVERFLOWN.to_owned();

    let settings = Settings { rank: 2, alpha: 2.0, rho: 2.0, tau: 1.0, min_rank: 0, ranks: Ranks::Eva, whiten: false };
    for devices in [2, 3] {
        let mut sharded = case.sharded(devices, case.setup(4));
        let mut go_on = |_: &eva::Progress| Next::Continue;
        let batches = case.data.batches().map(|batch| Ok(batch.into()));
        let run = eva::gather(&mut sharded, &case.grouping, batches, &settings, &mut go_on);
        let error = run.unwrap_err().to_string();
        assert!(error.contains("layers.1.mlp.down_proj"), "{error}");
        assert!(error.ends_with(&format!("(tensor `{OVERFLOWN}`) is not finite in batch {batch}")), "{error}");
    }
}
