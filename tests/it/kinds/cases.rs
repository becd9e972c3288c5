//! The kinds, and what their layers read.

use super::{Expected, Kind};
use crate::support::graph::{BOOL, F32, I32, I64, Net, net, pattern};
use serde_json::{Value, json};

/// Features of embeddings, and tokens that there are.
const D: usize = 6;
const WORDS: usize = 40;
const LENGTHS: [usize; 10] = [7, 4, 9, 4, 6, 7, 5, 9, 8, 3];

pub(super) fn all() -> Vec<Kind> {
    let groups = [masked(), unmasked(), laid_out(), by_name(), several_models(), chosen(), pairs()];
    groups.into_iter().flatten().collect()
}

/// The embedding of every token id.
fn table() -> Vec<f32> {
    pattern(WORDS * D).iter().enumerate().map(|(i, value)| value * (1.0 + (i % D) as f32)).collect()
}

fn ids(row: usize, length: usize) -> Vec<usize> {
    (0..length).map(|token| (row * 31 + token * 17 + token * token) % WORDS).collect()
}

fn all_ids() -> Vec<Vec<usize>> {
    LENGTHS.into_iter().enumerate().map(|(row, length)| ids(row, length)).collect()
}

/// The embeddings of some tokens.
fn embedded(ids: &[usize]) -> Vec<f64> {
    let table = table();
    ids.iter().flat_map(|id| table[id * D..][..D].iter().map(|v| f64::from(*v))).collect()
}

/// Each token with the mean of all tokens of its row added.
fn with_mean(ids: &[usize]) -> Vec<f64> {
    let of_row = embedded(ids);
    let mean = |feature: usize| of_row.iter().skip(feature).step_by(D).sum::<f64>() / ids.len() as f64;
    of_row.iter().enumerate().map(|(at, value)| value + mean(at % D)).collect()
}

fn seen(of_row: impl Fn(&[usize]) -> Vec<f64>) -> Vec<f64> {
    all_ids().iter().flat_map(|ids| of_row(ids)).collect()
}

/// The embedding `e` of the input `name`, with these axes.
fn tokens(name: &str, axes: [&str; 2]) -> Net {
    net().named_input(name, I64, &axes).values("table", &[WORDS as i64, D as i64], &table()).node(
        "Gather",
        "/embed/Gather",
        &["table", name],
        "e",
    )
}

/// The layer `fc`, which reads `x` of so many features.
fn layer(net: Net, x: &str, features: usize) -> Net {
    net.values("w", &[features as i64, 5], &pattern(5 * features))
        .node("MatMul", "/fc/MatMul", &[x, "w"], "y")
        .output("y")
}

fn rows(row: impl Fn(&[usize]) -> Value) -> Vec<Value> {
    all_ids().iter().map(|ids| row(ids)).collect()
}

fn plain() -> Vec<Value> {
    rows(|ids| json!({"input_ids": ids}))
}

/// Numbers of row `row` that look random, between -1 and 1.
fn numbers(row: usize, count: usize) -> Vec<f64> {
    pattern(count + 37 * row).into_iter().skip(37 * row).map(f64::from).collect()
}

fn lists(numbers: &[f64], width: usize) -> Value {
    numbers.chunks(width).collect()
}

/// Adds the mean over the tokens that a mask attends.
fn masked_mean(net: Net, mask_type: i32) -> Net {
    net.named_input("attention_mask", mask_type, &["b", "s"])
        .integers("last", &[1], &[-1])
        .integers("axis", &[1], &[1])
        .node("Cast", "", &["attention_mask"], "floats")
        .int("to", F32.into())
        .node("Unsqueeze", "", &["floats", "last"], "column")
        .node("Mul", "", &["e", "column"], "kept")
        .node("ReduceSum", "", &["kept", "axis"], "sum")
        .node("ReduceSum", "", &["column", "axis"], "count")
        .node("Div", "", &["sum", "count"], "mean")
        .node("Add", "", &["e", "mean"], "x")
}

fn masked() -> Vec<Kind> {
    let sides = |left: usize, right: usize| {
        rows(|ids| {
            let all = [vec![1; left], ids.to_vec(), vec![2; right]].concat();
            let mask = [vec![0; left], vec![1; ids.len()], vec![0; right]].concat();
            json!({"input_ids": all, "attention_mask": mask})
        })
    };
    let kind = |data, dtype, rows: Vec<Value>| {
        let net = layer(masked_mean(tokens("input_ids", ["b", "s"]), dtype), "x", D);
        Kind::new("reads a mask, every token sees all others", data, net, &rows).learns(D, seen(with_mean))
    };
    let positions = tokens("input_ids", ["b", "s"])
        .named_input("attention_mask", I64, &["b", "s"])
        .named_input("position_ids", I64, &["b", "s"])
        .integers("last", &[1], &[-1])
        .node("Unsqueeze", "", &["position_ids", "last"], "column")
        .node("Cast", "", &["column"], "positions")
        .int("to", F32.into())
        .node("Add", "", &["e", "positions"], "x");
    let counted = |ids: &[usize]| embedded(ids).iter().enumerate().map(|(at, v)| v + (at / D) as f64).collect();
    vec![
        kind("token ids of different lengths", I64, plain()),
        kind("token ids padded on both sides", I64, sides(2, 3)),
        kind("the same, a mask of true and false", BOOL, sides(2, 3)),
        kind("the same, a mask of floats", F32, sides(0, 3)),
        Kind::new("reads positions", "token ids padded on the left", layer(positions, "x", D), &sides(3, 0))
            .learns(D, seen(counted)),
    ]
}

fn unmasked() -> Vec<Kind> {
    let mixing = |axes: [&str; 2]| {
        let net = tokens("input_ids", axes).node("ReduceMean", "", &["e"], "mean").ints("axes", &[1]);
        layer(net.node("Add", "", &["e", "mean"], "x"), "x", D)
    };
    let name = "no mask, every token sees all others";
    let full: Vec<_> = (0..6).map(|row| json!({"input_ids": ids(row, 8 + row % 2)})).collect();
    let cut: Vec<f64> = (0..6).flat_map(|row| with_mean(&ids(row, 8))).collect();
    vec![
        Kind::new(name, "token ids of different lengths", mixing(["b", "s"]), &plain()).learns(D, seen(with_mean)),
        Kind::new("the same, three rows at a time", "the same", mixing(["3", "s"]), &plain())
            .learns(D, seen(with_mean)),
        Kind::new("the same, eight tokens", "rows of eight tokens and more", mixing(["b", "8"]), &full).learns(D, cut),
        Kind::new("the same, eight tokens", "shorter rows", mixing(["b", "8"]), &plain())
            .refused("rows shorter than 8 tokens must be padded: nothing tells the model what is padding"),
    ]
}

fn laid_out() -> Vec<Kind> {
    let turned = tokens("input_ids", ["b", "s"])
        .named_input("attention_mask", I64, &["b", "s"])
        .node("Transpose", "", &["e"], "x")
        .ints("perm", &[1, 0, 2]);
    let windows = tokens("input_ids", ["b", "s"])
        .named_input("attention_mask", I64, &["b", "s"])
        .integers("windows", &[4], &[0, -1, 4, D as i64])
        .integers("tokens", &[3], &[0, -1, D as i64])
        .node("Reshape", "", &["e", "windows"], "cut")
        .node("Reshape", "", &["cut", "tokens"], "x");
    let first = layer(tokens("input_ids", ["sequence", "batch"]), "e", D);
    let of_windows = Kind {
        options: &["--pad-multiple", "4"],
        ..Kind::new("windows of four tokens", "token ids, `--pad-multiple 4`", layer(windows, "x", D), &plain())
    };
    vec![
        Kind::new("hidden states [sequence, batch, features]", "token ids", layer(turned, "x", D), &plain())
            .learns(D, seen(embedded)),
        of_windows.learns(D, seen(embedded)),
        Kind::new("takes [sequence, batch]", "token ids", first, &plain()).refused("the batch is not its first axis"),
    ]
}

/// A NumPy file.
fn npy(descr: &str, shape: &str, bytes: Vec<u8>) -> Vec<u8> {
    let text = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n");
    [b"\x93NUMPY\x01\x00".to_vec(), (text.len() as u16).to_le_bytes().to_vec(), text.into_bytes(), bytes].concat()
}

fn floats(values: &[f64]) -> Vec<u8> {
    values.iter().flat_map(|value| (*value as f32).to_le_bytes()).collect()
}

fn by_name() -> Vec<Kind> {
    let turns = ["returns_to_go", "states", "actions"];
    let net_ = net().named_input("attention_mask", I64, &["b", "s"]).named_input("timesteps", I32, &["b", "s"]);
    let net_ = turns.iter().fold(net_, |net, name| net.named_input(name, F32, &["b", "s", "3"]));
    let stacked = net_
        .integers("axis", &[1], &[2])
        .integers("tokens", &[3], &[0, -1, 3])
        .node("Unsqueeze", "", &["returns_to_go", "axis"], "r")
        .node("Unsqueeze", "", &["states", "axis"], "s0")
        .node("Unsqueeze", "", &["actions", "axis"], "a")
        .node("Concat", "", &["r", "s0", "a"], "stacked")
        .int("axis", 2)
        .node("Reshape", "", &["stacked", "tokens"], "x");
    let (steps, episodes) = (5, 8);
    let streams: Vec<Vec<f64>> = (0..3).map(|stream| numbers(stream, 3 * steps * episodes)).collect();
    let in_turns: Vec<f64> =
        (0..steps * episodes).flat_map(|step| streams.iter().flat_map(move |s| s[3 * step..][..3].to_vec())).collect();
    let mut transformer = Kind::new("Decision Transformer", "a folder of `.npy` files", layer(stacked, "x", 3), &[]);
    for (name, stream) in ["rows/returns_to_go.npy", "rows/states.npy", "rows/actions.npy"].into_iter().zip(&streams) {
        transformer = transformer.file(name, npy("<f4", "(8, 5, 3)", floats(stream)));
    }
    transformer = transformer.file("rows/timesteps.npy", npy("|u1", "(8, 5)", vec![1; steps * episodes]));
    let transformer = Kind { rows: "rows", ..transformer };
    let boxes = net()
        .named_input("input_ids", I64, &["b", "s"])
        .named_input("bbox", I64, &["b", "s", "4"])
        .named_input("attention_mask", I64, &["b", "s"])
        .node("Cast", "", &["bbox"], "x")
        .int("to", F32.into());
    let boxed: Vec<Vec<f64>> = LENGTHS
        .iter()
        .enumerate()
        .map(|(row, n)| numbers(row, 4 * n).iter().map(|v| (v * 90.0).round()).collect())
        .collect();
    let box_rows: Vec<_> = boxed
        .iter()
        .map(|values| {
            let all: Vec<Vec<i64>> = values.chunks(4).map(|four| four.iter().map(|v| *v as i64).collect()).collect();
            json!({"input_ids": vec![1; all.len()], "bbox": all})
        })
        .collect();
    let embeddings: Vec<Vec<f64>> = LENGTHS.iter().enumerate().map(|(row, n)| numbers(row, D * n)).collect();
    let by_embeddings: Vec<_> = embeddings.iter().map(|values| json!({"inputs_embeds": lists(values, D)})).collect();
    let reads = net()
        .named_input("inputs_embeds", F32, &["b", "s", "6"])
        .named_input("attention_mask", I64, &["b", "s"])
        .node("Identity", "", &["inputs_embeds"], "x");
    let series: Vec<_> = LENGTHS.iter().enumerate().map(|(row, n)| numbers(row, 2 * n)).collect();
    let by_series: Vec<_> = series.iter().map(|values| json!({"past_values": lists(values, 2)})).collect();
    let past = net().named_input("past_values", F32, &["batch", "time", "2"]).node("Neg", "", &["past_values"], "x");
    vec![
        transformer.learns(3, in_turns),
        Kind::new("LayoutLM", "token ids with `bbox`", layer(boxes, "x", 4), &box_rows).learns(4, boxed.concat()),
        Kind::new("reads `inputs_embeds`", "`inputs_embeds`", layer(reads, "x", D), &by_embeddings)
            .learns(D, embeddings.concat()),
        Kind::new("time series", "`past_values` of different lengths", layer(past, "x", 2), &by_series)
            .learns(2, series.concat().iter().map(|v| -v).collect()),
    ]
}

fn several_models() -> Vec<Kind> {
    let decoder = || {
        let net =
            net().named_input("inputs_embeds", F32, &["b", "s", "6"]).named_input("attention_mask", I64, &["b", "s"]);
        layer(net.node("Identity", "", &["inputs_embeds"], "x"), "x", D)
    };
    let embedder = tokens("input_ids", ["b", "s"]).node("Identity", "", &["e"], "inputs_embeds").shaped_output(
        "inputs_embeds",
        F32,
        &[-1, -1, D as i64],
    );
    let encoder = || tokens("input_ids", ["b", "s"]).named_input("attention_mask", I64, &["b", "s"]);
    let states = encoder().node("Neg", "", &["e"], "states").shaped_output("states", F32, &[-1, -1, D as i64]);
    let reads_states = tokens("input_ids", ["b", "s"])
        .named_input("encoder_hidden_states", F32, &["b", "t", "6"])
        .named_input("encoder_attention_mask", I64, &["b", "t"])
        .values("v", &[D as i64, 5], &pattern(5 * D))
        .node("MatMul", "/cross/MatMul", &["encoder_hidden_states", "v"], "z")
        .output("z");
    let pairs = rows(|ids| json!({"input_ids": ids, "decoder_input_ids": ids[..ids.len() / 2 + 1]}));
    let halves = |ids: &[usize]| embedded(&ids[..ids.len() / 2 + 1]);
    let both = vec![("fc", D, seen(halves)), ("cross", D, seen(embedded).iter().map(|v| -v).collect())];
    let of_decoder = Kind::new("decoder beside its encoder", "token ids of both", layer(reads_states, "e", D), &pairs)
        .file("encoder_model.onnx", states.encoded());
    vec![
        Kind::new("reads `inputs_embeds`", "token ids, `embed_tokens.onnx` beside the model", decoder(), &plain())
            .file("embed_tokens.onnx", embedder.encoded())
            .learns(D, seen(embedded)),
        Kind::new("reads `inputs_embeds`", "token ids alone", decoder(), &plain())
            .refused("`inputs_embeds` is missing"),
        Kind::new("encoder", "token ids", layer(encoder(), "e", D), &plain()).learns(D, seen(embedded)),
        Kind { expected: Expected::Learnt(both), ..of_decoder },
    ]
}

/// Layers that not all rows reach.
fn chosen() -> Vec<Kind> {
    let mut experts = tokens("input_ids", ["b", "s"])
        .named_input("attention_mask", I64, &["b", "s"])
        .integers("flat", &[2], &[-1, D as i64])
        .integers("all", &[1], &[-1])
        .integers("zero", &[1], &[0])
        .integers("half", &[], &[WORDS as i64 / 2])
        .node("Reshape", "", &["e", "flat"], "x")
        .node("Reshape", "", &["input_ids", "all"], "words")
        .node("Less", "", &["words", "half"], "first")
        .node("Not", "", &["first"], "second");
    for name in ["first", "second"] {
        let of = |what: &str| format!("{what}_{name}");
        experts = experts
            .node("NonZero", "", &[name], &of("places"))
            .node("Squeeze", "", &[&of("places"), "zero"], &of("indices"))
            .node("Gather", "", &["x", &of("indices")], &of("chosen"))
            .values(&of("w"), &[D as i64, 5], &pattern(5 * D))
            .node("MatMul", &format!("/{name}/MatMul"), &[&of("chosen"), &of("w")], &of("y"))
            .output(&of("y"));
    }
    let share = |keep: fn(usize) -> bool| {
        seen(move |ids| embedded(&ids.iter().copied().filter(|id| keep(*id)).collect::<Vec<_>>()))
    };
    let of_experts = vec![("first", D, share(|id| id < WORDS / 2)), ("second", D, share(|id| id >= WORDS / 2))];
    let inner = |name: &str| {
        let weight = format!("{name}.weight");
        net()
            .values(&weight, &[D as i64, 5], &pattern(5 * D))
            .node("MatMul", &format!("/{name}/MatMul"), &["e", &weight], &format!("{name}_out"))
            .output(&format!("{name}_out"))
    };
    let gated = layer(tokens("input_ids", ["b", "s"]).named_input("attention_mask", I64, &["b", "s"]), "e", D)
        .node("ReduceMax", "", &["y"], "most")
        .int("keepdims", 0)
        .values("bound", &[], &[0.0])
        .node("Greater", "", &["most", "bound"], "is")
        .node("If", "/choose", &["is"], "out")
        .branch("then_branch", inner("high"))
        .branch("else_branch", inner("low"))
        .output("out");
    vec![
        Kind {
            expected: Expected::Learnt(of_experts),
            ..Kind::new("mixture of experts", "token ids", experts, &plain())
        },
        Kind::new("a branch that the data decides on", "token ids", gated, &plain()).learns(D, seen(embedded)),
    ]
}

/// Texts.
fn pairs() -> Vec<Kind> {
    let tokenizer = crate::support::eva::root().join("fixtures/tokenizers/word_piece/tokenizer.json");
    let mut own = tokenizers::Tokenizer::from_file(&tokenizer).unwrap();
    own.with_padding(None).with_truncation(None).unwrap();
    let words = own.get_vocab_size(true);
    let table: Vec<f32> =
        pattern(words * D).iter().enumerate().map(|(i, value)| value * (1.0 + (i % D) as f32)).collect();
    let texts = [
        ("a cat sat", "on a mat"),
        ("where is it", "it is here, of course"),
        ("yes", "no and yes"),
        ("two words", "more than two words"),
    ];
    let (mut seen, mut rows) = (Vec::new(), Vec::new());
    for (first, second) in texts {
        let encoding = own.encode((first, second), true).unwrap();
        for (id, kind) in encoding.get_ids().iter().zip(encoding.get_type_ids()) {
            seen.extend(table[*id as usize * D..][..D].iter().map(|v| f64::from(*v) + f64::from(*kind)));
        }
        rows.push(json!({"text": first, "text_pair": second}));
    }
    let net = net()
        .named_input("input_ids", I64, &["b", "s"])
        .named_input("attention_mask", I64, &["b", "s"])
        .named_input("token_type_ids", I64, &["b", "s"])
        .values("table", &[words as i64, D as i64], &table)
        .integers("last", &[1], &[-1])
        .node("Gather", "/embed/Gather", &["table", "input_ids"], "e")
        .node("Unsqueeze", "", &["token_type_ids", "last"], "column")
        .node("Cast", "", &["column"], "types")
        .int("to", F32.into())
        .node("Add", "", &["e", "types"], "x");
    let kind = Kind::new("cross-encoder", "`text` and `text_pair`", layer(net, "x", D), &rows);
    vec![kind.file("tokenizer.json", std::fs::read(tokenizer).unwrap()).learns(D, seen)]
}
