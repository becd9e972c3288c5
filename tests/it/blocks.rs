//! `init --blocks`: a model that runs in blocks gives what the whole model gives.

use crate::exports::{EXPORTS, Names, reads};
use crate::support::eva::{self, graph};
use crate::support::graph::{F32, I64, Net, net, pattern};
use crate::support::parts::{ALIKE, adapter, alike, done, folder, init, refused};
use serde_json::{Value, json};
use std::fmt::Write;
use std::fs;
use std::path::Path;

fn blocks_of(model: &Path, blocks: &str) -> Vec<Value> {
    let mut command = eva::eva();
    command.arg("inspect").arg(model).args(["--blocks", blocks, "--target-modules", ".*", "--json"]);
    let document: Value = serde_json::from_str(&done(&mut command)).unwrap();
    document["blocks"].as_array().unwrap().clone()
}

/// Every way in which exporters and tools store models.
#[test]
fn all_exports_give_what_they_give_whole() {
    let mut equal = 0;
    for export in EXPORTS {
        let dir = export.unpacked();
        fs::write(dir.path().join("rows.jsonl"), reads(&export).rows).unwrap();
        let run = |options: &[&str], out: &str| {
            let mut command = eva::eva();
            command.current_dir(dir.path()).args(["init", export.graph, "--data", "rows.jsonl", "--out", out]);
            command.args(["--rank", "3", "--tau", "1", "--batch-size", "1", "--device", "cpu", "--quiet"]);
            command.args(["--target-modules", ".*"]).args(options);
            if export.names != Names::All {
                command.arg("--checkpoint").arg(export.checkpoint());
            }
            eva::run(&mut command)
        };
        let what = format!("{}/{}", export.folder, export.graph);
        run(&[], "whole").unwrap_or_else(|said| panic!("{what}: {said}"));
        run(&["--blocks", "3"], "blocks").unwrap_or_else(|said| panic!("{what}: {said}"));
        let (same, largest) = export.alike(dir.path(), ["whole", "blocks"]);
        equal += usize::from(same);
        println!("{what}: {} {largest:e}", if same { "the same bytes" } else { "differs by" });
    }
    assert!(equal * 10 > EXPORTS.len() * 9, "{equal} of {} have the same bytes", EXPORTS.len());
}

#[test]
fn real_text_gives_what_it_gives_whole() {
    for model in ["tiny/gpt2-optimum", "tiny/bert-dynamo", "tiny/llama-ts", "tiny/llama-external", "example/optimum"] {
        let dir = folder(0, 12);
        let dir = dir.path();
        let run = |options: &[&str], out: &str| {
            let mut command = eva::eva();
            command.arg("init").arg(graph(model)).arg("--data").arg(dir.join("rows.jsonl"));
            command.args([
                "--text-field",
                "question",
                "--device",
                "cpu",
                "--tau",
                "1",
                "--rank",
                "4",
                "--max-length",
                "24",
            ]);
            done(command.args(options).arg("--out").arg(dir.join(out)))
        };
        run(&[], "whole");
        run(&["--blocks", "4"], "blocks");
        alike(&dir.join("whole"), &dir.join("blocks"), model);
        run(&["--capture", "outputs"], "whole-outputs");
        run(&["--capture", "outputs", "--blocks", "2"], "outputs");
        alike(&dir.join("whole-outputs"), &dir.join("outputs"), model);
    }
}

#[test]
fn hidden_states_may_be_in_files() {
    let dir = folder(0, 10);
    let dir = dir.path();
    let base = ["--tau", "1", "--batch-size", "2", "--blocks", "3"];
    done(init(dir, &base).args(["--out"]).arg(dir.join("memory")));
    done(init(dir, &base).arg("--spill").arg(dir.join("states")).arg("--out").arg(dir.join("files")));
    let [memory, files] = ["memory", "files"].map(|out| adapter(&dir.join(out)));
    assert!(memory.0 == files.0);
    assert!(!dir.join("states").exists());
    // A summary holds what that of the whole model holds.
    for (options, file) in [(&["--tau", "1"][..], "whole"), (&["--tau", "1", "--blocks", "3"], "blocks")] {
        done(init(dir, options).arg("--summary").arg(dir.join(file)));
    }
    let open = |name: &str| eva_onnx::summary::SummaryFile::open(&dir.join(name)).unwrap();
    let (whole, blocks) = (open("whole"), open("blocks"));
    assert_eq!(whole.facts, blocks.facts);
    for group in 0..whole.facts.grouping.groups.len() {
        let (one, other) = (whole.group(group).unwrap().summary, blocks.group(group).unwrap().summary);
        assert_eq!(one.rows, other.rows);
        assert!((one.total_variance / other.total_variance - 1.0).abs() < ALIKE);
    }
}

const D: usize = 6;

/// A layer; then tokens with the mean of their row added, as without a mask padding is; then two layers.
fn mixing() -> Net {
    let square = [D as i64, D as i64];
    let weight = |shift: usize| pattern(D * D + shift)[shift..].to_vec();
    net()
        .shaped_input("input_ids", I64, &[-1, -1])
        .values("table", &[100, D as i64], &pattern(100 * D))
        .values("w1", &square, &weight(0))
        .values("w2", &square, &weight(7))
        .values("w3", &square, &weight(11))
        .node("Gather", "/embed/Gather", &["table", "input_ids"], "x")
        .node("MatMul", "/fc1/MatMul", &["x", "w1"], "a")
        .node("ReduceMean", "/ReduceMean", &["a"], "mean")
        .ints("axes", &[1])
        .node("Add", "/Add", &["a", "mean"], "sum")
        .node("MatMul", "/fc2/MatMul", &["sum", "w2"], "b")
        .node("Sqrt", "/Sqrt", &["b"], "root")
        .node("MatMul", "/fc3/MatMul", &["root", "w3"], "y")
        .shaped_output("y", F32, &[-1, -1, D as i64])
}

fn rows(dir: &Path) {
    let lines = (0..9).fold(String::new(), |mut lines, row| {
        let ids: Vec<usize> = (0..5 + row * 7 % 6).map(|token| (row * 31 + token * 17) % 100).collect();
        writeln!(lines, "{}", json!({"input_ids": ids})).unwrap();
        lines
    });
    fs::write(dir.join("rows.jsonl"), lines).unwrap();
}

/// Only the second block finds that padding changes rows, and then the first one is run again without.
#[test]
fn what_one_block_demands_holds_for_all() {
    let (model, _) = mixing().open();
    let dir = model.path();
    rows(dir);
    let run = |options: &[&str], out: &str| {
        let mut command = eva::eva();
        command.arg("init").arg(dir.join("m.onnx")).arg("--data").arg(dir.join("rows.jsonl"));
        command
            .args(["--trust-node-names", "--device", "cpu", "--tau", "1", "--rank", "2", "--out"])
            .arg(dir.join(out));
        command.args(options);
        command
    };
    let two = ["--exclude-modules", "fc3"];
    done(run(&two, "whole").args(["--batch-size", "3"]));
    let spill = dir.join("states");
    let said =
        run(&two, "blocks").args(["--batch-size", "3", "--blocks", "2", "--spill"]).arg(&spill).output().unwrap();
    let said = eva::text(&said.stderr);
    assert!(
        said.contains("note: block 2 of 2 found that batches must be split by the lengths of their rows"),
        "{said}"
    );
    alike(&dir.join("whole"), &dir.join("blocks"), "mixing");
    // Square roots of negative numbers: the layer and the batch are named.
    let said = |options: &[&str]| {
        let (status, said) = refused(run(&[], "never").args(options));
        assert!(status == Some(1) && said.contains("`fc3` (tensor `root`) is not finite in batch 1"), "{said}");
        said
    };
    assert_eq!(said(&[]), said(&["--blocks", "3"]));
}

#[test]
fn blocks_are_as_large_as_asked() {
    for model in ["example/dynamo", "example/optimum", "tiny/llama-ts", "tiny/gpt2-dynamo"] {
        let whole: u64 =
            blocks_of(&graph(model), "2").iter().map(|block| block["weight_bytes"].as_u64().unwrap()).sum();
        let budget = whole / 4;
        let blocks = blocks_of(&graph(model), &format!("{budget}B"));
        assert!(blocks.len() >= 3, "{model}: {}", blocks.len());
        assert_eq!(blocks_of(&graph(model), "3").len(), 3, "{model}");
        let modules: usize = blocks.iter().map(|block| block["modules"].as_array().unwrap().len()).sum();
        let listed = done(eva::eva().arg("inspect").arg(graph(model)).args(["--target-modules", ".*", "--json"]));
        let listed: Value = serde_json::from_str(&listed).unwrap();
        let all = listed["linears"].as_array().unwrap().iter().flat_map(|l| l["modules"].as_array().unwrap()).count();
        assert_eq!(modules, all, "{model}");
    }
    insta::assert_snapshot!(
        "inspect_blocks",
        done(eva::eva().args(["inspect", "graphs/example/optimum/model.onnx", "--blocks", "3"]))
    );
    let fits = done(eva::eva().args(["inspect", "graphs/example/optimum/model.onnx", "--blocks", "auto"]));
    assert_eq!(fits, "the model fits, and is not cut into blocks\n");
}

#[test]
fn what_blocks_cannot_do_is_refused() {
    let dir = folder(0, 4);
    let dir = dir.path();
    let check = |options: &[&str], status: i32, reason: &str| {
        let (found, said) = refused(init(dir, &["--out", "@never"]).args(options));
        assert!(found == Some(status) && said.contains(reason) && !dir.join("never").exists(), "{said}");
    };
    check(&["--blocks", "none"], 2, "neither auto, a number of blocks, nor bytes");
    check(&["--blocks", "2", "--resume"], 2, "--resume beside --blocks needs --spill");
    check(&["--blocks", "2", "--checkpoint-every", "1"], 2, "cannot be used with");
    check(&["--spill", "x"], 2, "--blocks");
    let net = net().shaped_input("states", F32, &[-1, 6]).values("w", &[6, 5], &pattern(30));
    let (model, _) = net.node("MatMul", "/fc/MatMul", &["states", "w"], "y").output("y").open();
    fs::write(dir.join("states.jsonl"), "{\"states\": [1, 2, 3, 4, 5, 6]}\n").unwrap();
    let mut uncut = eva::eva();
    uncut.arg("init").arg(model.path().join("m.onnx")).args(["--blocks", "2", "--trust-node-names", "--device", "cpu"]);
    let (status, said) = refused(uncut.arg("--data").arg(dir.join("states.jsonl")));
    assert!(status == Some(1) && said.contains("the graph cannot be cut into blocks"), "{said}");
    let mut several = eva::eva();
    several.args(["init", "graphs/example/dynamo/model.onnx", "--device", "cpu,cpu", "--blocks", "2", "--data"]);
    let (status, said) = refused(several.arg(dir.join("rows.jsonl")));
    assert!(status == Some(2) && said.contains("blocks run on one device"), "{said}");
    let said = init(dir, &["--out", "@fits", "--blocks", "auto"]).output().unwrap();
    assert!(eva::text(&said.stderr).contains("note: the model fits, and was not cut into blocks"));
    let said = init(dir, &["--out", "@cut", "--blocks", "2"]).output().unwrap();
    assert!(eva::text(&said.stderr).contains("note: the model ran in 2 blocks of at most"));
}

#[cfg(unix)]
mod kills {
    use super::*;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::{RngCore, SeedableRng};
    use rustix::process::{Pid, Signal, kill_process};
    use std::process::{Child, Stdio};
    use std::time::Duration;

    const OPTIONS: [&str; 6] = ["--tau", "1", "--batch-size", "1", "--blocks", "4"];

    #[test]
    fn a_killed_run_goes_on_after_the_last_whole_block() {
        let dir = folder(0, 24);
        let dir = dir.path();
        done(init(dir, &OPTIONS).arg("--out").arg(dir.join("whole")));
        let states = dir.join("states");
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let (mut kills, mut kept) = (0, 0);
        // Some time after the blocks before were done.
        for before in 0..4 {
            let mut command = init(dir, &OPTIONS);
            command.arg("--out").arg(dir.join("parts")).arg("--spill").arg(&states).arg("--resume");
            let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
            let ended = |child: &mut Child| child.try_wait().unwrap().is_some();
            while !ended(&mut child) && before > 0 && !states.join(format!("eva-block-{before}")).exists() {
                std::thread::sleep(Duration::from_millis(1));
            }
            std::thread::sleep(Duration::from_millis(rng.next_u64() % 40));
            if !ended(&mut child) {
                kill_process(Pid::from_child(&child), Signal::KILL).unwrap();
                kills += 1;
            }
            child.wait().unwrap();
            kept += usize::from(states.join("eva-block-1").exists());
        }
        let last = ["--resume", "--force"];
        done(init(dir, &OPTIONS).arg("--out").arg(dir.join("parts")).arg("--spill").arg(&states).args(last));
        let [whole, parts] = ["whole", "parts"].map(|out| adapter(&dir.join(out)));
        assert!(whole.0 == parts.0 && whole.2["layers"] == parts.2["layers"], "after {kills} kills");
        println!("{kills} kills, {kept} after a whole block");
        assert!(kills > 0 && kept > 0 && !states.exists());
        // What a kill leaves while the state of a run with a result is removed.
        fs::create_dir(&states).unwrap();
        ["eva-block-2", "eva-states-a"].iter().for_each(|name| fs::write(states.join(name), "old").unwrap());
        done(init(dir, &OPTIONS).arg("--out").arg(dir.join("parts")).arg("--spill").arg(&states).args(last));
        assert!(whole.0 == adapter(&dir.join("parts")).0 && !states.exists());
    }

    #[test]
    fn only_the_same_run_goes_on() {
        use eva_onnx::options::{BatchSize, BlockOptions, Blocks, DataOptions, Settings};
        use eva_onnx::{ErrorKind, Init, Next};
        let dir = folder(0, 6);
        let dir = dir.path();
        let states = dir.join("states");
        let data = DataOptions { max_length: 48, batch_size: BatchSize::Rows(1), ..DataOptions::default() };
        let run = Init::new(graph("example/dynamo")).data([dir.join("rows.jsonl")]).device("cpu").data_options(data);
        let run = run.settings(Settings { tau: 1.0, ..Settings::default() });
        let blocks = BlockOptions { blocks: Blocks::Count(4), spill: Some(states.clone()), resume: false };
        let stop = |progress: &eva_onnx::results::Progress| match progress.block {
            Some(at) if at.block == 3 => Next::Stop,
            _ => Next::Continue,
        };
        let error = run.blocks(blocks).run_with(stop).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Interrupted);
        assert_eq!(
            error.to_string(),
            format!("interrupted in block 3 of 4; `{}` holds the blocks before", states.display())
        );
        let check = |options: &[&str], reason: &str| {
            let (_, said) = refused(
                init(dir, &OPTIONS[..4])
                    .args(["--out"])
                    .arg(dir.join("never"))
                    .arg("--spill")
                    .arg(&states)
                    .args(options),
            );
            assert!(said.contains(reason), "{said}");
            assert!(states.join("eva-block-2").exists());
        };
        check(&["--blocks", "4"], "holds a run that ended after 2 blocks");
        check(&["--blocks", "3", "--resume"], "it differs in --blocks");
        check(&["--blocks", "4", "--resume", "--seed", "1"], "--seed (1 and 0)");
        let lost = fs::read_dir(&states).unwrap().map(|entry| entry.unwrap().path());
        let lost =
            lost.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("eva-states-")).min().unwrap();
        let bytes = fs::read(&lost).unwrap();
        fs::write(&lost, &bytes[1..]).unwrap();
        check(&["--blocks", "4", "--resume"], "it has another length than was written");
        fs::write(&lost, &bytes).unwrap();
        let options = [&OPTIONS[..], &["--resume"]].concat();
        done(init(dir, &options).arg("--out").arg(dir.join("out")).arg("--spill").arg(&states));
        done(init(dir, &OPTIONS).arg("--out").arg(dir.join("whole")));
        assert!(adapter(&dir.join("out")).0 == adapter(&dir.join("whole")).0);
        assert!(!states.exists());
    }
}
