//! Padding and rows of different lengths: what a row gives does not depend on what it is padded with.

use crate::support::adapters::read_a;
use crate::support::eva::{self, graph};
use crate::support::exact;
use crate::support::graph::{F32, I64, Net, net, pattern};
use crate::support::tolerance::{rounded_away, within};
use ndarray::Array2;
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// What `init` writes and says for some rows.
pub(crate) struct Run {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) said: String,
}

impl Run {
    fn weights(&self) -> Vec<u8> {
        std::fs::read(self.dir.path().join("adapter/adapter_model.safetensors")).unwrap()
    }

    /// Expects the leading directions of these rows at the module `name`.
    #[track_caller]
    pub(crate) fn has_learnt(&self, name: &str, rows: &[f64], features: usize) {
        let rows = Array2::from_shape_vec((rows.len() / features, features), rows.to_vec()).unwrap();
        let (_, a) = read_a(&self.dir.path().join("adapter")).into_iter().find(|(module, _)| module == name).unwrap();
        within(1.0 - exact(rows.view()).captured(a.view()), rounded_away(), name);
    }
}

pub(crate) fn init(model: &Path, rows: &[Value], options: &[&str]) -> Result<Run, String> {
    let dir = tempfile::tempdir().unwrap();
    let lines = rows.iter().fold(String::new(), |mut lines, row| {
        writeln!(lines, "{row}").unwrap();
        lines
    });
    std::fs::write(dir.path().join("rows.jsonl"), lines).unwrap();
    let mut command = eva::eva();
    command.current_dir(dir.path()).arg("init").arg(model).args(["--data", "rows.jsonl", "--device", "cpu"]);
    let output = command.args(["--no-progress", "--rank", "4"]).args(options).output().unwrap();
    let said = eva::text(&output.stderr);
    if !output.status.success() {
        return Err(said);
    }
    Ok(Run { dir, said })
}

/// Token ids of a row of this length.
pub(crate) fn ids(row: usize, length: usize) -> Vec<usize> {
    (0..length).map(|token| 3 + (row * 31 + token * 17 + token * token) % 90).collect()
}

pub(crate) const LENGTHS: [usize; 12] = [9, 14, 5, 11, 8, 13, 7, 10, 12, 6, 9, 15];

#[test]
fn rows_padded_on_the_left_give_what_they_give_without() {
    let (mut plain, mut padded) = (Vec::new(), Vec::new());
    for (row, length) in LENGTHS.into_iter().enumerate() {
        let (ids, more) = (ids(row, length), 16 - length);
        let mask = [vec![0; more], vec![1; length]].concat();
        let all = [vec![1; more], ids.clone()].concat();
        padded.push(json!({"input_ids": all, "attention_mask": mask}));
        plain.push(json!({"input_ids": ids}));
    }
    // Positions are an input, or computed in the graph.
    for model in ["tiny/gpt2-optimum", "tiny/gpt2-dynamo", "tiny/bert-optimum"] {
        let run = |rows: &[Value]| init(&graph(model), rows, &[]).unwrap_or_else(|said| panic!("{model}: {said}"));
        assert!(run(&plain).weights() == run(&padded).weights(), "{model}");
    }
}

#[test]
fn positions_may_be_given() {
    let row = |row, shift: usize| {
        let positions: Vec<_> = (shift..shift + 8).collect();
        json!({"input_ids": ids(row, 8), "position_ids": positions})
    };
    let rows = |shift| (0..6).map(|at| row(at, shift)).collect::<Vec<_>>();
    let plain: Vec<_> = (0..6).map(|row| json!({"input_ids": ids(row, 8)})).collect();
    let run = |rows: &[Value]| init(&graph("tiny/gpt2-optimum"), rows, &[]).unwrap().weights();
    assert!(run(&plain) == run(&rows(0)));
    assert!(run(&plain) != run(&rows(5)));
}

#[test]
fn a_note_names_fields_that_are_not_used() {
    let note = |model: &str, options: &[&str]| {
        let rows = [
            json!({"input_ids": ids(1, 8), "position_ids": [0, 1, 2, 3, 4, 5, 6, 7], "history": [], "system": null}),
            json!({"input_ids": ids(2, 8), "system": "be brief", "attention_mask": [1, 1, 1, 1, 1, 1, 1, 1]}),
        ];
        let said = init(&graph(model), &rows, options).unwrap().said;
        said.lines().find(|line| line.contains("fields of the rows")).map(str::to_owned)
    };
    assert!(note("tiny/gpt2-optimum", &[]).is_some_and(|note| note.contains("reads: `system`;")));
    assert!(note("tiny/bert-optimum", &[]).is_some_and(|note| note.contains("reads: `position_ids`, `system`;")));
}

pub(crate) const FEATURES: usize = 6;

/// The embedding of every token id.
pub(crate) fn table() -> Vec<f32> {
    pattern(100 * FEATURES).iter().enumerate().map(|(i, value)| value * (1.0 + (i % FEATURES) as f32)).collect()
}

/// What the table has for the tokens of all rows.
fn embedded(rows: &[Vec<usize>]) -> Vec<f64> {
    let table = table();
    rows.iter().flatten().flat_map(|id| table[id * FEATURES..][..FEATURES].iter().map(|v| f64::from(*v))).collect()
}

/// Embeds the tokens, looks at them in windows of 4, as local attention does, and multiplies each token.
fn windowed() -> Net {
    net()
        .shaped_input("input_ids", I64, &[-1, -1])
        .shaped_input("attention_mask", I64, &[-1, -1])
        .values("table", &[100, FEATURES as i64], &table())
        .integers("windows", &[4], &[0, -1, 4, FEATURES as i64])
        .integers("tokens", &[3], &[0, -1, FEATURES as i64])
        .values("w", &[FEATURES as i64, 5], &pattern(5 * FEATURES))
        .node("Gather", "/embed/Gather", &["table", "input_ids"], "x")
        .node("Reshape", "/Reshape", &["x", "windows"], "cut")
        .node("Reshape", "/Reshape_1", &["cut", "tokens"], "again")
        .node("MatMul", "/fc/MatMul", &["again", "w"], "y")
        .shaped_output("y", F32, &[-1, -1, 5])
}

pub(crate) fn saved(net: Net) -> (tempfile::TempDir, PathBuf) {
    let (dir, _) = net.open();
    let path = dir.path().join("m.onnx");
    (dir, path)
}

pub(crate) const TRUST: [&str; 3] = ["--trust-node-names", "--tau", "1"];

#[test]
fn models_may_take_only_some_lengths() {
    let (_model, path) = saved(windowed());
    let tokens: Vec<_> = LENGTHS.into_iter().enumerate().map(|(row, length)| ids(row, length)).collect();
    let given = |length: usize| {
        let row = |ids: &Vec<usize>| {
            let more = length - ids.len();
            let mask = [vec![1; ids.len()], vec![0; more]].concat();
            let ids = [ids.clone(), vec![0; more]].concat();
            json!({"input_ids": ids, "attention_mask": mask})
        };
        tokens.iter().map(row).collect::<Vec<_>>()
    };
    let plain: Vec<_> = tokens.iter().map(|ids| json!({"input_ids": ids})).collect();
    // Rows padded to a length that the model takes run as they are.
    let run = init(&path, &given(16), &TRUST).unwrap();
    run.has_learnt("fc", &embedded(&tokens), FEATURES);
    for option in [["--pad-multiple", "4"], ["--pad-to", "16"], ["--pad-multiple", "8"]] {
        let run = init(&path, &plain, &[&TRUST[..], &option].concat()).unwrap();
        run.has_learnt("fc", &embedded(&tokens), FEATURES);
    }
    for rows in [&plain, &given(15)] {
        let said = init(&path, rows, &TRUST).map(|run| run.said).unwrap_err();
        assert!(said.contains("--pad-multiple"), "{said}");
    }
    // Longer rows are cut.
    let run = init(&path, &plain, &[&TRUST[..], &["--pad-to", "8"]].concat()).unwrap();
    let cut: Vec<_> = tokens.iter().map(|ids| ids[..ids.len().min(8)].to_vec()).collect();
    run.has_learnt("fc", &embedded(&cut), FEATURES);
    let error =
        init(&path, &plain, &[&TRUST[..], &["--pad-multiple", "600"]].concat()).map(|run| run.said).unwrap_err();
    assert!(error.contains("no row of at most 512 tokens") && error.contains("lower `--pad-multiple`"), "{error}");
}

#[test]
fn a_length_that_the_model_fixes_stays() {
    let mut fixed = windowed();
    fixed.graph.input.clear();
    let (_model, path) = saved(fixed.shaped_input("input_ids", I64, &[-1, 16]));
    let rows = [json!({"input_ids": ids(0, 9)}), json!({"input_ids": ids(1, 12)})];
    let run = init(&path, &rows, &[&TRUST[..], &["--pad-multiple", "8"]].concat()).unwrap();
    run.has_learnt("fc", &embedded(&[ids(0, 9), ids(1, 12)]), FEATURES);
    let error = init(&path, &rows, &[&TRUST[..], &["--pad-to", "8"]].concat()).map(|run| run.said).unwrap_err();
    assert!(error.contains("the model takes 16 tokens") && error.contains("leave out `--pad-to`"), "{error}");
}

/// Embeds the tokens and adds their mean to each, as a model that has no mask sees padding; so many rows and tokens, or
/// any number.
fn averaged(rows: i64, length: i64) -> Net {
    net()
        .shaped_input("input_ids", I64, &[rows, length])
        .values("table", &[100, FEATURES as i64], &table())
        .values("w", &[FEATURES as i64, 5], &pattern(5 * FEATURES))
        .node("Gather", "/embed/Gather", &["table", "input_ids"], "x")
        .node("ReduceMean", "/ReduceMean", &["x"], "mean")
        .ints("axes", &[1])
        .node("Add", "/Add", &["x", "mean"], "sum")
        .node("MatMul", "/fc/MatMul", &["sum", "w"], "y")
        .shaped_output("y", F32, &[rows, length, 5])
}

/// What `averaged` computes of a row.
fn with_mean(ids: &[usize]) -> Vec<f64> {
    let of_row = embedded(&[ids.to_vec()]);
    let mean = |feature: usize| of_row.iter().skip(feature).step_by(FEATURES).sum::<f64>() / ids.len() as f64;
    of_row.iter().enumerate().map(|(at, value)| value + mean(at % FEATURES)).collect()
}

/// Nothing tells the model what is padding.
#[test]
fn a_fixed_length_takes_only_rows_that_fill_it() {
    let rows = |lengths: &[usize]| -> Vec<_> {
        lengths.iter().enumerate().map(|(at, length)| json!({"input_ids": ids(at, *length)})).collect()
    };
    let options = |capture| [&TRUST[..], &["--capture", capture]].concat();
    let (_model, fixed) = saved(averaged(-1, 8));
    let (_model, free) = saved(averaged(-1, -1));
    for capture in ["sketch", "outputs"] {
        let said = init(&fixed, &rows(&[5, 8, 6, 8]), &options(capture)).map(|run| run.said).unwrap_err();
        assert!(said.contains("rows shorter than 8 tokens must be padded"), "{said}");
        assert!(said.contains("give only rows of 8 tokens or more"), "{said}");
        // Longer rows are cut.
        let run = init(&fixed, &rows(&[8, 8, 9, 12, 8]), &options(capture)).unwrap();
        let cut = |at| with_mean(&ids(at, 12)[..8]);
        run.has_learnt("fc", &(0..5).flat_map(cut).collect::<Vec<_>>(), FEATURES);
        let lengths = [5, 8, 6, 8];
        let run = init(&free, &rows(&lengths), &options(capture)).unwrap();
        let seen: Vec<f64> = lengths.iter().enumerate().flat_map(|(at, n)| with_mean(&ids(at, *n))).collect();
        run.has_learnt("fc", &seen, FEATURES);
        let padded = [&options(capture)[..], &["--pad-to", "8"]].concat();
        assert!(init(&free, &rows(&lengths), &padded).map(|run| run.said).unwrap_err().contains("leave out --pad-to"));
    }
}

/// The model takes three rows at a time, of any length.
#[test]
fn a_fixed_number_of_rows_is_filled_up() {
    let lengths = [5, 8, 6, 8, 5, 5, 7];
    let rows: Vec<_> = lengths.iter().enumerate().map(|(at, n)| json!({"input_ids": ids(at, *n)})).collect();
    let seen: Vec<f64> = lengths.iter().enumerate().flat_map(|(at, n)| with_mean(&ids(at, *n))).collect();
    let (_model, path) = saved(averaged(3, -1));
    for capture in ["sketch", "outputs"] {
        let run = init(&path, &rows, &[&TRUST[..], &["--capture", capture]].concat()).unwrap();
        run.has_learnt("fc", &seen, FEATURES);
        let report = std::fs::read(run.dir.path().join("adapter/eva.json")).unwrap();
        let report: Value = serde_json::from_slice(&report).unwrap();
        assert_eq!(report["groups"][0]["rows"], seen.len() / FEATURES);
    }
}

/// Cuts a sound into frames of 6 samples and multiplies each, as the features of an encoder of speech.
fn sounds() -> Net {
    net()
        .shaped_input("input_values", F32, &[-1, -1])
        .integers("frames", &[3], &[0, -1, FEATURES as i64])
        .values("w", &[FEATURES as i64, 5], &pattern(5 * FEATURES))
        .node("Reshape", "/Reshape", &["input_values", "frames"], "x")
        .node("MatMul", "/fc/MatMul", &["x", "w"], "y")
        .shaped_output("y", F32, &[-1, -1, 5])
}

#[test]
fn sounds_may_have_different_lengths() {
    let (_model, path) = saved(sounds());
    let all = table();
    let sounds: Vec<Vec<f64>> = [8, 3, 8, 5, 7, 3, 11, 2]
        .iter()
        .enumerate()
        .map(|(row, frames)| all[row * 13..][..frames * FEATURES].iter().map(|v| f64::from(*v)).collect())
        .collect();
    let rows: Vec<_> = sounds.iter().map(|sound| json!({"input_values": sound})).collect();
    for option in [&[][..], &["--batch-size", "1"], &["--keep-order"], &["--capture", "outputs"]] {
        let run =
            init(&path, &rows, &[&TRUST[..], option].concat()).unwrap_or_else(|said| panic!("{option:?}: {said}"));
        run.has_learnt("fc", &sounds.concat(), FEATURES);
    }
}
