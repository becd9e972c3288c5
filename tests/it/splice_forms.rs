//! Adapters beside every form of a linear layer, in graphs made for it.

use crate::support::adapters;

use adapters::{CLOSE, OPTIONS, adapter, bit_equal, distance, runtime, values};
use eva_onnx::linear::{Fused, LayerInput, LayerOutput, LayerWeight, Linear, Location, NamedBy, Part, Slice};
use eva_onnx::onnx::{Graph, Model};
use eva_onnx::output::{self, Destination};
use eva_onnx::runtime::{Runtime, Session, Value};
use eva_onnx::splice::{self, Site};
use onnx_protobuf::attribute_proto::AttributeType;
use onnx_protobuf::{
    AttributeProto, GraphProto, Message, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto,
    TypeProto, ValueInfoProto,
};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use std::fs;
use std::path::Path;

/// A graph with one product, in several forms.
struct Net {
    graph: GraphProto,
    opset: i64,
}

fn tensor(name: &str, dims: &[i64], element: i32) -> TensorProto {
    let mut rng = ChaCha8Rng::seed_from_u64(dims.iter().sum::<i64>() as u64);
    let values = values(&mut rng, dims.iter().product::<i64>() as usize);
    let raw_data = match element {
        1 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        10 => values.iter().flat_map(|v| half::f16::from_f32(*v).to_le_bytes()).collect(),
        11 => values.iter().flat_map(|v| f64::from(*v).to_le_bytes()).collect(),
        _ => values.iter().flat_map(|v| half::bf16::from_f32(*v).to_le_bytes()).collect(),
    };
    TensorProto { name: name.to_owned(), dims: dims.to_vec(), data_type: element, raw_data, ..Default::default() }
}

fn value(name: &str, element: i32, rank: usize) -> ValueInfoProto {
    let mut kind = TypeProto::new();
    kind.mut_tensor_type().elem_type = element;
    kind.mut_tensor_type().shape =
        Some(TensorShapeProto { dim: vec![Default::default(); rank], ..Default::default() }).into();
    ValueInfoProto { name: name.to_owned(), type_: Some(kind).into(), ..Default::default() }
}

fn node(name: &str, op: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    NodeProto {
        name: name.to_owned(),
        op_type: op.to_owned(),
        input: owned(inputs),
        output: owned(outputs),
        ..Default::default()
    }
}

fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto { name: name.to_owned(), type_: AttributeType::INT.into(), i: value, ..Default::default() }
}

const WIDTHS: (i64, i64) = (6, 9);

impl Net {
    /// `x -> cast to element -> MatMul(w) -> p`, and for 32 bits `-> cast -> y`, with w [6, 9].
    fn new(element: i32) -> Self {
        let mut to = node("to", "Cast", &["x"], &["h"]);
        to.attribute.push(int("to", i64::from(element)));
        let mut from = node("from", "Cast", &["p"], &["y"]);
        from.attribute.push(int("to", 1));
        let graph = GraphProto {
            name: "g".to_owned(),
            node: vec![to, node("product", "MatMul", &["h", "w"], &["p"]), from],
            input: vec![value("x", 1, 3)],
            output: vec![value("y", 1, 3)],
            initializer: vec![tensor("w", &[WIDTHS.0, WIDTHS.1], element)],
            ..Default::default()
        };
        let mut net = Self { graph, opset: 17 };
        if element != 1 {
            // ONNX Runtime would leave out the rounding between a product and a cast back.
            net.graph.node.pop();
            net.graph.output = vec![value("p", element, 3)];
        }
        net
    }

    fn save(&self, dir: &Path) -> Model {
        let set = OperatorSetIdProto { version: self.opset, ..Default::default() };
        let model = ModelProto {
            ir_version: 8,
            graph: Some(self.graph.clone()).into(),
            opset_import: vec![set],
            ..Default::default()
        };
        fs::write(dir.join("m.onnx"), model.write_to_bytes().unwrap()).unwrap();
        Model::open(dir.join("m.onnx")).unwrap()
    }
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
    }
}

/// The outputs for some values of x, which 16-bit floats hold exactly: ONNX Runtime leaves out casts there and back.
fn evaluate(runtime: &Runtime, model: &Model, shape: &[usize]) -> Vec<Vec<f64>> {
    let x = values(&mut ChaCha8Rng::seed_from_u64(3), shape.iter().product());
    let x = x.into_iter().map(|value| half::f16::from_f32(value).to_f32()).collect();
    let mut session = Session::load(runtime, model, OPTIONS).unwrap();
    let x = Value::f32(shape, x).unwrap();
    let outputs = session.run([("x", &x)]).unwrap();
    outputs.iter().map(|output| output.to_f64().unwrap().1).collect()
}

/// The patched model, written to a folder with its merged weights, if any.
fn put(model: &Model, patch: &eva_onnx::onnx::Patch, merged: &[u8], dir: &Path) -> Model {
    let edited = model.apply(patch).unwrap();
    let mut destination = Destination::prepare(&dir.join("put"), true).unwrap();
    destination.write("merged.data", merged).unwrap();
    output::model::put(&edited, &mut destination, "").unwrap();
    destination.commit(&[]).unwrap();
    Model::open(dir.join("put/model.onnx")).unwrap()
}

fn merged(model: &Model, sites: &[Site<'_>], dir: &Path) -> Model {
    let mut data = Vec::new();
    let patch = splice::merge(model, sites, "merged.data", &mut data).unwrap();
    put(model, &patch, &data, dir)
}

/// Every form of a layer: zero B changes nothing, branches and merged weights agree within `close`.
#[track_caller]
fn form(net: &Net, linears: &[Linear], shape: &[usize], close: f64) -> Vec<String> {
    let runtime = runtime();
    let dir = tempfile::tempdir().unwrap();
    let model = net.save(dir.path());
    let base = evaluate(&runtime, &model, shape);
    let (zero, trained) = (adapter(linears, false), adapter(linears, true));
    let sites = splice::fit(linears, &zero).unwrap();
    for patch in [splice::trainable(&model, &sites), splice::adapter_inputs(&model, &sites)] {
        bit_equal(&evaluate(&runtime, &model.apply(&patch.unwrap()).unwrap(), shape), &base, "zero B");
    }
    let sites = splice::fit(linears, &trained).unwrap();
    let patch = splice::trainable(&model, &sites).unwrap();
    let edited = model.apply(&patch).unwrap();
    let branches = evaluate(&runtime, &put(&model, &patch, &[], dir.path()), shape);
    assert!(distance(&branches, &base) > 0.01);
    let off = distance(&evaluate(&runtime, &merged(&model, &sites, dir.path()), shape), &branches);
    assert!(off < close, "{off}");
    text(&edited)
}

/// The nodes of a model, one line each.
fn text(model: &Model) -> Vec<String> {
    let graph = Graph::new(model);
    let mut lines = Vec::new();
    for scope in 0..graph.scopes() {
        let indent = "  ".repeat(graph.path(scope).len());
        for (_, node) in graph.nodes(scope) {
            let (outputs, inputs) = (node.outputs().join(", "), node.inputs().join(", "));
            lines.push(format!("{indent}{outputs} = {}({inputs})", node.op()));
        }
    }
    lines
}

const ROWS: [usize; 3] = [2, 3, 6];
/// The unit roundoff of a 16-bit float, for sums of values around 1.
const HALF: f64 = 2e-3;

#[test]
fn a_plain_product() {
    let lines = form(&Net::new(1), &[linear("f32", &[("q", None)])], &ROWS, CLOSE);
    insta::assert_snapshot!("splice_plain", lines.join("\n"));
}

#[test]
fn sixteen_and_sixty_four_bits() {
    let lines = form(&Net::new(10), &[linear("f16", &[("q", None)])], &ROWS, HALF);
    insta::assert_snapshot!("splice_f16", lines.join("\n"));
    let dir = tempfile::tempdir().unwrap();
    let linears = [linear("f64", &[("q", None)])];
    let (model, trained) = (Net::new(11).save(dir.path()), adapter(&linears, true));
    let sites = splice::fit(&linears, &trained).unwrap();
    let edited = model.apply(&splice::trainable(&model, &sites).unwrap()).unwrap();
    insta::assert_snapshot!("splice_f64", text(&edited).join("\n"));
    evaluate(&runtime(), &edited, &ROWS);
    let error = splice::merge(&model, &sites, "merged.data", &mut Vec::new()).unwrap_err();
    assert_eq!(error.to_string(), "module `q` cannot be merged: its weight has type f64");
}

#[test]
fn packed_columns() {
    // Two modules with a gap before, between and after them.
    let parts = [("q", Some((1, 4))), ("k", Some((5, 8)))];
    let lines = form(&Net::new(1), &[linear("f32", &parts)], &ROWS, CLOSE);
    insta::assert_snapshot!("splice_packed", lines.join("\n"));
    // Only one of two gets an adapter, and the split of old operator sets.
    let mut net = Net::new(1);
    net.opset = 12;
    let layer = [linear("f32", &[("q", Some((0, 5))), ("k", Some((5, 9)))])];
    form(&net, &layer, &ROWS, CLOSE);
    let mut one = adapter(&layer, true);
    one.modules.remove(0);
    let dir = tempfile::tempdir().unwrap();
    let model = net.save(dir.path());
    let sites = splice::fit(&layer, &one).unwrap();
    let edited = model.apply(&splice::trainable(&model, &sites).unwrap()).unwrap();
    let (base, got) = (evaluate(&runtime(), &model, &ROWS), evaluate(&runtime(), &edited, &ROWS));
    for (row, (base, got)) in base[0].chunks(9).zip(got[0].chunks(9)).enumerate() {
        assert_eq!(base[..5], got[..5], "{row}");
        assert_ne!(base[5..], got[5..], "{row}");
    }
}

#[test]
fn two_nodes_compute_one_module() {
    // A product of 9 columns and one of 4, of a module with 13.
    let mut net = Net::new(1);
    net.graph.initializer.push(tensor("w2", &[WIDTHS.0, 4], 1));
    net.graph.node.push(node("second", "MatMul", &["h", "w2"], &["r"]));
    net.graph.output.push(value("r", 1, 3));
    let part = |start, end| Part { module: "m".to_owned(), columns: None, slice: Some(Slice { start, end, of: 13 }) };
    let first = Linear { modules: vec![part(0, 9)], ..linear("f32", &[]) };
    let mut second = Linear { out_features: 4, modules: vec![part(9, 13)], ..first.clone() };
    second.at.node = "second".to_owned();
    second.output.tensor = "r".to_owned();
    second.weight.tensor = "w2".to_owned();
    let lines = form(&net, &[first.clone(), second], &ROWS, CLOSE);
    insta::assert_snapshot!("splice_slices", lines.join("\n"));

    let mut fused = first;
    fused.output.fused = Some(Fused::Scaled);
    let trained = adapter(std::slice::from_ref(&fused), true);
    let sites = splice::fit(std::slice::from_ref(&fused), &trained).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let error = splice::trainable(&net.save(dir.path()), &sites).unwrap_err();
    assert_eq!(error.to_string(), format!("module `m` cannot get a branch: {}", Fused::Scaled));
}

#[test]
fn a_weight_behind_a_transposition_and_a_product_that_is_an_output() {
    let mut net = Net::new(1);
    net.graph.initializer = vec![tensor("w_t", &[WIDTHS.1, WIDTHS.0], 1)];
    net.graph.node.insert(0, node("turn", "Transpose", &["w_t"], &["w"]));
    net.graph.output.push(value("p", 1, 3));
    form(&net, &[linear("f32", &[("q", None)])], &ROWS, CLOSE);
}

#[test]
fn gemm_with_both_orders_of_its_weight() {
    for (trans_b, dims) in [(0, [WIDTHS.0, WIDTHS.1]), (1, [WIDTHS.1, WIDTHS.0])] {
        let mut net = Net::new(1);
        net.graph.initializer = vec![tensor("w", &dims, 1), tensor("b", &[WIDTHS.1], 1)];
        net.graph.node[1] = node("product", "Gemm", &["h", "w", "b"], &["p"]);
        net.graph.node[1].attribute.push(int("transB", trans_b));
        (net.graph.input, net.graph.output) = (vec![value("x", 1, 2)], vec![value("y", 1, 2)]);
        form(&net, &[linear("f32", &[("q", None)])], &[4, 6], CLOSE);
    }
}

/// Two products with one weight.
fn twice() -> (Net, [Linear; 2]) {
    let mut net = Net::new(1);
    net.graph.node.insert(1, node("scale", "Neg", &["h"], &["g"]));
    net.graph.node.insert(3, node("second", "MatMul", &["g", "w"], &["r"]));
    net.graph.output.push(value("r", 1, 3));
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
    let lines = form(&net, &linears, &ROWS, CLOSE);
    insta::assert_snapshot!("splice_repeated", lines.join("\n"));
    let dir = tempfile::tempdir().unwrap();
    let model = net.save(dir.path());
    let trained = adapter(&linears, true);
    let sites = splice::fit(&linears, &trained).unwrap();
    // The weight is still one, and keeps its name.
    let merged = merged(&model, &sites, dir.path());
    assert_eq!(text(&merged), text(&model));
}

#[test]
fn a_weight_with_another_reader_is_copied() {
    let (net, mut linears) = twice();
    let dir = tempfile::tempdir().unwrap();
    let model = net.save(dir.path());
    let alone = adapter(&linears[..1], true);
    let sites = splice::fit(&linears[..1], &alone).unwrap();
    let got = evaluate(&runtime(), &merged(&model, &sites, dir.path()), &ROWS);
    let base = evaluate(&runtime(), &model, &ROWS);
    assert_eq!(got[1], base[1]);
    assert_ne!(got[0], base[0]);
    // Two modules whose equal weights an exporter has made one.
    linears[1].modules[0].module = "k".to_owned();
    form(&net, &linears, &ROWS, CLOSE);
}

#[test]
fn a_layer_inside_a_branch() {
    let mut net = Net::new(1);
    let product = net.graph.node.remove(1);
    let mut other = node("other", "MatMul", &["h", "w"], &["e"]);
    other.name = "other".to_owned();
    let branch = |name: &str, node: NodeProto, output: &str| AttributeProto {
        name: name.to_owned(),
        type_: AttributeType::GRAPH.into(),
        g: Some(GraphProto {
            name: name.to_owned(),
            node: vec![node],
            output: vec![value(output, 1, 3)],
            ..Default::default()
        })
        .into(),
        ..Default::default()
    };
    let mut choice = node("if", "If", &["yes"], &["c"]);
    choice.attribute = vec![branch("then_branch", product, "p"), branch("else_branch", other, "e")];
    net.graph.node.insert(1, choice);
    net.graph.node[2].input[0] = "c".to_owned();
    let yes = TensorProto { name: "yes".to_owned(), data_type: 9, raw_data: vec![1], ..Default::default() };
    net.graph.initializer.push(yes);
    let mut layer = linear("f32", &[("q", None)]);
    layer.at.subgraph = vec!["if.then_branch".to_owned()];
    let lines = form(&net, std::slice::from_ref(&layer), &ROWS, CLOSE);
    insta::assert_snapshot!("splice_branch", lines.join("\n"));

    let mut inside = layer;
    inside.at.subgraph = vec!["function local::f".to_owned()];
    let trained = adapter(std::slice::from_ref(&inside), true);
    let error = splice::fit(std::slice::from_ref(&inside), &trained).unwrap_err();
    let message = "module `q` is in the function local::f of the model, which cannot hold an adapter";
    assert_eq!(error.to_string(), message);
}

#[test]
fn a_quantized_weight_is_not_merged() {
    let mut net = Net::new(1);
    let zeros = TensorProto {
        name: "q".to_owned(),
        dims: vec![WIDTHS.0, WIDTHS.1],
        data_type: 3,
        raw_data: vec![3; 54],
        ..Default::default()
    };
    net.graph.initializer = vec![zeros, tensor("s", &[], 1)];
    net.graph.node.insert(0, node("wide", "DequantizeLinear", &["q", "s"], &["w"]));
    let linears = [linear("f32", &[("m", None)])];
    let dir = tempfile::tempdir().unwrap();
    let (model, trained) = (net.save(dir.path()), adapter(&linears, true));
    let sites = splice::fit(&linears, &trained).unwrap();
    let mut written = Vec::new();
    let error = splice::merge(&model, &sites, "merged.data", &mut written).unwrap_err();
    let message = "module `m` cannot be merged: its weight is quantized, and would have to be quantized anew";
    assert_eq!((error.to_string().as_str(), written.len()), (message, 0));
    // A branch beside it is fine.
    let edited = model.apply(&splice::trainable(&model, &sites).unwrap()).unwrap();
    assert_ne!(evaluate(&runtime(), &edited, &ROWS), evaluate(&runtime(), &model, &ROWS));
}

#[test]
fn branches_are_checked_without_an_adapter() {
    let dir = tempfile::tempdir().unwrap();
    let net = Net::new(1);
    let model = net.save(dir.path());
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
