//! What the hints say is done, and helps.

use crate::support::adapters::adapter;
use crate::support::eva;
use crate::support::exports;
use crate::support::graph::{F32, I8, Net, net};
use eva_onnx::adapter::Base;
use eva_onnx::dtype::DType;
use eva_onnx::formats::peft::{self, CONFIG, WEIGHTS};
use eva_onnx::linear;
use eva_onnx::onnx::Model;
use std::fs;
use std::path::Path;

const UP: &str = "/model/layers.0/mlp/up_proj/MatMul";

/// Writes an adapter for all layers of the model beside it.
fn save(model: &Path) {
    let adapter = adapter(&linear::find(&Model::open(model).unwrap(), None).0, true);
    let folder = model.with_file_name("adapter");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join(WEIGHTS), peft::weights(&adapter, DType::F32).unwrap()).unwrap();
    fs::write(folder.join(CONFIG), peft::config(&adapter, &Base::default())).unwrap();
}

fn saved(net: Net) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("m.onnx"), net.encoded()).unwrap();
    save(&dir.path().join("m.onnx"));
    dir
}

fn product() -> Net {
    let net = net().shaped_input("x", F32, &[2, 4]).floats("onnx::1", &[4, 6], F32);
    net.node("MatMul", UP, &["x", "onnx::1"], "last_hidden_state").shaped_output("last_hidden_state", F32, &[2, 6])
}

#[track_caller]
fn done(dir: &Path, line: &str) {
    let output = eva::eva().args(line.split(' ')).current_dir(dir).output().unwrap();
    assert!(output.status.success(), "{line}: {}", eva::text(&output.stderr));
}

/// Runs a command that fails; its hint.
#[track_caller]
fn hint(dir: &Path, line: &str) -> String {
    let output = eva::eva().args(line.split(' ')).current_dir(dir).output().unwrap();
    assert!(!output.status.success(), "{line}");
    let said = eva::text(&output.stderr);
    said.split_once("hint: ").unwrap_or_else(|| panic!("{line} has no hint: {said}")).1.to_owned()
}

#[test]
fn another_output_or_force() {
    let dir = saved(product());
    let dir = dir.path();
    for (line, out) in [("splice m.onnx adapter --out", "spliced"), ("convert adapter", "converted")] {
        done(dir, &format!("{line} {out}"));
        let hint = hint(dir, &format!("{line} {out}"));
        assert!(hint.starts_with("give another output folder, or --force"), "{hint}");
        done(dir, &format!("{line} {out}-other"));
        done(dir, &format!("{line} {out} --force"));
    }
    done(dir, "convert adapter a.onnx_adapter");
    assert!(hint(dir, "convert adapter a.onnx_adapter").starts_with("give another name, or --force"));
    done(dir, "convert adapter a.onnx_adapter --force");
    fs::write(dir.join("file"), "").unwrap();
    assert!(hint(dir, "convert adapter file").starts_with("give another output folder"));
}

#[test]
fn copies_where_there_are_no_clones() {
    let dir = saved(product());
    let line = "splice m.onnx adapter --link reflink --out out";
    let output = eva::eva().args(line.split(' ')).current_dir(dir.path()).output().unwrap();
    if !output.status.success() {
        assert!(eva::text(&output.stderr).contains("hint: use --link copy"));
        done(dir.path(), "splice m.onnx adapter --link copy --out out");
    }
}

#[test]
fn other_forms_for_a_quantized_weight() {
    let net = net()
        .shaped_input("x", F32, &[2, 4])
        .bytes("q", &[4, 6], I8, vec![3; 24])
        .floats("s", &[], F32)
        .node("DequantizeLinear", "wide", &["q", "s"], "w")
        .node("MatMul", UP, &["x", "w"], "y")
        .shaped_output("y", F32, &[2, 6]);
    let dir = saved(net);
    let hint = hint(dir.path(), "splice m.onnx adapter --as merged --out a");
    assert!(hint.starts_with("splice the adapter as trainable or as adapter-inputs"), "{hint}");
    done(dir.path(), "splice m.onnx adapter --as trainable --out a");
    done(dir.path(), "splice m.onnx adapter --as adapter-inputs --out b");
}

#[test]
fn a_form_that_fails_too_is_not_offered() {
    // Quantized, and some layers without a tensor for their result.
    let dir = exports::unpacked("bert/qoperator");
    save(&dir.path().join("model.onnx"));
    let merged = hint(dir.path(), "splice model.onnx adapter --as merged --out a");
    assert!(merged.starts_with("merge the adapter into its model with PEFT"), "{merged}");
    let trainable = hint(dir.path(), "splice model.onnx adapter --out a");
    assert!(trainable.contains("as it was exported") && trainable.contains("if no weight is quantized"), "{trainable}");
}

#[test]
fn a_graph_that_holds_an_adapter() {
    let dir = saved(product());
    done(dir.path(), "splice m.onnx adapter --out a");
    assert_eq!(
        hint(dir.path(), "splice a/model.onnx adapter --out b"),
        "splice the model that this one was made from\n"
    );
    done(dir.path(), "splice m.onnx adapter --out b");
    let refused = hint(dir.path(), "convert adapter c.onnx");
    assert!(refused.starts_with("eva-onnx splice MODEL ADAPTER --out DIR"), "{refused}");
    done(dir.path(), "splice m.onnx adapter --out c");
}

#[test]
fn names_that_differ() {
    let dir = saved(product());
    let config = dir.path().join("adapter").join(CONFIG);
    let weights = dir.path().join("adapter").join(WEIGHTS);
    // The same model inside another one.
    let adapter = {
        let (mut adapter, _) = peft::read(&dir.path().join("adapter")).unwrap();
        adapter.modules.iter_mut().for_each(|module| module.module = format!("inner.{}", module.module));
        adapter
    };
    fs::write(weights, peft::weights(&adapter, DType::F32).unwrap()).unwrap();
    fs::write(config, peft::config(&adapter, &Base::default())).unwrap();
    let hint = hint(dir.path(), "splice m.onnx adapter --out a");
    assert!(hint.contains("--rename, --strip-prefix and --add-prefix adjust their names to the adapter's"), "{hint}");
    done(dir.path(), "splice m.onnx adapter --add-prefix inner. --out a");
}
