//! Adapters as required inputs, for runtimes that ignore values for optional ones.

use crate::support::adapters::{OPTIONS, adapter, distance, runtime};
use crate::support::eva;
use crate::support::graph::{F32, net, pattern};
use crate::support::tolerance::F32_DRIFT;
use eva_onnx::adapter::Base;
use eva_onnx::dtype::DType;
use eva_onnx::formats::peft::{self, CONFIG, WEIGHTS};
use eva_onnx::onnx::Model;
use eva_onnx::runtime::{Session, Value};
use safetensors::SafeTensors;
use std::fs;

#[test]
fn required_inputs_take_the_values_beside_the_model() {
    let dir = tempfile::tempdir().unwrap();
    let net = net()
        .shaped_input("x", F32, &[-1, 4])
        .floats("onnx::1", &[4, 6], F32)
        .floats("onnx::2", &[6, 5], F32)
        .node("MatMul", "/model/layers.0/mlp/up_proj/MatMul", &["x", "onnx::1"], "h")
        .node("MatMul", "/model/layers.0/mlp/down_proj/MatMul", &["h", "onnx::2"], "y")
        .shaped_output("y", F32, &[-1, 5]);
    let adapter = adapter(&net.clone().find(None).0, true);
    fs::write(dir.path().join("m.onnx"), net.encoded()).unwrap();
    fs::create_dir(dir.path().join("adapter")).unwrap();
    fs::write(dir.path().join("adapter").join(WEIGHTS), peft::weights(&adapter, DType::F32).unwrap()).unwrap();
    fs::write(dir.path().join("adapter").join(CONFIG), peft::config(&adapter, &Base::default())).unwrap();
    let splice = |arguments: &[&str]| {
        let mut command = eva::eva();
        command.current_dir(dir.path()).args(["splice", "m.onnx", "adapter"]).args(arguments);
        eva::run(&mut command)
    };
    let error = splice(&["--out", "x", "--required-inputs"]).unwrap_err();
    assert_eq!(error, "error: --required-inputs needs --as adapter-inputs\n");
    splice(&["--out", "merged", "--as", "merged"]).unwrap();
    splice(&["--out", "out", "--as", "adapter-inputs", "--required-inputs"]).unwrap();
    let model = Model::open(dir.path().join("out/model.onnx")).unwrap();
    // Nothing has a default.
    assert_eq!(model.inputs().len(), 1 + 2 * adapter.modules.len());

    let bytes = fs::read(dir.path().join("out/adapter.safetensors")).unwrap();
    let stored = SafeTensors::deserialize(&bytes).unwrap();
    let value = |name: &str| {
        let view = stored.tensor(name).unwrap();
        let values = view.data().as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        Value::f32(view.shape(), values).unwrap()
    };
    let x = Value::f32(&[3, 4], pattern(12)).unwrap();
    let run = |model: &Model, fed: &[(&str, &Value)]| {
        let mut session = Session::load(&runtime(), model, OPTIONS).unwrap();
        let outputs = session.run(fed.iter().copied()).unwrap();
        outputs.iter().map(|output| output.to_f64().unwrap().1).collect::<Vec<_>>()
    };
    let names = stored.names();
    let values: Vec<(&str, Value)> = names.iter().map(|name| (*name, value(name))).collect();
    let fed: Vec<(&str, &Value)> = values.iter().map(|(name, value)| (*name, value)).chain([("x", &x)]).collect();
    let merged = Model::open(dir.path().join("merged/model.onnx")).unwrap();
    let with = run(&model, &fed);
    assert!(distance(&with, &run(&merged, &[("x", &x)])) < F32_DRIFT);
    // Empty matrices give the model without an adapter.
    let empty: Vec<(String, Value)> = adapter
        .modules
        .iter()
        .flat_map(|module| {
            let none = |shape: [usize; 2]| Value::f32(&shape, Vec::new()).unwrap();
            let name = |matrix: &str| format!("lora/{}/{matrix}", module.module);
            [(name("A"), none([module.a.ncols(), 0])), (name("B"), none([0, module.out_features]))]
        })
        .collect();
    let fed: Vec<(&str, &Value)> =
        empty.iter().map(|(name, value)| (name.as_str(), value)).chain([("x", &x)]).collect();
    let base = Model::open(dir.path().join("m.onnx")).unwrap();
    assert_eq!(run(&model, &fed), run(&base, &[("x", &x)]));
}
