//! Modules with several names: `self.b = self.a`. PyTorch lists them by the first.

use crate::support::graph::{Net, net};
use eva_onnx::checkpoint::Checkpoint;
use eva_onnx::group::group;
use eva_onnx::linear::{Known, Layers, find_knowing};
use safetensors::tensor::{Dtype, TensorView, serialize_to_file};

/// A model with these parameters in PyTorch's order, and calls, each with the name used and the parameters read, as
/// dynamo records them: for a parameter with several names, the last.
fn called(parameters: &[&str], calls: &[(&str, &[&str])]) -> Net {
    let placeholder = |name: &str| format!("p_{}", name.replace('.', "_"));
    let lines: Vec<_> =
        parameters.iter().map(|name| format!("{}: PARAMETER target='{name}'", placeholder(name))).collect();
    let mut net = net().metadata("pkg.torch.export.ExportedProgram.graph_signature", &lines.join("\n"));
    for (at, (module, read)) in calls.iter().enumerate() {
        let weight = format!("val_{}", read[0]);
        if !net.graph.initializer.iter().any(|tensor| tensor.name == weight) {
            net = net.values(&weight, &[2, 2], &[1.0, 2.0, 3.0, at as f32]);
        }
        let read: Vec<_> = read.iter().map(|name| placeholder(name)).collect();
        net = net.node("MatMul", "", &[&format!("x{at}"), &weight], &format!("y{at}"));
        net = net.traced(module, "torch.nn.modules.linear.Linear", &read.join(", %"));
    }
    net
}

fn find(net: Net, checkpoint: Option<&Checkpoint>) -> Layers {
    let (_dir, model) = net.open();
    find_knowing(&model, &Known { checkpoint, ..Known::default() })
}

#[track_caller]
fn check(parameters: &[&str], calls: &[(&str, &[&str])], names: &[&str]) -> Layers {
    let layers = find(called(parameters, calls), None);
    let found = layers.linears.iter().map(|linear| linear.modules[0].module.as_str());
    assert_eq!(found.collect::<Vec<_>>(), names);
    layers
}

#[test]
fn calls_by_two_names_are_calls_of_one_module() {
    let layers = check(&["a.weight", "b.weight"], &[("b", &["b.weight"]), ("a", &["b.weight"])], &["a", "a"]);
    let note = "`a` shares its parameters with `b` and is taken for one module with several names, which PyTorch lists by \
                the first";
    assert_eq!(layers.notes, [note]);
    let grouping = group(layers.linears.iter().map(|linear| (linear, linear.modules.iter().collect())));
    assert_eq!(grouping.groups[0].tensors, ["x0", "x1"]);
    assert_eq!(grouping.modules.len(), 1);
}

#[test]
fn a_list_of_one_block() {
    let parameters = ["l.0.fc.weight", "l.0.fc.bias", "l.1.fc.weight", "l.1.fc.bias", "l.2.fc.weight", "l.2.fc.bias"];
    let last: &[&str] = &["l.2.fc.weight", "l.2.fc.bias"];
    let calls = [("l.0.fc", last), ("l.1.fc", last), ("l.2.fc", last)];
    check(&parameters, &calls, &["l.0.fc", "l.0.fc", "l.0.fc"]);
}

#[test]
fn modules_with_biases_of_their_own_are_several() {
    let parameters = ["a.weight", "a.bias", "b.weight", "b.bias"];
    let calls: [(&str, &[&str]); 2] = [("a", &["b.weight", "a.bias"]), ("b", &["b.weight", "b.bias"])];
    assert_eq!(check(&parameters, &calls, &["a", "b"]).notes, Vec::<String>::new());
}

#[test]
fn modules_with_one_name_stay_as_they_are() {
    let layers = check(&["a.weight", "b.weight"], &[("b", &["b.weight"]), ("a", &["a.weight"])], &["b", "a"]);
    assert_eq!(layers.notes, Vec::<String>::new());
}

/// Tools that save shared tensors once keep any of their names.
#[test]
fn the_checkpoint_may_have_another_name() {
    let dir = tempfile::tempdir().unwrap();
    let named = |name: &str, calls: &[(&str, &[&str])]| {
        let bytes: Vec<u8> = [1.0f32, 3.0, 2.0, 0.0].iter().flat_map(|value| value.to_le_bytes()).collect();
        let view = TensorView::new(Dtype::F32, vec![2, 2], &bytes).unwrap();
        serialize_to_file([(name, view)], None, &dir.path().join("model.safetensors")).unwrap();
        let checkpoint = Checkpoint::open(dir.path()).unwrap();
        let layers = find(called(&["z.weight", "a.weight"], calls), Some(&checkpoint));
        layers.linears.iter().map(|linear| linear.modules[0].module.clone()).collect::<Vec<_>>()
    };
    assert_eq!(named("a.weight", &[("z", &["a.weight"])]), ["z"]);
    assert_eq!(named("z.weight", &[("z", &["a.weight"])]), ["z"]);
    // The graph shows the second name only.
    assert_eq!(named("z.weight", &[("a", &["a.weight"])]), ["z"]);
}
