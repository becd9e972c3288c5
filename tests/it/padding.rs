//! Padding and rows of different lengths: what a row gives does not depend on what it is padded with.

use crate::support::eva::{self, graph};
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::Path;

/// What `init` writes and says for some rows.
struct Run {
    weights: Vec<u8>,
    said: String,
}

fn init(model: &Path, rows: &[Value], options: &[&str]) -> Result<Run, String> {
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
    Ok(Run { weights: std::fs::read(dir.path().join("adapter/adapter_model.safetensors")).unwrap(), said })
}

/// Token ids of a row of this length.
fn ids(row: usize, length: usize) -> Vec<usize> {
    (0..length).map(|token| 3 + (row * 31 + token * 17 + token * token) % 90).collect()
}

const LENGTHS: [usize; 12] = [9, 14, 5, 11, 8, 13, 7, 10, 12, 6, 9, 15];

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
        assert!(run(&plain).weights == run(&padded).weights, "{model}");
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
    let run = |rows: &[Value]| init(&graph("tiny/gpt2-optimum"), rows, &[]).unwrap().weights;
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
