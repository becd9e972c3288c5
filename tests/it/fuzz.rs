//! The seeds of the fuzz targets, as they are, cut short, and with bytes changed: nothing panics.

#[path = "../../fuzz/entries.rs"]
#[allow(unreachable_pub)]
mod entries;

use crate::support::eva::{eva, root};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use std::fs;
use std::time::{Duration, Instant};

/// Seconds in which each target reads more files near its seeds, without a compiler of its own as libFuzzer needs it.
const SECONDS: &str = "EVA_FUZZ_SECONDS";

/// The seeds of a target, by their names.
fn seeds(target: &str) -> Vec<(String, Vec<u8>)> {
    let entries = fs::read_dir(root().join("fuzz/seeds").join(target)).unwrap().map(|entry| entry.unwrap());
    let seeds: Vec<_> =
        entries.map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap())).collect();
    assert!(!seeds.is_empty(), "no seeds for {target}");
    seeds
}

/// A file, and `near` files cut short and as many with a bit changed.
fn around(bytes: &[u8], near: usize, mut read: impl FnMut(&[u8])) {
    read(bytes);
    for i in 0..near {
        let at = i * bytes.len() / near;
        read(&bytes[..at]);
        let mut changed = bytes.to_vec();
        changed[at] ^= 1 << (i % 8);
        read(&changed);
    }
}

/// Every seed of a target, and files near it; fewer near one that uses up what it is allowed.
fn each(target: &str, read: fn(&[u8])) {
    for (name, bytes) in seeds(target) {
        around(&bytes, if name.starts_with("slow-") { 1 } else { 64 }, read);
    }
    if let Some(seconds) = std::env::var(SECONDS).ok().and_then(|seconds| seconds.parse().ok()) {
        blindly(target, read, Duration::from_secs(seconds));
    }
}

/// Reads seeds with random changes for some time. A file that fails is left in the folder for temporary files.
#[expect(clippy::print_stdout, reason = "who asks for it wants the count")]
fn blindly(target: &str, read: fn(&[u8]), time: Duration) {
    let seeds = seeds(target);
    let mut random = ChaCha8Rng::seed_from_u64(std::process::id().into());
    let kept = std::env::temp_dir().join(format!("eva-fuzz-{target}"));
    let (started, mut runs, mut slowest) = (Instant::now(), 0, Duration::ZERO);
    while started.elapsed() < time {
        let mut bytes = seeds[below(&mut random, seeds.len())].1.clone();
        for _ in 0..=below(&mut random, 6) {
            change(&mut bytes, &seeds[below(&mut random, seeds.len())].1, &mut random);
        }
        fs::write(&kept, &bytes).unwrap();
        let before = Instant::now();
        read(&bytes);
        (runs, slowest) = (runs + 1, slowest.max(before.elapsed()));
    }
    fs::remove_file(&kept).unwrap();
    println!("{target}: {runs} files in {:.0} s, at most {:.2} s for one", time.as_secs_f64(), slowest.as_secs_f64());
}

fn below(random: &mut ChaCha8Rng, end: usize) -> usize {
    (random.next_u64() % end.max(1) as u64) as usize
}

/// Changes a file in one place: other bytes, large and small numbers, a part of it or of another twice or left out.
fn change(bytes: &mut Vec<u8>, other: &[u8], random: &mut ChaCha8Rng) {
    const NUMBERS: [u64; 8] = [0, 1, 0x7f, 0xff, 0x7fff_ffff, 0xffff_ffff, 1 << 62, u64::MAX];
    let at = below(random, bytes.len());
    let longest = 1 << below(random, 11);
    let length = below(random, 1 + longest.min(bytes.len() - at));
    match below(random, 6) {
        0 => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << below(random, 8)),
        1 => bytes.iter_mut().skip(at).take(length).for_each(|byte| *byte = random.next_u64() as u8),
        2 => {
            let number = NUMBERS[below(random, NUMBERS.len())].to_le_bytes();
            bytes.iter_mut().skip(at).zip(&number[..1 << below(random, 4)]).for_each(|(byte, new)| *byte = *new);
        }
        3 => drop(bytes.drain(at..at + length)),
        4 => drop(bytes.splice(at..at, bytes[at..at + length].to_vec())),
        _ => {
            let from = below(random, other.len());
            let end = (from + length).min(other.len());
            bytes.splice(at..at, other[from..end].iter().copied());
        }
    }
}

/// What the program says to a file, which it must end by itself.
fn said(arguments: &[&str], name: &str, bytes: &[u8]) -> String {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(name), bytes).unwrap();
    let output = eva().args(arguments).current_dir(dir.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(matches!(output.status.code(), Some(0..=2)), "{:?}: {said}", output.status);
    said
}

#[test]
fn every_target_has_seeds_and_a_test() {
    let targets = fs::read_dir(root().join("fuzz/fuzz_targets")).unwrap();
    let tests = fs::read_to_string(root().join("tests/it/fuzz.rs")).unwrap();
    for target in targets {
        let target = target.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned();
        assert!(!seeds(&target).is_empty() && tests.contains(&format!("(\"{target}\"")), "{target}");
    }
}

#[test]
fn models() {
    each("model", entries::model);
}

#[test]
fn checkpoints() {
    each("checkpoint", entries::checkpoint);
}

#[test]
fn adapters() {
    each("peft", entries::peft);
    each("onnx_adapter", entries::onnx_adapter);
}

#[test]
fn pictures_and_sounds() {
    each("media", entries::media);
}

#[test]
fn summaries() {
    each("summary", entries::summary);
}

#[test]
fn rows() {
    each("rows", entries::rows);
    each("tables", entries::tables);
    each("parquet", entries::parquet);
}

#[test]
fn tokenizers_and_chat_templates() {
    each("tokenizer", entries::tokenizer);
    each("chat", entries::chat);
}

#[test]
fn settings() {
    each("settings", entries::settings);
}

#[test]
fn states_of_runs() {
    for (name, bytes) in seeds("init_state") {
        assert!(entries::init_state(&bytes), "{name}");
    }
    for (name, bytes) in seeds("train_state") {
        let said = entries::train_state(&bytes);
        assert!(said.contains("missing.onnx"), "{name}: {said}");
    }
    each("init_state", |bytes| {
        entries::init_state(bytes);
    });
    each("train_state", |bytes| drop(entries::train_state(bytes)));
}

#[test]
fn records_as_pages_and_in_the_terminal() {
    each("record", entries::record);
    for (_, bytes) in seeds("record") {
        around(&bytes, 8, |bytes| drop(said(&["report", "eva.json", "--color", "truecolor"], "eva.json", bytes)));
    }
}

#[test]
fn files_of_options() {
    for (_, bytes) in seeds("config") {
        // A folder that is not there: no option gets further.
        let line = ["splice", "missing.onnx", "missing", "--out", "missing/out", "--config", "eva.toml"];
        around(&bytes, 16, |bytes| drop(said(&line, "eva.toml", bytes)));
    }
}
