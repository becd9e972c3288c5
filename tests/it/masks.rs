//! Masks of other names and meanings, and axes and orders of tokens that only the values tell.

use crate::padding::{FEATURES, LENGTHS, TRUST, ids, init, saved, table};
use crate::support::graph::{BOOL, F32, I64, Net, net, pattern};
use serde_json::{Value, json};

/// The embedding of a token.
fn embedding(id: usize) -> Vec<f64> {
    table()[id * FEATURES..][..FEATURES].iter().map(|value| f64::from(*value)).collect()
}

/// What the layer reads of all rows: the embedding of each token, and the mean of those of its row.
fn with_means(rows: &[Vec<usize>]) -> Vec<f64> {
    with(|mean| mean, rows)
}

/// The same with something made of the mean.
fn with(made: impl Fn(f64) -> f64, rows: &[Vec<usize>]) -> Vec<f64> {
    let mut all = Vec::new();
    for ids in rows {
        let row: Vec<Vec<f64>> = ids.iter().map(|id| embedding(*id)).collect();
        let mean: Vec<f64> =
            (0..FEATURES).map(|at| row.iter().map(|token| token[at]).sum::<f64>() / ids.len() as f64).collect();
        all.extend(row.iter().flat_map(|token| token.iter().zip(&mean).map(|(value, mean)| value + made(*mean))));
    }
    all
}

fn rows() -> Vec<Vec<usize>> {
    LENGTHS.into_iter().enumerate().map(|(row, length)| ids(row, length)).collect()
}

/// `tokens` [batch, sequence] embedded as `x`, and a layer that reads `read`.
fn embedded(tokens: &str) -> Net {
    net()
        .named_input(tokens, I64, &["batch", "sequence"])
        .values("table", &[100, FEATURES as i64], &table())
        .values("w", &[FEATURES as i64, 5], &pattern(5 * FEATURES))
        .node("Gather", "/embed/Gather", &["table", tokens], "x")
}

fn layer(net: Net, name: &str, read: &str) -> Net {
    net.node("MatMul", &format!("/{name}/MatMul"), &[read, "w"], &format!("y_{name}")).shaped_output(
        &format!("y_{name}"),
        F32,
        &[-1, -1, 5],
    )
}

/// A model that adds the mean of the tokens that its mask leaves.
fn masked(tokens: &str, mask: &str, data_type: i32) -> Net {
    let net = embedded(tokens).named_input(mask, data_type, &["batch", "sequence"]).integers("last", &[1], &[2]);
    let net = match data_type {
        BOOL => net.node("Not", "/Not", &[mask], "left").node("Cast", "/Cast", &["left"], "weights").int("to", 1),
        F32 => net.node("Exp", "/Exp", &[mask], "weights"),
        _ => net
            .integers("one", &[], &[1])
            .node("Sub", "/Sub", &["one", mask], "left")
            .node("Cast", "/Cast", &["left"], "weights")
            .int("to", 1),
    };
    let net = net
        .node("Unsqueeze", "/Unsqueeze", &["weights", "last"], "wide")
        .node("Mul", "/Mul", &["x", "wide"], "weighed")
        .node("ReduceMean", "/ReduceMean", &["weighed"], "above")
        .ints("axes", &[1])
        .node("ReduceMean", "/ReduceMean_1", &["wide"], "below")
        .ints("axes", &[1])
        .node("Div", "/Div", &["above", "below"], "mean")
        .node("Add", "/Add", &["x", "mean"], "read");
    layer(net, "fc", "read")
}

#[test]
fn a_mask_may_be_one_for_padding() {
    let rows = rows();
    let expected = with_means(&rows);
    for (mask, data_type) in [("src_key_padding_mask", BOOL), ("key_padding_mask", F32), ("tgt_key_padding_mask", I64)]
    {
        let (_model, path) = saved(masked("input_ids", mask, data_type));
        let plain: Vec<Value> = rows.iter().map(|ids| json!({"input_ids": ids})).collect();
        let padded = |left: bool| {
            let row = |ids: &Vec<usize>| {
                let (padding, real) = (vec![1; 16 - ids.len()], vec![0; ids.len()]);
                let (ids, mask_of_row) = match left {
                    true => ([&padding[..], &ids[..]].concat(), [padding, real].concat()),
                    false => ([&ids[..], &padding[..]].concat(), [real, padding].concat()),
                };
                json!({"input_ids": ids, mask: mask_of_row})
            };
            rows.iter().map(row).collect::<Vec<Value>>()
        };
        for data in [plain, padded(false), padded(true)] {
            let run = init(&path, &data, &TRUST).unwrap_or_else(|said| panic!("{mask}: {said}"));
            run.has_learnt("fc", &expected, FEATURES);
            assert!(!run.said.contains("fields of the rows"), "{}", run.said);
        }
    }
}

#[test]
fn a_mask_gives_other_inputs_their_tokens() {
    let rows = rows();
    let (_model, path) = saved(masked("src", "src_key_padding_mask", BOOL));
    let row = |ids: &Vec<usize>| {
        let padding = 16 - ids.len();
        let mask: Vec<bool> = (0..16).map(|at| at >= ids.len()).collect();
        let all = [&ids[..], &vec![1; padding][..]].concat();
        json!({"src": all, "src_key_padding_mask": mask})
    };
    let data: Vec<Value> = rows.iter().map(row).collect();
    let run = init(&path, &data, &TRUST).unwrap_or_else(|said| panic!("{said}"));
    run.has_learnt("fc", &with_means(&rows), FEATURES);
}

#[test]
fn a_mask_of_unknown_meaning_is_refused_where_it_matters() {
    for name in ["padding_mask", "mask"] {
        let (_model, path) = saved(masked("input_ids", name, I64));
        let whole = [
            json!({"input_ids": ids(1, 5), name: [0, 0, 0, 0, 0]}),
            json!({"input_ids": ids(2, 4), name: [0, 0, 0, 0]}),
        ];
        init(&path, &whole, &TRUST).unwrap_or_else(|said| panic!("{name}: {said}"));
        let part = [json!({"input_ids": ids(1, 5), name: [0, 0, 0, 1, 1]})];
        let said = init(&path, &part, &TRUST).err().unwrap();
        assert!(said.contains(&format!("`{name}` is a mask, and nothing tells whether its 1 is a token")), "{said}");
        assert!(said.contains("hint: take the padding out of the rows"), "{said}");
    }
}

#[test]
fn the_input_mask_of_xlnet_is_refused() {
    let (model, path) = saved(masked("input_ids", "input_mask", F32));
    let rows = [json!({"input_ids": ids(1, 5)})];
    init(&path, &rows, &TRUST).unwrap_or_else(|said| panic!("{said}"));
    std::fs::write(model.path().join("config.json"), r#"{"model_type": "xlnet"}"#).unwrap();
    let said = init(&path, &rows, &TRUST).err().unwrap();
    assert!(said.contains("the input `input_mask` of an XLNet has 1 for padding"), "{said}");
    assert!(said.contains("hint: export the model with `attention_mask`"), "{said}");
}

#[test]
fn the_sequence_may_not_come_first_even_in_batches_of_one() {
    let with_mean_of = |axis: i64| {
        let net = net().shaped_input("input_ids", I64, &[-1, -1]).values("table", &[100, FEATURES as i64], &table());
        let net = net
            .values("w", &[FEATURES as i64, 5], &pattern(5 * FEATURES))
            .node("Gather", "/embed/Gather", &["table", "input_ids"], "x")
            .node("ReduceMean", "/ReduceMean", &["x"], "mean")
            .ints("axes", &[axis])
            .node("Mul", "/Mul", &["mean", "mean"], "square")
            .node("Add", "/Add", &["x", "square"], "read");
        saved(layer(net, "fc", "read"))
    };
    let rows = rows();
    let data: Vec<Value> = rows.iter().map(|ids| json!({"input_ids": ids})).collect();
    for size in ["1", "4"] {
        let options = [&TRUST[..], &["--batch-size", size]].concat();
        let (_model, path) = with_mean_of(1);
        let run = init(&path, &data, &options).unwrap_or_else(|said| panic!("{said}"));
        run.has_learnt("fc", &with(|mean| mean * mean, &rows), FEATURES);
        let (_model, path) = with_mean_of(0);
        let said = init(&path, &data, &options).err().unwrap_or_default();
        assert!(said.contains("depend on the other sequences of its batch"), "{size}: {said}");
        assert!(said.contains("export it with the batch first"), "{said}");
    }
}

/// Turns `from` round along the axis of tokens.
fn turned(net: Net, from: &str, to: &str) -> Net {
    net.node("Slice", &format!("/Slice_{to}"), &[from, "start", "end", "axis", "step"], to)
}

#[test]
fn layers_that_read_tokens_turned_round_are_refused_where_some_do_not_count() {
    let net = embedded("input_ids")
        .integers("start", &[1], &[-1])
        .integers("end", &[1], &[i64::MIN + 1])
        .integers("axis", &[1], &[1])
        .integers("step", &[1], &[-1]);
    let net = layer(turned(turned(net, "x", "back"), "back", "again"), "turned", "back");
    let (_model, path) = saved(layer(layer(net, "plain", "x"), "twice", "again"));
    let rows = rows();
    let (mut data, mut kept) = (Vec::new(), Vec::new());
    for ids in &rows {
        let labels: Vec<i64> = (0..ids.len()).map(|at| if at < ids.len() / 2 { -100 } else { 1 }).collect();
        kept.extend(ids[ids.len() / 2..].iter().flat_map(|id| embedding(*id)));
        data.push(json!({"input_ids": ids, "labels": labels}));
    }
    for method in ["sketch", "outputs"] {
        let options = [&TRUST[..], &["--capture", method]].concat();
        let said = init(&path, &data, &options).err().unwrap_or_default();
        assert!(said.contains("which rows of `back` belong to which tokens cannot be told"), "{method}: {said}");
        let options = [&options[..], &["--exclude-modules", "turned"]].concat();
        let run = init(&path, &data, &options).unwrap_or_else(|said| panic!("{method}: {said}"));
        run.has_learnt("plain", &kept, FEATURES);
        run.has_learnt("twice", &kept, FEATURES);
    }
    // All tokens count, in whatever order.
    let all: Vec<Value> = rows.iter().map(|ids| json!({"input_ids": ids})).collect();
    let run = init(&path, &all, &TRUST).unwrap_or_else(|said| panic!("{said}"));
    let expected: Vec<f64> = rows.iter().flatten().flat_map(|id| embedding(*id)).collect();
    run.has_learnt("turned", &expected, FEATURES);
}

#[test]
fn positions_begin_after_the_id_of_padding_where_the_family_counts_so() {
    let places: Vec<f32> = pattern(20 * FEATURES).iter().map(|value| 2.0 * value).collect();
    let net = embedded("input_ids")
        .named_input("position_ids", I64, &["batch", "sequence"])
        .values("places", &[20, FEATURES as i64], &places)
        .node("Gather", "/places/Gather", &["places", "position_ids"], "place")
        .node("Add", "/Add", &["x", "place"], "read");
    let (model, path) = saved(layer(net, "fc", "read"));
    let rows = rows();
    let data: Vec<Value> = rows.iter().map(|ids| json!({"input_ids": ids})).collect();
    for (config, first) in [
        (json!({"model_type": "roberta", "pad_token_id": 1, "max_position_embeddings": 18}), 2),
        (json!({"model_type": "bert", "pad_token_id": 1, "max_position_embeddings": 18}), 0),
    ] {
        std::fs::write(model.path().join("config.json"), config.to_string()).unwrap();
        let read = |(at, id): (usize, &usize)| {
            let place = places[(first + at) * FEATURES..][..FEATURES].iter().map(|value| f64::from(*value));
            embedding(*id).into_iter().zip(place).map(|(token, place)| token + place).collect::<Vec<f64>>()
        };
        let expected: Vec<f64> = rows.iter().flat_map(|ids| ids.iter().enumerate().flat_map(read)).collect();
        let run = init(&path, &data, &TRUST).unwrap_or_else(|said| panic!("{config}: {said}"));
        run.has_learnt("fc", &expected, FEATURES);
    }
}
