//! Adapters of PiSSA and OLoRA, against the decompositions of nalgebra: the plain adapter gives the model's own weights
//! what the adapter gives the changed ones.

use crate::support::adapters::adapter;
use crate::support::eva::{self, graph};
use crate::support::graph::{F16, F32, I8, Net, net, pattern};
use crate::support::tolerance::{EPS, within};
use eva_onnx::Hint;
use eva_onnx::adapter::{AdapterModule, Base, BaseWeights};
use eva_onnx::dtype::DType;
use eva_onnx::formats::peft::{self, CONFIG, WEIGHTS};
use eva_onnx::linear::{self, Linear, Part, Slice};
use eva_onnx::onnx::Model;
use eva_onnx::splice;
use nalgebra::DMatrix;
use ndarray::{Array2, s};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

const UP: &str = "/model/layers.0/mlp/up_proj/MatMul";
const GATE: &str = "/model/layers.0/mlp/gate_proj/MatMul";
const INSIDE: usize = 6;
const OUTSIDE: usize = 9;

/// The weight [6, 9] as the layer reads it: far from symmetric, of full rank.
fn weight() -> Array2<f64> {
    let values = pattern(INSIDE * OUTSIDE).into_iter().enumerate();
    let values = values.map(|(i, value)| f64::from(value + ((i * i) % 7) as f32 / 3.0)).collect();
    Array2::from_shape_vec((INSIDE, OUTSIDE), values).unwrap()
}

fn stored(net: Net, name: &str, values: &Array2<f64>) -> Net {
    let flat: Vec<f32> = values.iter().map(|value| *value as f32).collect();
    net.values(name, &[values.nrows() as i64, values.ncols() as i64], &flat)
}

/// `x q.weight`, where the weight is stored as [in, out].
fn product(values: &Array2<f64>) -> Net {
    stored(net(), "w", values).node("MatMul", UP, &["x", "w"], "p").output("p")
}

/// The layers of a model, called `q`.
fn layers(net: &Net) -> Vec<Linear> {
    let mut linears = net.clone().find(None).0;
    linears.iter_mut().for_each(|linear| linear.modules = vec![Part::whole("q")]);
    linears
}

fn wide(values: &Array2<f32>) -> Array2<f64> {
    values.mapv(f64::from)
}

/// `scale B A` [out, in].
fn delta(module: &AdapterModule) -> Array2<f64> {
    wide(&module.b()).dot(&wide(&module.a)) * module.scale()
}

fn dense(values: &Array2<f64>) -> DMatrix<f64> {
    DMatrix::from_fn(values.nrows(), values.ncols(), |i, j| values[[i, j]])
}

fn array(values: &DMatrix<f64>) -> Array2<f64> {
    Array2::from_shape_fn((values.nrows(), values.ncols()), |at| values[at])
}

/// What PEFT takes from the weight [out, in], by the formulas of its `pissa_init` and `olora_init`.
fn taken(weight: &Array2<f64>, base: BaseWeights, rank: usize, scale: f64) -> Array2<f64> {
    match base {
        BaseWeights::Original => weight * 0.0,
        BaseWeights::Pissa => {
            let svd = dense(weight).svd(true, true);
            let (u, v) = (svd.u.unwrap(), svd.v_t.unwrap());
            let mut sum = DMatrix::zeros(weight.nrows(), weight.ncols());
            for k in 0..rank {
                sum += u.column(k) * v.row(k) * svd.singular_values[k];
            }
            array(&sum)
        }
        BaseWeights::Olora => {
            let (q, r) = dense(weight).qr().unpack();
            array(&(q.columns(0, rank) * r.rows(0, rank))) * scale
        }
    }
}

/// Every module's plain adapter has twice the rank, the scale, and the product that PEFT gives the original weight.
#[track_caller]
fn check(net: Net, linears: &[Linear], weights: &[(&str, Array2<f64>)], conv: bool) {
    let (_dir, model) = net.open();
    let mut adapter = adapter(linears, true);
    adapter.modules.iter_mut().for_each(|module| module.alpha *= 1.75);
    let sites = splice::fit(linears, &adapter).unwrap();
    for base in [BaseWeights::Pissa, BaseWeights::Olora] {
        let plain = splice::plain(&model, &sites, &adapter, base).unwrap();
        assert_eq!(plain.modules.len(), weights.len());
        for ((before, after), (name, weight)) in adapter.modules.iter().zip(&plain.modules).zip(weights) {
            assert_eq!((before.module.as_str(), after.rank()), (*name, 2 * before.rank()));
            within(after.scale() - before.scale(), 4.0 * f64::EPSILON * before.scale(), name);
            let (rank, scale) = (before.rank(), before.scale());
            let taken = if conv && base == BaseWeights::Olora {
                taken(&weight.t().to_owned(), base, rank, scale).reversed_axes()
            } else {
                taken(weight, base, rank, scale)
            };
            let off = delta(before) - &taken - delta(after);
            // Each entry of the two factors is rounded once to 32 bits.
            let size = weight.iter().map(|value| value * value).sum::<f64>().sqrt() * scale.max(1.0);
            within(off.iter().fold(0.0, |most, value| value.abs().max(most)), 4.0 * EPS * size, name);
        }
    }
    assert_eq!(splice::plain(&model, &sites, &adapter, BaseWeights::Original).unwrap(), adapter);
}

#[test]
fn every_order_of_a_weight() {
    let weight = weight();
    let linears = layers(&product(&weight));
    check(product(&weight), &linears, &[("q", weight.t().to_owned())], false);
    // Taller than wide.
    let tall = weight.t().to_owned();
    let linears = layers(&product(&tall));
    check(product(&tall), &linears, &[("q", weight.clone())], false);
    // A product that turns its weight, and Conv1D, which PyTorch keeps as [in, out].
    let gemm = stored(net(), "q.weight", &tall).node("Gemm", UP, &["x", "q.weight"], "p").int("transB", 1);
    let gemm = gemm.output("p");
    let mut linears = layers(&gemm);
    check(gemm.clone(), &linears, &[("q", tall.clone())], false);
    linears[0].weight.fan_in_fan_out = true;
    check(gemm, &linears, &[("q", tall)], true);
}

#[test]
fn modules_in_one_node_and_one_module_in_two() {
    let weight = weight();
    let net = product(&weight);
    let mut linears = layers(&net);
    let part = |module: &str, from, to| Part { module: module.to_owned(), columns: Some((from, to)), slice: None };
    linears[0].modules = vec![part("q", 0, 5), part("k", 5, 9)];
    let rows = |from: usize, to: usize| weight.slice(s![.., from..to]).t().to_owned();
    check(net, &linears, &[("q", rows(0, 5)), ("k", rows(5, 9))], false);

    let halves = [weight.slice(s![.., ..4]).to_owned(), weight.slice(s![.., 4..]).to_owned()];
    let net = stored(stored(net_of_two(), "w", &halves[0]), "v", &halves[1]);
    let mut linears = layers(&net);
    let slice = |start, end| Some(Slice { start, end, of: OUTSIDE });
    linears[0].modules = vec![Part { slice: slice(0, 4), ..Part::whole("m") }];
    linears[1].modules = vec![Part { slice: slice(4, 9), ..Part::whole("m") }];
    check(net, &linears, &[("m", weight.t().to_owned())], false);
}

fn net_of_two() -> Net {
    let net = net().node("MatMul", UP, &["x", "w"], "p").output("p");
    net.node("MatMul", GATE, &["x", "v"], "r").output("r")
}

#[test]
fn a_weight_that_is_not_known_is_refused() {
    let net = net()
        .bytes("w", &[4, 4], I8, vec![3; 16])
        .floats("s", &[], F32)
        .node("DequantizeLinear", "wide", &["w", "s"], "d")
        .node("MatMul", UP, &["x", "d"], "p")
        .output("p");
    let linears = layers(&net);
    let (_dir, model) = net.open();
    let adapter = adapter(&linears, true);
    let error = splice::plain(&model, &splice::fit(&linears, &adapter).unwrap(), &adapter, BaseWeights::Pissa);
    let error = error.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the adapter belongs to weights that `init_lora_weights` pissa changed, and that of module `q` cannot be \
         computed: its weight is quantized, and would have to be quantized anew"
    );
    assert!(error.hint().unwrap().contains("f32 or f16"));
}

#[test]
fn a_weight_that_an_embedding_shares_is_refused() {
    // Under one name, and stored twice.
    let one = net().floats("t", &[9, 6], F32).node("Transpose", "turn", &["t"], "w").ints("perm", &[1, 0]);
    let table = stored(net(), "t", &weight().t().to_owned());
    for net in [one, stored(table, "w", &weight())] {
        let net = net.node("Gather", "embed", &["t", "ids"], "x").node("MatMul", UP, &["x", "w"], "p").output("p");
        let linears = layers(&net);
        let (_dir, model) = net.open();
        let adapter = adapter(&linears, true);
        let sites = splice::fit(&linears, &adapter).unwrap();
        for base in [BaseWeights::Pissa, BaseWeights::Olora] {
            let error = splice::plain(&model, &sites, &adapter, base).unwrap_err();
            assert!(error.to_string().ends_with("its weight is also that of an embedding, and PEFT changes both"));
            assert!(error.hint().unwrap().starts_with("merge the adapter into its model with PEFT"));
        }
        assert_eq!(splice::plain(&model, &sites, &adapter, BaseWeights::Original).unwrap(), adapter);
    }
}

#[test]
fn half_precision_is_enough() {
    let net = net().floats("w", &[4, 6], F16).node("MatMul", UP, &["x", "w"], "p").output("p");
    let values = pattern(24).into_iter().map(|value| half::f16::from_f32(value).to_f64()).collect();
    let weight = Array2::from_shape_vec((4, 6), values).unwrap();
    let linears = layers(&net);
    check(net, &linears, &[("q", weight.t().to_owned())], false);
}

fn save(model: &Path, dir: &Path, init: &Value) {
    let linears = linear::find(&Model::open(model).unwrap(), None).0;
    let adapter = adapter(&linears, true);
    fs::create_dir_all(dir).unwrap();
    fs::write(dir.join(WEIGHTS), peft::weights(&adapter, DType::F32).unwrap()).unwrap();
    let mut config: Value = serde_json::from_str(&peft::config(&adapter, &Base::default())).unwrap();
    config["init_lora_weights"] = init.clone();
    fs::write(dir.join(CONFIG), config.to_string()).unwrap();
}

#[test]
fn splice_says_it_and_convert_refuses_it() {
    let (dir, model) = (tempfile::tempdir().unwrap(), graph("tiny/llama-ts"));
    let eva = |arguments: &[&str]| {
        let output = eva::eva().args(arguments).current_dir(dir.path()).output().unwrap();
        (output.status.success(), eva::text(&output.stderr))
    };
    save(&model, &dir.path().join("adapter"), &json!("pissa"));
    let (model, before) = (model.to_str().unwrap(), peft::read(&dir.path().join("adapter")).unwrap().0);
    let (done, said) = eva(&["convert", "adapter", "a.onnx_adapter"]);
    assert!(!done && said.contains("an adapter of weights that `init_lora_weights` pissa has changed"), "{said}");
    assert!(said.contains("hint: put it into its model with `splice`"), "{said}");
    // What the hint says.
    let (done, said) = eva(&["splice", model, "adapter", "--out", "trainable"]);
    assert!(done && said.contains("the model gets a plain adapter of twice the rank instead"), "{said}");
    let (done, said) = eva(&["convert", "trainable", "plain"]);
    assert!(done, "{said}");
    let (plain, base) = peft::read(&dir.path().join("plain")).unwrap();
    assert_eq!(base.weights, BaseWeights::Original);
    assert!(before.modules.iter().zip(&plain.modules).all(|(one, two)| 2 * one.rank() == two.rank()));
}

#[test]
fn how_an_adapter_began() {
    let (dir, model) = (tempfile::tempdir().unwrap(), graph("tiny/llama-ts"));
    let read = |init: Value| {
        save(&model, dir.path(), &init);
        peft::read(dir.path()).map(|(_, base)| base.weights)
    };
    for init in [json!(true), json!(false), json!(null), json!("gaussian"), json!("eva"), json!("orthogonal")] {
        assert_eq!(read(init.clone()).unwrap(), BaseWeights::Original, "{init}");
    }
    assert_eq!(read(json!("mica")).unwrap(), BaseWeights::Original);
    assert_eq!(read(json!("pissa")).unwrap(), BaseWeights::Pissa);
    assert_eq!(read(json!("OLoRA")).unwrap(), BaseWeights::Olora);
    for init in ["pissa_niter_16", "corda", "lora_ga", "loftq", "something_new"] {
        let error = read(json!(init)).unwrap_err();
        assert!(
            error.to_string().contains(&format!("is an adapter with `init_lora_weights` {init}, whose")),
            "{error}"
        );
        assert!(error.hint().unwrap().contains("path_initial_model_for_weight_conversion"));
    }
}
