//! The scripts of `recipes/`, as a scheduler runs them.
#![cfg(unix)]

use crate::support::eva::root;
use crate::support::parts::{MODEL, adapter, done, folder, merge};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

const OPTIONS: [&str; 4] = ["--device", "cpu", "--max-length", "48"];

fn recipe(name: &str) -> Command {
    let mut command = Command::new("sh");
    command.arg(root().join("recipes").join(name)).env("EVA_ONNX", env!("CARGO_BIN_EXE_eva-onnx")).current_dir(root());
    for variable in ["SLURM_ARRAY_TASK_ID", "SLURM_CPUS_PER_TASK", "JOB_COMPLETION_INDEX", "HQ_TASK_ID"] {
        command.env_remove(variable);
    }
    command
}

#[test]
fn processes_of_one_machine() {
    let dir = folder(0, 12);
    let dir = dir.path();
    let run = |out: &str| {
        let mut command = recipe("xargs.sh");
        command.args(["3", "2", MODEL]).arg(dir.join("rows.jsonl")).arg(dir.join(out)).args(OPTIONS);
        done(&mut command)
    };
    run("out");
    let first = adapter(&dir.join("out"));
    assert_eq!(first.2["parts"].as_array().unwrap().len(), 3);
    // One shard and the adapter are lost.
    fs::remove_file(dir.join("out.parts/1-of-3.safetensors")).unwrap();
    fs::remove_dir_all(dir.join("out")).unwrap();
    run("out");
    assert!(adapter(&dir.join("out")) == first);
    // Shards of another number do not get in the way.
    let mut other = recipe("xargs.sh");
    fs::remove_dir_all(dir.join("out")).unwrap();
    done(other.args(["2", "2", MODEL]).arg(dir.join("rows.jsonl")).arg(dir.join("out")).args(OPTIONS));
    assert_eq!(adapter(&dir.join("out")).2["parts"].as_array().unwrap().len(), 2);
}

/// `sbatch` that runs everything at once, as Slurm would sooner or later; the second task is preempted once.
const SBATCH: &str = r#"#!/bin/sh
set -eu
for option do
    case $option in
        --array=0-*) last=${option#--array=0-} ;;
        --wrap=*) wrapped=${option#--wrap=} ;;
        --dependency=*) test "$option" = --dependency=afterok:42 ;;
    esac
done
if [ -n "${wrapped:-}" ]; then
    exec sh -c "$wrapped"
fi
while [ "${1#--}" != "$1" ]; do shift; done
export SLURM_ARRAY_TASK_COUNT=$((last + 1)) SLURM_ARRAY_TASK_MIN=0 SLURM_ARRAY_TASK_MAX=$last SLURM_CPUS_PER_TASK=1
for task in $(seq 0 "$last"); do
    SLURM_ARRAY_TASK_ID=$task sh "$@" >&2
    SLURM_ARRAY_TASK_ID=$task sh "$@" >&2
done
echo "42;cluster"
"#;

#[test]
fn a_job_array_of_slurm() {
    let dir = folder(0, 12);
    let dir = dir.path();
    let programs = dir.join("bin");
    fs::create_dir(&programs).unwrap();
    fs::write(programs.join("sbatch"), SBATCH).unwrap();
    fs::set_permissions(programs.join("sbatch"), fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    let out = dir.join("with space");
    let mut command = recipe("slurm.sh");
    command.env("PATH", path).args(["3", MODEL]).arg(dir.join("rows.jsonl")).arg(&out).args(OPTIONS);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    for task in 0..3 {
        let written = format!("summary of shard {task}/3 (SLURM_ARRAY_TASK_ID) written to");
        assert!(said.contains(&written) && said.contains("already: nothing was run"), "{said}");
    }
    let parts: Vec<String> = (0..3).map(|task| format!("with space.parts/{task}-of-3.safetensors")).collect();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    done(merge(dir, &parts).args(["--out", "again"]));
    assert!(adapter(&out) == adapter(&dir.join("again")));
}

#[test]
fn recipes_are_short_and_named_on_the_page() {
    let page = fs::read_to_string(root().join("docs/scale.md")).unwrap();
    for file in fs::read_dir(root().join("recipes")).unwrap() {
        let path = file.unwrap().path();
        let name = Path::new(path.file_name().unwrap()).display().to_string();
        assert!(page.contains(&format!("(../recipes/{name})")), "{name}");
        assert!(fs::read_to_string(&path).unwrap().lines().count() <= 60, "{name}");
    }
}
