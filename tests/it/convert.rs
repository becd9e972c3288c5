//! `convert`: every form of an adapter into every other, and the forms that some readers need.

use crate::support::adapters;
use crate::support::eva;
use crate::support::tolerance::{EPS, within};

use adapters::adapter;
use eva_onnx::adapter::{self, Adapter, Base};
use eva_onnx::dtype::DType;
use eva_onnx::formats::onnx_adapter;
use eva_onnx::formats::peft::{self, CONFIG, WEIGHTS};
use eva_onnx::linear::{self, Linear};
use eva_onnx::onnx::Model;
use eva_onnx::splice;
use ndarray::Array2;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

fn model() -> PathBuf {
    eva::graph("tiny/gpt2-optimum")
}

fn linears() -> Vec<Linear> {
    linear::find(&Model::open(model()).unwrap(), None).0
}

/// A folder with `adapter`, a trained adapter of the model with ranks 1 to 4 and two different scales.
fn saved() -> (TempDir, Adapter) {
    let mut adapter = adapter(&linears(), true);
    adapter.modules[2].alpha *= 3.0;
    let dir = tempfile::tempdir().unwrap();
    save(&adapter, &dir.path().join("adapter"));
    (dir, adapter)
}

fn save(adapter: &Adapter, dir: &Path) {
    let base = Base { name: Some("tiny".to_owned()), task_type: Some("CAUSAL_LM".to_owned()), ..Base::default() };
    fs::create_dir_all(dir).unwrap();
    fs::write(dir.join(WEIGHTS), peft::weights(adapter, DType::F32).unwrap()).unwrap();
    fs::write(dir.join(CONFIG), peft::config(adapter, &base)).unwrap();
}

fn eva(arguments: &[&str], dir: &Path) -> Result<String, String> {
    eva::run(eva::eva().args(arguments).current_dir(dir))
}

fn files(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .collect();
    files.sort();
    files
}

/// `scale B A` of every module.
fn products(adapter: &Adapter) -> Vec<(String, Array2<f64>)> {
    let wide = |values: &Array2<f32>| values.mapv(f64::from);
    let product = |m: &eva_onnx::adapter::AdapterModule| (m.module.clone(), wide(&m.b()).dot(&wide(&m.a)) * m.scale());
    adapter.modules.iter().map(product).collect()
}

#[track_caller]
fn same_products(one: &Adapter, other: &Adapter) {
    for ((name, one), (_, other)) in products(one).into_iter().zip(products(other)) {
        let size = one.fold(0f64, |most, value| most.max(value.abs()));
        let off = (&one - &other).fold(0f64, |most, value| most.max(value.abs()));
        within(off, 4.0 * EPS * size, &name);
    }
}

#[test]
fn a_graph_gives_the_folder_back_to_the_byte() {
    let (dir, _) = saved();
    let graph = model();
    eva(&["splice", graph.to_str().unwrap(), "adapter", "--out", "out"], dir.path()).unwrap();
    for from in ["out/model.onnx", "out"] {
        eva(&["convert", from, "back", "--force"], dir.path()).unwrap();
        assert_eq!(files(&dir.path().join("back")), files(&dir.path().join("adapter")));
    }
    // A tool that drops what it does not know leaves the names and the scales.
    let mut proto: onnx_protobuf::ModelProto =
        onnx_protobuf::Message::parse_from_bytes(&fs::read(dir.path().join("out/model.onnx")).unwrap()).unwrap();
    proto.metadata_props.clear();
    let stripped = onnx_protobuf::Message::write_to_bytes(&proto).unwrap();
    fs::write(dir.path().join("out/model.onnx"), stripped).unwrap();
    let name = ["--base-model", "tiny", "--task-type", "CAUSAL_LM", "--fan-in-fan-out"];
    eva(&[&["convert", "out", "bare"], &name[..]].concat(), dir.path()).unwrap();
    assert_eq!(files(&dir.path().join("bare")), files(&dir.path().join("adapter")));
}

#[test]
fn an_onnx_adapter_goes_round() {
    let (dir, adapter) = saved();
    eva(&["convert", "adapter", "one.onnx_adapter"], dir.path()).unwrap();
    eva(&["convert", "one.onnx_adapter", "back"], dir.path()).unwrap();
    eva(&["convert", "back", "two.onnx_adapter"], dir.path()).unwrap();
    let bytes = |name: &str| fs::read(dir.path().join(name)).unwrap();
    assert_eq!(bytes("one.onnx_adapter"), bytes("two.onnx_adapter"));
    same_products(&adapter, &peft::read(&dir.path().join("back")).unwrap().0);
    let error = eva(&["convert", "adapter", "one.onnx_adapter"], dir.path()).unwrap_err();
    assert_eq!(
        error,
        "error: the output `one.onnx_adapter` exists\nhint: give another name, or --force to replace it\n"
    );
    eva(&["convert", "adapter", "one.onnx_adapter", "--force"], dir.path()).unwrap();
}

#[test]
fn values_in_the_file_lie_at_multiples_of_eight() {
    let (_, adapter) = saved();
    let parameters = splice::parameters(&adapter);
    let file = onnx_adapter::bytes(&parameters);
    assert_eq!(&file[4..8], b"TORT");
    for (name, values) in &parameters {
        let wanted: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let at = file.windows(wanted.len()).position(|window| window == wanted).unwrap();
        assert_eq!(at % 8, 0, "{name}");
        let length = u32::from_le_bytes(*file[at - 4..].first_chunk().unwrap());
        assert_eq!(length as usize, wanted.len(), "{name}");
    }
}

#[test]
fn a_broken_file_is_refused() {
    let (dir, adapter) = saved();
    let file = onnx_adapter::bytes(&splice::parameters(&adapter));
    let path = dir.path().join("broken.onnx_adapter");
    let refused = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        onnx_adapter::read(&path).map(|_| ()).unwrap_err().to_string()
    };
    assert!(refused(b"short").ends_with("it does not begin like an adapter of ONNX Runtime, with `TORT`"));
    assert!(refused(&[&[0xff; 4][..], &file[4..]].concat()).contains("cannot be understood"));
    // Cut anywhere or with any byte changed, it is read or refused, and never worse.
    for at in (0..file.len().min(2000)).step_by(7) {
        fs::write(&path, &file[..at]).unwrap();
        assert!(onnx_adapter::read(&path).is_err(), "{at}");
        let mut changed = file.clone();
        changed[at] ^= 0xff;
        fs::write(&path, changed).unwrap();
        let _ = onnx_adapter::read(&path);
    }
}

/// A small file that would be large in memory: many entries of its list are the same table.
#[test]
fn a_table_that_is_listed_many_times_is_refused() {
    let file = |times: usize| {
        let mut builder = flatbuffers::FlatBufferBuilder::new();
        let data = builder.create_vector(&vec![0u8; 4 * 64 * 64]);
        let dims = builder.create_vector(&[64i64, 64]);
        let name = builder.create_string("lora/m/A");
        let table = builder.start_table();
        builder.push_slot_always(4, name);
        builder.push_slot_always(6, dims);
        builder.push_slot_always(8, 1i32);
        builder.push_slot_always(10, data);
        let parameter = builder.end_table(table);
        let list = builder.create_vector(&vec![parameter.as_union_value(); times]);
        let table = builder.start_table();
        builder.push_slot_always(4, 1i32);
        builder.push_slot_always(10, list);
        let root = builder.end_table(table);
        builder.finish(root, Some("TORT"));
        builder.finished_data().to_vec()
    };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bomb.onnx_adapter");
    let message = |times: usize| {
        fs::write(&path, file(times)).unwrap();
        onnx_adapter::read(&path).unwrap_err().to_string()
    };
    assert!(message(1).contains("`lora/m/A` or `lora/m/B` is missing"), "{}", message(1));
    assert!(message(10_000).contains("Apparent size too large"), "{}", message(10_000));
}

#[test]
fn uniform_rank_fills_up_and_leaves_nothing_out() {
    let (dir, mut adapter) = saved();
    let left_out = adapter.modules.remove(1);
    save(&adapter, &dir.path().join("adapter"));
    let graph = model();
    eva(&["convert", "adapter", "uniform", "--uniform-rank", "--model", graph.to_str().unwrap()], dir.path()).unwrap();
    let (uniform, _) = peft::read(&dir.path().join("uniform")).unwrap();
    let config: Value = serde_json::from_slice(&fs::read(dir.path().join("uniform").join(CONFIG)).unwrap()).unwrap();
    assert_eq!((&config["rank_pattern"], &config["alpha_pattern"]), (&json!({}), &json!({})));
    let rank = adapter.max_rank();
    assert_eq!(config["r"], rank);
    assert!(uniform.modules.iter().all(|module| module.rank() == rank));
    same_products(&adapter, &uniform);
    let added = uniform.modules.last().unwrap();
    assert_eq!((&added.module, added.out_features), (&left_out.module, left_out.out_features));
    assert!(added.b.is_none() && added.a.iter().all(|value| *value == 0.0));
    assert_eq!(uniform.modules.len(), adapter.modules.len() + 1);
}

#[test]
fn one_alpha_keeps_the_products() {
    let (dir, adapter) = saved();
    eva(&["convert", "adapter", "one", "--one-alpha"], dir.path()).unwrap();
    let (one, _) = peft::read(&dir.path().join("one")).unwrap();
    let config: Value = serde_json::from_slice(&fs::read(dir.path().join("one").join(CONFIG)).unwrap()).unwrap();
    same_products(&adapter, &one);
    // What llama.cpp computes: the one alpha it reads, over the rank of each module.
    let alpha = config["lora_alpha"].as_f64().unwrap();
    for module in &one.modules {
        within(module.scale() * module.rank() as f64 / alpha - 1.0, 4.0 * f64::EPSILON, &module.module);
    }
}

#[test]
fn an_alpha_of_zero_becomes_a_product_of_zero() {
    let mut adapter = adapter(&linears(), true);
    let rank = adapter.max_rank();
    adapter.modules.iter_mut().filter(|module| module.rank() == rank).for_each(|module| module.alpha = 0.0);
    let uniform = adapter::uniform_rank(&adapter, &[]);
    for scaled in [adapter::one_alpha(&adapter), uniform] {
        let alpha = scaled.modules[0].alpha;
        assert!(alpha != 0.0 && scaled.modules.iter().all(|module| module.alpha == alpha));
        same_products(&adapter, &scaled);
    }
    adapter.modules.iter_mut().for_each(|module| module.alpha = 0.0);
    same_products(&adapter, &adapter::one_alpha(&adapter));
}

#[test]
fn what_holds_no_adapter_says_so() {
    let (dir, _) = saved();
    let graph = model();
    let graph = graph.to_str().unwrap();
    let error = |arguments: &[&str]| eva(arguments, dir.path()).unwrap_err().replace(graph, "MODEL");
    assert_eq!(error(&["convert", graph, "out"]), "error: `MODEL` contains no adapter\n");
    eva(&["splice", graph, "adapter", "--as", "adapter-inputs", "--out", "inputs"], dir.path()).unwrap();
    let message = error(&["convert", "inputs", "out"]);
    assert!(message.contains("the form `adapter-inputs`, which has no values in the graph"), "{message}");
    let message = error(&["convert", "adapter", "out.onnx"]);
    assert!(message.starts_with("error: an adapter is put into a model with `splice`"), "{message}");
    assert!(!dir.path().join("out").exists());
}
