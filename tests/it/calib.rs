//! Calibration data end to end: files in, batches out, compared with Hugging Face's own encoding.

use crate::support::eva::root;
use eva_onnx::Hint;
use std::fmt::Write;
use std::path::PathBuf;

use eva_onnx::calib::{
    Batch, BatchSize, Calibration, DataFiles, Error, FixedDims, IterSource, Lengths, LoadOptions, OnBadRow, Order,
    RowCounts, RowOrigin, Size, TensorInput, TextSource, load,
};
use eva_onnx::dtype::DType;
use eva_onnx::tensor::Tensor;
use ndarray::Array2;
use proptest::prelude::*;
use serde_json::{Value, json};

const TEXT: &str = "{\"text\": \"Natalia sold clips\"}\n";
const TOKENIZERS: [&str; 3] = ["byte_level_bpe", "word_piece", "metaspace_bpe"];

fn tokenizer(name: &str) -> PathBuf {
    root().join("fixtures/tokenizers").join(name)
}

/// Loads `content` as one file in file order, one row a batch, after `change`.
fn try_load(content: &str, change: impl FnOnce(&mut LoadOptions)) -> Result<Calibration, Error> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("data.jsonl");
    std::fs::write(&file, content).unwrap();
    let mut options = LoadOptions {
        tokenizer: Some(tokenizer("word_piece")),
        batch_size: BatchSize::Rows(1),
        order: Order::Kept,
        ..LoadOptions::default()
    };
    change(&mut options);
    load(&mut DataFiles::new([file]), &options)
}

fn jsonl(rows: impl IntoIterator<Item = Value>) -> String {
    rows.into_iter().fold(String::new(), |mut out, row| {
        writeln!(out, "{row}").unwrap();
        out
    })
}

/// Rows of `lengths` tokens whose ids tell the row.
fn id_rows(lengths: &[usize]) -> String {
    jsonl(lengths.iter().enumerate().map(|(row, &length)| json!({"input_ids": vec![row; length]})))
}

/// An integer input [batch, length].
fn integer_input(batch: &Batch, name: &str) -> Option<Array2<i64>> {
    batch.tokens.input(name)?.view::<i64>()?.into_dimensionality().ok().map(|array| array.to_owned())
}

fn ids(batch: &Batch) -> Array2<i64> {
    integer_input(batch, "input_ids").unwrap()
}

/// Token ids and kept tokens of each planned row, by line number.
fn by_line(calibration: &Calibration) -> Vec<(usize, Vec<i64>, Vec<i64>)> {
    let mut rows = Vec::new();
    for (index, batch) in calibration.batches().enumerate() {
        for (sequence, origin) in calibration.origins(index).enumerate() {
            let length = batch.tokens.attended.row(sequence).iter().filter(|attended| **attended).count();
            let ids = ids(&batch).row(sequence).to_vec();
            let keep = batch.keep.row(sequence).map(|&keep| i64::from(keep)).to_vec();
            let RowOrigin::Line { line, .. } = origin else { panic!("{origin}") };
            rows.push((*line, ids[..length].to_vec(), keep[..length].to_vec()));
        }
    }
    rows.sort();
    rows
}

fn integers(value: &Value) -> Vec<i64> {
    value.as_array().unwrap().iter().map(|value| value.as_i64().unwrap()).collect()
}

/// Compares every golden case of one tokenizer and length, rows as `row` makes them.
fn check_golden(name: &str, kind: &str, max_length: usize, row: impl Fn(&Value) -> Value) {
    let golden = std::fs::read_to_string(tokenizer("golden.json")).unwrap();
    let golden: Value = serde_json::from_str(&golden).unwrap();
    let cases: Vec<_> =
        golden[name][kind].as_array().unwrap().iter().filter(|case| case["max_length"] == max_length).collect();
    assert!(cases.len() > 5);
    let calibration = try_load(&jsonl(cases.iter().map(|case| row(case))), |options| {
        options.tokenizer = Some(tokenizer(name));
        options.max_length = max_length;
        options.completion_only = kind == "pairs";
    });
    let calibration = calibration.unwrap();
    let (mut expected, mut counts) = (Vec::new(), RowCounts { rows: cases.len(), ..RowCounts::default() });
    for (index, case) in cases.iter().enumerate() {
        let ids = integers(&case["ids"]);
        let keep = case.get("keep").map_or_else(|| vec![1; ids.len()], integers);
        if case["own_tokens"] == 0 {
            counts.empty += 1;
        } else if !keep.contains(&1) {
            counts.masked += 1;
        } else {
            counts.truncated += usize::from(case["truncated"] == true);
            expected.push((index + 1, ids, keep));
        }
    }
    assert_eq!(by_line(&calibration), expected, "{name} {kind} {max_length}");
    assert_eq!(calibration.counts(), counts, "{name} {kind} {max_length}");
    assert_eq!(calibration.tokens(), expected.iter().map(|row| row.1.len()).sum::<usize>());
    assert_eq!(calibration.kept() as i64, expected.iter().flat_map(|row| &row.2).sum::<i64>());
}

#[test]
fn texts_are_encoded_as_hugging_face_does() {
    for name in TOKENIZERS {
        for max_length in [512, 8, 3] {
            check_golden(name, "texts", max_length, |case| json!({"text": case["text"]}));
        }
    }
}

#[test]
fn completions_are_found_by_offset() {
    let row = |case: &Value| json!({"prompt": case["prompt"], "completion": case["completion"]});
    for name in TOKENIZERS {
        for max_length in [512, 8, 3] {
            check_golden(name, "pairs", max_length, row);
        }
    }
}

#[track_caller]
fn check_error(content: &str, change: impl FnOnce(&mut LoadOptions), message: &str, hint: &str) {
    let error = try_load(content, change).unwrap_err();
    assert!(error.to_string().contains(message), "{error}");
    let found = error.hint().unwrap_or_default();
    assert!(found.contains(hint), "{found}");
}

#[test]
fn wrong_data_says_where_and_what_to_do() {
    check_error("", |_| {}, "has no rows", "at least one row");
    check_error("[{}]", |_| {}, "row 1: no text or token ids", "--text-field");
    check_error("\n{\"text\": 1}", |_| {}, "line 2: `text` must be", "--text-field");
    check_error("{\"text\": \"\"}", |_| {}, "(1 empty, 0 fully masked, 0 at fault)", "empty");
    check_error("{\"messages\": []}", |_| {}, "`messages` must be a list of messages", "");
    let conversation = "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}]}";
    check_error(conversation, |_| {}, "the row is a conversation, and there is no", "--chat-template");
    let masked = "{\"input_ids\": [1], \"labels\": [-100]}";
    check_error(masked, |_| {}, "none of 1 rows", "labels of -100");
}

#[test]
fn wrong_options_say_what_to_do() {
    let text = TEXT;
    let error = load(&mut DataFiles::new([""; 0]), &LoadOptions::default()).unwrap_err();
    assert_eq!(error.to_string(), "no calibration file was given");
    check_error(text, |o| o.max_length = 0, "`max_length` must be", "");
    check_error(text, |o| o.max_length = 2, "beside 2 special", "--max-length");
    check_error(text, |o| o.completion_only = true, "no separate", "prompt");
    let template = TextSource::Template("{".into());
    check_error(text, |o| o.text = template, "never closed", "braces");
    check_error(&id_rows(&[1]), |o| o.completion_only = true, "no separate", "labels");
}

#[test]
fn a_tokenizer_that_does_not_fit_is_named() {
    let no = "does not exist";
    check_error(TEXT, |o| o.tokenizer = None, "line 1: the row is text", "--tokenizer");
    check_error(TEXT, |o| o.tokenizer = Some("no".into()), no, "--tokenizer");
    check_error(TEXT, |o| o.vocab_size = Some(100), "line 1: token id 116", "does not");
    check_error(&id_rows(&[1, 2]), |o| o.vocab_size = Some(1), "line 2: token id 1", "ids");
}

#[test]
fn a_broken_tokenizer_is_named() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("tokenizer.json"), "{}").unwrap();
    let path = dir.path().to_owned();
    check_error("{\"text\": \"a\"}", |o| o.tokenizer = Some(path), "cannot read tokenizer", "tokenizer.json");
}

/// The tokenizers library panics when it reads such a file, or on the first text.
#[test]
fn a_tokenizer_that_panics_is_an_error() {
    let read = json!({"type": "Precompiled", "precompiled_charsmap": "AAAA"});
    let used = json!({"type": "Prepend", "prepend": ""});
    for (name, normalizer) in [("word_piece", read), ("byte_level_bpe", used)] {
        let json = std::fs::read_to_string(tokenizer(name).join("tokenizer.json")).unwrap();
        let mut json: Value = serde_json::from_str(&json).unwrap();
        json["normalizer"] = normalizer;
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("tokenizer.json");
        std::fs::write(&file, json.to_string()).unwrap();
        let named = format!("tokenizer `{}`", file.display());
        check_error(TEXT, |o| o.tokenizer = Some(file), &named, "tokenizer");
    }
}

#[test]
fn rows_of_ids_need_no_tokenizer() {
    let calibration = try_load(&id_rows(&[2, 3]), |o| o.tokenizer = Some("no/dir".into())).unwrap();
    assert_eq!((calibration.len(), calibration.tokens()), (2, 5));
}

#[test]
fn rows_beyond_the_plan_are_not_read() {
    let content = id_rows(&[0, 1, 2, 3, 4, 5]) + "broken";
    for order in [Order::Kept, Order::Grouped] {
        let calibration = try_load(&content, |options| {
            options.batch_size = BatchSize::Rows(2);
            options.max_batches = Some(2);
            options.order = order;
        });
        let calibration = calibration.unwrap();
        assert_eq!((calibration.len(), calibration.tokens()), (2, 1 + 2 + 3 + 4));
        assert_eq!(calibration.counts(), RowCounts { rows: 5, empty: 1, ..RowCounts::default() });
    }
    assert!(matches!(try_load(&content, |_| {}), Err(Error::Json { .. })));
}

#[test]
fn rows_at_fault_can_be_passed_over() {
    let content = id_rows(&[1, 2]) + "{\"text\": 7}\n{broken\n" + &id_rows(&[1]);
    for order in [Order::Kept, Order::Grouped, Order::Shuffled] {
        let skip = |options: &mut LoadOptions| (options.on_bad_row, options.order) = (OnBadRow::Skip, order);
        let calibration = try_load(&content, skip).unwrap();
        assert_eq!((calibration.len(), calibration.counts().rows), (3, 5));
        let mut first: Vec<&str> =
            calibration.bad().first.iter().map(|text| text.split_once("line").unwrap().1).collect();
        first.sort();
        let expected =
            [" 3: `text` must be a string, got a number", " 4: broken JSON at column 2: key must be a string"];
        assert_eq!((calibration.bad().count, &first[..]), (2, &expected[..]));
    }
    let skip = |options: &mut LoadOptions| options.on_bad_row = OnBadRow::Skip;
    check_error("{\"text\": 7}\n{\"text\": 8}\n", skip, "none of 2 rows", "--on-bad-row fail");
    // What is wrong with more than a row is an error all the same.
    let without = |options: &mut LoadOptions| (options.on_bad_row, options.tokenizer) = (OnBadRow::Skip, None);
    check_error(TEXT, without, "no tokenizer was given", "--tokenizer");
}

#[test]
fn tensors_beside_tokens() {
    let pixels = |options: &mut LoadOptions| {
        options.tensors =
            vec![TensorInput { name: "pixels".to_owned(), dtype: DType::F32, shape: vec![Size::Fixed(2)] }];
        options.batch_size = BatchSize::Rows(2);
    };
    let rows =
        [json!({"input_ids": [5, 6], "pixels": [1.0, 2.0]}), json!({"decoder_input_ids": [7], "pixels": [3, 4]})];
    let batch = try_load(&jsonl(rows.clone()), pixels).unwrap().batch(0);
    assert_eq!(ids(&batch), ndarray::array![[5, 6], [7, 0]]);
    assert_eq!(batch.tensors[0].tensor, Tensor::F32(ndarray::array![[1.0, 2.0], [3.0, 4.0]].into_dyn()));
    let without = |options: &mut LoadOptions| {
        pixels(options);
        options.lengths = Lengths::Nothing;
    };
    let batch = try_load(&jsonl(rows), without).unwrap().batch(0);
    assert_eq!((batch.kept(), batch.tensors[0].tensor.shape()), (2, &[2, 2][..]));
    let error = try_load(TEXT, pixels).unwrap_err();
    assert!(error.to_string().ends_with("line 1: `pixels` is missing"), "{error}");
}

#[test]
fn rows_from_an_iterator_make_the_batches_of_a_file() {
    let options = LoadOptions { batch_size: BatchSize::Rows(2), ..LoadOptions::default() };
    let rows = [json!({"input_ids": [5, 6]}), json!({"input_ids": [7]}), json!({"input_ids": [8, 9, 10]})];
    let objects = rows.iter().map(|row| row.as_object().unwrap().clone());
    for order in [Order::Kept, Order::Grouped, Order::Shuffled] {
        let change = |o: &mut LoadOptions| *o = LoadOptions { order, ..options.clone() };
        let of_file = try_load(&jsonl(rows.clone()), change).unwrap();
        let options = LoadOptions { order, ..options.clone() };
        let given = load(&mut IterSource::new("memory", objects.clone()), &options).unwrap();
        assert!(given.batches().eq(of_file.batches()));
    }
    let wrong = [
        [("input_ids", Tensor::from_vec(&[2], vec![1i64, 2]).unwrap())],
        [("text", Tensor::zeros(DType::F32, &[1]).unwrap())],
    ];
    let error = load(&mut IterSource::new("memory", wrong), &options).unwrap_err();
    assert_eq!(error.to_string(), "`memory` row 2: `text` must be a string, got a tensor");
}

#[test]
fn shuffling_reaches_rows_at_the_end() {
    let pick = |seed| {
        let calibration = try_load(&id_rows(&[1; 1000]), |options| {
            options.order = Order::Shuffled;
            options.max_batches = Some(20);
            options.seed = seed;
        });
        by_line(&calibration.unwrap()).into_iter().map(|row| row.0).collect::<Vec<_>>()
    };
    assert_eq!(pick(1), pick(1));
    assert_ne!(pick(1), pick(2));
    assert!(pick(1).iter().any(|&line| line > 700), "{:?}", pick(1));
}

#[test]
fn static_dimensions_cut_and_fill() {
    let calibration = try_load(&id_rows(&[9, 2, 3]), |options| {
        options.shape = FixedDims { batch: Some(2), length: Some(4) };
    });
    let calibration = calibration.unwrap();
    assert_eq!(calibration.len(), 2);
    assert_eq!(calibration.counts().truncated, 1);
    let last = calibration.batch(1);
    assert_eq!(last.dim(), (2, 4));
    assert_eq!((last.rows(), last.sequences(), last.attended()), (vec![0, 1, 2], vec![0], 3));
}

#[test]
fn padding_uses_an_id_the_model_has() {
    let rows = jsonl([json!({"text": "Natalia sold clips"}), json!({"text": "and"})]);
    let pad = |name: &str, vocab_size| {
        let calibration = try_load(&rows, |options| {
            options.tokenizer = Some(tokenizer(name));
            options.batch_size = BatchSize::Rows(2);
            options.vocab_size = vocab_size;
        });
        let batch = calibration.unwrap().batch(0);
        ids(&batch).row(1).last().copied().unwrap()
    };
    assert_eq!(pad("byte_level_bpe", None), 0);
    assert_eq!(pad("word_piece", Some(128)), 0);
    assert_eq!(pad("metaspace_bpe", Some(420)), 2);
}

#[test]
fn segment_ids_appear_when_some_row_has_them() {
    let plain = json!({"input_ids": [1, 2]});
    let typed = json!({"input_ids": [1, 2], "token_type_ids": [0, 1]});
    let calibration = try_load(&jsonl([plain.clone(), typed]), |_| {}).unwrap();
    let types: Vec<_> = calibration.batches().map(|batch| integer_input(&batch, "token_type_ids").unwrap()).collect();
    assert_eq!(types, [ndarray::array![[0, 0]], ndarray::array![[0, 1]]]);
    let calibration = try_load(&jsonl([plain]), |_| {}).unwrap();
    assert_eq!(integer_input(&calibration.batch(0), "token_type_ids"), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_row_is_in_exactly_one_batch(
        lengths in prop::collection::vec(0usize..9, 1..300),
        batch_size in 1usize..4,
        order in prop::sample::select(vec![Order::Grouped, Order::Shuffled, Order::Kept]),
        seed: u64,
    ) {
        let filled: Vec<_> = (0..lengths.len()).filter(|&row| lengths[row] > 0).collect();
        prop_assume!(!filled.is_empty());
        let change = |options: &mut LoadOptions| {
            options.batch_size = BatchSize::Rows(batch_size);
            options.order = order;
            options.seed = seed;
        };
        let content = id_rows(&lengths);
        let calibration = try_load(&content, change).unwrap();
        let expected: Vec<_> = filled
            .iter()
            .map(|&row| (row + 1, vec![row as i64; lengths[row]], vec![1; lengths[row]]))
            .collect();
        prop_assert_eq!(by_line(&calibration), expected);
        prop_assert_eq!(calibration.len(), filled.len().div_ceil(batch_size));
        let again = try_load(&content, change).unwrap();
        prop_assert!(calibration.batches().eq(again.batches()));
    }
}
