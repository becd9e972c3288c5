//! The seeds of the fuzz targets, as they are, cut short, and with bytes changed: nothing panics.

#[path = "../../fuzz/entries.rs"]
#[allow(unreachable_pub)]
mod entries;

use crate::support::eva::root;

/// Every seed of a target, and files near it.
fn each(target: &str, read: fn(&[u8])) {
    let mut seeds = 0;
    for entry in std::fs::read_dir(root().join("fuzz/seeds").join(target)).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        seeds += 1;
        read(&bytes);
        for i in 0..64 {
            let at = i * bytes.len() / 64;
            read(&bytes[..at]);
            let mut changed = bytes.clone();
            changed[at] ^= 1 << (i % 8);
            read(&changed);
        }
    }
    assert!(seeds > 0, "no seeds for {target}");
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
}
