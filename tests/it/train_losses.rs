//! What `train` minimises beside the loss of a causal language model: the losses, and the labels that they take.
//!
//! An adapter of `init` changes nothing, so that the first loss is that of the model itself, computed here in 64 bits
//! from its logits.

use crate::support::adapters::{OPTIONS, runtime};
use crate::support::eva::{graph, root};
use crate::support::exports;
use crate::support::graph::{BF16, F16, F32, I64, net};
use crate::support::tolerance::{F32_DRIFT, within};
use eva_onnx::onnx::Model;
use eva_onnx::options::{DataOptions, Loss, Order, Schedule, TrainSettings};
use eva_onnx::results::Trained;
use eva_onnx::runtime::{Session, Value};
use eva_onnx::{Hint, Train};
use serde_json::{Value as Json, json};
use std::fs;
use std::path::{Path, PathBuf};

/// Token ids of equal lengths, so that there is no padding.
const IDS: [[i64; 6]; 4] =
    [[5, 9, 40, 41, 8, 3], [100, 7, 7, 55, 23, 90], [64, 65, 66, 12, 33, 2], [200, 4, 17, 18, 19, 6]];

/// A copy of the tiny classifier with these entries in its config.json.
fn classifier(dir: &Path, entries: Json) -> PathBuf {
    let folder = graph("tiny/bert-optimum").parent().unwrap().to_owned();
    fs::copy(folder.join("model.onnx"), dir.join("model.onnx")).unwrap();
    let mut config: Json = serde_json::from_slice(&fs::read(folder.join("config.json")).unwrap()).unwrap();
    config.as_object_mut().unwrap().extend(entries.as_object().unwrap().clone());
    fs::write(dir.join("config.json"), config.to_string()).unwrap();
    dir.join("model.onnx")
}

/// A training of one batch of all rows at a time.
fn training(model: &Path, rows: &[Json], steps: usize) -> Train {
    let data = model.with_file_name("rows.jsonl");
    fs::write(&data, rows.iter().map(|row| format!("{row}\n")).collect::<String>()).unwrap();
    let settings =
        TrainSettings { steps: Some(steps), rate: 3e-3, schedule: Schedule::Constant, ..TrainSettings::default() };
    let options = DataOptions { order: Order::Kept, ..DataOptions::default() };
    Train::new(model).data([data]).data_options(options).settings(settings)
}

fn labelled(field: &str, labels: &[Json]) -> Vec<Json> {
    IDS.iter().zip(labels).map(|(ids, label)| json!({ "input_ids": ids, field: label })).collect()
}

/// The logits of all rows of [`IDS`], flattened to rows of so many.
fn logits(model: &Path, width: usize) -> Vec<Vec<f64>> {
    let runtime = runtime();
    let mut session = Session::load(&runtime, &Model::open(model).unwrap(), OPTIONS).unwrap();
    let ids: Vec<i64> = IDS.into_iter().flatten().collect();
    let value = |name: &str| match name {
        "input_ids" => Value::i64(&[4, 6], ids.clone()).unwrap(),
        "attention_mask" => Value::i64(&[4, 6], vec![1; 24]).unwrap(),
        "position_ids" => Value::i64(&[4, 6], (0..24).map(|at| at % 6).collect()).unwrap(),
        _ => Value::i64(&[4, 6], vec![0; 24]).unwrap(),
    };
    let feeds: Vec<(String, Value)> = session.inputs().into_iter().map(|name| (name.clone(), value(&name))).collect();
    let outputs = session.run(feeds.iter().map(|(name, value)| (name.as_str(), value))).unwrap();
    outputs[0].to_f64().unwrap().1.chunks(width).map(<[f64]>::to_vec).collect()
}

fn cross_entropy(logits: &[f64], class: usize) -> f64 {
    logits.iter().map(|logit| logit.exp()).sum::<f64>().ln() - logits[class]
}

fn mean(values: impl IntoIterator<Item = f64>) -> f64 {
    let values: Vec<f64> = values.into_iter().collect();
    values.iter().sum::<f64>() / values.len() as f64
}

/// Checks the loss, its first value and that it falls.
#[track_caller]
fn check(trained: &Trained, loss: Loss, first: f64, targets: usize) {
    assert_eq!((trained.loss, trained.history[0].targets), (loss, targets));
    within(trained.history[0].loss - first, F32_DRIFT * first.abs().max(1.0), loss.as_str());
    assert!(trained.history.last().unwrap().loss < trained.history[0].loss, "{:?}", trained.history);
}

#[test]
fn a_class_for_each_row() {
    let dir = tempfile::tempdir().unwrap();
    let model = classifier(dir.path(), json!({ "id2label": { "0": "bad", "1": "good", "2": "so so" } }));
    let logits = logits(&model, 3);
    let expected = mean([(0, 2), (1, 0), (3, 1)].map(|(row, class)| cross_entropy(&logits[row], class)));
    for (field, labels) in [
        ("label", [json!(2), json!(0), json!(-100), json!(1)]),
        ("labels", [json!("so so"), json!([0]), json!(-100), json!("1")]),
    ] {
        let trained = training(&model, &labelled(field, &labels), 6).run().unwrap();
        check(&trained, Loss::SingleLabel, expected, 3);
    }
}

#[test]
fn several_classes_for_each_row() {
    let dir = tempfile::tempdir().unwrap();
    let model = classifier(dir.path(), json!({ "id2label": { "0": "bad", "1": "good", "2": "so so" } }));
    let shares = [[0.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.25, 0.0, 0.0], [0.0, 0.0, 1.0]];
    let terms = logits(&model, 3).into_iter().zip(shares).flat_map(|(logits, shares)| {
        let term = |(logit, share): (f64, f64)| logit.exp().ln_1p() - logit * share;
        logits.into_iter().zip(shares).map(term).collect::<Vec<_>>()
    });
    let labels = [json!([0, 1, 0]), json!(["bad", "good"]), json!([0.25, 0.0, 0.0]), json!("[0, 0, 1]")];
    let trained = training(&model, &labelled("labels", &labels), 6).run().unwrap();
    check(&trained, Loss::MultiLabel, mean(terms), 12);
}

#[test]
fn numbers_for_each_row() {
    let dir = tempfile::tempdir().unwrap();
    let model = classifier(dir.path(), json!({ "problem_type": "regression" }));
    let wanted = [[0.5, 1.0, -2.0], [0.0, 0.0, 0.0], [1.0, 2.0, 3.0], [-1.0, 0.25, 0.0]];
    let terms = logits(&model, 3).into_iter().zip(wanted).flat_map(|(logits, wanted)| {
        logits.into_iter().zip(wanted).map(|(logit, number)| (logit - number).powi(2)).collect::<Vec<_>>()
    });
    let trained = training(&model, &labelled("label", &wanted.map(|numbers| json!(numbers))), 6).run().unwrap();
    check(&trained, Loss::Regression, mean(terms), 12);
}

#[test]
fn a_label_for_each_token() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("model.onnx");
    fs::copy(graph("example/dynamo"), &model).unwrap();
    fs::copy(root().join("graphs/example/dynamo/config.json"), dir.path().join("config.json")).unwrap();
    let logits = logits(&model, 768);
    let labels = json!([-100, 7, -100, 300, -100, -100]);
    let all: Vec<Json> = IDS.iter().map(|_| labels.clone()).collect();
    let terms = (0..4).flat_map(|row| [(row * 6 + 1, 7), (row * 6 + 3, 300)]);
    let expected = mean(terms.map(|(row, class)| cross_entropy(&logits[row], class)));
    let mut train = training(&model, &labelled("labels", &all), 6);
    for loss in [Loss::MaskedLm, Loss::TokenClassification] {
        let settings = TrainSettings {
            loss: Some(loss),
            steps: Some(6),
            rate: 3e-3,
            schedule: Schedule::Constant,
            ..TrainSettings::default()
        };
        train = train.settings(settings);
        check(&train.clone().run().unwrap(), loss, expected, 8);
    }
}

/// A model whose vocabulary is so large that its logits are computed a few rows at a time.
const TOKENS: usize = 8200;

fn with_large_vocabulary(dtype: i32, dir: &Path) -> PathBuf {
    let net = net()
        .named_input("input_ids", I64, &["batch", "length"])
        .floats("embed.weight", &[256, 4], dtype)
        .floats("proj.weight", &[4, 4], dtype)
        .floats("lm_head.weight", &[4, TOKENS as i64], dtype)
        .node("Gather", "embed", &["embed.weight", "input_ids"], "x")
        .node("MatMul", "/proj/MatMul", &["x", "proj.weight"], "y")
        .node("MatMul", "/lm_head/MatMul", &["y", "lm_head.weight"], "logits");
    net.shaped_output("logits", dtype, &[-1, -1, TOKENS as i64]).save(dir);
    dir.join("m.onnx")
}

/// ONNX Runtime has few kernels in bf16 on CPUs.
#[test]
fn a_type_that_the_device_cannot_compute_in_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let model = with_large_vocabulary(BF16, dir.path());
    refused(&model, &[json!({ "input_ids": [5, 9] })], "Could not find an implementation for MatMul");
}

#[test]
fn the_logits_of_a_large_vocabulary_in_parts() {
    let dir = tempfile::tempdir().unwrap();
    let model = with_large_vocabulary(F32, dir.path());
    let logits = logits(&model, TOKENS);
    // Numbers of targets that four parts divide evenly, unevenly, and some of the parts not at all.
    for rows in [4, 3, 1] {
        let ids = &IDS[..rows];
        let data: Vec<Json> = ids.iter().map(|ids| json!({ "input_ids": ids })).collect();
        let terms = ids.iter().flatten().enumerate().filter(|(at, _)| at % 6 > 0);
        let expected = mean(terms.map(|(at, token)| cross_entropy(&logits[at - 1], *token as usize)));
        check(&training(&model, &data, 6).run().unwrap(), Loss::CausalLm, expected, rows * 5);
    }
    let data = [json!({ "input_ids": [5, 9] })];
    let expected = cross_entropy(&logits[0], 9);
    check(&training(&model, &data, 6).run().unwrap(), Loss::CausalLm, expected, 1);
}

/// Losses and norms in 16 bits are those in 32. Gradients here are large enough to be so without their scale as well.
#[test]
fn a_model_in_16_bits_trains_as_in_32() {
    let dir = tempfile::tempdir().unwrap();
    let data: Vec<Json> = IDS.iter().map(|ids| json!({ "input_ids": ids })).collect();
    let [wide, half] = [("f32", F32), ("f16", F16)].map(|(name, dtype)| {
        let folder = dir.path().join(name);
        fs::create_dir(&folder).unwrap();
        training(&with_large_vocabulary(dtype, &folder), &data, 6).run().unwrap()
    });
    // Weights and activations are rounded to u = 2^-11, in five products one after the other, forwards and back.
    let tolerance = 10.0 * 2f64.powi(-11);
    for (wide, half) in wide.history.iter().zip(&half.history) {
        within(half.loss / wide.loss - 1.0, tolerance, "loss");
        within(half.norm / wide.norm - 1.0, tolerance, "norm");
    }
}

/// The tokens of a decoder, from rows of ids for it and its encoder.
#[test]
fn a_decoder_reads_its_encoder() {
    for decoder in ["decoder_model.onnx", "decoder_model_merged.onnx"] {
        let dir = exports::unpacked("t5/optimum");
        let model = dir.path().join(decoder);
        let rows = [
            json!({ "input_ids": [5, 6, 7, 8, 1], "labels": [9, 10, 11, 1] }),
            json!({ "input_ids": [12, 13, 1], "labels": [14, -100, 1] }),
            json!({ "input_ids": [12, 13, 1], "decoder_input_ids": [0, 4, 5] }),
        ];
        let trained = training(&model, &rows, 8).run().unwrap();
        assert_eq!((trained.loss, trained.history[0].targets), (Loss::Seq2SeqLm, 4 + 2 + 2));
        let losses: Vec<f64> = trained.history.iter().map(|step| step.loss).collect();
        assert!(losses[7] < losses[0], "{losses:?}");
        assert!(trained.adapter.modules.iter().all(|module| module.module.starts_with("decoder.")));
    }
}

#[track_caller]
fn refused(model: &Path, rows: &[Json], message: &str) {
    let error = training(model, rows, 1).run().err().unwrap();
    assert!(error.to_string().contains(message), "{error}");
    assert!(error.hint().is_some(), "{error}");
}

#[test]
fn wrong_labels_are_named_with_their_rows() {
    let dir = tempfile::tempdir().unwrap();
    let model = classifier(dir.path(), json!({}));
    let with = |label: Json| labelled("label", &[json!(0), label, json!(1), json!(2)]);
    refused(&model, &with(json!(3)), "line 2: label 3 is outside the model's classes, 0 to 2");
    refused(&model, &with(json!("bad")), "line 2: the model has no class `bad`; config.json has `LABEL_0`, `LABEL_1`");
    refused(&model, &with(json!(1.5)), "line 2: the label must be a class: an integer or a name, got 1.5");
    refused(
        &model,
        &with(json!([0, 1, 0])),
        "line 2: the label must be a class: an integer or a name, got a list of 3",
    );
    refused(&model, &with(Json::Null), "line 2: the row has no `label` or `labels`, which single-label-classification");
    refused(&model, &labelled("labels", &vec![json!([]); 4]), "line 1: the label must be a list of 3 numbers");
    refused(&model, &labelled("label", &vec![json!(-100); 4]), "no row of the data has anything to predict");
    refused(&model, &[json!({ "input_ids": [1, 2], "label": 1, "labels": 1 })], "has both `label` and `labels`");
}

#[test]
fn models_that_predict_something_else_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let rows = labelled("label", &[json!(0), json!(1)]);
    let model = classifier(dir.path(), json!({ "id2label": { "0": "a", "1": "b" } }));
    refused(&model, &rows, "the output `logits` has 3 classes, and config.json names 2");
    let model = classifier(dir.path(), json!({ "problem_type": "ranking" }));
    refused(&model, &rows, "config.json has the `problem_type` ranking");
    let model = classifier(dir.path(), json!({ "architectures": ["BertForQuestionAnswering"] }));
    refused(&model, &rows, "config.json says that it is a BertForQuestionAnswering");
    let model = classifier(dir.path(), json!({ "architectures": ["BertForMaskedLM"] }));
    let tokens = labelled("labels", &vec![json!([-100, 1, -100, -100, -100, 2]); 4]);
    refused(&model, &tokens, "the output `logits` is not [batch, length, vocabulary] of floats, which masked-lm takes");
}

/// Layers that are trained whole, from the values of the model, and on from those of an adapter.
#[test]
fn heads_are_trained_and_saved() {
    let dir = tempfile::tempdir().unwrap();
    let model = classifier(dir.path(), json!({}));
    let rows = labelled("label", &[json!(0), json!(1), json!(2), json!(1)]);
    let alone = training(&model, &rows, 8).run().unwrap();
    let trained = training(&model, &rows, 8).train_modules(["classifier"]).run().unwrap();
    assert_eq!(trained.whole(), ["classifier"]);
    assert_eq!(
        trained.saved.iter().map(|saved| saved.values.shape().to_vec()).collect::<Vec<_>>(),
        [vec![3, 32], vec![3]]
    );
    within(trained.history[0].loss - alone.history[0].loss, F32_DRIFT * 2.0, "the first loss");
    assert!(trained.history[0].norm > alone.history[0].norm);
    assert!(trained.history[7].loss < alone.history[7].loss);

    let folder = dir.path().join("trained");
    trained.save(&folder).unwrap();
    let config: Json = serde_json::from_slice(&fs::read(folder.join("adapter_config.json")).unwrap()).unwrap();
    assert_eq!(config["modules_to_save"], json!(["classifier"]));
    let on = training(&model, &rows, 1).adapter(&folder).run().unwrap();
    assert_eq!(on.whole(), ["classifier"]);
    assert!(on.history[0].loss < trained.history[7].loss, "{} {}", on.history[0].loss, trained.history[7].loss);
}

#[test]
fn layers_that_cannot_be_trained_whole_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let model = classifier(dir.path(), json!({}));
    let rows = labelled("label", &[json!(0), json!(1), json!(2), json!(1)]);
    let error = |name: &str| training(&model, &rows, 1).train_modules([name]).run().err().unwrap().to_string();
    assert!(error("score").contains("`score` cannot be trained whole: no layer of the model has this name"));
    assert!(error("pooler").contains("`bert.pooler.dense` cannot be trained whole: the adapter has matrices for it"));
}
