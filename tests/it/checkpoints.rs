//! `init --checkpoint-every` and `--resume`: a run that goes on gives the bytes of one that was never stopped.

use crate::support::eva;
use crate::support::parts::{adapter, done, folder, init, refused};
use std::fs;
use std::path::Path;

const ROWS: usize = 40;
const OUT: [&str; 6] = ["--tau", "1", "--batch-size", "1", "--out", "@out"];
const EVERY: [&str; 3] = ["--checkpoint-every", "1", "--resume"];

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = entries.collect();
    names.sort();
    names
}

#[cfg(unix)]
mod kills {
    use super::*;
    use rand_chacha::ChaCha8Rng;
    use rand_chacha::rand_core::{RngCore, SeedableRng};
    use rustix::process::{Pid, Signal, kill_process};
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    /// Starts a command again and again, and sends it a signal at some time, until it ends by itself: how often.
    fn until_done(make: &dyn Fn() -> Command, signal: Signal, rng: &mut ChaCha8Rng, longest: u64) -> usize {
        for kills in 0..200 {
            let mut child = make().stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
            // Later ones come less early, so that the run ends some day.
            let wait = Duration::from_millis(rng.next_u64() % (longest + 20 * kills));
            let started = Instant::now();
            while started.elapsed() < wait && child.try_wait().unwrap().is_none() {
                std::thread::sleep(Duration::from_millis(1));
            }
            if child.try_wait().unwrap().is_none() {
                kill_process(Pid::from_child(&child), signal).unwrap();
            }
            let output = child.wait_with_output().unwrap();
            if output.status.success() {
                return kills as usize;
            }
            let expected = if signal == Signal::KILL { None } else { Some(130) };
            assert_eq!(output.status.code(), expected, "{}", eva::text(&output.stderr));
        }
        panic!("the run never ends");
    }

    #[test]
    fn killed_at_any_time_a_run_goes_on_to_the_bytes_of_a_whole_one() {
        let (whole, parts) = (folder(0, ROWS), folder(0, ROWS));
        let started = Instant::now();
        done(&mut init(whole.path(), &OUT));
        let longest = started.elapsed().as_millis() as u64;
        let make = || {
            let mut command = init(parts.path(), &OUT);
            command.args(EVERY);
            command
        };
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let kills = until_done(&make, Signal::KILL, &mut rng, longest);
        assert!(kills > 0, "nothing was killed");
        let [mut one, mut other] = [whole.path(), parts.path()].map(|dir| adapter(&dir.join("out")));
        for report in [&mut one.2, &mut other.2] {
            report.as_object_mut().unwrap().remove("data");
        }
        assert!(one == other, "after {kills} kills");
        // The checkpoint is gone; what kills left is cleared away.
        assert_eq!(names(parts.path()), ["out", "rows.jsonl"]);
    }

    #[test]
    fn an_interrupted_run_keeps_its_state_and_writes_nothing() {
        let (whole, parts) = (folder(0, ROWS), folder(0, ROWS));
        let shard = ["--shard", "1/2", "--batch-size", "1", "--summary", "@s"];
        done(&mut init(whole.path(), &shard));
        let make = || {
            let mut command = init(parts.path(), &shard);
            command.args(EVERY);
            command
        };
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        until_done(&make, Signal::INT, &mut rng, 1000);
        let read = |dir: &Path| fs::read(dir.join("s")).unwrap();
        let facts = |dir: &Path| eva_onnx::summary::SummaryFile::open(&dir.join("s")).unwrap().facts;
        let (mut one, mut other) = (facts(whole.path()), facts(parts.path()));
        one.parts[0].files.clear();
        other.parts[0].files.clear();
        assert_eq!(one, other);
        // The paths of the data are as long, and all else is the same.
        assert_eq!(read(whole.path()).len(), read(parts.path()).len());
        assert_eq!(names(parts.path()), ["rows.jsonl", "s"]);
    }
}

/// A run that stops after some batches, and leaves its state.
fn stopped(dir: &Path) {
    use eva_onnx::options::{BatchSize, CheckpointOptions, DataOptions, Settings};
    use eva_onnx::{ErrorKind, Init, Next};
    let file = dir.join("out.checkpoint");
    let data = DataOptions { max_length: 48, batch_size: BatchSize::Rows(1), ..DataOptions::default() };
    let init = Init::new(eva::graph("example/dynamo")).data([dir.join("rows.jsonl")]).device("cpu");
    let init = init.settings(Settings { tau: 1.0, ..Settings::default() }).data_options(data);
    let init = init.checkpoints(CheckpointOptions { file: file.clone(), every: None, resume: false });
    let stop = |progress: &eva_onnx::results::Progress| if progress.batches == 7 { Next::Stop } else { Next::Continue };
    let error = init.run_with(stop).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Interrupted);
    assert_eq!(error.to_string(), format!("interrupted after 7 batches; `{}` holds them", file.display()));
}

#[test]
fn only_the_same_run_goes_on() {
    let dir = folder(0, ROWS);
    let dir = dir.path();
    stopped(dir);
    let state = fs::read(dir.join("out.checkpoint")).unwrap();
    let check = |options: &[&str], status: i32, reason: &str| {
        let (found, said) = refused(init(dir, &OUT).args(options));
        assert!(found == Some(status) && said.contains("out.checkpoint`") && said.contains(reason), "{said}");
        assert!(fs::read(dir.join("out.checkpoint")).unwrap() == state && !dir.join("out").exists());
    };
    check(&["--checkpoint-every", "3"], 2, "holds a run that ended after 7 batches");
    check(&["--resume", "--rank", "8"], 1, "it differs in the number of components, --rank (8 and 16)");
    check(&["--resume", "--seed", "1"], 1, "--seed (1 and 0)");
    check(&["--resume", "--whiten"], 1, "--whiten (true and false)");
    let command = init(dir, &OUT);
    let words = command.get_args().map(|word| if word == "cpu" { "cpu,cpu".into() } else { word.to_owned() });
    let (_, said) = refused(eva::eva().args(words.collect::<Vec<_>>()).arg("--resume"));
    assert!(said.contains("--device (cpu,cpu and cpu)"), "{said}");
    check(&["--resume", "--target-modules", "q_proj"], 1, "the modules");
    let rows = fs::read(dir.join("rows.jsonl")).unwrap();
    fs::write(dir.join("rows.jsonl"), &rows[..rows.len() - 1]).unwrap();
    check(&["--resume"], 1, "the data");
    fs::write(dir.join("rows.jsonl"), &rows).unwrap();
    // Not a checkpoint any more.
    for bytes in [&state[..state.len() - 1], &state[..20], &[][..], &rows] {
        fs::write(dir.join("out.checkpoint"), bytes).unwrap();
        let (status, said) = refused(init(dir, &OUT).arg("--resume"));
        assert!(status == Some(1) && said.contains("is no checkpoint of `init`, or damaged"), "{said}");
    }
    let mut changed = state.clone();
    changed[state.len() / 2] ^= 1;
    fs::write(dir.join("out.checkpoint"), changed).unwrap();
    assert!(refused(init(dir, &OUT).arg("--resume")).1.contains("damaged"));

    fs::write(dir.join("mine"), &state).unwrap();
    fs::remove_file(dir.join("out.checkpoint")).unwrap();
    done(init(dir, &OUT).args(["--resume", "--checkpoint-file"]).arg(dir.join("mine")));
    assert_eq!(names(dir), ["out", "rows.jsonl"]);
    let whole = folder(0, ROWS);
    done(&mut init(whole.path(), &OUT));
    assert!(adapter(&dir.join("out")).0 == adapter(&whole.path().join("out")).0);
    // Without a state, it begins anew.
    done(init(dir, &OUT).args(["--resume", "--force"]));
    assert!(adapter(&dir.join("out")).0 == adapter(&whole.path().join("out")).0);
}
