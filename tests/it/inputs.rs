//! Models that read more than one row of tokens: decoders beside an encoder, and images. What is missing is named.

use crate::support::eva::{self, root};

/// A folder with these files of an export, unpacked, and a row of data.
fn folder(export: &str, graphs: &[&str], row: &str) -> tempfile::TempDir {
    let source = root().join("graphs/exports").join(export);
    let dir = tempfile::tempdir().unwrap();
    for graph in graphs {
        let packed = std::fs::read(source.join(format!("{graph}.gz"))).unwrap();
        let mut file = std::fs::File::create(dir.path().join(graph)).unwrap();
        std::io::copy(&mut flate2::read::GzDecoder::new(&packed[..]), &mut file).unwrap();
    }
    std::fs::copy(source.join("config.json"), dir.path().join("config.json")).unwrap();
    std::fs::write(dir.path().join("rows.jsonl"), format!("{row}\n")).unwrap();
    dir
}

/// What `init` on the first graph says on stderr, and whether it ended well.
fn init(export: &str, graphs: &[&str], row: &str, options: &[&str]) -> (bool, String) {
    let dir = folder(export, graphs, row);
    let mut command = eva::eva();
    command.current_dir(dir.path()).args(["init", graphs[0], "--data", "rows.jsonl", "--rank", "2", "--device", "cpu"]);
    let output = command.arg("--quiet").args(options).output().unwrap();
    (output.status.success(), String::from_utf8(output.stderr).unwrap())
}

#[track_caller]
fn refused(export: &str, graphs: &[&str], row: &str, options: &[&str], message: &str) {
    let (done, said) = init(export, graphs, row, options);
    assert!(!done && said.contains(message), "{said}");
}

const PAIR: &str = r#"{"input_ids": [3, 4, 5], "labels": [6, 7]}"#;
const DECODER: [&str; 2] = ["decoder_model.onnx", "encoder_model.onnx"];

#[test]
fn decoders_need_their_encoder() {
    assert!(init("t5/optimum", &DECODER, PAIR, &[]).0);
    refused("t5/optimum", &DECODER[..1], PAIR, &[], "keep `encoder_model.onnx` beside the decoder");
    refused("t5/optimum", &DECODER, PAIR, &["--encoder", "nowhere.onnx"], "cannot read `nowhere.onnx`");
}

#[test]
fn decoders_need_something_to_say() {
    let nothing = "`rows.jsonl` line 1: nothing for the decoder to read";
    refused("t5/optimum", &DECODER, r#"{"input_ids": [3, 4]}"#, &[], nothing);
    refused("t5/optimum", &DECODER, r#"{"text": "a"}"#, &[], nothing);
    // An encoder alone reads any row.
    assert!(init("t5/optimum", &["encoder_model.onnx"], r#"{"input_ids": [3, 4, 5]}"#, &[]).0);
}

#[test]
fn images_are_fields_of_a_row() {
    let row = r#"{"pixel_values": [[1, 2], [3, 4]]}"#;
    refused("vit/dynamo", &["model.onnx"], row, &[], "has shape [2, 2], and the model takes [3, 8, 8]");
    refused("vit/dynamo", &["model.onnx"], PAIR, &[], "`rows.jsonl` line 1: `pixel_values` is missing");
}

#[test]
fn experts_without_tokens_are_named() {
    let dir = folder("qwen3-moe/optimum", &["model.onnx"], r#"{"input_ids": [5, 6]}"#);
    let mut command = eva::eva();
    command.current_dir(dir.path()).args(["init", "model.onnx", "--data", "rows.jsonl", "--rank", "2", "--json"]);
    let output = command.args(["--min-rank", "1", "--device", "cpu"]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{said}");
    assert!(said.contains("note: 6 modules received no token of the calibration data and have no adapter"), "{said}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let layers = report["layers"].as_array().unwrap();
    let without = layers.iter().filter(|layer| layer["rank"] == 0).map(|layer| layer["module"].as_str().unwrap());
    // Both tokens go to the same two experts of four.
    assert_eq!(without.filter(|module| module.contains("mlp.experts.")).count(), 6);
}
