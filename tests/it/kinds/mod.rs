//! Kinds of models and of data, each against an exact PCA in 64 bits of what its layer reads: the table of docs/kinds.md.
//!
//! `UPDATE_DOCS=1 cargo test --test it kinds` writes the table anew.

mod cases;

use crate::support::adapters::read_a;
use crate::support::docs::generated;
use crate::support::eva;
use crate::support::exact;
use crate::support::graph::Net;
use crate::support::tolerance::rounded_away;
use ndarray::Array2;
use serde_json::Value;
use std::fmt::Write;
use std::fs;
use std::path::Path;

/// A model and its data.
struct Kind {
    model: &'static str,
    data: &'static str,
    /// Files of the folder; `model.onnx` is calibrated.
    files: Vec<(&'static str, Vec<u8>)>,
    /// The data file or folder, from there.
    rows: &'static str,
    options: &'static [&'static str],
    expected: Expected,
}

enum Expected {
    /// The layers, with so many features and the rows that they read, one after the other.
    Learnt(Vec<(&'static str, usize, Vec<f64>)>),
    /// What the error says.
    Refused(&'static str),
}

impl Kind {
    /// A model on rows of JSON lines.
    fn new(model: &'static str, data: &'static str, net: Net, rows: &[Value]) -> Self {
        let lines = rows.iter().fold(String::new(), |mut lines, row| {
            writeln!(lines, "{row}").unwrap();
            lines
        });
        let files = vec![("model.onnx", net.encoded()), ("rows.jsonl", lines.into_bytes())];
        Self { model, data, files, rows: "rows.jsonl", options: &[], expected: Expected::Refused("") }
    }

    /// The layer `fc` reads these rows of so many features.
    fn learns(self, features: usize, seen: Vec<f64>) -> Self {
        Self { expected: Expected::Learnt(vec![("fc", features, seen)]), ..self }
    }

    fn refused(self, message: &'static str) -> Self {
        Self { expected: Expected::Refused(message), ..self }
    }

    fn file(mut self, name: &'static str, content: Vec<u8>) -> Self {
        self.files.push((name, content));
        self
    }

    /// Runs `init`; what it says if it fails.
    fn run(&self, dir: &Path) -> Result<(), String> {
        for (name, content) in &self.files {
            let path = dir.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        let mut command = eva::eva();
        command.current_dir(dir).args(["init", "model.onnx", "--data", self.rows, "--device", "cpu", "--quiet"]);
        command.args(["--trust-node-names", "--tau", "1", "--rank", "4", "--min-rank", "2"]).args(self.options);
        let output = command.output().unwrap();
        if output.status.success() { Ok(()) } else { Err(eva::text(&output.stderr)) }
    }

    /// The cell of the table: the share of the variance that is captured in the worst layer, or what the error says.
    fn checked(&self) -> String {
        let (model, data) = (self.model, self.data);
        let dir = tempfile::tempdir().unwrap();
        let (layers, ran) = match (&self.expected, self.run(dir.path())) {
            (Expected::Learnt(layers), Ok(())) => (layers, dir.path().join("adapter")),
            (Expected::Refused(message), Err(said)) => {
                assert!(said.contains(message), "{model}, {data}: {said}");
                return format!("refused: {message}");
            }
            (_, ran) => panic!("{model}, {data}: {ran:?}"),
        };
        let adapter = read_a(&ran);
        for (name, features, seen) in layers {
            let seen = Array2::from_shape_vec((seen.len() / features, *features), seen.clone()).unwrap();
            let (_, a) = adapter.iter().find(|(module, _)| module == name).unwrap_or_else(|| panic!("{model}: {name}"));
            let captured = exact(seen.view()).captured(a.view());
            assert!(1.0 - captured <= rounded_away(), "{model}, {data}: {name} captures {captured}");
        }
        // The bound and not the figure, whose last digits are those of the machine.
        format!("{} of the variance or more", floor(1.0 - rounded_away()))
    }
}

/// A share with as many digits as are nines, and one more.
fn floor(share: f64) -> String {
    format!("{:.4}", (share * 1e4).floor() / 1e4)
}

#[test]
fn the_table_of_kinds_holds() {
    let mut table = "| model | data | result |\n|---|---|---|\n".to_owned();
    for kind in cases::all() {
        writeln!(table, "| {} | {} | {} |", kind.model, kind.data, kind.checked()).unwrap();
    }
    generated("docs/kinds.md", "tests/it/kinds", &table, "kinds");
}
