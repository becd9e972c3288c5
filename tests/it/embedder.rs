//! Decoders that read embeddings, beside the model that makes them of tokens.

use crate::support::adapters::read_a;
use crate::support::eva;
use crate::support::exact;
use crate::support::graph::{F16, F32, I64, Net, net, pattern};
use crate::support::tolerance::{rounded_away, within};
use ndarray::Array2;
use serde_json::{Value, json};
use std::fmt::Write;
use std::fs;
use std::path::Path;

const FEATURES: usize = 6;
const LENGTHS: [usize; 9] = [7, 4, 9, 4, 6, 7, 5, 9, 8];

/// The embedding of every token id.
fn table() -> Vec<f32> {
    pattern(40 * FEATURES)
}

/// `input_ids` to embeddings.
fn embedder() -> Net {
    net()
        .named_input("input_ids", I64, &["b", "s"])
        .values("table", &[40, FEATURES as i64], &table())
        .node("Gather", "/Gather", &["table", "input_ids"], "inputs_embeds")
        .shaped_output("inputs_embeds", F32, &[-1, -1, FEATURES as i64])
}

/// A layer that reads the embeddings, and a mean of all of them where `mixes`, so that padding would change them.
fn decoder(dtype: i32, mixes: bool) -> Net {
    let net = net()
        .named_input("inputs_embeds", dtype, &["b", "s", "6"])
        .node("Cast", "/Cast", &["inputs_embeds"], "wide")
        .int("to", F32.into());
    let net = if mixes {
        net.node("ReduceMean", "/ReduceMean", &["wide"], "mean").ints("axes", &[1]).node(
            "Add",
            "/Add",
            &["wide", "mean"],
            "x",
        )
    } else {
        net.named_input("attention_mask", I64, &["b", "s"]).node("Identity", "/Identity", &["wide"], "x")
    };
    net.values("w", &[FEATURES as i64, 5], &pattern(5 * FEATURES))
        .node("MatMul", "/fc/MatMul", &["x", "w"], "y")
        .output("y")
}

fn ids(row: usize, length: usize) -> Vec<usize> {
    (0..length).map(|token| (row * 31 + token * 17 + token * token) % 40).collect()
}

/// The embeddings of some tokens.
fn embedded(ids: &[usize]) -> Vec<f64> {
    let table = table();
    ids.iter().flat_map(|id| table[id * FEATURES..][..FEATURES].iter().map(|v| f64::from(*v))).collect()
}

/// What `init` says, or the error.
fn init(dir: &Path, rows: &[Value], options: &[&str]) -> Result<String, String> {
    let lines = rows.iter().fold(String::new(), |mut lines, row| {
        writeln!(lines, "{row}").unwrap();
        lines
    });
    fs::write(dir.join("rows.jsonl"), lines).unwrap();
    let mut command = eva::eva();
    command.current_dir(dir).args(["init", "model.onnx", "--data", "rows.jsonl", "--device", "cpu", "--force"]);
    command.args(["--no-progress", "--trust-node-names", "--tau", "1", "--rank", "4"]).args(options);
    let output = command.output().unwrap();
    let said = eva::text(&output.stderr);
    if output.status.success() { Ok(said) } else { Err(said) }
}

#[track_caller]
fn learnt(dir: &Path, seen: &[f64]) {
    let seen = Array2::from_shape_vec((seen.len() / FEATURES, FEATURES), seen.to_vec()).unwrap();
    let (_, a) = read_a(&dir.join("adapter")).into_iter().find(|(module, _)| module == "fc").unwrap();
    within(1.0 - exact(seen.view()).captured(a.view()), rounded_away(), "fc");
    let report: Value = serde_json::from_slice(&fs::read(dir.join("adapter/eva.json")).unwrap()).unwrap();
    assert_eq!(report["groups"][0]["rows"], seen.nrows());
}

fn folder(files: &[(&str, Net)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, net) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, net.clone().encoded()).unwrap();
    }
    dir
}

#[test]
fn tokens_are_embedded_by_the_model_beside() {
    let tokens: Vec<Vec<usize>> = LENGTHS.into_iter().enumerate().map(|(row, length)| ids(row, length)).collect();
    let rows: Vec<_> = tokens.iter().map(|ids| json!({"input_ids": ids})).collect();
    let seen = embedded(&tokens.concat());
    for place in ["embed_tokens.onnx", "onnx/embed_tokens.onnx", "other.onnx"] {
        let dir = folder(&[("model.onnx", decoder(F32, false)), (place, embedder())]);
        let option = if place == "other.onnx" { &["--embed-tokens", place][..] } else { &[] };
        for capture in ["sketch", "outputs"] {
            init(dir.path(), &rows, &[option, &["--capture", capture]].concat()).unwrap();
            learnt(dir.path(), &seen);
        }
    }
}

#[test]
fn rows_with_embeddings_need_no_tokens() {
    let dir = folder(&[("model.onnx", decoder(F32, false)), ("embed_tokens.onnx", embedder())]);
    let mut seen = Vec::new();
    let mut rows = Vec::new();
    for (row, length) in LENGTHS.into_iter().enumerate() {
        let ids = ids(row, length);
        let of_row = embedded(&ids);
        // Half of the rows are tokens.
        rows.push(if row % 2 == 0 {
            json!({"inputs_embeds": of_row.chunks(FEATURES).collect::<Vec<_>>()})
        } else {
            json!({"input_ids": ids})
        });
        seen.extend(of_row);
    }
    init(dir.path(), &rows, &[]).unwrap();
    learnt(dir.path(), &seen);
}

/// Nothing tells the decoder what is padding.
#[test]
fn padding_of_embeddings_is_noticed() {
    let tokens: Vec<Vec<usize>> = LENGTHS.into_iter().enumerate().map(|(row, length)| ids(row, length)).collect();
    let mut seen = Vec::new();
    for ids in &tokens {
        let of_row = embedded(ids);
        let mean = |feature: usize| of_row.iter().skip(feature).step_by(FEATURES).sum::<f64>() / ids.len() as f64;
        seen.extend(of_row.iter().enumerate().map(|(at, value)| value + mean(at % FEATURES)));
    }
    let by_tokens: Vec<_> = tokens.iter().map(|ids| json!({"input_ids": ids})).collect();
    let lists = |ids: &Vec<usize>| embedded(ids).chunks(FEATURES).map(<[f64]>::to_vec).collect::<Vec<_>>();
    let by_embeddings: Vec<_> = tokens.iter().map(|ids| json!({"inputs_embeds": lists(ids)})).collect();
    let dir = folder(&[("model.onnx", decoder(F32, true)), ("embed_tokens.onnx", embedder())]);
    for rows in [&by_tokens, &by_embeddings] {
        init(dir.path(), rows, &[]).unwrap();
        learnt(dir.path(), &seen);
    }
}

#[test]
fn embeddings_are_rounded_to_what_the_decoder_takes() {
    let dir = folder(&[("model.onnx", decoder(F16, false)), ("embed_tokens.onnx", embedder())]);
    let rows: Vec<_> = (0..4).map(|row| json!({"input_ids": ids(row, 8)})).collect();
    init(dir.path(), &rows, &[]).unwrap();
    let half = |value: f64| half::f16::from_f64(value).to_f64();
    learnt(dir.path(), &(0..4).flat_map(|row| embedded(&ids(row, 8))).map(half).collect::<Vec<_>>());
}

#[test]
fn what_is_missing_is_said() {
    let rows = [json!({"input_ids": [1, 2, 3]})];
    let dir = folder(&[("model.onnx", decoder(F32, false)), ("other.onnx", embedder())]);
    let said = init(dir.path(), &rows, &[]).unwrap_err();
    assert!(said.contains("`inputs_embeds` is missing") && said.contains("--embed-tokens"), "{said}");
    let said = init(dir.path(), &[json!({"input_ids": [1, 99]})], &["--embed-tokens", "other.onnx"]).unwrap_err();
    assert!(said.contains("token id 99 is outside the model's vocabulary of 40"), "{said}");
    let said = init(dir.path(), &rows, &["--embed-tokens", "model.onnx"]).unwrap_err();
    assert!(said.contains("`model.onnx`") && said.contains("needs the input `inputs_embeds`"), "{said}");
    fs::write(dir.path().join("model.onnx"), embedder().encoded()).unwrap();
    let said = init(dir.path(), &rows, &["--embed-tokens", "other.onnx"]).unwrap_err();
    assert!(!said.is_empty(), "{said}");
}
