//! Every way in which exporters and tools store linear layers: names, directions and the table of docs/exporters.md.
//!
//! `UPDATE_DOCS=1 cargo test --test it exports` writes the table anew.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::{Path, PathBuf};

use ndarray::{Array2, ArrayView2, Axis};
use onnx_protobuf::{GraphProto, Message, ModelProto};
use safetensors::tensor::{Dtype, SafeTensors};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support;
use crate::support::adapters::read_a;
use crate::support::eva;
use crate::support::exports as files;
use crate::support::parts::{alike, compared};
use crate::support::tolerance::{stored, within};

use files::root;

/// One export: its folder in graphs/exports, its graph, who made it, and how far it is from the PyTorch model.
pub(crate) struct Export {
    pub folder: &'static str,
    pub graph: &'static str,
    pub made_by: &'static str,
    precision: Precision,
    pub names: Names,
}

/// What the graph itself tells of the names.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Names {
    All,
    /// All but those of these nodes, which rest on paths that nothing confirms.
    Confirmed(&'static [&'static str]),
    Lost,
}

/// What the graph computes in; the share of variance that its directions may miss follows from it.
#[derive(Clone, Copy)]
pub(crate) enum Precision {
    Float,
    EightBits,
    FourBits,
}

impl Precision {
    /// Largest share of the variance of what PyTorch's layer read that the directions may miss.
    ///
    /// Exact directions of at most 24 features are stored in `f32`. What quantization
    /// does to activations is the tool's (tests/it/quantized.rs holds ours to rounding): an error of relative size e costs
    /// about e^2, with e about 1/64 for eight bits, rounded activations included, and 1/5 for four.
    fn tolerance(self) -> f64 {
        match self {
            Precision::Float => stored(24),
            Precision::EightBits => 1.0 / 64.0f64.powi(2) * 4.0,
            Precision::FourBits => 1.0 / 5.0f64.powi(2),
        }
    }

    fn text(self) -> &'static str {
        match self {
            Precision::Float => "as PyTorch, to rounding",
            Precision::EightBits => "as PyTorch, to 8 bits",
            Precision::FourBits => "as PyTorch, to 4 bits",
        }
    }
}

const fn export(folder: &'static str, made_by: &'static str, precision: Precision) -> Export {
    Export { folder, graph: "model.onnx", made_by, precision, names: Names::All }
}

pub(crate) const EXPORTS: [Export; 26] = [
    export("bert/optimum", "Optimum (TorchScript), BERT", Precision::Float),
    export("bert/attention", "the same, ONNX Runtime's transformers optimizer (fused Attention)", Precision::Float),
    export("bert/saved", "the same, saved by ONNX Runtime, all optimizations", Precision::Float),
    export("bert/dynamic", "the same, dynamic quantization", Precision::EightBits),
    export("bert/qoperator", "the same, static quantization, QOperator", Precision::EightBits),
    export("bert/qdq", "the same, static quantization, QDQ", Precision::EightBits),
    export("llama/optimum", "Optimum with past, Llama", Precision::Float),
    export("llama/nbits4", "the same, MatMulNBits 4 bit, asymmetric", Precision::FourBits),
    export("llama/nbits8", "the same, MatMulNBits 8 bit, symmetric", Precision::EightBits),
    export("llama/nbits-flat", "the same, MatMulNBits with the flat scales of ONNX Runtime 1.20", Precision::FourBits),
    export("llama/int4-qdq", "the same, INT4 DequantizeLinear", Precision::FourBits),
    export("llama/nf4", "the same, MatMulBnb4, NF4", Precision::FourBits),
    export("llama/fp4", "the same, MatMulBnb4, FP4", Precision::FourBits),
    Export {
        names: Names::Lost,
        ..export("llama/dynamo-slim", "torch.onnx (dynamo), names dropped by onnxslim, Llama", Precision::Float)
    },
    export("genai-llama/fp32", "ONNX Runtime GenAI builder, fp32 (packed q, k, v), Llama", Precision::Float),
    export("genai-llama/int4", "the same, int4", Precision::FourBits),
    export("genai-phi3/fp32", "ONNX Runtime GenAI builder, fp32 (gate and up apart), Phi-3", Precision::Float),
    export("albert/optimum", "Optimum, ALBERT (one layer called twice)", Precision::Float),
    export("vit/dynamo", "torch.onnx (dynamo), ViT (images)", Precision::Float),
    export("whisper/dynamo", "torch.onnx (dynamo), Whisper for audio classification (sounds)", Precision::Float),
    Export {
        names: Names::Confirmed(&["/blocks.0/wi_0/MatMul", "/blocks.0/wi_1/MatMul"]),
        ..export("nasty/torchscript", "TorchScript, repeated calls, containers, misleading names", Precision::Float)
    },
    export("nasty/dynamo", "torch.onnx (dynamo), the same", Precision::Float),
    export("qwen3-moe/optimum", "Optimum, Qwen3 mixture of experts", Precision::Float),
    Export { graph: "encoder_model.onnx", ..export("t5/optimum", "Optimum, T5 encoder", Precision::Float) },
    Export { graph: "decoder_model.onnx", ..export("t5/optimum", "Optimum, T5 decoder", Precision::Float) },
    Export {
        graph: "decoder_model_merged.onnx",
        ..export("t5/optimum", "Optimum, T5 merged decoder (If)", Precision::Float)
    },
];

impl Export {
    pub(crate) fn checkpoint(&self) -> PathBuf {
        root().join(self.folder).parent().unwrap().join("checkpoint")
    }

    pub(crate) fn unpacked(&self) -> TempDir {
        files::unpacked(self.folder)
    }

    /// Compares the adapter of a model with that of the same model in parts, in folders of `dir`, as [`alike`] does.
    ///
    /// Where the graph rounds activations (QDQ), ONNX Runtime fuses what a cut keeps apart, and an activation may become the
    /// next of its 256 values. Then each `A` holds what one of eight bits has to hold.
    pub(crate) fn alike(&self, dir: &Path, [whole, parts]: [&str; 2]) -> (bool, f64) {
        let what = format!("{}/{}", self.folder, self.graph);
        if !self.folder.ends_with("/qdq") {
            return alike(&dir.join(whole), &dir.join(parts), &what);
        }
        let inputs = reads(self).inputs;
        for (module, a) in read_a(&dir.join(parts)) {
            within(missed(a.view(), &inputs[&module]), self.precision.tolerance(), &format!("{what}: {module}"));
        }
        compared(&dir.join(whole), &dir.join(parts), &what)
    }

    /// The layers as PyTorch has them: by scope and node, the modules with their columns and slices.
    fn truth(&self) -> BTreeMap<(String, String), Value> {
        let name = match self.graph {
            "model.onnx" => "linears.json".to_owned(),
            graph => graph.replace(".onnx", ".linears.json"),
        };
        let rows: Vec<Value> =
            serde_json::from_slice(&std::fs::read(root().join(self.folder).join(name)).unwrap()).unwrap();
        rows.into_iter().map(|row| (place(&row), modules(&row))).collect()
    }

    fn inspect(&self, graph: &Path, with_checkpoint: bool) -> Value {
        let mut command = eva::eva();
        command.arg("inspect").arg(graph).arg("--json");
        if with_checkpoint {
            command.arg("--checkpoint").arg(self.checkpoint());
        }
        let document = eva::run(&mut command).unwrap_or_else(|message| panic!("{}: {message}", self.folder));
        serde_json::from_str(&document).unwrap()
    }
}

fn place(row: &Value) -> (String, String) {
    let scope: Vec<&str> = row["scope"].as_array().unwrap().iter().map(|step| step.as_str().unwrap()).collect();
    (scope.join("/"), row["node"].as_str().unwrap().to_owned())
}

fn modules(row: &Value) -> Value {
    let parts = row["modules"].as_array().unwrap().iter();
    parts.map(|part| json!([part["module"], part["columns"], part.get("slice").unwrap_or(&Value::Null)])).collect()
}

fn found(document: &Value) -> BTreeMap<(String, String), Value> {
    document["linears"].as_array().unwrap().iter().map(|row| (place(row), modules(row))).collect()
}

/// Takes the names of all nodes, constants and activations away, and what the exporter recorded.
fn without_names(path: &Path) -> BTreeMap<String, String> {
    let mut model = ModelProto::parse_from_bytes(&std::fs::read(path).unwrap()).unwrap();
    model.producer_name = "nobody".to_owned();
    let graph = model.graph.mut_or_insert_default();
    let ends = graph.input.iter().chain(&graph.output).map(|value| (value.name.clone(), value.name.clone()));
    let mut tensors: BTreeMap<String, String> = ends.collect();
    let mut nodes = BTreeMap::new();
    anonymous(graph, &mut tensors, &mut nodes);
    std::fs::write(path, model.write_to_bytes().unwrap()).unwrap();
    nodes
}

fn anonymous(graph: &mut GraphProto, tensors: &mut BTreeMap<String, String>, nodes: &mut BTreeMap<String, String>) {
    let mut rename = |name: &mut String| {
        let next = format!("t{}", tensors.len());
        if !name.is_empty() {
            *name = tensors.entry(name.clone()).or_insert(next).clone();
        }
    };
    graph.metadata_props.clear();
    graph.value_info.clear();
    graph.initializer.iter_mut().for_each(|tensor| rename(&mut tensor.name));
    graph.output.iter_mut().for_each(|value| rename(&mut value.name));
    for node in &mut graph.node {
        node.input.iter_mut().chain(&mut node.output).for_each(&mut rename);
        node.metadata_props.clear();
    }
    for node in &mut graph.node {
        let next = format!("n{}", nodes.len());
        node.name = nodes.entry(node.name.clone()).or_insert(next).clone();
        for attribute in &mut node.attribute {
            if let Some(graph) = attribute.g.as_mut() {
                anonymous(graph, tensors, nodes);
            }
        }
    }
}

/// What PyTorch's layers read, and the rows that they read it for.
pub(crate) struct Reads {
    inputs: BTreeMap<String, Array2<f64>>,
    pub rows: String,
}

pub(crate) fn reads(export: &Export) -> Reads {
    let bytes = std::fs::read(root().join(export.folder).parent().unwrap().join("inputs.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let (mut inputs, mut fed) = (BTreeMap::new(), BTreeMap::new());
    for (name, view) in tensors.iter() {
        let floats = || view.data().as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
        let shape = view.shape();
        match name.strip_prefix("inputs.") {
            Some(name) if view.dtype() == Dtype::F32 => {
                fed.insert(name.to_owned(), nested(shape, &floats().map(|value| json!(value)).collect::<Vec<_>>()));
            }
            Some(name) => {
                let ids = view.data().as_chunks::<8>().0.iter().map(|bytes| json!(i64::from_le_bytes(*bytes)));
                fed.insert(name.to_owned(), nested(shape, &ids.collect::<Vec<_>>()));
            }
            None => {
                let values = floats().map(f64::from).collect();
                inputs.insert(name.to_owned(), Array2::from_shape_vec((shape[0], shape[1]), values).unwrap());
            }
        }
    }
    let row = |at: usize| {
        let fields = fed.iter().map(|(name, values): (&String, &Value)| (name.clone(), values[at].clone()));
        Value::Object(fields.collect()).to_string() + "\n"
    };
    Reads { inputs, rows: (0..2).map(row).collect() }
}

/// Values in nested lists.
fn nested(shape: &[usize], values: &[Value]) -> Value {
    match shape {
        [] => values[0].clone(),
        [_, inner @ ..] => values.chunks(inner.iter().product::<usize>()).map(|values| nested(inner, values)).collect(),
    }
}

const RANK: usize = 6;

/// Runs `init` and compares every `A` with the exact directions of what PyTorch read; returns their number.
fn init(export: &Export, dir: &Path, capture: &str, exclude: Option<&str>, out: &str) -> usize {
    let Reads { inputs, rows } = reads(export);
    std::fs::write(dir.join("rows.jsonl"), rows).unwrap();
    let mut command = eva::eva();
    command.current_dir(dir).args(["init", export.graph, "--data", "rows.jsonl", "--out", out, "--quiet"]);
    command.args(["--ranks", "uniform", "--rank", &RANK.to_string(), "--rho", "1", "--tau", "1"]);
    command.args(["--batch-size", "2", "--device", "cpu", "--capture", capture, "--target-modules", ".*"]);
    command.args(exclude.iter().flat_map(|names| ["--exclude-modules", names]));
    if export.names != Names::All {
        command.arg("--checkpoint").arg(export.checkpoint());
    }
    eva::run(&mut command).unwrap_or_else(|message| panic!("{}: {message}", export.folder));
    let adapter = read_a(&dir.join(out));
    for (module, a) in &adapter {
        let missed = missed(a.view(), &inputs[module]);
        within(missed, export.precision.tolerance(), &format!("{}/{}: {module}", export.folder, export.graph));
    }
    adapter.len()
}

/// Puts the adapter that `init` wrote into the graph, as branches and merged: two cells of the table.
///
/// Where a layer has no place for a branch, all but those layers get one.
fn splice(export: &Export, dir: &Path, linears: &[Value]) -> [String; 2] {
    let run = |adapter: &str, form: &str, out: &str| {
        let mut command = eva::eva();
        command.current_dir(dir).args(["splice", export.graph, adapter, "--as", form, "--out", out]);
        if export.names != Names::All {
            command.arg("--checkpoint").arg(export.checkpoint());
        }
        eva::run(&mut command)
    };
    let merged = match run("outputs", "merged", "merged") {
        Ok(_) => "yes".to_owned(),
        Err(message) if message.contains("quantized anew") => "no, quantized".to_owned(),
        Err(message) => panic!("{}: {message}", export.folder),
    };

    let without_place: Vec<&Value> = linears.iter().filter(|linear| !linear["fused"].is_null()).collect();
    let spliced = run("outputs", "adapter-inputs", "spliced");
    let Some(first) = without_place.first() else {
        spliced.unwrap_or_else(|message| panic!("{}: {message}", export.folder));
        return ["yes".to_owned(), merged];
    };
    let reason = first["fused"].as_str().unwrap();
    assert!(spliced.is_err_and(|message| message.contains(reason)), "{}: {reason}", export.folder);
    let names = without_place.iter().flat_map(|linear| linear["modules"].as_array().unwrap());
    let names: BTreeSet<String> = names.map(|part| part["module"].as_str().unwrap().to_owned()).collect();
    let others = names.iter().map(|name| name.replace('.', "\\.")).collect::<Vec<_>>().join("|");
    init(export, dir, "outputs", Some(&others), "rest");
    run("rest", "adapter-inputs", "spliced").unwrap_or_else(|message| panic!("{}: {message}", export.folder));
    [format!("but for {} modules: {reason}", names.len()), merged]
}

/// The share of the variance that `a` misses of what as many exact directions hold, as far as the rows have any.
fn missed(a: ArrayView2<'_, f64>, rows: &Array2<f64>) -> f64 {
    let exact = support::exact(rows.view());
    let directions = a.nrows().min(rows.nrows() - 1);
    1.0 - exact.captured(a.slice_axis(Axis(0), (0..directions).into()))
}

#[test]
fn inspect_tells_what_is_in_the_way() {
    let listing = |folder: &str| {
        let export = EXPORTS.iter().find(|export| export.folder == folder).unwrap();
        let dir = export.unpacked();
        eva::run(eva::eva().arg("inspect").arg(dir.path().join(export.graph))).unwrap()
    };
    insta::assert_snapshot!("inspect_fused", listing("bert/attention"));
    insta::assert_snapshot!("inspect_unnamed", listing("llama/dynamo-slim"));
    insta::assert_snapshot!("inspect_sliced", listing("genai-phi3/fp32"));
}

#[test]
fn names_in_the_graph_are_right() {
    for export in EXPORTS {
        let dir = export.unpacked();
        let found = found(&export.inspect(&dir.path().join(export.graph), false));
        let mut truth = export.truth();
        match export.names {
            Names::All => {}
            Names::Confirmed(without) => truth.retain(|(_, node), _| !without.contains(&node.as_str())),
            Names::Lost => truth.clear(),
        }
        assert_eq!(found, truth, "{}/{}", export.folder, export.graph);
    }
}

#[test]
fn a_checkpoint_names_everything() {
    for export in EXPORTS {
        let dir = export.unpacked();
        let graph = dir.path().join(export.graph);
        assert_eq!(found(&export.inspect(&graph, true)), export.truth(), "{}/{}", export.folder, export.graph);
        let nodes = without_names(&graph);
        let renamed = export.truth().into_iter().map(|((scope, node), modules)| {
            let scope = scope.split_once('.').map(|(node, branch)| format!("{}.{branch}", nodes[node]));
            ((scope.unwrap_or_default(), nodes[&node].clone()), modules)
        });
        let document = export.inspect(&graph, true);
        assert_eq!(found(&document), renamed.collect(), "{}/{} without names", export.folder, export.graph);
        let by = |linear: &Value| linear["named_by"] == "checkpoint";
        assert!(document["linears"].as_array().unwrap().iter().all(by), "{}", export.folder);
    }
}

#[test]
fn the_table_of_the_documentation_is_what_happens() {
    let mut table = "| made by | inspect | init | splice | merged |\n|---|---|---|---|---|\n".to_owned();
    for export in EXPORTS {
        let dir = export.unpacked();
        let document = export.inspect(&dir.path().join(export.graph), export.names != Names::All);
        let layers = init(&export, dir.path(), "outputs", None, "outputs");
        assert_eq!(init(&export, dir.path(), "sketch", None, "sketch"), layers);
        let [branch, merged] = splice(&export, dir.path(), document["linears"].as_array().unwrap());
        let named = match (export.names, export.truth().len()) {
            (Names::All, all) => format!("{all} of {all} nodes"),
            (Names::Confirmed(without), all) => {
                format!("{} of {all} nodes, all with `--checkpoint`", all - without.len())
            }
            (Names::Lost, all) => format!("{all} of {all} nodes, with `--checkpoint`"),
        };
        let init = format!("{layers} modules, {}", export.precision.text());
        writeln!(table, "| {} | {named} | {init} | {branch} | {merged} |", export.made_by).unwrap();
    }
    let path = eva::root().join("docs/exporters.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (start, end) = ("<!-- generated by tests/it/exports.rs -->\n", "<!-- end -->\n");
    let (head, rest) = text.split_once(start).unwrap();
    let (old, tail) = rest.split_once(end).unwrap();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, format!("{head}{start}{table}{end}{tail}")).unwrap();
    } else {
        assert_eq!(old, table, "run `UPDATE_DOCS=1 cargo test --test it exports`");
    }
}
