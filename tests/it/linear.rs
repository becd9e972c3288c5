//! Linear layers of exported models, compared with PyTorch's own list.

use crate::support::eva::root;
use eva_onnx::Hint;
use std::collections::BTreeMap;
use std::path::PathBuf;

use eva_onnx::group::group;
use eva_onnx::linear::{Error, Linear, NamedBy, Reason, Rename, Targets, find, select};
use eva_onnx::onnx::Model;
use proptest::prelude::*;
use serde_json::Value;

fn tiny(name: &str) -> PathBuf {
    root().join("graphs/tiny").join(name)
}

fn linears(name: &str) -> Vec<Linear> {
    let model = Model::open(tiny(name).join("model.onnx")).unwrap();
    let (linears, skipped) = find(&model, None);
    let others: Vec<_> = skipped.iter().filter(|skipped| skipped.reason != Reason::ConstantLeft).collect();
    assert!(others.is_empty(), "{others:?}");
    linears
}

/// Every linear layer of the PyTorch model is found once, under its name, with its sizes and layout; nothing else is.
#[track_caller]
fn check(name: &str, named_by: &[(NamedBy, usize)], groups: usize, head: &str) {
    let truth: Value = serde_json::from_slice(&std::fs::read(tiny(name).join("linears.json")).unwrap()).unwrap();
    let row = |linear: &Value| {
        let size = |key: &str| linear[key].as_u64().unwrap() as usize;
        let sizes = (size("in_features"), size("out_features"));
        (linear["module"].as_str().unwrap().to_owned(), (sizes.0, sizes.1, linear["fan_in_fan_out"] == true))
    };
    let truth: BTreeMap<_, _> = truth.as_array().unwrap().iter().map(row).collect();
    let linears = linears(name);
    let found = linears.iter().map(|linear| {
        assert_eq!(linear.modules.len(), 1);
        assert_eq!(linear.modules[0].columns, None);
        assert_eq!(linear.weight.dtype.as_str(), "f32");
        assert!(linear.at.subgraph.is_empty());
        (linear.modules[0].module.clone(), (linear.in_features, linear.out_features, linear.weight.fan_in_fan_out))
    });
    assert_eq!(found.collect::<BTreeMap<_, _>>(), truth);
    assert_eq!(linears.len(), truth.len());
    let mut sources: BTreeMap<NamedBy, usize> = BTreeMap::new();
    linears.iter().for_each(|linear| *sources.entry(linear.named_by).or_default() += 1);
    assert_eq!(sources.into_iter().collect::<Vec<_>>(), named_by);
    let grouping = group(linears.iter().map(|linear| (linear, linear.modules.iter().collect())));
    assert_eq!(grouping.groups.len(), groups);
    let heads: Vec<_> = linears.iter().filter(|linear| linear.head).map(|linear| &linear.modules[0].module).collect();
    assert_eq!(heads, [head]);
}

#[test]
fn bert_by_dynamo() {
    check("bert-dynamo", &[(NamedBy::Scopes, 14)], 10, "classifier");
}

#[test]
fn bert_by_optimum() {
    check("bert-optimum", &[(NamedBy::Weight, 2), (NamedBy::Bias, 12)], 10, "classifier");
}

#[test]
fn gpt2_by_dynamo() {
    check("gpt2-dynamo", &[(NamedBy::Scopes, 9)], 9, "lm_head");
}

#[test]
fn gpt2_by_optimum() {
    check("gpt2-optimum", &[(NamedBy::Weight, 8), (NamedBy::Node, 1)], 9, "lm_head");
}

#[test]
fn llama_by_dynamo_without_optimization() {
    check("llama-dynamo-noopt", &[(NamedBy::Scopes, 8)], 5, "lm_head");
}

#[test]
fn llama_with_external_data() {
    check("llama-external", &[(NamedBy::Scopes, 15)], 9, "lm_head");
}

#[test]
fn llama_by_torchscript() {
    check("llama-ts", &[(NamedBy::Node, 15)], 9, "lm_head");
}

#[test]
fn projections_of_one_block_share_their_input() {
    let linears = linears("llama-ts");
    let grouping = group(linears.iter().map(|linear| (linear, linear.modules.iter().collect())));
    let group = |name: &str| grouping.modules.iter().find(|module| module.name.ends_with(name)).unwrap().group;
    assert_eq!(group("0.self_attn.q_proj"), group("0.self_attn.v_proj"));
    assert_eq!(group("0.mlp.gate_proj"), group("0.mlp.up_proj"));
    assert_ne!(group("0.self_attn.q_proj"), group("1.self_attn.q_proj"));
}

#[test]
fn targets_of_a_real_model() {
    let linears = linears("gpt2-optimum");
    let count = |targets: &str| {
        select(&linears, &[], &Targets::parse(&[targets.to_owned()]).unwrap(), None).map(|all| all.len())
    };
    assert_eq!(count("all-linear").unwrap(), 8);
    assert_eq!(count("c_attn").unwrap(), 2);
    assert_eq!(count("attn.c_proj,lm_head").unwrap(), 3);
    assert_eq!(count(r"transformer\.h\.0\..*").unwrap(), 4);
    let hint = count("q_proj").unwrap_err().hint().unwrap();
    assert_eq!(hint, "the model has modules called c_attn, c_fc, c_proj, lm_head");
}

#[test]
fn renaming_must_keep_names_apart() {
    let mut linears = linears("bert-optimum");
    let rename = |strip: Option<&str>, rule: &str| Rename::new(strip, None, &[rule.to_owned()]).unwrap();
    let error = rename(None, "query|key=x").apply(&mut linears.clone(), &mut []).unwrap_err();
    assert!(matches!(error, Error::SameName { module } if module == "bert.encoder.layer.0.attention.self.x"));
    let error = rename(None, ".*=").apply(&mut linears.clone(), &mut []).unwrap_err();
    assert!(matches!(error, Error::EmptyName { .. }));
    rename(Some("bert"), "query=q").apply(&mut linears, &mut []).unwrap();
    assert_eq!(linears[0].modules[0].module, "encoder.layer.0.attention.self.q");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A damaged file is refused or read as something else, without a panic.
    #[test]
    fn damage_is_harmless(edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..200)) {
        let file = Model::open(tiny("bert-dynamo").join("model.onnx")).unwrap();
        let mut bytes = file.to_bytes().unwrap();
        for (at, byte) in edits {
            *at.get_mut(&mut bytes) = byte;
        }
        let dir = tempfile::tempdir().unwrap();
        std::fs::copy(tiny("bert-dynamo").join("model.onnx"), dir.path().join("model.onnx")).unwrap();
        let path = dir.path().join("damaged.onnx");
        std::fs::write(&path, bytes).unwrap();
        if let Ok(model) = Model::open(&path) {
            find(&model, None);
        }
    }
}
