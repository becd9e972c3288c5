//! Texts as tokens: pairs, texts that have their own special tokens, texts that are longer than a model reads.

use crate::support::eva::{self, root, text};
use eva_onnx::Hint;
use eva_onnx::calib::{Calibration, Error, IterSource, LoadOptions, Order, load};
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use std::path::PathBuf;

fn tokenizer(name: &str) -> PathBuf {
    root().join("fixtures/tokenizers").join(name).join("tokenizer.json")
}

fn try_load(name: &str, max_length: usize, rows: &[Value]) -> Result<Calibration, Error> {
    let rows: Vec<Map<String, Value>> = rows.iter().map(|row| row.as_object().unwrap().clone()).collect();
    let options = LoadOptions {
        tokenizer: Some(tokenizer(name)),
        max_length,
        order: Order::Kept,
        batch_size: eva_onnx::calib::BatchSize::Rows(1),
        ..LoadOptions::default()
    };
    load(&mut IterSource::new("memory", rows), &options)
}

/// Token ids and types of one row.
fn tokens(name: &str, max_length: usize, row: Value) -> (Vec<i64>, Vec<i64>) {
    let batch = try_load(name, max_length, &[row]).unwrap().batch(0);
    let values = |input| batch.tokens.input(input).and_then(|tensor| tensor.to_integers());
    let ids = values("input_ids").unwrap();
    let types = values("token_type_ids").unwrap_or_else(|| vec![0; ids.len()]);
    (ids, types)
}

/// The ids of the library itself for a text, without special tokens.
fn own_ids(name: &str, text: &str) -> Vec<i64> {
    let mut tokenizer = tokenizers::Tokenizer::from_file(tokenizer(name)).unwrap();
    tokenizer.with_padding(None).with_truncation(None).unwrap();
    tokenizer.encode(text, false).unwrap().get_ids().iter().map(|id| i64::from(*id)).collect()
}

#[test]
fn pairs_are_encoded_as_hugging_face_does() {
    let golden = std::fs::read_to_string(root().join("fixtures/tokenizers/golden.json")).unwrap();
    let golden: Value = serde_json::from_str(&golden).unwrap();
    let integers = |value: &Value| value.as_array().unwrap().iter().map(|v| v.as_i64().unwrap()).collect::<Vec<_>>();
    for name in ["byte_level_bpe", "word_piece", "metaspace_bpe"] {
        let cases = golden[name]["doubles"].as_array().unwrap();
        assert!(cases.len() > 20);
        for case in cases {
            let row = json!({"text": case["texts"][0], "text_pair": case["texts"][1]});
            let max_length = case["max_length"].as_u64().unwrap() as usize;
            let expected = (integers(&case["ids"]), integers(&case["types"]));
            assert_eq!(tokens(name, max_length, row), expected, "{name} {case}");
        }
    }
}

#[test]
fn pairs_need_room_for_their_special_tokens() {
    let error = try_load("word_piece", 3, &[json!({"premise": "a", "hypothesis": "b"})]).unwrap_err();
    assert!(error.to_string().contains("beside 3 special"), "{error}");
}

#[test]
fn special_tokens_at_the_start_are_not_doubled() {
    let said = "<s>Natalia sold clips </s>";
    assert_eq!(tokens("metaspace_bpe", 512, json!({ "text": said })).0, own_ids("metaspace_bpe", said));
    assert_eq!(tokens("metaspace_bpe", 4, json!({ "text": said })).0, own_ids("metaspace_bpe", said)[..4]);
    let other = own_ids("metaspace_bpe", "Natalia <s>");
    assert_eq!(tokens("metaspace_bpe", 512, json!({"text": "Natalia <s>"})).0, [&[1], &other[..]].concat());
    let mut classified = own_ids("word_piece", "[CLS] clips");
    classified.push(3);
    assert_eq!(tokens("word_piece", 512, json!({"text": "[CLS] clips"})).0, classified);
}

/// Words, numbers, signs and white space of all kinds.
fn long_text() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "Natalia",
        " ",
        " ",
        " ",
        "  ",
        "\n",
        "\t",
        " \n ",
        "sold",
        "clips.",
        "漢字",
        "é",
        "<s>",
        "</s>",
        "[SEP]",
        "48/2",
        "'s",
        "<|endoftext|>",
        "aaaaaaaa",
        "🙂",
        "\u{a0}",
        "o\u{308}",
    ]);
    prop::collection::vec(piece, 100..400).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn the_start_of_a_long_text_has_the_tokens_of_the_whole(
        said in long_text(),
        max_length in 1usize..20,
        name in prop::sample::select(vec!["byte_level_bpe", "metaspace_bpe"]),
    ) {
        let whole = own_ids(name, &said);
        let special = if name == "metaspace_bpe" && whole[0] != 1 { vec![1] } else { vec![] };
        let expected = [&special[..], &whole[..]].concat();
        prop_assume!(max_length > 1 && expected.len() > max_length);
        prop_assert_eq!(&tokens(name, max_length, json!({ "text": said })).0, &expected[..max_length]);
    }
}

#[test]
fn texts_of_any_length_cost_what_their_start_costs() {
    let said = "Natalia sold clips to 48 of her friends. ".repeat(1 << 20);
    assert_eq!(tokens("byte_level_bpe", 512, json!({ "text": said })).0.len(), 512);
    let pair = json!({"text": said, "text_pair": "How many?"});
    let (ids, types) = tokens("word_piece", 16, pair);
    assert_eq!((ids.len(), types.iter().sum::<i64>()), (16, 1 + own_ids("word_piece", "How many?").len() as i64));
    let solid = json!({"text": "a".repeat((1 << 20) + 1)});
    let error = try_load("byte_level_bpe", 512, &[solid]).unwrap_err();
    assert!(error.to_string().contains("row 1: a text of 1048577 bytes has no space"), "{error}");
    assert!(error.hint().is_some_and(|hint| hint.contains("several rows")));
}

/// The tokenizers library panics on this file; the user sees one error.
#[test]
fn a_panic_of_a_tokenizer_is_not_reported_beside_the_error() {
    let dir = tempfile::tempdir().unwrap();
    let mut broken: Value =
        serde_json::from_str(&std::fs::read_to_string(tokenizer("byte_level_bpe")).unwrap()).unwrap();
    broken["normalizer"] = json!({"type": "Prepend", "prepend": ""});
    std::fs::write(dir.path().join("tokenizer.json"), broken.to_string()).unwrap();
    std::fs::write(dir.path().join("rows.jsonl"), "{\"text\": \"Natalia sold clips\"}\n".repeat(9)).unwrap();
    let mut command = eva::eva();
    command
        .arg("init")
        .arg(eva::graph("example/dynamo"))
        .args(["--device", "cpu", "--out"])
        .arg(dir.path().join("out"));
    command.arg("--data").arg(dir.path().join("rows.jsonl")).arg("--tokenizer").arg(dir.path());
    let output = command.output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.starts_with("error: ") && said.contains("line 1: tokenizer `") && !said.contains("panicked"),
        "{said}"
    );
}
