//! Adapters with more than low-rank products: modules that are saved whole, DoRA, and weights in several files.

use crate::support::adapters::{adapter, distance, outputs};
use crate::support::eva;
use crate::support::graph::{F32, Net, net, pattern};
use crate::support::tolerance::F32_DRIFT;
use eva_onnx::adapter::{Adapter, AdapterModule, Base};
use eva_onnx::dtype::DType;
use eva_onnx::formats::peft::{self, CONFIG, WEIGHTS};
use eva_onnx::onnx::Model;
use ndarray::{Array1, Array2, Axis};
use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use tempfile::TempDir;

const UP: &str = "/model/layers.0/mlp/up_proj/MatMul";
const IN: usize = 4;
const MID: usize = 6;
const OUT: usize = 3;

/// Named values of a safetensors file.
type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// `x [n, 4] -> up_proj -> h [n, 6]`.
fn start() -> Net {
    net().shaped_input("x", F32, &[-1, IN as i64]).floats("onnx::1", &[IN as i64, MID as i64], F32).node(
        "MatMul",
        UP,
        &["x", "onnx::1"],
        "h",
    )
}

/// With a classifier whose weight is stored as [in, out], and a bias.
fn classifier() -> Net {
    start()
        .floats("onnx::2", &[MID as i64, OUT as i64], F32)
        .floats("classifier.bias", &[OUT as i64], F32)
        .node("MatMul", "product", &["h", "onnx::2"], "p")
        .node("Add", "sum", &["p", "classifier.bias"], "logits")
        .shaped_output("logits", F32, &[-1, OUT as i64])
}

/// A model and the adapter of its `up_proj`, in a folder.
struct Case {
    dir: TempDir,
    module: AdapterModule,
    tensors: Tensors,
    config: Value,
}

impl Case {
    fn new(net: Net) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut adapter = adapter(&net.clone().find(None).0, true);
        adapter.modules.retain(|module| module.module.ends_with("up_proj"));
        fs::write(dir.path().join("m.onnx"), net.encoded()).unwrap();
        fs::create_dir(dir.path().join("adapter")).unwrap();
        let bytes = peft::weights(&adapter, DType::F32).unwrap();
        let stored = SafeTensors::deserialize(&bytes).unwrap();
        let values = |view: &TensorView<'_>| {
            view.data().as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
        };
        let tensors = stored.iter().map(|(name, view)| (name.to_owned(), (view.shape().to_vec(), values(&view))));
        let tensors = tensors.collect();
        let config = serde_json::from_str(&peft::config(&adapter, &Base::default())).unwrap();
        let Adapter { mut modules, .. } = adapter;
        Self { dir, module: modules.remove(0), tensors, config }
    }

    fn tensor(&mut self, name: &str, shape: &[usize], values: Vec<f32>) {
        self.tensors.insert(format!("base_model.model.{name}"), (shape.to_vec(), values));
    }

    fn file(&self, name: &str, tensors: &Tensors) {
        let bytes: Vec<_> = tensors
            .iter()
            .map(|(name, (shape, values))| {
                (name, shape, values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>())
            })
            .collect();
        let views = bytes.iter().map(|(name, shape, bytes)| {
            ((*name).clone(), TensorView::new(Dtype::F32, (*shape).clone(), bytes).unwrap())
        });
        fs::write(self.dir.path().join("adapter").join(name), serialize(views, None).unwrap()).unwrap();
    }

    /// Writes the adapter's folder.
    fn save(&self) {
        self.file(WEIGHTS, &self.tensors);
        fs::write(self.dir.path().join("adapter").join(CONFIG), self.config.to_string()).unwrap();
    }

    fn eva(&self, arguments: &[&str]) -> (bool, String) {
        let output = eva::eva().args(arguments).current_dir(self.dir.path()).output().unwrap();
        (output.status.success(), eva::text(&output.stderr))
    }

    fn splice(&self, form: &str) -> (bool, String) {
        self.eva(&["splice", "m.onnx", "adapter", "--as", form, "--out", form])
    }

    /// What the spliced model computes, with its adapter merged or inside.
    fn computed(&self, form: &str) -> Vec<Vec<f64>> {
        let model = Model::open(self.dir.path().join(form).join("model.onnx")).unwrap();
        outputs(&model, &[2, IN], pattern(2 * IN))
    }

    /// `x W1 + scale x A B`.
    fn hidden(&self) -> Array2<f64> {
        x().dot(&(matrix(IN, MID) + self.product()))
    }

    /// `scale A B` [in, out].
    fn product(&self) -> Array2<f64> {
        let (a, b) = (self.module.a.mapv(f64::from), self.module.b().mapv(f64::from));
        b.dot(&a).reversed_axes() * self.module.scale()
    }
}

fn matrix(rows: usize, columns: usize) -> Array2<f64> {
    let values = pattern(rows * columns).into_iter().map(f64::from).collect();
    Array2::from_shape_vec((rows, columns), values).unwrap()
}

fn x() -> Array2<f64> {
    matrix(2, IN)
}

/// Numbers that no tensor of the models has.
fn trained(count: usize) -> Vec<f32> {
    pattern(count).into_iter().rev().map(|value| 0.5 - value * value).collect()
}

fn close(got: &[Vec<f64>], expected: Array2<f64>, what: &str) {
    let expected = vec![expected.iter().copied().collect()];
    let off = distance(got, &expected);
    assert!(off < F32_DRIFT, "{what}: {off}");
}

/// The trained head in every form of the model.
fn check_head(net: Net, saved_bias: bool, what: &str) {
    let mut case = Case::new(net);
    let (weight, bias) = (trained(OUT * MID), trained(OUT));
    case.tensor("classifier.weight", &[OUT, MID], weight.clone());
    if saved_bias {
        case.tensor("classifier.bias", &[OUT], bias.clone());
    }
    case.config["modules_to_save"] = json!(["classifier", "score"]);
    case.save();
    let weight = Array2::from_shape_vec((OUT, MID), weight).unwrap().mapv(f64::from).reversed_axes();
    let bias = Array1::from_vec(if saved_bias { bias } else { vec![0.0; OUT] }).mapv(f64::from);
    for form in ["trainable", "merged"] {
        let (done, said) = case.splice(form);
        assert!(done, "{what} {form}: {said}");
        assert!(said.contains("the trained weights of `classifier` replace those of the model"), "{said}");
        close(&case.computed(form), case.hidden().dot(&weight) + &bias, &format!("{what} {form}"));
    }
    let (done, said) = case.splice("adapter-inputs");
    assert!(done, "{what}: {said}");
    close(&case.computed("adapter-inputs"), x().dot(&matrix(IN, MID)).dot(&weight) + &bias, what);
}

#[test]
fn the_trained_head_of_a_classifier_takes_the_place_of_the_models() {
    check_head(classifier(), true, "a sum");
    let transposed = start()
        .floats("classifier.weight", &[OUT as i64, MID as i64], F32)
        .floats("classifier.bias", &[OUT as i64], F32)
        .node("Gemm", "product", &["h", "classifier.weight", "classifier.bias"], "logits")
        .int("transB", 1)
        .shaped_output("logits", F32, &[-1, OUT as i64]);
    check_head(transposed, true, "transposed");
    // The exporter has left out a bias of zeros.
    let without = start()
        .floats("classifier.weight", &[OUT as i64, MID as i64], F32)
        .node("Gemm", "product", &["h", "classifier.weight"], "logits")
        .int("transB", 1)
        .shaped_output("logits", F32, &[-1, OUT as i64]);
    check_head(without.clone(), true, "without a bias");
    check_head(without, false, "never a bias");
}

#[test]
fn a_bias_that_others_read_stays_theirs() {
    let net = start()
        .floats("classifier.weight", &[OUT as i64, MID as i64], F32)
        .floats("b", &[OUT as i64], F32)
        .node("Gemm", "product", &["h", "classifier.weight", "b"], "logits")
        .int("transB", 1)
        .node("Neg", "negative", &["b"], "other")
        .shaped_output("logits", F32, &[-1, OUT as i64])
        .shaped_output("other", F32, &[OUT as i64]);
    let mut case = Case::new(net);
    case.tensor("classifier.weight", &[OUT, MID], trained(OUT * MID));
    case.tensor("classifier.bias", &[OUT], trained(OUT));
    case.config["modules_to_save"] = json!(["classifier"]);
    case.save();
    let (done, said) = case.splice("merged");
    assert!(done, "{said}");
    let computed = case.computed("merged");
    let other: Vec<f64> = pattern(OUT).into_iter().map(|value| -f64::from(value)).collect();
    assert_eq!(computed[1], other);
    let weight = Array2::from_shape_vec((OUT, MID), trained(OUT * MID)).unwrap().mapv(f64::from).reversed_axes();
    let bias = Array1::from_vec(trained(OUT)).mapv(f64::from);
    close(&computed[..1], case.hidden().dot(&weight) + &bias, "the head");
}

#[test]
fn what_has_no_place_is_refused() {
    let refused = |change: &dyn Fn(&mut Case), message: &str, hint: &str| {
        let mut case = Case::new(classifier());
        case.tensor("classifier.weight", &[OUT, MID], trained(OUT * MID));
        case.config["modules_to_save"] = json!(["classifier"]);
        change(&mut case);
        case.save();
        let (done, said) = case.splice("merged");
        assert!(!done && said.contains(message) && said.contains(hint), "{said}");
        assert!(!case.dir.path().join("merged").exists());
    };
    let export = "merge the adapter into its model with PEFT";
    refused(
        &|case| case.tensor("classifier.weight", &[5, MID], trained(5 * MID)),
        "`weight` of module `classifier`, which cannot be put into the model: its shape is [5, 6], and [3, 6] in the model",
        export,
    );
    let score = |case: &mut Case| {
        case.config["modules_to_save"] = json!(["score"]);
        case.tensors.remove("base_model.model.classifier.weight");
        case.tensor("score.weight", &[OUT, MID], trained(OUT * MID));
    };
    refused(&score, "cannot be put into the model: the model has no such module", "`eva-onnx inspect` shows");
    let nothing = |case: &mut Case| {
        case.tensors.remove("base_model.model.classifier.weight");
    };
    refused(
        &nothing,
        "an adapter with `modules_to_save`, which replaces whole modules",
        "if its file has those modules",
    );
    // A format that holds products only.
    let mut case = Case::new(classifier());
    case.tensor("classifier.weight", &[OUT, MID], trained(OUT * MID));
    case.config["modules_to_save"] = json!(["classifier"]);
    case.save();
    let (done, said) = case.eva(&["convert", "adapter", "a.onnx_adapter"]);
    assert!(!done && said.contains("`modules_to_save`, which replaces whole modules"), "{said}");
    assert!(said.contains("hint: put it into its model with `splice`"), "{said}");
    let (done, said) = case.splice("trainable");
    assert!(done, "{said}");
    let (done, said) = case.eva(&["convert", "trainable/model.onnx", "back"]);
    assert!(!done && said.contains("a trained `classifier` in place of the model's"), "{said}");
    assert!(said.contains("hint: use the graph itself") && !case.dir.path().join("back").exists(), "{said}");
    let (done, said) = case.splice("adapter-inputs");
    assert!(done, "{said}");
    let part = "adapter-inputs/adapter.onnx_adapter";
    for command in
        [&["convert", part, "back"][..], &["splice", "m.onnx", part, "--out", "back"], &["check", "m.onnx", part]]
    {
        let (done, said) = case.eva(command);
        assert!(!done && said.contains("trained modules (`modules_to_save`) beside this file, in the model"), "{said}");
        assert!(said.contains("hint: use the two together") && !case.dir.path().join("back").exists(), "{said}");
    }
    let (done, said) = case.eva(&["splice", "m.onnx", "adapter", "--modules", "up_proj", "--out", "products"]);
    assert!(done, "{said}");
    let (done, said) = case.eva(&["convert", "products", "back"]);
    assert!(done, "{said}");
}

#[test]
fn dora_is_merged_as_peft_merges_it() {
    for name in ["lora_magnitude_vector", "lora_magnitude_vector.weight", "lora_magnitude_vector.default.weight"] {
        for (net, out_in) in [(classifier(), false), (stored_out_in(), true)] {
            let mut case = Case::new(net);
            let magnitude: Vec<f32> = (0..MID).map(|row| 0.5 + row as f32 / 4.0).collect();
            case.tensor(&format!("{}.{name}", case.module.module.clone()), &[MID], magnitude.clone());
            case.config["use_dora"] = json!(true);
            case.save();
            let (done, said) = case.splice("merged");
            assert!(done, "{said}");
            let stored = if out_in { matrix(MID, IN).reversed_axes() } else { matrix(IN, MID) };
            let sum = stored + case.product();
            let norms = sum.map_axis(Axis(0), |column| column.dot(&column).sqrt());
            let weight = sum * &(Array1::from_vec(magnitude).mapv(f64::from) / norms);
            let tail = matrix(MID, OUT);
            let bias = Array1::from_vec(pattern(OUT)).mapv(f64::from);
            close(&case.computed("merged"), x().dot(&weight).dot(&tail) + &bias, name);
            // Elsewhere there is no place for the norms; the hint is what was done above.
            for form in ["trainable", "adapter-inputs"] {
                let (done, said) = case.splice(form);
                assert!(!done && said.contains("has DoRA, which scales the whole weight"), "{said}");
                assert!(said.contains("hint: splice it with --as merged"), "{said}");
            }
            let (done, said) = case.eva(&["convert", "adapter", "other"]);
            assert!(!done && said.contains("put it into its model with `splice --as merged`"), "{said}");
        }
    }
}

/// As [`classifier`], with the weight of `up_proj` as PyTorch keeps it.
fn stored_out_in() -> Net {
    let mut net = classifier();
    net.graph.initializer.remove(0);
    net.graph.node.remove(0);
    let first = net.floats("model.layers.0.mlp.up_proj.weight", &[MID as i64, IN as i64], F32);
    let mut net = first.node("Gemm", UP, &["x", "model.layers.0.mlp.up_proj.weight"], "h").int("transB", 1);
    net.graph.node.rotate_right(1);
    net
}

#[test]
fn norms_of_dora_must_be_there_and_fit() {
    let mut case = Case::new(classifier());
    case.config["use_dora"] = json!(true);
    case.save();
    let (done, said) = case.splice("merged");
    assert!(!done && said.contains("lora_magnitude_vector is missing"), "{said}");
    case.tensor(&format!("{}.lora_magnitude_vector", case.module.module.clone()), &[2], vec![1.0; 2]);
    case.save();
    let (done, said) = case.splice("merged");
    assert!(!done && said.contains("`lora_magnitude_vector`"), "{said}");
    // Without the setting, PEFT does not use them.
    case.config["use_dora"] = json!(false);
    case.save();
    let (done, said) = case.splice("merged");
    assert!(!done && said.contains("scales the columns of the whole weight"), "{said}");
}

#[test]
fn weights_in_several_files_are_one_adapter() {
    let case = Case::new(classifier());
    case.save();
    assert!(case.splice("merged").0);
    let whole = case.computed("merged");
    let folder = case.dir.path().join("adapter");
    fs::remove_file(folder.join(WEIGHTS)).unwrap();
    for (number, (name, values)) in case.tensors.iter().enumerate() {
        let file = format!("adapter_model-{:05}-of-00002.safetensors", number + 1);
        case.file(&file, &Tensors::from([(name.clone(), values.clone())]));
    }
    let (done, said) = case.eva(&["splice", "m.onnx", "adapter", "--as", "merged", "--out", "shards"]);
    assert!(done, "{said}");
    assert_eq!(case.computed("shards"), whole);
    fs::remove_file(folder.join("adapter_model-00002-of-00002.safetensors")).unwrap();
    let (done, said) = case.eva(&["splice", "m.onnx", "adapter", "--out", "other"]);
    assert!(!done && said.contains("adapter_model-00002-of-00002.safetensors`"), "{said}");
}
