//! Files that say more than they hold: they are refused when they are opened, in time and memory of their own size.

use crate::support::graph::{BOOL, F16, F32, I64, Net, net};
use eva_onnx::dtype::DType;
use eva_onnx::feeds::{CacheShape, Feeds};
use eva_onnx::linear::find;
use eva_onnx::onnx::{Change, Constant, Edit, Graph, Input, Model, Node, Output, Patch, Takeover};
use std::fs;
use std::time::{Duration, Instant};

/// What opening a model says.
fn opening(bytes: &[u8]) -> Result<Model, String> {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("m.onnx"), bytes).unwrap();
    Model::open(dir.path().join("m.onnx")).map_err(|error| error.to_string())
}

#[track_caller]
fn refused(net: Net, message: &str) {
    let said = opening(&net.encoded()).err().unwrap();
    assert!(said.contains(message), "{said}");
}

#[test]
fn tensors_have_the_data_that_their_shapes_need() {
    let of = |dims: &[i64], kind, bytes: usize| net().bytes("w", dims, kind, vec![0; bytes]);
    refused(of(&[1 << 31, 2], F32, 8), "tensor `w` has 8 bytes of data where its shape and type need 17179869184");
    refused(of(&[1 << 40, 1 << 40], F32, 8), "tensor `w` has 8 bytes of data");
    refused(of(&[-1, 2], F32, 8), "tensor `w` has 8 bytes of data");
    refused(of(&[3], F16, 8), "tensor `w` has 8 bytes of data where its shape and type need 6");
    refused(of(&[2], I64, 0), "tensor `w` has 0 bytes of data where its shape and type need 16");
    for (dims, bytes) in [(&[][..], 4), (&[0], 0), (&[2, 0, 1 << 40], 0), (&[2], 8)] {
        assert!(opening(&of(dims, F32, bytes).encoded()).is_ok(), "{dims:?}");
    }
    let inner = net().bytes("w", &[2], F32, vec![0; 4]).node("Add", "", &["x", "w"], "y").output("y");
    refused(net().node("If", "if", &["c"], "y").branch("then_branch", inner), "tensor `w` has 4 bytes");
    let mut typed = of(&[3], F32, 0);
    typed.graph.initializer[0].float_data = vec![1.0, 2.0];
    refused(typed.clone(), "tensor `w` has 8 bytes of data where its shape and type need 12");
    typed.graph.initializer[0].float_data.push(3.0);
    assert!(opening(&typed.encoded()).is_ok());
}

#[test]
fn sizes_that_a_model_fixes_have_a_bound() {
    let plan = |inputs: &[(&str, i32, &[i64])]| {
        let net = inputs.iter().fold(net(), |net, (name, kind, shape)| net.shaped_input(name, *kind, shape));
        let model = opening(&net.encoded()).unwrap();
        Feeds::plan(&model.inputs(), CacheShape::default()).map(|_| ()).map_err(|error| error.to_string())
    };
    let large = |shape: &str| {
        Err(format!("the input `input_ids` has the fixed shape {shape}, larger than any batch that is run"))
    };
    assert_eq!(plan(&[("input_ids", I64, &[1 << 40, -1])]), large("[1099511627776, ?]"));
    assert_eq!(plan(&[("input_ids", I64, &[-1, 1 << 40])]), large("[?, 1099511627776]"));
    assert_eq!(plan(&[("input_ids", I64, &[1 << 15, 1 << 15])]), large("[32768, 32768]"));
    assert!(plan(&[("pixel_values", F32, &[-1, 3, 1 << 20, 1 << 20])]).is_err());
    assert_eq!(plan(&[("input_ids", I64, &[1, 131_072])]), Ok(()));
    let cache: &[i64] = &[1, 8, 1 << 30, 128];
    assert_eq!(plan(&[("input_ids", I64, &[1, -1]), ("past_key_values.0.key", F32, cache)]), Ok(()));
    let cache: &[i64] = &[-1, 1 << 30, 4, 1 << 30];
    assert_eq!(plan(&[("input_ids", I64, &[1, -1]), ("past_key_values.0.key", F32, cache)]), Ok(()));
}

/// Ten megabytes of nodes without anything would take a gigabyte.
#[test]
fn memory_is_bounded_by_the_file() {
    let nodes = [0x0a, 0].repeat(5 << 20);
    let mut length = nodes.len();
    let mut file = vec![0x08, 10, 0x3a];
    while length >= 0x80 {
        file.push(length as u8 | 0x80);
        length >>= 7;
    }
    file.push(length as u8);
    let said = opening(&[file, nodes].concat()).err().unwrap();
    assert!(said.contains("so many empty messages that they take over"), "{said}");
}

/// Far more than a walk that looks at all nodes for each node would allow.
const PATIENCE: Duration = Duration::from_secs(240);

#[test]
fn nodes_may_come_in_any_order_and_number() {
    const NODES: usize = 20_000;
    let started = Instant::now();
    let mut chain = net().shaped_input("x", F32, &[-1, 2]).weight("onnx::MatMul_1", &[2, 2]).output("0");
    for i in 0..NODES {
        let reads = if i + 1 == NODES { "x".to_owned() } else { (i + 1).to_string() };
        chain = chain.node("MatMul", &format!("/layers.{i}/fc/MatMul"), &[&reads, "onnx::MatMul_1"], &i.to_string());
    }
    let (_dir, model) = chain.open();
    let (linears, skipped) = find(&model, None);
    assert_eq!(linears.len() + skipped.len(), NODES);
    model.apply(&Patch { outputs: vec![Output { name: "1".to_owned(), dtype: None }], ..Patch::default() }).unwrap();
    assert!(started.elapsed() < PATIENCE, "{:?}", started.elapsed());
}

fn node(name: &str, input: &str, output: &str) -> Node {
    let (inputs, outputs) = (vec![input.to_owned()], vec![output.to_owned()]);
    Node { name: name.to_owned(), op: "Identity", inputs, outputs, attributes: Vec::new() }
}

#[test]
fn branches_may_be_many() {
    const BRANCHES: usize = 40_000;
    let started = Instant::now();
    let mut all = net().shaped_input("x0", F32, &[-1, 2]).shaped_input("switch", BOOL, &[1]);
    for i in 0..BRANCHES {
        let (read, made) = (format!("x{i}"), format!("x{}", i + 1));
        let branch = |op: &str| net().node(op, "", &[&read], &format!("{op}{i}")).output(&format!("{op}{i}"));
        all = all.node("If", &format!("if{i}"), &["switch"], &made);
        all = all.branch("then_branch", branch("Sin")).branch("else_branch", branch("Cos"));
    }
    let (_dir, model) = all.output(&format!("x{BRANCHES}")).open();
    assert_eq!(find(&model, None).0, []);
    let shape = vec![Some(1)];
    let patch = Patch {
        nodes: vec![node("eva/node", "eva/one", "eva/two")],
        constants: vec![("eva/one".to_owned(), Constant::scalar(1.0))],
        inputs: vec![Input { name: "eva/in".to_owned(), dtype: DType::F32, shape }],
        outputs: vec![Output { name: "eva/two".to_owned(), dtype: Some(DType::F32) }],
        ..Patch::default()
    };
    let running = model.assuming_false(&["switch"]).unwrap().unwrap();
    running.apply(&patch).unwrap();
    model.apply(&patch).unwrap();
    assert!(started.elapsed() < PATIENCE, "{:?}", started.elapsed());
}

/// More layers than the 48 times 128 experts of a large mixture have.
#[test]
fn layers_that_are_edited_may_be_many() {
    const LAYERS: usize = 50_000;
    let started = Instant::now();
    let mut chain = net().shaped_input("x0", F32, &[-1, 2]).weight("w", &[2, 2]);
    for i in 0..LAYERS {
        chain = chain.node("MatMul", &format!("fc{i}"), &[&format!("x{i}"), "w"], &format!("x{}", i + 1));
    }
    let (_dir, model) = chain.output(&format!("x{LAYERS}")).open();
    let takeover = |i: usize| Takeover {
        subgraph: Vec::new(),
        tensor: format!("x{i}"),
        raw: format!("raw{i}"),
        nodes: vec![
            node(&format!("down{i}"), &format!("raw{i}"), &format!("mid{i}")),
            node(&format!("up{i}"), &format!("mid{i}"), &format!("x{i}")),
        ],
    };
    let changed =
        |i: usize| Change { subgraph: Vec::new(), produces: format!("x{i}"), edit: Edit::Name(format!("renamed{i}")) };
    let (takeovers, changes) = ((1..=LAYERS).map(takeover).collect(), (1..=LAYERS).map(changed).collect());
    let edited = model.apply(&Patch { takeovers, changes, ..Patch::default() }).unwrap();
    let graph = Graph::new(&edited);
    let order: Vec<&str> = graph.nodes(0).map(|(_, node)| node.name()).take(4).collect();
    assert_eq!(order, ["renamed1", "down1", "up1", "renamed2"]);
    assert!(started.elapsed() < PATIENCE, "{:?}", started.elapsed());
}
