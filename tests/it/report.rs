//! `report`: what a run recorded, as a page and in the terminal.

use crate::support::eva::{eva, root, succeeded, text};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use eva_onnx::page::{POLICY, STYLE};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::fs;
use std::path::Path;

/// An eva.json with these modules and ranks.
fn recorded(modules: &[(&str, usize)]) -> Value {
    let layer = |(group, (module, rank)): (usize, &(&str, usize))| {
        json!({
            "module": module, "group": group, "rank": rank, "alpha": 1.0, "in_features": 4, "out_features": 6,
            "explained_variance_ratio": [0.5, 0.25, 0.125, 0.0625], "similarity": [1.0], "converged": *rank > 2,
        })
    };
    json!({
        "version": "0.1.0", "model": "m.onnx", "data": ["d.jsonl"], "device": "cpu", "onnxruntime": "1.23.0",
        "capture": "sketch", "seed": 0, "rank": 2, "alpha": 2.0, "rho": 2.0, "tau": 0.99, "budget": 4,
        "ranks_total": 4, "batches": 2, "tokens_seen": 1234, "tokens_kept": 1000, "converged": false,
        "stopped_by": "max_batches", "notes": ["a <b> note"], "command": ["eva-onnx", "init", "it's.onnx"],
        "seconds": {"load": 1.0, "forward_and_sketch": 2.0, "decompose": 0.5, "write": 0.1, "total": 3.6},
        "layers": modules.iter().enumerate().map(layer).collect::<Vec<_>>(),
        "history": [{"converged": 0, "similarity": null}, {"converged": 1, "similarity": 0.5}],
    })
}

fn save(dir: &Path, name: &str, document: &Value) {
    fs::write(dir.join(name), document.to_string()).unwrap();
}

fn page(dir: &Path) -> String {
    succeeded(&eva().current_dir(dir).args(["report", ".", "--html", "page.html", "--force"]).output().unwrap());
    fs::read_to_string(dir.join("page.html")).unwrap()
}

/// What cells of the heat map begin with.
fn cells(page: &str) -> Vec<String> {
    let cell = |part: &str| part.split_once('>').unwrap().1.split('<').next().unwrap().trim().to_owned();
    page.split("<td class=\"h").skip(1).map(cell).collect()
}

#[test]
fn the_page_of_a_run_has_its_ranks_and_its_command() {
    let dir = tempfile::tempdir().unwrap();
    let model = root().join("graphs/tiny/gpt2-optimum/model.onnx");
    let data = root().join("fixtures/calibration.jsonl");
    let mut command = eva();
    command.current_dir(dir.path()).arg("init").arg(model).arg("--data").arg(data);
    command.args(["--max-batches", "2", "--out", "adapter", "--report", "adapter/page.html", "--quiet"]);
    succeeded(&command.output().unwrap());
    let page = fs::read_to_string(dir.path().join("adapter/page.html")).unwrap();
    let report: Value = serde_json::from_slice(&fs::read(dir.path().join("adapter/eva.json")).unwrap()).unwrap();
    let layers = report["layers"].as_array().unwrap();
    let ranks: Vec<String> = layers.iter().map(|layer| layer["rank"].to_string()).collect();
    assert_eq!(cells(&page), ranks);
    for layer in layers {
        let name = layer["module"].as_str().unwrap();
        assert!(page.contains(&format!("<b>{name}</b>rank {} of at most 32,", layer["rank"])), "{name}");
    }
    assert!(page.contains("--max-batches 2 --out adapter --report adapter/page.html --quiet</code>"));
    let again = eva().current_dir(dir.path()).args(["report", "adapter", "--html", "again.html"]).output().unwrap();
    succeeded(&again);
    assert_eq!(fs::read_to_string(dir.path().join("again.html")).unwrap(), page);
}

#[test]
fn names_are_text_and_never_markup() {
    let dir = tempfile::tempdir().unwrap();
    save(dir.path(), "eva.json", &recorded(&[("h.0.<script>alert(1)</script>", 3), ("h.0.b\u{1b}[2J", 1)]));
    let page = page(dir.path());
    assert!(!page.contains("<script") && page.contains("&lt;script&gt;"));
    assert!(page.contains("a &lt;b&gt; note") && page.contains("eva-onnx init 'it'\\''s.onnx'"));
    let drawn = eva().current_dir(dir.path()).args(["report", ".", "--color", "none"]).output().unwrap();
    assert!(text(&drawn.stdout).contains("b\\u{1b}[2J"), "{}", text(&drawn.stdout));
}

#[test]
fn the_page_loads_nothing_but_its_own_style() {
    let hash = STANDARD.encode(Sha256::digest(STYLE.as_bytes()));
    assert!(POLICY.contains(&format!("style-src 'sha256-{hash}'")), "the hash of style.css is {hash}");
    assert!(POLICY.starts_with("default-src 'none'") && !POLICY.contains("unsafe"));
    let dir = tempfile::tempdir().unwrap();
    save(dir.path(), "eva.json", &recorded(&[("a", 4)]));
    let page = page(dir.path());
    assert!(page.contains(&format!("<style>{STYLE}</style>")));
    for loading in ["<script", "style=\"", "src=", "href=\"h", "url(", "@import"] {
        assert!(!page.contains(loading), "{loading}");
    }
}

/// An 8B model has 224 modules, of which 128 read inputs of their own.
#[test]
fn the_page_of_an_8b_model_has_less_than_150_kilobytes() {
    let kinds = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"];
    let kinds: Vec<_> = kinds.into_iter().chain(["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]).collect();
    let names: Vec<_> =
        (0..32).flat_map(|i| kinds.iter().map(move |kind| format!("model.layers.{i}.{kind}"))).collect();
    let modules: Vec<_> = names.iter().map(|name| (name.as_str(), 16)).collect();
    let mut document = recorded(&modules);
    for (i, layer) in document["layers"].as_array_mut().unwrap().iter_mut().enumerate() {
        layer["group"] = (i / 7 * 4 + [0, 0, 0, 1, 2, 2, 3][i % 7]).into();
        layer["explained_variance_ratio"] = (1..=95).map(|j| 0.3 / f64::from(j)).collect();
    }
    document["history"] = (0..1000).map(|i| json!({"converged": i / 5, "similarity": 0.9})).collect();
    let dir = tempfile::tempdir().unwrap();
    save(dir.path(), "eva.json", &document);
    let page = page(dir.path());
    assert!(cells(&page).len() == 224 && page.len() < 150_000, "{} bytes", page.len());
}

#[test]
fn a_training_has_a_loss_curve() {
    let dir = tempfile::tempdir().unwrap();
    let steps: Vec<_> =
        (1..=20).map(|step| json!({"step": step, "loss": 2.0 / f64::from(step), "rate": 1e-3})).collect();
    let document = json!({
        "version": "0.1.0", "model": "m.onnx", "device": "cpu", "rate": 1e-3, "schedule": "cosine", "seconds": 9.0,
        "steps": steps, "evaluations": [{"step": 10, "loss": 0.3}, {"step": 20, "loss": 0.2}],
    });
    save(dir.path(), "train.json", &document);
    let page = page(dir.path());
    assert!(page.contains("Loss of 2.0000 at step 1 and 0.1000 at step 20") && page.contains(">evaluation<"));
    let drawn = eva().current_dir(dir.path()).args(["report", "."]).output().unwrap();
    assert_eq!(drawn.status.code(), Some(2));
    assert!(text(&drawn.stderr).contains("no ranks to draw") && text(&drawn.stderr).contains("hint: --html"));
}

#[test]
fn the_terminal_shows_ranks_in_the_colours_that_it_has() {
    let dir = tempfile::tempdir().unwrap();
    save(
        dir.path(),
        "eva.json",
        &recorded(&[("h.0.a.q", 4), ("h.0.b.up", 2), ("h.1.a.q", 0), ("h.1.b.up", 1), ("head", 3)]),
    );
    let drawn = |color: &str| {
        let output = eva().current_dir(dir.path()).args(["report", ".", "--color", color]).output().unwrap();
        succeeded(&output);
        text(&output.stdout)
    };
    let plain = "         q     up   head\nh.0    4 █    2 ▄\nh.1    0      1 ▂\n-                    3 ▆\n";
    assert_eq!((drawn("none"), drawn("auto")), (plain.to_owned(), plain.to_owned()));
    assert!(drawn("truecolor").contains("\x1b[97;48;2;11;63;120m   4\x1b[0m"));
    assert!(
        drawn("256").contains("\x1b[38;5;231;48;5;17m   4\x1b[0m") && drawn("16").contains("\x1b[97;44m   4\x1b[0m")
    );
}

#[test]
fn what_cannot_be_shown_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |args: &[&str], status: i32, says: &str| {
        let output = eva().current_dir(dir.path()).args(args).output().unwrap();
        let said = text(&output.stderr);
        assert!(output.status.code() == Some(status) && said.contains(says), "{args:?}: {said}");
    };
    refused(&["report", "."], 1, "has neither eva.json nor train.json");
    refused(&["report", "nowhere"], 1, "`nowhere` has neither");
    fs::write(dir.path().join("eva.json"), "{}").unwrap();
    refused(&["report", "."], 1, "eva.json` cannot be understood: missing field `version`");
    // A table of ten thousand times ten thousand cells, numbers that overflow, and a name that every line is as long as.
    let all: Vec<String> = (0..10_000).map(|i| format!("h.{i}.t{i}")).collect();
    let all: Vec<(&str, usize)> = all.iter().map(|name| (name.as_str(), 1)).collect();
    save(dir.path(), "eva.json", &recorded(&all));
    refused(&["report", "."], 1, "is no record of a run: 10000 blocks have 10000 types of modules");
    save(dir.path(), "eva.json", &recorded(&[("a", usize::MAX)]));
    refused(&["report", "."], 1, "is no record of a run: `a` has rank 18446744073709551615");
    save(dir.path(), "eva.json", &recorded(&[(&"a".repeat(513), 1)]));
    refused(&["report", "."], 1, "is no record of a run: the name of a module has 513 bytes");
    save(dir.path(), "eva.json", &recorded(&[("a", 1)]));
    fs::write(dir.path().join("page.html"), "mine").unwrap();
    refused(&["report", ".", "--html", "page.html"], 2, "hint: give another name, or --force to replace it");
    // Before the model is looked for.
    let init = ["init", "nowhere.onnx", "--data", "d.jsonl", "--report", "page.html"];
    refused(&init, 2, "page.html");
    assert_eq!(fs::read_to_string(dir.path().join("page.html")).unwrap(), "mine");
}

#[test]
fn a_training_and_a_merging_write_their_pages() {
    let dir = tempfile::tempdir().unwrap();
    let root = root();
    let (model, data) = (root.join("graphs/example/dynamo/model.onnx"), root.join("fixtures/calibration.jsonl"));
    let run = |args: &[&str]| {
        let mut command = eva();
        command.current_dir(dir.path()).args(args);
        if args[0] != "merge" {
            command.arg(&model).arg("--data").arg(&data).args(["--max-batches", "3", "--device", "cpu"]);
        }
        succeeded(&command.output().unwrap());
        fs::read_to_string(dir.path().join("page.html")).unwrap_or_default()
    };
    let page = run(&["train", "--report", "page.html", "--out", "trained", "--quiet"]);
    let report: Value = serde_json::from_slice(&fs::read(dir.path().join("trained/train.json")).unwrap()).unwrap();
    let loss = report["steps"][0]["loss"].as_f64().unwrap();
    assert!(page.contains(&format!("Loss of {loss:.4} at step 1")), "{loss}");
    fs::remove_file(dir.path().join("page.html")).unwrap();

    run(&["init", "--summary", "part.safetensors", "--quiet"]);
    let page = run(&["merge", "part.safetensors", "--out", "merged", "--report", "page.html"]);
    let report: Value = serde_json::from_slice(&fs::read(dir.path().join("merged/eva.json")).unwrap()).unwrap();
    let ranks = report["layers"].as_array().unwrap().iter().map(|layer| layer["rank"].to_string());
    assert_eq!(cells(&page), ranks.collect::<Vec<_>>());

    let refused = |args: &[&str], says: &str| {
        let output = eva().current_dir(dir.path()).args(args).output().unwrap();
        let said = text(&output.stderr);
        assert!(output.status.code() == Some(2) && said.contains(says), "{said}");
    };
    refused(
        &["merge", "part.safetensors", "--out-summary", "all", "--report", "new.html"],
        "--report beside --out-summary",
    );
    refused(&["merge", "part.safetensors", "--out", "new", "--report", "page.html"], "page.html");
    refused(&["train", "no.onnx", "--data", "d", "--out", "new", "--report", "page.html"], "page.html");
    assert!(!dir.path().join("new").exists());
}
