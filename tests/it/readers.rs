//! `convert --for`: files of programs that know less than PEFT. Each is read back by code of this file alone.

use crate::support::adapters::values;
use crate::support::eva;
use crate::support::graph::{F32, net};
use crate::support::tolerance::{EPS, within};
use eva_onnx::adapter::{Adapter, AdapterModule, Base};
use eva_onnx::dtype::DType;
use eva_onnx::formats::peft::{self, CONFIG, WEIGHTS};
use ndarray::{Array2, Array3, Axis};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use safetensors::SafeTensors;
use serde_json::Value;
use std::collections::HashMap;
use std::fs;
use std::path::Path;

/// Four heads of eight rows, two of them for keys.
const HEADS: usize = 4;
const Q: &str = "model.layers.0.self_attn.q_proj";
const K: &str = "model.layers.0.self_attn.k_proj";
const UP: &str = "model.layers.1.mlp.up_proj";

/// An adapter with two scales and ranks 1 to 3, in the folder `adapter`, and `config.json` of a Llama beside it.
fn saved(dir: &Path) -> Adapter {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let module = |(module, rank, out, alpha): (&str, usize, usize, f64)| AdapterModule {
        module: module.to_owned(),
        a: Array2::from_shape_vec((rank, 6), values(&mut rng, rank * 6)).unwrap(),
        out_features: out,
        b: Some(Array2::from_shape_vec((out, rank), values(&mut rng, out * rank)).unwrap()),
        alpha,
        fan_in_fan_out: false,
        magnitude: None,
    };
    let modules = [(Q, 2, 32, 4.0), (K, 3, 16, 6.0), (UP, 1, 5, 0.5)].map(module).to_vec();
    let adapter = Adapter { modules, unadapted: Vec::new() };
    save(dir, &adapter, &Base::default());
    let config =
        r#"{"model_type": "llama", "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": true}"#;
    fs::write(dir.join("config.json"), config).unwrap();
    adapter
}

fn save(dir: &Path, adapter: &Adapter, base: &Base) {
    fs::create_dir_all(dir.join("adapter")).unwrap();
    fs::write(dir.join("adapter").join(WEIGHTS), peft::weights(adapter, DType::F32).unwrap()).unwrap();
    fs::write(dir.join("adapter").join(CONFIG), peft::config(adapter, base)).unwrap();
}

fn convert(dir: &Path, arguments: &str) -> Result<String, String> {
    let output = eva::eva().current_dir(dir).arg("convert").args(arguments.split(' ')).output().unwrap();
    let said = eva::text(&output.stderr);
    if output.status.success() { Ok(said) } else { Err(said) }
}

#[track_caller]
fn refused(dir: &Path, arguments: &str, message: &str) {
    let error = convert(dir, arguments).unwrap_err();
    assert!(error.contains(message), "{error}");
}

fn wide(values: &Array2<f32>) -> Array2<f64> {
    values.mapv(f64::from)
}

/// What the adapter adds to the weight of a module.
fn product(adapter: &Adapter, name: &str) -> Array2<f64> {
    let module = adapter.modules.iter().find(|module| module.module == name).unwrap();
    wide(&module.b()).dot(&wide(&module.a)) * (module.alpha / module.rank() as f64)
}

#[track_caller]
fn same(found: &Array2<f64>, expected: &Array2<f64>, what: &str) {
    assert_eq!(found.dim(), expected.dim(), "{what}");
    let size = expected.fold(0f64, |most, value| most.max(value.abs()));
    let off = (found - expected).fold(0f64, |most, value| most.max(value.abs()));
    within(off, 4.0 * EPS * size, what);
}

fn tensors(path: &Path) -> HashMap<String, Array2<f64>> {
    let bytes = fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let matrix = |view: &safetensors::tensor::TensorView<'_>| {
        let values = view.data().as_chunks::<4>().0.iter().map(|value| f64::from(f32::from_le_bytes(*value)));
        Array2::from_shape_vec((view.shape()[0], view.shape()[1]), values.collect()).unwrap()
    };
    file.iter().map(|(name, view)| (name.to_owned(), matrix(&view))).collect()
}

/// A GGUF file: texts and numbers by key, and matrices of 32-bit floats by name.
#[derive(Default)]
struct Gguf {
    texts: HashMap<String, String>,
    numbers: HashMap<String, f64>,
    tensors: HashMap<String, Array2<f64>>,
}

struct Cursor<'b> {
    bytes: &'b [u8],
    at: usize,
}

impl Cursor<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        self.at += N;
        self.bytes[self.at - N..self.at].try_into().unwrap()
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    fn u64(&mut self) -> usize {
        u64::from_le_bytes(self.take()) as usize
    }

    fn text(&mut self) -> String {
        let length = self.u64();
        self.at += length;
        String::from_utf8(self.bytes[self.at - length..self.at].to_vec()).unwrap()
    }
}

fn gguf(path: &Path) -> Gguf {
    let bytes = fs::read(path).unwrap();
    let mut file = Cursor { bytes: &bytes, at: 0 };
    assert_eq!((&file.take::<4>(), file.u32()), (b"GGUF", 3));
    let (tensors, keys) = (file.u64(), file.u64());
    let mut found = Gguf::default();
    for _ in 0..keys {
        match (file.text(), file.u32()) {
            (key, 8) => drop(found.texts.insert(key, file.text())),
            (key, 4) => drop(found.numbers.insert(key, f64::from(file.u32()))),
            (key, 6) => drop(found.numbers.insert(key, f64::from(f32::from_le_bytes(file.take())))),
            (key, other) => panic!("{key} has type {other}"),
        }
    }
    let infos: Vec<_> = (0..tensors)
        .map(|_| {
            let name = file.text();
            assert_eq!(file.u32(), 2);
            let (columns, rows) = (file.u64(), file.u64());
            assert_eq!(file.u32(), 0);
            (name, rows, columns, file.u64())
        })
        .collect();
    let start = file.at.next_multiple_of(32);
    for (name, rows, columns, offset) in infos {
        assert_eq!(offset % 32, 0, "{name}");
        let data = &bytes[start + offset..][..4 * rows * columns];
        let values = data.as_chunks::<4>().0.iter().map(|value| f64::from(f32::from_le_bytes(*value)));
        found.tensors.insert(name, Array2::from_shape_vec((rows, columns), values.collect()).unwrap());
    }
    found
}

/// The rows of a weight as llama.cpp keeps them: in each head, `[2, half]` turned into `[half, 2]`.
fn turned(weight: &Array2<f64>, heads: usize) -> Array2<f64> {
    let (rows, columns) = weight.dim();
    let split =
        Array3::from_shape_vec((heads * 2, rows / heads / 2, columns), weight.iter().copied().collect()).unwrap();
    let mut turned = Array2::zeros((0, columns));
    for head in 0..heads {
        for inside in 0..rows / heads / 2 {
            for part in 0..2 {
                let row = split.index_axis(Axis(0), 2 * head + part);
                turned.push_row(row.index_axis(Axis(0), inside)).unwrap();
            }
        }
    }
    turned
}

#[test]
fn llama_cpp_gets_its_own_names_and_order() {
    let dir = tempfile::tempdir().unwrap();
    let adapter = saved(dir.path());
    let said = convert(dir.path(), "adapter lora.gguf --model .").unwrap();
    assert!(said.contains("start llama.cpp with `--lora lora.gguf`"), "{said}");
    let file = gguf(&dir.path().join("lora.gguf"));
    for (key, text) in [("general.type", "adapter"), ("general.architecture", "llama"), ("adapter.type", "lora")] {
        assert_eq!(file.texts[key], text, "{key}");
    }
    let alpha = file.numbers["adapter.lora.alpha"];
    assert_eq!(file.tensors.len(), 6);
    let found = |name: &str| {
        let (a, b) = (&file.tensors[&format!("{name}.weight.lora_a")], &file.tensors[&format!("{name}.weight.lora_b")]);
        b.dot(a) * (alpha / a.nrows() as f64)
    };
    same(&found("blk.0.attn_q"), &turned(&product(&adapter, Q), HEADS), Q);
    same(&found("blk.0.attn_k"), &turned(&product(&adapter, K), HEADS / 2), K);
    same(&found("blk.1.ffn_up"), &product(&adapter, UP), UP);
}

#[test]
fn llama_cpp_needs_to_know_the_model() {
    let dir = tempfile::tempdir().unwrap();
    let mut adapter = saved(dir.path());
    refused(dir.path(), "adapter lora.gguf", "hint: --model MODEL");
    refused(dir.path(), "adapter lora --for llama.cpp --model .", "--model is for --uniform-rank");
    refused(dir.path(), "adapter lora --for llama.cpp", "hint: end the output in .gguf");
    let describe = |config: &str| fs::write(dir.path().join("config.json"), config).unwrap();
    describe(r#"{"model_type": "bert"}"#);
    refused(dir.path(), "adapter lora.gguf --model .", "`model_type` is bert");
    describe(r#"{"model_type": "llama", "num_attention_heads": 3}"#);
    refused(dir.path(), "adapter lora.gguf --model .", "3 heads, which do not divide the 32 rows");
    adapter.modules[2].module = "lm_head".to_owned();
    save(dir.path(), &adapter, &Base::default());
    describe(r#"{"model_type": "qwen2", "num_attention_heads": 4}"#);
    refused(
        dir.path(),
        "adapter lora.gguf --model .",
        "has no weights of their own for these modules in the architecture qwen2: lm_head",
    );
    describe(r#"{"model_type": "qwen2", "tie_word_embeddings": false}"#);
    convert(dir.path(), "adapter lora.gguf --model .").unwrap();
    assert!(gguf(&dir.path().join("lora.gguf")).tensors.contains_key("output.weight.lora_a"));
}

#[test]
fn vllm_reads_one_scale() {
    let dir = tempfile::tempdir().unwrap();
    let adapter = saved(dir.path());
    let said = convert(dir.path(), "adapter served --for vllm").unwrap();
    assert!(said.contains("--max-lora-rank 8"), "{said}");
    let config: Value = serde_json::from_slice(&fs::read(dir.path().join("served").join(CONFIG)).unwrap()).unwrap();
    let scale = config["lora_alpha"].as_f64().unwrap() / config["r"].as_f64().unwrap();
    let stored = tensors(&dir.path().join("served").join(WEIGHTS));
    for name in [Q, K, UP] {
        let matrix = |end: &str| &stored[&format!("base_model.model.{name}.{end}.weight")];
        same(&(matrix("lora_B").dot(matrix("lora_A")) * scale), &product(&adapter, name), name);
    }
    let large = AdapterModule { a: Array2::zeros((513, 6)), b: None, ..adapter.modules[0].clone() };
    save(dir.path(), &Adapter { modules: vec![large], unadapted: Vec::new() }, &Base::default());
    refused(dir.path(), "adapter large --for vllm", "vLLM takes ranks up to 512, and the largest is 513");
}

#[test]
fn mlx_has_files_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let adapter = saved(dir.path());
    convert(dir.path(), "adapter mlx --for mlx").unwrap();
    let path = dir.path().join("mlx/adapter_config.json");
    let config: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    assert_eq!((&config["fine_tune_type"], &config["num_layers"]), (&"lora".into(), &2.into()));
    let lora = &config["lora_parameters"];
    assert_eq!((&lora["rank"], &lora["keys"]), (&3.into(), &serde_json::json!([Q, K, UP])));
    let stored = tensors(&dir.path().join("mlx/adapters.safetensors"));
    for name in [Q, K, UP] {
        let (a, b) = (&stored[&format!("{name}.lora_a")], &stored[&format!("{name}.lora_b")]);
        assert_eq!(a.dim(), (6, 3));
        same(&(a.dot(b).t().to_owned() * lora["scale"].as_f64().unwrap()), &product(&adapter, name), name);
    }
}

#[test]
fn diffusers_reads_no_alpha() {
    let dir = tempfile::tempdir().unwrap();
    let adapter = saved(dir.path());
    convert(dir.path(), "adapter unet --for diffusers --component unet").unwrap();
    let stored = tensors(&dir.path().join("unet/pytorch_lora_weights.safetensors"));
    for name in [Q, K, UP] {
        let matrix = |end: &str| &stored[&format!("unet.{name}.{end}.weight")];
        assert_eq!(matrix("lora_A").nrows(), 3);
        same(&matrix("lora_B").dot(matrix("lora_A")), &product(&adapter, name), name);
    }
    refused(dir.path(), "adapter other --for diffusers", "--for diffusers and --component belong together");
}

#[test]
fn tgi_gets_all_modules_of_a_kind() {
    let dir = tempfile::tempdir().unwrap();
    saved(dir.path());
    refused(dir.path(), "adapter tgi --for tgi", "hint: --model MODEL");
    let model =
        [Q, K, "model.layers.0.mlp.up_proj", UP].iter().fold(net().shaped_input("x", F32, &[-1, 6]), |net, module| {
            let (weight, output) = (format!("onnx::{module}"), format!("{module}_y"));
            let out = if module.contains("up_proj") {
                5
            } else if *module == Q {
                32
            } else {
                16
            };
            let node = format!("/{}/MatMul", module.replace('.', "/").replace("layers/", "layers."));
            net.floats(&weight, &[6, out], F32).node("MatMul", &node, &["x", &weight], &output)
        });
    fs::write(dir.path().join("m.onnx"), model.encoded()).unwrap();
    convert(dir.path(), "adapter tgi --for tgi --model m.onnx").unwrap();
    let stored = tensors(&dir.path().join("tgi").join(WEIGHTS));
    assert_eq!(stored["base_model.model.model.layers.0.mlp.up_proj.lora_A.weight"].dim(), (3, 6));
    assert!(stored.values().all(|matrix| matrix.nrows() == 3 || matrix.ncols() == 3));
}

#[test]
fn readers_of_pytorch_names_refuse_those_of_graphs() {
    let dir = tempfile::tempdir().unwrap();
    let adapter = saved(dir.path());
    let base = Base { names: Some(eva_onnx::options::GraphNames::Nodes), ..Base::default() };
    save(dir.path(), &adapter, &base);
    refused(
        dir.path(),
        "adapter served --for vllm",
        "the adapter has names of an ONNX graph, which vllm does not know",
    );
    refused(dir.path(), "adapter served.onnx_adapter --for vllm", "vllm reads a folder");
}
