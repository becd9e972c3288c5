//! Models whose files change while they are used: the run ends with a word, or goes on with what it has opened.

use crate::support::eva;
use crate::support::parts::{folder, write_rows};
use eva_onnx::options::{BatchSize, CheckpointOptions, DataOptions, Settings};
use eva_onnx::results::Initialised;
use eva_onnx::{Error, ErrorKind, Hint, Init, Next};
use std::fs;
use std::path::Path;

const MODEL: &str = "model.onnx";

/// A folder with a copy of a model and rows.
fn with_model() -> tempfile::TempDir {
    let dir = folder(0, 24);
    let from = eva::graph("example/dynamo");
    for entry in fs::read_dir(from.parent().unwrap()).unwrap().map(Result::unwrap).filter(|e| e.path().is_file()) {
        fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
    }
    dir
}

/// A run during which something happens after the third batch.
fn run(dir: &Path, checkpoint: bool, happens: &dyn Fn()) -> Result<Initialised, Error> {
    let data = DataOptions { max_length: 48, batch_size: BatchSize::Rows(1), ..DataOptions::default() };
    let init = Init::new(dir.join(MODEL)).data([dir.join("rows.jsonl")]).device("cpu");
    let mut init = init.settings(Settings { tau: 1.0, ..Settings::default() }).data_options(data);
    if checkpoint {
        let file = dir.join("checkpoint");
        init = init.checkpoints(CheckpointOptions { file, every: Some(2), resume: true });
    }
    init.run_with(|progress| {
        if progress.batches == 3 {
            happens();
        }
        Next::Continue
    })
}

fn weights(made: &Initialised) -> Vec<Vec<f32>> {
    made.adapter.modules.iter().map(|module| module.a.iter().copied().collect()).collect()
}

#[test]
fn a_model_that_is_written_into_ends_the_run() {
    let dir = with_model();
    let (path, rows) = (dir.path(), dir.path().join("rows.jsonl"));
    let model = fs::read(path.join(MODEL)).unwrap();
    let whole = weights(&run(path, false, &|| {}).unwrap());
    for checkpoint in [false, true] {
        let error = run(path, checkpoint, &|| fs::write(path.join(MODEL), &model).unwrap()).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Changed);
        let said = error.to_string();
        assert!(said.ends_with(&format!("{MODEL}` was changed while the model was in use")), "{said}");
        assert!(error.hint().unwrap().contains("run the command again"), "{error}");
    }
    // The state is that of the second batch, and the model has the same bytes again: nothing is lost.
    let made = run(path, true, &|| {}).unwrap();
    assert!(weights(&made) == whole, "resumed");
    write_rows(&rows, 0, 24);
}

#[test]
fn a_model_that_is_replaced_is_still_read() {
    let dir = with_model();
    let path = dir.path();
    let whole = weights(&run(path, false, &|| {}).unwrap());
    let replaced = run(path, false, &|| {
        fs::write(path.join("other"), "no model").unwrap();
        fs::rename(path.join("other"), path.join(MODEL)).unwrap();
    });
    assert!(weights(&replaced.unwrap()) == whole);
}

/// What reads a mapped file that was cut short gets a signal of the system.
#[cfg(target_os = "linux")]
mod cut {
    use super::*;
    use crate::support::graph::{F32, I64, net};
    use std::io::Write;
    use std::process::{Command, Stdio};
    use std::time::Duration;

    /// Rows of the embedding, 64 floats each.
    const TOKENS: usize = 1 << 16;
    /// Batches that are read before the first one runs.
    const WINDOW: usize = 64;

    /// A model whose first node reads an embedding of 16 MiB in a file of its own.
    fn model(dir: &Path) {
        // It must be there when the model is opened.
        let value = |i: usize| (i * i % 997) as f32 / 500.0 - 1.0;
        let table: Vec<u8> = (0..TOKENS * 64).flat_map(|i| value(i).to_le_bytes()).collect();
        fs::write(dir.join("table.bin"), table).unwrap();
        let weight = (0..64 * 8).flat_map(|i| ((i % 7) as f32 - 3.0).to_le_bytes()).collect();
        net()
            .shaped_input("input_ids", I64, &[-1, -1])
            .external("table", &[TOKENS as i64, 64], &[("location", "table.bin")])
            .node("Gather", "/embed/Gather", &["table", "input_ids"], "h")
            .bytes("fc.weight", &[64, 8], F32, weight)
            .node("MatMul", "/fc/MatMul", &["h", "fc.weight"], "y")
            .output("y")
            .save(dir);
    }

    /// Seconds of the processor that a process has used.
    fn used(id: u32) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
        fields.get(11..13).map_or(0, |times| times.iter().map(|time| time.parse::<u64>().unwrap_or(0)).sum())
    }

    #[test]
    fn a_model_that_is_cut_short_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path();
        model(path);
        let mut command: Command = eva::eva();
        command.args([
            "init",
            "m.onnx",
            "--data",
            "-",
            "--out",
            "out",
            "--batch-size",
            "1",
            "--names",
            "nodes",
            "--rank",
            "4",
        ]);
        command.args(["--device", "cpu", "--tau", "1", "--no-progress"]).current_dir(path);
        let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        let row = |i: usize| format!("{{\"input_ids\": [{}, {}]}}\n", TOKENS - 1 - i, TOKENS / 2 + i);
        (0..WINDOW).for_each(|i| input.write_all(row(i).as_bytes()).unwrap());
        input.write_all(row(WINDOW).as_bytes()).unwrap();
        // It has run what it has, and waits for more.
        let mut before = 0;
        loop {
            std::thread::sleep(Duration::from_secs(2));
            let now = used(child.id());
            if now == before {
                break;
            }
            before = now;
        }
        fs::OpenOptions::new().write(true).open(path.join("table.bin")).unwrap().set_len(4096).unwrap();
        for i in 0..WINDOW {
            // It may have ended.
            let _ = input.write_all(row(i).as_bytes());
        }
        drop(input);
        let output = child.wait_with_output().unwrap();
        let said = eva::text(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{said}");
        // Whichever finds it first: the check after a batch, or the kernel, which has no page to read.
        assert!(
            ["was cut short", "was changed while"].iter().any(|what| said.contains(&format!("table.bin` {what}"))),
            "{said}"
        );
        let names: Vec<_> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names.len(), 2, "{names:?}");
    }
}
