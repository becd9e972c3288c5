//! The files that data comes in, as a user gives them.

use crate::support::eva::{eva, graph, root, run};
use serde_json::Value;
use std::fs;
use std::io::Write;

/// The same rows make the same adapter, whatever file holds them.
#[test]
fn the_format_of_the_data_does_not_matter() {
    let dir = tempfile::tempdir().unwrap();
    let lines = fs::read_to_string(root().join("fixtures/calibration.jsonl")).unwrap();
    let lines: Vec<&str> = lines.lines().take(12).collect();
    let rows: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut table = csv::Writer::from_writer(Vec::new());
    table.write_record(["question", "answer"]).unwrap();
    for row in &rows {
        table.write_record([row["question"].as_str().unwrap(), row["answer"].as_str().unwrap()]).unwrap();
    }
    let jsonl = lines.join("\n");
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    gzip.write_all(jsonl.as_bytes()).unwrap();
    let forms: [(&str, Vec<u8>); 4] = [
        ("lines", jsonl.into_bytes()),
        ("table", table.into_inner().unwrap()),
        ("array.json", serde_json::to_vec_pretty(&rows).unwrap()),
        ("lines.gz", gzip.finish().unwrap()),
    ];
    let weights = forms.map(|(name, content)| {
        fs::write(dir.path().join(name), content).unwrap();
        let out = dir.path().join(format!("{name}.out"));
        let mut command = eva();
        command.arg("init").arg(graph("example/dynamo")).args(["--device", "cpu", "--quiet", "--rank", "4", "--data"]);
        run(command.arg(dir.path().join(name)).arg("--out").arg(&out)).unwrap();
        fs::read(out.join("adapter_model.safetensors")).unwrap()
    });
    assert!(weights.iter().all(|bytes| *bytes == weights[0]));
    // Standard input.
    let out = dir.path().join("stdin.out");
    let mut command = eva();
    command
        .arg("init")
        .arg(graph("example/dynamo"))
        .args(["--device", "cpu", "--quiet", "--rank", "4", "--data", "-", "--out"])
        .arg(&out);
    run(command.stdin(fs::File::open(dir.path().join("table")).unwrap())).unwrap();
    assert!(fs::read(out.join("adapter_model.safetensors")).unwrap() == weights[0]);
}
