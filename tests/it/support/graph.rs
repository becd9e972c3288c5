//! Small models, node by node.

use eva_onnx::dtype::DType;
use eva_onnx::linear::{Linear, Skipped, find};
use eva_onnx::onnx::{Graph, Model};
use onnx_protobuf::attribute_proto::AttributeType;
use onnx_protobuf::tensor_proto::DataLocation;
use onnx_protobuf::tensor_shape_proto::Dimension;
use onnx_protobuf::{
    AttributeProto, FunctionProto, GraphProto, Message, ModelProto, NodeProto, OperatorSetIdProto,
    StringStringEntryProto, TensorProto, TensorShapeProto, TypeProto, ValueInfoProto,
};
use std::path::Path;

/// Element types by their numbers in ONNX, written down apart from the table of the library.
pub const F32: i32 = 1;
pub const U8: i32 = 2;
pub const I8: i32 = 3;
pub const I32: i32 = 6;
pub const I64: i32 = 7;
pub const BOOL: i32 = 9;
pub const F16: i32 = 10;
pub const F64: i32 = 11;
pub const BF16: i32 = 16;

/// A model under construction; its tensors are zeros unless that matters.
#[derive(Clone)]
pub struct Net {
    pub model: ModelProto,
    pub graph: GraphProto,
}

/// An empty model with operator set 17 and those of ONNX Runtime.
pub fn net() -> Net {
    let model = ModelProto { ir_version: 10, ..Default::default() };
    Net { model, graph: GraphProto { name: "g".to_owned(), ..Default::default() } }.opset(17)
}

fn owned(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// Versions and metadata.
impl Net {
    pub fn opset(mut self, version: i64) -> Self {
        let set =
            |domain: &str, version| OperatorSetIdProto { domain: domain.to_owned(), version, ..Default::default() };
        self.model.opset_import = vec![set("", version), set("com.microsoft", 1)];
        self
    }

    pub fn ir_version(mut self, version: i64) -> Self {
        self.model.ir_version = version;
        self
    }

    pub fn producer(mut self, name: &str) -> Self {
        self.model.producer_name = name.to_owned();
        self
    }

    /// Adds an entry to the metadata of the graph.
    pub fn metadata(mut self, key: &str, value: &str) -> Self {
        self.graph.metadata_props.push(entry(key, value));
        self
    }

    /// Adds a local function whose body is the nodes of `body`.
    pub fn function(mut self, domain: &str, name: &str, inputs: &[&str], body: Net) -> Self {
        self.model.functions.push(FunctionProto {
            name: name.to_owned(),
            domain: domain.to_owned(),
            input: owned(inputs),
            node: body.graph.node,
            ..Default::default()
        });
        self
    }
}

/// Stored tensors.
impl Net {
    /// A tensor of zeros.
    pub fn stored(self, name: &str, dims: &[i64], data_type: i32) -> Self {
        let bits = DType::from_onnx(data_type).bits().unwrap_or(0) as i64;
        let bytes = (dims.iter().product::<i64>() * bits + 7) / 8;
        self.bytes(name, dims, data_type, vec![0; bytes as usize])
    }

    /// 32-bit floats, all zero.
    pub fn weight(self, name: &str, dims: &[i64]) -> Self {
        self.stored(name, dims, F32)
    }

    pub fn bytes(mut self, name: &str, dims: &[i64], data_type: i32, raw_data: Vec<u8>) -> Self {
        let (name, dims) = (name.to_owned(), dims.to_vec());
        self.graph.initializer.push(TensorProto { name, dims, data_type, raw_data, ..Default::default() });
        self
    }

    /// 32-bit floats in another file, which these entries describe.
    pub fn external(self, name: &str, dims: &[i64], entries: &[(&str, &str)]) -> Self {
        let mut net = self.weight(name, dims);
        let tensor = net.graph.initializer.last_mut().expect("the weight");
        tensor.raw_data = Vec::new();
        tensor.external_data = entries.iter().map(|(key, value)| entry(key, value)).collect();
        tensor.data_location = DataLocation::EXTERNAL.into();
        net
    }

    pub fn values(self, name: &str, dims: &[i64], values: &[f32]) -> Self {
        self.bytes(name, dims, F32, values.iter().flat_map(|value| value.to_le_bytes()).collect())
    }

    pub fn integers(self, name: &str, dims: &[i64], values: &[i64]) -> Self {
        self.bytes(name, dims, I64, values.iter().flat_map(|value| value.to_le_bytes()).collect())
    }

    /// Floats of any width, between -1 and 1.
    pub fn floats(self, name: &str, dims: &[i64], data_type: i32) -> Self {
        let values = pattern(dims.iter().product::<i64>() as usize).into_iter();
        let bytes = match data_type {
            F32 => values.flat_map(f32::to_le_bytes).collect(),
            F64 => values.flat_map(|value| f64::from(value).to_le_bytes()).collect(),
            F16 => values.flat_map(|value| half::f16::from_f32(value).to_le_bytes()).collect(),
            BF16 => values.flat_map(|value| half::bf16::from_f32(value).to_le_bytes()).collect(),
            other => panic!("{other} is no type of floats"),
        };
        self.bytes(name, dims, data_type, bytes)
    }
}

/// Inputs and outputs.
impl Net {
    /// A graph input of unknown shape.
    pub fn input(mut self, name: &str, data_type: i32) -> Self {
        self.graph.input.push(value(name, data_type, None));
        self
    }

    /// A graph input; a negative size is dynamic.
    pub fn shaped_input(mut self, name: &str, data_type: i32, shape: &[i64]) -> Self {
        self.graph.input.push(value(name, data_type, Some(shape)));
        self
    }

    /// A graph input whose sizes are numbers, or names of dynamic ones.
    pub fn named_input(self, name: &str, data_type: i32, shape: &[&str]) -> Self {
        let sizes: Vec<i64> = shape.iter().map(|size| size.parse().unwrap_or(-1)).collect();
        let mut net = self.shaped_input(name, data_type, &sizes);
        let input = net.graph.input.last_mut().expect("the input");
        let dims = &mut input.type_.mut_or_insert_default().mut_tensor_type().shape.mut_or_insert_default().dim;
        for (dim, size) in dims.iter_mut().zip(shape).filter(|(_, size)| size.parse::<i64>().is_err()) {
            dim.set_dim_param((*size).to_owned());
        }
        net
    }

    /// A graph output of unknown type.
    pub fn output(mut self, name: &str) -> Self {
        self.graph.output.push(ValueInfoProto { name: name.to_owned(), ..Default::default() });
        self
    }

    /// A graph output; a negative size is dynamic.
    pub fn shaped_output(mut self, name: &str, data_type: i32, shape: &[i64]) -> Self {
        self.graph.output.push(value(name, data_type, Some(shape)));
        self
    }

    /// The inferred shape of a tensor inside the graph.
    pub fn shape(mut self, name: &str, shape: &[i64]) -> Self {
        self.graph.value_info.push(value(name, F32, Some(shape)));
        self
    }
}

/// Nodes, and attributes of the last one.
impl Net {
    /// `op` with its domain before a colon, `name`, inputs, outputs separated by spaces.
    pub fn node(mut self, op: &str, name: &str, inputs: &[&str], outputs: &str) -> Self {
        let (domain, op) = op.split_once(':').unwrap_or(("", op));
        self.graph.node.push(NodeProto {
            op_type: op.to_owned(),
            domain: domain.to_owned(),
            name: name.to_owned(),
            input: owned(inputs),
            output: outputs.split(' ').map(str::to_owned).collect(),
            ..Default::default()
        });
        self
    }

    fn attribute(mut self, name: &str, attribute: AttributeProto) -> Self {
        let node = self.graph.node.last_mut().expect("a node before its attributes");
        node.attribute.push(AttributeProto { name: name.to_owned(), ..attribute });
        self
    }

    pub fn int(self, name: &str, i: i64) -> Self {
        self.attribute(name, AttributeProto { i, type_: AttributeType::INT.into(), ..Default::default() })
    }

    pub fn float(self, name: &str, f: f32) -> Self {
        self.attribute(name, AttributeProto { f, type_: AttributeType::FLOAT.into(), ..Default::default() })
    }

    pub fn ints(self, name: &str, values: &[i64]) -> Self {
        let ints = values.to_vec();
        self.attribute(name, AttributeProto { ints, type_: AttributeType::INTS.into(), ..Default::default() })
    }

    /// A graph.
    pub fn branch(self, name: &str, branch: Net) -> Self {
        let g = Some(branch.graph).into();
        self.attribute(name, AttributeProto { g, type_: AttributeType::GRAPH.into(), ..Default::default() })
    }

    /// What the dynamo exporter records.
    pub fn traced(mut self, scope: &str, class: &str, placeholder: &str) -> Self {
        let entries = [
            ("pkg.torch.onnx.name_scopes", format!("['', '{scope}', 'linear']")),
            ("pkg.torch.onnx.class_hierarchy", format!("['a.Model', '{class}', 'aten.linear.default']")),
            ("pkg.torch.onnx.fx_node", format!("%linear : call_function[](args = (%x, %{placeholder}))")),
        ];
        let node = self.graph.node.last_mut().expect("a node before its metadata");
        node.metadata_props = entries.iter().map(|(key, value)| entry(key, value)).collect();
        self
    }
}

/// The finished model, and what is found in it.
impl Net {
    pub fn encoded(self) -> Vec<u8> {
        ModelProto { graph: Some(self.graph).into(), ..self.model }.write_to_bytes().unwrap()
    }

    /// Writes the model to a file.
    pub fn save_as(self, path: &Path) {
        std::fs::write(path, self.encoded()).unwrap();
    }

    /// The model, in the file `m.onnx` of a folder.
    pub fn save(self, dir: &Path) -> Model {
        std::fs::write(dir.join("m.onnx"), self.encoded()).unwrap();
        Model::open(dir.join("m.onnx")).unwrap()
    }

    /// The model, in a folder of its own.
    pub fn open(self) -> (tempfile::TempDir, Model) {
        let dir = tempfile::tempdir().unwrap();
        let model = self.save(dir.path());
        (dir, model)
    }

    pub fn find(self, model_type: Option<&str>) -> (Vec<Linear>, Vec<Skipped>) {
        let (_dir, model) = self.open();
        find(&model, model_type)
    }

    /// Expects these modules, each with the source of its name, and this many skipped nodes.
    #[track_caller]
    pub fn check(self, modules: &[&str], skipped: usize) -> Vec<Linear> {
        let (linears, refused) = self.find(None);
        let named = |linear: &Linear| format!("{} by {}", linear.modules[0].module, linear.named_by.as_str());
        assert_eq!(linears.iter().map(named).collect::<Vec<_>>(), modules);
        assert_eq!(refused.len(), skipped, "{refused:?}");
        linears
    }

    /// Expects no layer and one skipped node with this reason.
    #[track_caller]
    pub fn refused(self, reason: &str) {
        let (linears, refused) = self.find(None);
        assert_eq!(linears, []);
        assert_eq!(refused.iter().map(|skipped| skipped.reason.to_string()).collect::<Vec<_>>(), [reason]);
    }
}

/// Numbers between -1 and 1 that repeat after 101.
pub fn pattern(count: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 37 + 11) % 101) as f32 / 50.0 - 1.0).collect()
}

/// The nodes of a model, one line each, those of subgraphs indented.
pub fn listing(model: &Model) -> String {
    let graph = Graph::new(model);
    let mut lines = Vec::new();
    for scope in 0..graph.scopes() {
        let indent = "  ".repeat(graph.path(scope).len());
        for (_, node) in graph.nodes(scope) {
            let (outputs, inputs) = (node.outputs().join(", "), node.inputs().join(", "));
            lines.push(format!("{indent}{outputs} = {}({inputs})", node.op()));
        }
    }
    lines.join("\n")
}

fn value(name: &str, data_type: i32, shape: Option<&[i64]>) -> ValueInfoProto {
    let dim = |size: &i64| {
        let mut dim = Dimension::new();
        if *size >= 0 {
            dim.set_dim_value(*size);
        }
        dim
    };
    let shape = shape.map(|shape| TensorShapeProto { dim: shape.iter().map(dim).collect(), ..Default::default() });
    let mut kind = TypeProto::new();
    kind.mut_tensor_type().elem_type = data_type;
    kind.mut_tensor_type().shape = shape.into();
    ValueInfoProto { name: name.to_owned(), type_: Some(kind).into(), ..Default::default() }
}

fn entry(key: &str, value: &str) -> StringStringEntryProto {
    StringStringEntryProto { key: key.to_owned(), value: value.to_owned(), ..Default::default() }
}
