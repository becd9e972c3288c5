//! Random adapters, and comparing what models compute with them.

use eva_onnx::adapter::{Adapter, AdapterModule};
use eva_onnx::linear::Linear;
use eva_onnx::onnx::Model;
use eva_onnx::runtime::{self, Device, Runtime, Session, SessionOptions, Value};
use ndarray::Array2;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use safetensors::tensor::SafeTensors;
use std::path::Path;

pub const OPTIONS: SessionOptions = SessionOptions { device: Device::Cpu, threads: 1 };
pub fn runtime() -> Runtime {
    runtime::load(&runtime::find(None).unwrap()).unwrap()
}

pub fn values(rng: &mut ChaCha8Rng, n: usize) -> Vec<f32> {
    (0..n).map(|_| (f64::from(rng.next_u32()) / f64::from(u32::MAX) - 0.5) as f32).collect()
}

/// An adapter for every module of the layers, with ranks 1 to 4; B is zero unless `trained`.
pub fn adapter(linears: &[Linear], trained: bool) -> Adapter {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let mut adapter = Adapter::default();
    for (linear, part) in linears.iter().flat_map(|linear| linear.modules.iter().map(move |part| (linear, part))) {
        if adapter.modules.iter().any(|module| module.module == part.module) {
            continue;
        }
        let rank = 1 + adapter.modules.len() % 4;
        let out = part.out_features(linear);
        let a = values(&mut rng, rank * linear.in_features);
        let b = values(&mut rng, rank * out);
        adapter.modules.push(AdapterModule {
            module: part.module.clone(),
            a: Array2::from_shape_vec((rank, linear.in_features), a).unwrap(),
            out_features: out,
            b: trained.then(|| Array2::from_shape_vec((out, rank), b).unwrap()),
            alpha: 0.75 * rank as f64,
            fan_in_fan_out: linear.weight.fan_in_fan_out,
            magnitude: None,
        });
    }
    adapter
}

/// The `A` of every module of a PEFT folder, in 32 bits.
pub fn read_a(dir: &Path) -> Vec<(String, Array2<f64>)> {
    let bytes = std::fs::read(dir.join("adapter_model.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let a = tensors.iter().filter_map(|(name, view)| {
        let module = name.strip_prefix("base_model.model.")?.strip_suffix(".lora_A.weight")?;
        let values = view.data().as_chunks::<4>().0.iter().map(|bytes| f64::from(f32::from_le_bytes(*bytes)));
        let a = Array2::from_shape_vec((view.shape()[0], view.shape()[1]), values.collect()).unwrap();
        Some((module.to_owned(), a))
    });
    a.collect()
}

/// What a model computes from the one input `x`.
pub fn outputs(model: &Model, shape: &[usize], x: Vec<f32>) -> Vec<Vec<f64>> {
    let mut session = Session::load(&runtime(), model, OPTIONS).unwrap();
    let x = Value::f32(shape, x).unwrap();
    let outputs = session.run([("x", &x)]).unwrap();
    outputs.iter().map(|output| output.to_f64().unwrap().1).collect()
}

#[track_caller]
pub fn bit_equal(got: &[Vec<f64>], want: &[Vec<f64>], what: &str) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (got, want) in got.iter().flatten().zip(want.iter().flatten()) {
        assert!(got == want, "{what}: {got} is not {want}");
    }
}

/// Largest difference, as a share of the largest value.
pub fn distance(got: &[Vec<f64>], want: &[Vec<f64>]) -> f64 {
    let pairs = || got.iter().flatten().zip(want.iter().flatten());
    let size = pairs().fold(0f64, |most, (_, want)| most.max(want.abs()));
    pairs().fold(0f64, |most, (got, want)| most.max((got - want).abs())) / size
}
