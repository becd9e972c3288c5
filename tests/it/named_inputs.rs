//! Inputs that rows hold by name, of any type: what is learnt is the exact PCA of what the rows hold.

use crate::support::adapters::read_a;
use crate::support::eva;
use crate::support::exact;
use crate::support::graph::{BF16, BOOL, F16, F32, F64, I32, I64, Net, net, pattern};
use crate::support::tolerance::{rounded_away, within};
use ndarray::Array2;
use serde_json::{Value, json};
use std::fmt::Write;

/// Runs `init` on a model and rows, and returns the folder with the adapter, or what it says.
fn init(net: Net, rows: &[Value], options: &[&str]) -> Result<tempfile::TempDir, String> {
    let (dir, _) = net.open();
    let lines = rows.iter().fold(String::new(), |mut lines, row| {
        writeln!(lines, "{row}").unwrap();
        lines
    });
    std::fs::write(dir.path().join("rows.jsonl"), lines).unwrap();
    let mut command = eva::eva();
    command.current_dir(dir.path()).args(["init", "m.onnx", "--data", "rows.jsonl", "--device", "cpu", "--quiet"]);
    let output = command.args(["--trust-node-names", "--tau", "1", "--rank", "4"]).args(options).output().unwrap();
    if output.status.success() { Ok(dir) } else { Err(eva::text(&output.stderr)) }
}

/// Expects the leading directions of `seen`, the inputs of the layer `fc` one after the other.
#[track_caller]
fn learns(net: &Net, rows: &[Value], seen: &[f64], features: usize) {
    let seen = Array2::from_shape_vec((seen.len() / features, features), seen.to_vec()).unwrap();
    for capture in ["sketch", "outputs"] {
        let dir = init(net.clone(), rows, &["--capture", capture]).unwrap_or_else(|said| panic!("{capture}: {said}"));
        let (_, a) = read_a(&dir.path().join("adapter")).into_iter().find(|(module, _)| module == "fc").unwrap();
        within(1.0 - exact(seen.view()).captured(a.view()), rounded_away(), capture);
        let report = std::fs::read(dir.path().join("adapter/eva.json")).unwrap();
        let report: Value = serde_json::from_slice(&report).unwrap();
        assert_eq!(report["groups"][0]["rows"], seen.nrows(), "{capture}");
    }
}

/// The layer `fc`, which reads `x` of so many features.
fn layer(net: Net, features: usize) -> Net {
    net.values("w", &[features as i64, 5], &pattern(5 * features))
        .node("MatMul", "/fc/MatMul", &["x", "w"], "y")
        .output("y")
}

/// Numbers of row `row` that look random, between -1 and 1.
fn numbers(row: usize, count: usize) -> Vec<f64> {
    pattern(count + 37 * row).into_iter().skip(37 * row).map(f64::from).collect()
}

/// Nested lists [length, width] of numbers.
fn lists(numbers: &[f64], width: usize) -> Value {
    numbers.chunks(width).collect()
}

const LENGTHS: [usize; 9] = [7, 4, 9, 4, 6, 7, 5, 9, 8];

#[test]
fn integers_beside_tokens_are_padded_with_them() {
    let net = net()
        .named_input("input_ids", I64, &["batch", "sequence"])
        .named_input("bbox", I64, &["batch", "sequence", "4"])
        .named_input("attention_mask", I64, &["batch", "sequence"])
        .node("Cast", "/Cast", &["bbox"], "x")
        .int("to", F32.into());
    let (mut rows, mut seen) = (Vec::new(), Vec::new());
    for (at, length) in LENGTHS.into_iter().enumerate() {
        let boxes: Vec<f64> = numbers(at, 4 * length).iter().map(|number| (number * 500.0).round()).collect();
        let integers: Vec<i64> = boxes.iter().map(|number| *number as i64).collect();
        let (mut ids, mut mask) = (vec![1; length], vec![1; length]);
        let mut all: Vec<&[i64]> = integers.chunks(4).collect();
        if at % 3 == 0 {
            // Padding on the left is taken off.
            (ids, mask) = ([vec![0; 2], ids].concat(), [vec![0; 2], mask].concat());
            all.splice(0..0, [&[9, 9, 9, 9][..]; 2]);
        }
        rows.push(json!({"input_ids": ids, "bbox": all, "attention_mask": mask}));
        seen.extend(boxes);
    }
    learns(&layer(net.clone(), 4), &rows, &seen, 4);
    rows[5]["bbox"] = json!([[1, 2, 3, 4]]);
    let said = init(layer(net.clone(), 4), &rows, &[]).unwrap_err();
    assert!(said.contains("`rows.jsonl` line 6: `bbox` has 1 entries for the row's 7 tokens"), "{said}");
    rows[5]["bbox"] = json!([[1.5, 2, 3, 4]]);
    let said = init(layer(net, 4), &rows, &[]).unwrap_err();
    assert!(said.contains("`rows.jsonl` line 6: `bbox` has numbers that are no i64"), "{said}");
}

#[test]
fn embeddings_take_the_place_of_tokens() {
    let net = net()
        .named_input("inputs_embeds", F32, &["b", "s", "6"])
        .named_input("attention_mask", I64, &["b", "s"])
        .named_input("position_ids", I64, &["b", "s"])
        .node("Unsqueeze", "/Unsqueeze", &["position_ids", "last"], "rows")
        .integers("last", &[1], &[-1])
        .node("Cast", "/Cast", &["rows"], "positions")
        .int("to", F32.into())
        .node("Add", "/Add", &["inputs_embeds", "positions"], "x");
    let (mut rows, mut seen) = (Vec::new(), Vec::new());
    for (at, length) in LENGTHS.into_iter().enumerate() {
        let embeddings = numbers(at, 6 * length);
        rows.push(json!({"inputs_embeds": lists(&embeddings, 6)}));
        seen.extend(embeddings.chunks(6).enumerate().flat_map(|(at, row)| row.iter().map(move |v| v + at as f64)));
    }
    learns(&layer(net, 6), &rows, &seen, 6);
}

#[test]
fn any_type_is_taken() {
    for (data_type, values) in [
        (I64, json!([3, -400, 5])),
        (I32, json!([3, -400, 5])),
        (BOOL, json!([true, false, true])),
        (F16, json!([0.5, -1.25, 3.0])),
        (BF16, json!([0.5, -1.25, 3.0])),
        (F32, json!([0.5, -1.25, 3])),
        (F64, json!([0.5, -1.25, 3])),
    ] {
        let net = net()
            .named_input("features", data_type, &["batch", "3"])
            .node("Cast", "/Cast", &["features"], "cast")
            .int("to", F32.into())
            .named_input("offset", F32, &["batch", "3"])
            .node("Add", "/Add", &["cast", "offset"], "x");
        let number = |value: &Value| value.as_f64().or_else(|| value.as_bool().map(|one| f64::from(u8::from(one))));
        let values_of_row: Vec<f64> = values.as_array().unwrap().iter().filter_map(number).collect();
        let (mut rows, mut seen) = (Vec::new(), Vec::new());
        for row in 0..9 {
            let offset = numbers(row, 3);
            rows.push(json!({"features": values, "offset": offset}));
            seen.extend(offset.iter().zip(&values_of_row).map(|(offset, value)| offset + value));
        }
        learns(&layer(net, 3), &rows, &seen, 3);
    }
}

#[test]
fn graphs_are_padded_along_both_axes_of_their_nodes() {
    let table = pattern(40);
    let net = net()
        .named_input("atoms", I64, &["graphs", "nodes"])
        .named_input("adjacency", F32, &["graphs", "nodes", "nodes"])
        .named_input("attention_mask", I64, &["graphs", "nodes"])
        .values("table", &[10, 4], &table)
        .node("Gather", "/embed/Gather", &["table", "atoms"], "embedded")
        .node("MatMul", "/MatMul", &["adjacency", "embedded"], "x");
    let (mut rows, mut seen) = (Vec::new(), Vec::new());
    for (at, nodes) in LENGTHS.into_iter().enumerate() {
        let atoms: Vec<usize> = (0..nodes).map(|node| (node * 7 + at * 3) % 10).collect();
        let edges = numbers(at, nodes * nodes);
        for node in 0..nodes {
            let sum = |feature: usize| {
                let part = |other: usize| edges[node * nodes + other] * f64::from(table[atoms[other] * 4 + feature]);
                (0..nodes).map(part).sum::<f64>()
            };
            seen.extend((0..4).map(sum));
        }
        rows.push(json!({"atoms": atoms, "adjacency": lists(&edges, nodes)}));
    }
    learns(&layer(net, 4), &rows, &seen, 4);
}

/// Returns, states and actions, each of 3 features, in turns, as a Decision Transformer has them.
fn in_turns() -> Net {
    let net = net().named_input("attention_mask", I64, &["b", "s"]);
    let net = ["returns_to_go", "states", "actions"]
        .iter()
        .fold(net, |net, name| net.named_input(name, F32, &["b", "s", "3"]));
    net.named_input("timesteps", I64, &["b", "s"])
        .integers("axis", &[1], &[2])
        .integers("tokens", &[3], &[0, -1, 3])
        .node("Unsqueeze", "/Unsqueeze", &["returns_to_go", "axis"], "r")
        .node("Unsqueeze", "/Unsqueeze_1", &["states", "axis"], "s")
        .node("Unsqueeze", "/Unsqueeze_2", &["actions", "axis"], "a")
        .node("Concat", "/Concat", &["r", "s", "a"], "stacked")
        .int("axis", 2)
        .node("Reshape", "/Reshape", &["stacked", "tokens"], "x")
}

#[test]
fn three_streams_give_three_rows_a_step() {
    let (mut rows, mut seen) = (Vec::new(), Vec::new());
    for at in 0..8 {
        // Episodes that are too short are padded on the left.
        let (length, padding) = if at % 2 == 0 { (6, 0) } else { (4, 2) };
        let streams: Vec<Vec<f64>> = (0..3).map(|stream| numbers(3 * at + stream, 3 * length)).collect();
        let padded = |stream: &Vec<f64>| lists(&[vec![7.0; 3 * padding], stream.clone()].concat(), 3);
        let mask = [vec![0; padding], vec![1; length]].concat();
        rows.push(json!({
            "returns_to_go": padded(&streams[0]), "states": padded(&streams[1]), "actions": padded(&streams[2]),
            "timesteps": (0..length + padding).collect::<Vec<_>>(),
            "attention_mask": mask,
        }));
        for step in 0..length {
            streams.iter().for_each(|stream| seen.extend(&stream[3 * step..][..3]));
        }
    }
    learns(&layer(in_turns(), 3), &rows, &seen, 3);
}

#[test]
fn recurrent_layers_start_with_zeros() {
    let net = net()
        .named_input("features", F32, &["batch", "3"])
        .named_input("h0", F32, &["1", "batch", "3"])
        .integers("first", &[1], &[0])
        .node("Squeeze", "/Squeeze", &["h0", "first"], "state")
        .node("Add", "/Add", &["features", "state"], "x");
    let rows: Vec<_> = (0..9).map(|row| json!({"features": numbers(row, 3)})).collect();
    let seen: Vec<f64> = (0..9).flat_map(|row| numbers(row, 3)).collect();
    learns(&layer(net, 3), &rows, &seen, 3);
}

#[test]
fn rows_that_differ_in_shape_go_into_different_batches() {
    let net = net().named_input("features", F32, &["batch", "steps", "3"]).node("Neg", "/Neg", &["features"], "x");
    let all: Vec<_> = [2, 1, 4, 2, 3, 1].iter().enumerate().map(|(row, steps)| numbers(row, 3 * steps)).collect();
    let rows: Vec<_> = all.iter().map(|row| json!({"features": row.chunks(3).collect::<Vec<_>>()})).collect();
    let seen: Vec<f64> = all.concat().iter().map(|value| -value).collect();
    learns(&layer(net, 3), &rows, &seen, 3);
}
