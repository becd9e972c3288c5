//! `init --summary` and `merge`: what several runs know of their rows becomes one adapter.

use crate::support::eva::{self, root};
use crate::support::parts::{adapter, done, folder, init, merge, refused, write_rows};
use crate::support::tolerance::{SKETCH_LOSS, within};
use eva_onnx::onnx::{Model, Place};
use eva_onnx::summary::SummaryFile;
use serde_json::Value;
use std::fs;
use std::path::Path;
use tempfile::TempDir;

const ROWS: usize = 24;

/// A folder with the summaries of so many shards of the rows.
fn shards(count: usize, options: &[&str]) -> TempDir {
    let dir = folder(0, ROWS);
    for index in 0..count {
        shard(dir.path(), index, count, options);
    }
    dir
}

fn shard(dir: &Path, index: usize, count: usize, options: &[&str]) -> String {
    let (shard, file) = (format!("{index}/{count}"), format!("@p{index}.safetensors"));
    done(init(dir, &["--shard", &shard, "--summary", &file]).args(options))
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

/// The inputs of the example have as many features as the sketch has directions, or fewer: nothing is lost but rounding.
#[test]
fn shards_together_are_the_whole() {
    let dir = shards(3, &[]);
    let dir = dir.path();
    done(&mut init(dir, &["--tau", "1", "--out", "@whole"]));
    done(&mut merge(dir, &["p0.safetensors", "p1.safetensors", "p2.safetensors", "--out", "merged"]));
    let ((_, _, whole), (_, _, merged)) = (adapter(&dir.join("whole")), adapter(&dir.join("merged")));
    for key in ["tokens_seen", "tokens_kept", "budget", "ranks_total", "rank", "alpha", "rho", "capture", "seed"] {
        assert_eq!(whole[key], merged[key], "{key}");
    }
    assert_eq!(merged["parts"].as_array().unwrap().len(), 3);
    let layers = |report: &Value| report["layers"].as_array().unwrap().clone();
    for (one, other) in layers(&whole).iter().zip(&layers(&merged)) {
        for key in ["module", "group", "in_features", "out_features"] {
            assert_eq!(one[key], other[key], "{key}");
        }
        let ratios = [one, other].map(|layer| numbers(&layer["explained_variance_ratio"]));
        for (a, b) in ratios[0].iter().zip(&ratios[1]) {
            within(a - b, SKETCH_LOSS, &one["module"].to_string());
        }
        let ranks = [one, other].map(|layer| layer["rank"].as_i64().unwrap());
        // Scores that differ by rounding may change places.
        assert!((ranks[0] - ranks[1]).abs() <= 1, "{ranks:?}");
    }
    let groups = |report: &Value| report["groups"].as_array().unwrap().clone();
    for (one, other) in groups(&whole).iter().zip(&groups(&merged)) {
        assert_eq!((&one["tensors"], &one["rows"]), (&other["tensors"], &other["rows"]));
        let [a, b] = [one, other].map(|group| group["total_variance"].as_f64().unwrap());
        within(a / b - 1.0, SKETCH_LOSS, "total variance");
    }
}

#[test]
fn the_order_of_files_and_threads_changes_no_byte() {
    let dir = shards(3, &["--seed", "7"]);
    let dir = dir.path();
    let make = |files: [&str; 3], threads: &str, name: &str| {
        let summary = format!("{name}.safetensors");
        done(merge(dir, &files).args(["--threads", threads, "--out", name, "--out-summary", &summary]));
        (adapter(&dir.join(name)), fs::read(dir.join(summary)).unwrap())
    };
    let (p0, p1, p2) = ("p0.safetensors", "p1.safetensors", "p2.safetensors");
    let first = make([p0, p1, p2], "1", "a");
    assert!(make([p2, p0, p1], "3", "b") == first);
    // From the merged summary alone.
    done(&mut merge(dir, &["a.safetensors", "--out", "c"]));
    assert!(adapter(&dir.join("c")).0 == first.0.0 && adapter(&dir.join("c")).1 == first.0.1);
    // Once more: it is there, and stays.
    done(&mut merge(dir, &[p0, p1, p2, "--out-summary", "a.safetensors"]));
    let (status, said) = refused(&mut merge(dir, &[p0, p1, p2, "--out-summary", "rows.jsonl"]));
    assert!(status == Some(2) && said.contains("`rows.jsonl` exists"), "{said}");
    let (_, said) = refused(&mut merge(dir, &[p0, p1, p2, "--force", "--out-summary", "p0.safetensors"]));
    assert!(said.contains("would replace a file that is read"), "{said}");
}

#[test]
fn a_summary_that_is_there_costs_nothing() {
    let dir = shards(2, &[]);
    let dir = dir.path();
    let file = dir.join("p0.safetensors");
    let before = (fs::read(&file).unwrap(), fs::metadata(&file).unwrap().modified().unwrap());
    // Without ONNX Runtime nothing could be run.
    let again = ["--shard", "0/2", "--summary", "@p0.safetensors", "--ort-lib", "@nowhere"];
    let said = done(&mut init(dir, &again));
    assert!(said.contains("holds the summary of shard 0/2 already: nothing was run"), "{said}");
    let json: Value = serde_json::from_str(&done(init(dir, &again).arg("--json"))).unwrap();
    assert_eq!((&json["was_there"], &json["part"]["shard"]["count"]), (&Value::Bool(true), &Value::from(2)));
    assert!((fs::read(&file).unwrap(), fs::metadata(&file).unwrap().modified().unwrap()) == before);
    let others: [(&[&str], &str); 4] = [
        (&["--shard", "1/2"], "--shard (1/2 and 0/2)"),
        (&["--shard", "0/2", "--rank", "8"], "the number of components, --rank (8 and 16)"),
        (&["--shard", "0/2", "--max-length", "40"], "--max-length (40 and 48)"),
        (&["--shard", "0/2", "--tau", "0.5"], "--tau (0.5 and 1.0)"),
    ];
    for (options, reason) in others {
        let mut command = init(dir, &["--summary", "@p0.safetensors"]);
        // The last of two values would be refused.
        let (status, said) = refused(override_with(&mut command, options));
        assert!(status == Some(1) && said.contains("p0.safetensors") && said.contains(reason), "{said}");
    }
    write_rows(&dir.join("rows.jsonl"), 1, ROWS);
    let (_, said) = refused(&mut init(dir, &again));
    assert!(said.contains("it differs in the data"), "{said}");
    done(&mut init(dir, &["--shard", "0/2", "--summary", "@p0.safetensors", "--force"]));
    assert!(fs::read(&file).unwrap() != before.0);
}

/// Takes an option of the helper back where another value is given.
fn override_with<'a>(command: &'a mut std::process::Command, options: &[&str]) -> &'a mut std::process::Command {
    if options.contains(&"--max-length") {
        let words: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
        let at = words.iter().position(|word| word == "--max-length").unwrap();
        let mut other = eva::eva();
        other.args(words.iter().enumerate().filter(|(i, _)| *i != at && *i != at + 1).map(|(_, word)| word));
        *command = other;
    }
    command.args(options)
}

#[test]
fn what_does_not_belong_together_is_refused() {
    let dir = shards(3, &[]);
    let dir = dir.path();
    let run = |name: &str, options: &[&str]| {
        let file = format!("@{name}.safetensors");
        done(init(dir, &["--summary", &file]).args(options));
    };
    run("rank", &["--shard", "1/3", "--rank", "8"]);
    run("halves", &["--shard", "1/2"]);
    run("seed", &["--shard", "1/3", "--seed", "3"]);
    run("targets", &["--shard", "1/3", "--target-modules", "q_proj"]);
    let check = |files: &[&str], reasons: &[&str]| {
        let files: Vec<String> = files.iter().map(|file| format!("{file}.safetensors")).collect();
        let files: Vec<&str> = files.iter().map(String::as_str).collect();
        let (status, said) = refused(merge(dir, &files).args(["--out", "never"]));
        assert!(status == Some(1) && reasons.iter().all(|reason| said.contains(reason)), "{files:?}: {said}");
        assert!(!dir.join("never").exists());
    };
    check(&["p0", "rank", "p2"], &["p0.safetensors", "rank.safetensors", "--rank (16 and 8)", "number of components"]);
    check(&["p0", "seed", "p2"], &["--seed (0 and 3)"]);
    check(&["p0", "targets", "p2"], &["the modules"]);
    check(&["p0", "p1", "p1", "p2"], &["both hold shard 1/3 of data", "rows.jsonl"]);
    check(&["p0", "halves", "p2"], &["shard 0/3", "shard 1/2", "same number of shards"]);
    check(&["p0", "p2"], &["not all rows are there: shard 1/3 of data", "--allow-missing"]);
    check(&["p1", "p0"], &["not all rows are there: shard 2/3"]);
    let output = merge(dir, &["p0.safetensors", "p2.safetensors", "--allow-missing"]).output().unwrap();
    assert!(output.status.success() && dir.join("adapter").exists());
    let said = eva::text(&output.stderr);
    assert!(said.contains("note: rows are missing: shard 1/3 of data"), "{said}");
    // A merged summary holds its parts.
    done(&mut merge(dir, &["p0.safetensors", "p1.safetensors", "p2.safetensors", "--out-summary", "all.safetensors"]));
    check(&["all", "p2"], &["all.safetensors", "p2.safetensors", "both hold shard 2/3"]);
    fs::write(dir.join("cut.safetensors"), &fs::read(dir.join("p0.safetensors")).unwrap()[..4000]).unwrap();
    check(&["cut"], &["cut.safetensors` is no summary"]);
    fs::copy(root().join("fuzz/seeds/checkpoint/half"), dir.join("other.safetensors")).unwrap();
    check(&["other"], &["other.safetensors` is no summary: its metadata has no `eva_onnx_summary`"]);
    check(&["nowhere"], &["cannot read `nowhere.safetensors`"]);
}

#[test]
fn another_model_is_refused() {
    let dir = shards(2, &[]);
    let path = dir.path();
    let weights = |name: &str| {
        let from = root().join("graphs/example/dynamo");
        let to = path.join(name);
        fs::create_dir(&to).unwrap();
        for file in fs::read_dir(from).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
        to
    };
    // The same bytes elsewhere are the same model.
    let (same, other) = (weights("same"), weights("other"));
    let on = |model: &Path, file: &str| {
        let words: Vec<_> =
            init(path, &["--shard", "1/2", "--summary", file]).get_args().map(ToOwned::to_owned).collect();
        let mut command = eva::eva();
        command.arg("init").arg(model.join("model.onnx")).args(&words[2..]);
        done(&mut command)
    };
    assert!(on(&same, "@p1.safetensors").contains("already"));
    let mut place = None;
    let small = |found: Place<'_>| (1024..=65536).contains(&found.length);
    let model = Model::open(other.join("model.onnx")).unwrap();
    model
        .visit_places(&mut |found| {
            place = place.take().or(small(found).then(|| (found.location.to_owned(), found.offset + found.length / 2)));
        })
        .unwrap();
    drop(model);
    let (file, at) = place.unwrap();
    let mut bytes = fs::read(other.join(&file)).unwrap();
    bytes[at as usize] ^= 1;
    fs::write(other.join(file), bytes).unwrap();
    on(&other, "@other.safetensors");
    let (_, said) = refused(&mut merge(path, &["p0.safetensors", "other.safetensors"]));
    assert!(said.contains("differ in the model"), "{said}");
}

#[test]
fn ranks_are_allocated_again_without_the_model() {
    let dir = folder(0, ROWS);
    let dir = dir.path();
    done(&mut init(dir, &["--tau", "1", "--summary", "@all.safetensors", "--out", "@whole"]));
    done(&mut merge(dir, &["all.safetensors", "--out", "same"]));
    let ((_, config, report), (_, same, _)) = (adapter(&dir.join("whole")), adapter(&dir.join("same")));
    assert!(config == same, "{}", String::from_utf8_lossy(&same));
    let file = SummaryFile::open(&dir.join("all.safetensors")).unwrap();
    assert_eq!(file.facts.grouping.groups.len(), report["groups"].as_array().unwrap().len());
    for g in 0..file.facts.grouping.groups.len() {
        assert_eq!(file.group(g).unwrap().summary.rows, report["groups"][g]["rows"].as_u64().unwrap());
    }

    let options = ["--rank", "4", "--rho", "1", "--alpha", "8", "--whiten", "--target-modules", "q_proj,down_proj"];
    done(merge(dir, &["all.safetensors", "--out", "small"]).args(options));
    let (_, config, report) = adapter(&dir.join("small"));
    let config: Value = serde_json::from_slice(&config).unwrap();
    assert_eq!((&config["r"], &config["lora_alpha"]), (&Value::from(4), &Value::from(8)));
    let layers = report["layers"].as_array().unwrap();
    assert!(layers.iter().all(|layer| layer["rank"] == 4), "{layers:?}");
    let names: Vec<&str> = layers.iter().map(|layer| layer["module"].as_str().unwrap()).collect();
    assert!(names.iter().all(|name| name.ends_with("q_proj") || name.ends_with("down_proj")) && !names.is_empty());
    // As `init` with these options, but for rounding.
    done(init(dir, &["--tau", "1", "--out", "@direct"]).args(options));
    let (_, direct_config, direct) = adapter(&dir.join("direct"));
    assert_eq!(serde_json::from_slice::<Value>(&direct_config).unwrap(), config);
    for (one, other) in layers.iter().zip(direct["layers"].as_array().unwrap()) {
        assert_eq!((&one["module"], &one["rank"], &one["group"]), (&other["module"], &other["rank"], &other["group"]));
    }

    let check = |options: &[&str], reason: &str| {
        let (status, said) = refused(merge(dir, &["all.safetensors", "--out", "never"]).args(options));
        assert!(status == Some(1) && said.contains(reason) && !dir.join("never").exists(), "{said}");
    };
    check(&["--rank", "64"], "ranks up to 128 are asked for, and the summary follows 32 components");
    check(&["--target-modules", "nothing"], "hint: the summary has modules called");
    check(&["--target-modules", "lm_head"], "name `lm_head`, which is not in the summary");
    check(&["--exclude-modules", ".*"], "no module of the summary matches");
}

#[test]
fn rows_of_other_data_are_added_whole() {
    let dir = shards(2, &[]);
    let more = folder(ROWS, 8);
    let (dir, more) = (dir.path(), more.path());
    done(&mut merge(dir, &["p0.safetensors", "p1.safetensors", "--out-summary", "all.safetensors"]));
    // How many rows are read is no difference.
    done(&mut init(more, &["--max-batches", "9", "--summary", "@more.safetensors"]));
    done(&mut init(more, &["--shard", "0/2", "--summary", "@half.safetensors"]));
    for file in ["more.safetensors", "half.safetensors"] {
        fs::copy(more.join(file), dir.join(file)).unwrap();
    }
    let output = merge(dir, &["all.safetensors", "more.safetensors"]).output().unwrap();
    assert!(output.status.success(), "{}", eva::text(&output.stderr));
    assert!(eva::text(&output.stderr).contains("note: rows of 2 data sets are merged"));
    let (_, _, report) = adapter(&dir.join("adapter"));
    let rows = |name: &str| {
        let file = SummaryFile::open(&dir.join(name)).unwrap();
        file.group(0).unwrap().summary.rows
    };
    assert_eq!(report["groups"][0]["rows"].as_u64().unwrap(), rows("all.safetensors") + rows("more.safetensors"));
    let (_, said) = refused(&mut merge(dir, &["all.safetensors", "half.safetensors", "--out", "never"]));
    assert!(said.contains("not all rows are there: shard 1/2"), "{said}");
}

#[test]
fn a_run_that_cannot_be_repeated_or_has_no_rows_has_no_summary() {
    let dir = folder(0, 3);
    let dir = dir.path();
    let mut command = eva::eva();
    command.args(["init", "graphs/example/dynamo/model.onnx", "--data", "-", "--shard", "0/2", "--summary"]);
    let (status, said) = refused(command.arg(dir.join("s")));
    assert!(status == Some(2) && said.contains("standard input can be read once only"), "{said}");
    for order in ["--keep-order", "--shuffle"] {
        let (status, said) = refused(&mut init(dir, &["--shard", "3/4", "--summary", "@s", order]));
        assert!(status == Some(1) && said.contains("shard 3/4 has no rows: the data has 3"), "{said}");
    }
    let (status, said) = refused(&mut init(dir, &["--force", "--summary", "@rows.jsonl"]));
    assert!(status == Some(2) && said.contains("would replace a file that is read"), "{said}");
    let (status, said) = refused(&mut init(dir, &["--shard", "0/2"]));
    assert!(status == Some(2) && said.contains("--summary"), "{said}");
    let (status, said) = refused(init(dir, &["--shard", "auto", "--summary", "@s"]).env_remove("SLURM_ARRAY_TASK_ID"));
    assert!(status == Some(2) && said.contains("none of HQ_TASK_ID"), "{said}");
    let auto = ["--shard", "auto/2", "--summary", "@s"];
    let said = done(init(dir, &auto).env("JOB_COMPLETION_INDEX", "1").env_remove("HQ_TASK_ID"));
    assert!(said.contains("summary of shard 1/2 (JOB_COMPLETION_INDEX) written to"), "{said}");
    assert_eq!(fs::read_dir(dir).unwrap().count(), 2);
}
