//! Adapters beside every form of a linear layer, in graphs made for it.

use crate::support::adapters::{self, adapter, bit_equal, distance};
use crate::support::graph::{BOOL, F16, F32, F64, I8, Net, listing, net, pattern};
use crate::support::tolerance::{F16_DRIFT, F32_DRIFT, within};
use eva_onnx::linear::{Fused, LayerInput, LayerOutput, LayerWeight, Linear, Location, NamedBy, Part, Slice};
use eva_onnx::onnx::Model;
use eva_onnx::output::{self, Destination};
use eva_onnx::splice::{self, Inputs, Saved, Site};
use std::path::Path;

const WIDTHS: (i64, i64) = (6, 9);
const WEIGHT: [i64; 2] = [WIDTHS.0, WIDTHS.1];
/// A shape of three dynamic sizes.
const ANY: [i64; 3] = [-1; 3];

/// `x -> Cast -> h`, of an element type.
fn start(element: i32) -> Net {
    net().shaped_input("x", F32, &ANY).node("Cast", "to", &["x"], "h").int("to", i64::from(element))
}

/// `MatMul(h, w) -> p`.
fn product(net: Net) -> Net {
    net.node("MatMul", "product", &["h", "w"], "p")
}

/// `p -> Cast -> y`.
fn end(net: Net) -> Net {
    net.node("Cast", "from", &["p"], "y").int("to", i64::from(F32)).shaped_output("y", F32, &ANY)
}

/// One product with a stored weight [6, 9].
fn plain() -> Net {
    end(product(start(F32).floats("w", &WEIGHT, F32)))
}

/// The same in another type; ONNX Runtime would leave out the rounding between a product and a cast back.
fn plain_in(element: i32) -> Net {
    product(start(element).floats("w", &WEIGHT, element)).shaped_output("p", element, &ANY)
}

type Columns = Option<(usize, usize)>;

fn linear(dtype: &str, parts: &[(&str, Columns)]) -> Linear {
    let part =
        |(module, columns): &(&str, Columns)| Part { module: (*module).to_owned(), columns: *columns, slice: None };
    Linear {
        at: Location { node: "product".to_owned(), op: "MatMul".to_owned(), subgraph: Vec::new() },
        input: LayerInput { tensor: "h".to_owned(), ..LayerInput::default() },
        output: LayerOutput { tensor: "p".to_owned(), fused: None },
        weight: LayerWeight {
            tensor: "w".to_owned(),
            dtype: dtype.parse().unwrap(),
            bias: None,
            fan_in_fan_out: false,
        },
        in_features: WIDTHS.0 as usize,
        out_features: WIDTHS.1 as usize,
        modules: parts.iter().map(part).collect(),
        named_by: NamedBy::Node,
        head: false,
        conditional: false,
    }
}

/// The outputs for some values of x, which 16-bit floats hold exactly: ONNX Runtime leaves out casts there and back.
fn evaluate(model: &Model, shape: &[usize]) -> Vec<Vec<f64>> {
    let x = pattern(shape.iter().product()).into_iter().map(|value| half::f16::from_f32(value).to_f32());
    adapters::outputs(model, shape, x.collect())
}

/// The patched model, written to a folder with its merged weights, if any.
fn put(model: &Model, patch: &eva_onnx::onnx::Patch, merged: &[u8], dir: &Path) -> Model {
    let edited = model.apply(patch).unwrap();
    let mut destination = Destination::prepare(&dir.join("put"), true).unwrap();
    destination.write("merged.data", merged).unwrap();
    output::model::put(model, &edited, &mut destination, "", &output::model::FileNames::default()).unwrap();
    destination.commit(&[]).unwrap();
    Model::open(dir.join("put/model.onnx")).unwrap()
}

fn merged(model: &Model, sites: &[Site<'_>], dir: &Path) -> Model {
    let mut data = Vec::new();
    let patch = splice::merge(model, sites, &Saved::default(), "merged.data", &mut data).unwrap();
    put(model, &patch, &data, dir)
}

/// Every form of a layer: zero B changes nothing, branches and merged weights agree within `close`.
#[track_caller]
fn form(net: Net, linears: &[Linear], shape: &[usize], close: f64) -> String {
    let (dir, model) = net.open();
    let base = evaluate(&model, shape);
    let (zero, trained) = (adapter(linears, false), adapter(linears, true));
    let sites = splice::fit(linears, &zero).unwrap();
    for patch in [splice::trainable(&model, &sites), splice::adapter_inputs(&model, &sites, Inputs::Optional)] {
        bit_equal(&evaluate(&model.apply(&patch.unwrap()).unwrap(), shape), &base, "zero B");
    }
    let sites = splice::fit(linears, &trained).unwrap();
    let patch = splice::trainable(&model, &sites).unwrap();
    let edited = model.apply(&patch).unwrap();
    let branches = evaluate(&put(&model, &patch, &[], dir.path()), shape);
    assert!(distance(&branches, &base) > 0.01);
    let off = distance(&evaluate(&merged(&model, &sites, dir.path()), shape), &branches);
    within(off, close, "merged and branches");
    listing(&edited)
}

const ROWS: [usize; 3] = [2, 3, 6];

#[test]
fn a_plain_product() {
    let lines = form(plain(), &[linear("f32", &[("q", None)])], &ROWS, F32_DRIFT);
    insta::assert_snapshot!("splice_plain", lines);
}

#[test]
fn sixteen_and_sixty_four_bits() {
    let lines = form(plain_in(F16), &[linear("f16", &[("q", None)])], &ROWS, F16_DRIFT);
    insta::assert_snapshot!("splice_f16", lines);
    let linears = [linear("f64", &[("q", None)])];
    let (_dir, model) = plain_in(F64).open();
    let trained = adapter(&linears, true);
    let sites = splice::fit(&linears, &trained).unwrap();
    let edited = model.apply(&splice::trainable(&model, &sites).unwrap()).unwrap();
    insta::assert_snapshot!("splice_f64", listing(&edited));
    evaluate(&edited, &ROWS);
    let error = splice::merge(&model, &sites, &Saved::default(), "merged.data", &mut Vec::new()).unwrap_err();
    assert_eq!(error.to_string(), "module `q` cannot be merged: its weight has type f64");
}

#[test]
fn packed_columns() {
    // Two modules with a gap before, between and after them.
    let parts = [("q", Some((1, 4))), ("k", Some((5, 8)))];
    let lines = form(plain(), &[linear("f32", &parts)], &ROWS, F32_DRIFT);
    insta::assert_snapshot!("splice_packed", lines);
    // Only one of two gets an adapter, and the split of old operator sets.
    let net = plain().opset(12);
    let layer = [linear("f32", &[("q", Some((0, 5))), ("k", Some((5, 9)))])];
    form(net.clone(), &layer, &ROWS, F32_DRIFT);
    let mut one = adapter(&layer, true);
    one.modules.remove(0);
    let (_dir, model) = net.open();
    let sites = splice::fit(&layer, &one).unwrap();
    let edited = model.apply(&splice::trainable(&model, &sites).unwrap()).unwrap();
    let (base, got) = (evaluate(&model, &ROWS), evaluate(&edited, &ROWS));
    for (row, (base, got)) in base[0].chunks(9).zip(got[0].chunks(9)).enumerate() {
        assert_eq!(base[..5], got[..5], "{row}");
        assert_ne!(base[5..], got[5..], "{row}");
    }
}

#[test]
fn two_nodes_compute_one_module() {
    // A product of 9 columns and one of 4, of a module with 13.
    let net = plain().floats("w2", &[WIDTHS.0, 4], F32).node("MatMul", "second", &["h", "w2"], "r");
    let net = net.shaped_output("r", F32, &ANY);
    let part = |start, end| Part { module: "m".to_owned(), columns: None, slice: Some(Slice { start, end, of: 13 }) };
    let first = Linear { modules: vec![part(0, 9)], ..linear("f32", &[]) };
    let mut second = Linear { out_features: 4, modules: vec![part(9, 13)], ..first.clone() };
    second.at.node = "second".to_owned();
    second.output.tensor = "r".to_owned();
    second.weight.tensor = "w2".to_owned();
    let lines = form(net.clone(), &[first.clone(), second], &ROWS, F32_DRIFT);
    insta::assert_snapshot!("splice_slices", lines);

    let mut fused = first;
    fused.output.fused = Some(Fused::Scaled);
    let trained = adapter(std::slice::from_ref(&fused), true);
    let sites = splice::fit(std::slice::from_ref(&fused), &trained).unwrap();
    let (_dir, model) = net.open();
    let error = splice::trainable(&model, &sites).unwrap_err();
    assert_eq!(error.to_string(), format!("module `m` cannot get a branch: {}", Fused::Scaled));
}

#[test]
fn a_weight_behind_a_transposition_and_a_product_that_is_an_output() {
    let transposed = start(F32).floats("w_t", &[WIDTHS.1, WIDTHS.0], F32).node("Transpose", "turn", &["w_t"], "w");
    let net = end(product(transposed)).shaped_output("p", F32, &ANY);
    form(net, &[linear("f32", &[("q", None)])], &ROWS, F32_DRIFT);
}

#[test]
fn gemm_with_both_orders_of_its_weight() {
    for (trans_b, dims) in [(0, [WIDTHS.0, WIDTHS.1]), (1, [WIDTHS.1, WIDTHS.0])] {
        let net = net()
            .shaped_input("x", F32, &[-1, -1])
            .floats("w", &dims, F32)
            .floats("b", &[WIDTHS.1], F32)
            .node("Gemm", "product", &["x", "w", "b"], "p")
            .int("transB", trans_b)
            .node("Neg", "after", &["p"], "y")
            .shaped_output("y", F32, &[-1, -1]);
        let mut layer = linear("f32", &[("q", None)]);
        layer.input.tensor = "x".to_owned();
        form(net, &[layer], &[4, 6], F32_DRIFT);
    }
}

/// Two products with one weight.
fn twice() -> (Net, [Linear; 2]) {
    let negated = start(F32).floats("w", &WEIGHT, F32).node("Neg", "scale", &["h"], "g");
    let net = end(product(negated).node("MatMul", "second", &["g", "w"], "r")).shaped_output("r", F32, &ANY);
    let first = linear("f32", &[("q", None)]);
    let mut second = first.clone();
    second.at.node = "second".to_owned();
    second.input.tensor = "g".to_owned();
    second.output.tensor = "r".to_owned();
    (net, [first, second])
}

#[test]
fn a_module_called_twice_has_one_adapter() {
    let (net, linears) = twice();
    let lines = form(net.clone(), &linears, &ROWS, F32_DRIFT);
    insta::assert_snapshot!("splice_repeated", lines);
    let (dir, model) = net.open();
    let trained = adapter(&linears, true);
    let sites = splice::fit(&linears, &trained).unwrap();
    // The weight is still one, and keeps its name.
    let merged = merged(&model, &sites, dir.path());
    assert_eq!(listing(&merged), listing(&model));
}

#[test]
fn a_weight_with_another_reader_is_copied() {
    let (net, mut linears) = twice();
    let (dir, model) = net.clone().open();
    let alone = adapter(&linears[..1], true);
    let sites = splice::fit(&linears[..1], &alone).unwrap();
    let got = evaluate(&merged(&model, &sites, dir.path()), &ROWS);
    let base = evaluate(&model, &ROWS);
    assert_eq!(got[1], base[1]);
    assert_ne!(got[0], base[0]);
    // Two modules whose equal weights an exporter has made one.
    linears[1].modules[0].module = "k".to_owned();
    form(net, &linears, &ROWS, F32_DRIFT);
}

#[test]
fn a_layer_inside_a_branch() {
    let branch =
        |name: &str, output: &str| net().node("MatMul", name, &["h", "w"], output).shaped_output(output, F32, &ANY);
    let net = start(F32)
        .floats("w", &WEIGHT, F32)
        .bytes("yes", &[], BOOL, vec![1])
        .node("If", "if", &["yes"], "c")
        .branch("then_branch", branch("product", "p"))
        .branch("else_branch", branch("other", "e"))
        .node("Cast", "from", &["c"], "y")
        .int("to", i64::from(F32))
        .shaped_output("y", F32, &ANY);
    let mut layer = linear("f32", &[("q", None)]);
    layer.at.subgraph = vec!["if.then_branch".to_owned()];
    let lines = form(net, std::slice::from_ref(&layer), &ROWS, F32_DRIFT);
    insta::assert_snapshot!("splice_branch", lines);

    let mut inside = layer;
    inside.at.subgraph = vec!["function local::f".to_owned()];
    let trained = adapter(std::slice::from_ref(&inside), true);
    let error = splice::fit(std::slice::from_ref(&inside), &trained).unwrap_err();
    let message = "module `q` is in the function local::f of the model, which cannot hold an adapter";
    assert_eq!(error.to_string(), message);
}

#[test]
fn a_quantized_weight_is_not_merged() {
    let net = start(F32).bytes("q", &WEIGHT, I8, vec![3; 54]).floats("s", &[], F32).node(
        "DequantizeLinear",
        "wide",
        &["q", "s"],
        "w",
    );
    let linears = [linear("f32", &[("m", None)])];
    let (_dir, model) = end(product(net)).open();
    let trained = adapter(&linears, true);
    let sites = splice::fit(&linears, &trained).unwrap();
    let mut written = Vec::new();
    let error = splice::merge(&model, &sites, &Saved::default(), "merged.data", &mut written).unwrap_err();
    let message = "module `m` cannot be merged: its weight is quantized, and would have to be quantized anew";
    assert_eq!((error.to_string().as_str(), written.len()), (message, 0));
    // A branch beside it is fine.
    let edited = model.apply(&splice::trainable(&model, &sites).unwrap()).unwrap();
    assert_ne!(evaluate(&edited, &ROWS), evaluate(&model, &ROWS));
}

#[test]
fn branches_are_checked_without_an_adapter() {
    let (_dir, model) = plain().open();
    let mut layer = linear("f32", &[("q", Some((0, 5))), ("k", Some((5, 9)))]);
    let check = |layer: &Linear, modules: &[&str]| {
        let result = splice::check_branches(&model, std::slice::from_ref(layer), modules.iter().copied());
        result.map_err(|error| error.to_string())
    };
    assert_eq!(check(&layer, &["q", "k"]), Ok(()));
    layer.output.fused = Some(Fused::Scaled);
    let refused = format!("module `k` cannot get a branch: {}", Fused::Scaled);
    assert_eq!(check(&layer, &["k"]), Err(refused));
    assert_eq!(check(&layer, &["v"]), Ok(()));
}
