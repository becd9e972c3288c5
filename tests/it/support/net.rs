//! Small graphs, node by node.

use eva_onnx::linear::{Linear, Skipped, find};
use eva_onnx::onnx::Model;
use onnx_protobuf::attribute_proto::AttributeType;
use onnx_protobuf::{
    AttributeProto, GraphProto, Message, ModelProto, NodeProto, StringStringEntryProto, TensorProto, TypeProto,
    ValueInfoProto,
};

/// A model under construction; its tensors have no contents unless that matters.
#[derive(Default)]
pub struct Net {
    pub model: ModelProto,
    pub graph: GraphProto,
}

impl Net {
    pub fn stored(mut self, name: &str, dims: &[i64], data_type: i32) -> Self {
        let dims = dims.to_vec();
        self.graph.initializer.push(TensorProto { name: name.to_owned(), dims, data_type, ..Default::default() });
        self
    }

    pub fn weight(self, name: &str, dims: &[i64]) -> Self {
        self.stored(name, dims, 1)
    }

    /// A stored `f32` tensor with contents.
    pub fn values(mut self, name: &str, dims: &[i64], values: &[f32]) -> Self {
        let raw_data = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let (name, dims) = (name.to_owned(), dims.to_vec());
        self.graph.initializer.push(TensorProto { name, dims, data_type: 1, raw_data, ..Default::default() });
        self
    }

    /// A stored tensor with these bytes.
    pub fn bytes(mut self, name: &str, dims: &[i64], data_type: i32, raw_data: Vec<u8>) -> Self {
        let (name, dims) = (name.to_owned(), dims.to_vec());
        self.graph.initializer.push(TensorProto { name, dims, data_type, raw_data, ..Default::default() });
        self
    }

    /// `op` with its domain before a colon, `name`, inputs, outputs separated by spaces.
    pub fn node(mut self, op: &str, name: &str, inputs: &[&str], output: &str) -> Self {
        let (domain, op) = op.split_once(':').unwrap_or(("", op));
        self.graph.node.push(NodeProto {
            op_type: op.to_owned(),
            domain: domain.to_owned(),
            name: name.to_owned(),
            input: inputs.iter().map(|name| (*name).to_owned()).collect(),
            output: output.split(' ').map(str::to_owned).collect(),
            ..Default::default()
        });
        self
    }

    /// Adds an integer attribute to the last node.
    pub fn int(mut self, name: &str, value: i64) -> Self {
        let type_ = AttributeType::INT.into();
        let attribute = AttributeProto { name: name.to_owned(), i: value, type_, ..Default::default() };
        self.graph.node.last_mut().unwrap().attribute.push(attribute);
        self
    }

    /// Adds a float attribute to the last node.
    pub fn float(mut self, name: &str, value: f32) -> Self {
        let type_ = AttributeType::FLOAT.into();
        let attribute = AttributeProto { name: name.to_owned(), f: value, type_, ..Default::default() };
        self.graph.node.last_mut().unwrap().attribute.push(attribute);
        self
    }

    /// Adds a list of integers to the last node.
    pub fn ints(mut self, name: &str, values: &[i64]) -> Self {
        let (ints, type_) = (values.to_vec(), AttributeType::INTS.into());
        let attribute = AttributeProto { name: name.to_owned(), ints, type_, ..Default::default() };
        self.graph.node.last_mut().unwrap().attribute.push(attribute);
        self
    }

    /// Adds what the dynamo exporter records to the last node.
    pub fn traced(mut self, scope: &str, class: &str, placeholder: &str) -> Self {
        let entries = [
            ("pkg.torch.onnx.name_scopes", format!("['', '{scope}', 'linear']")),
            ("pkg.torch.onnx.class_hierarchy", format!("['a.Model', '{class}', 'aten.linear.default']")),
            ("pkg.torch.onnx.fx_node", format!("%linear : call_function[](args = (%x, %{placeholder}))")),
        ];
        let entry = |(key, value): (&str, String)| entry(key, &value);
        self.graph.node.last_mut().unwrap().metadata_props = entries.into_iter().map(entry).collect();
        self
    }

    pub fn output(mut self, name: &str) -> Self {
        self.graph.output.push(ValueInfoProto { name: name.to_owned(), ..Default::default() });
        self
    }

    /// Adds a graph input of a type given by its number, of unknown shape.
    pub fn input(mut self, name: &str, data_type: i32) -> Self {
        let mut kind = TypeProto::new();
        kind.mut_tensor_type().elem_type = data_type;
        let input = ValueInfoProto { name: name.to_owned(), type_: Some(kind).into(), ..Default::default() };
        self.graph.input.push(input);
        self
    }

    /// Adds a graph as an attribute to the last node.
    pub fn branch(mut self, name: &str, branch: Net) -> Self {
        let (g, type_) = (Some(branch.graph).into(), AttributeType::GRAPH.into());
        let attribute = AttributeProto { name: name.to_owned(), g, type_, ..Default::default() };
        self.graph.node.last_mut().unwrap().attribute.push(attribute);
        self
    }

    /// The model, in a file of its own folder.
    pub fn open(self) -> (tempfile::TempDir, Model) {
        let model = ModelProto { graph: Some(self.graph).into(), ir_version: 10, ..self.model };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.onnx");
        std::fs::write(&path, model.write_to_bytes().unwrap()).unwrap();
        let model = Model::open(&path).unwrap();
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

pub fn entry(key: &str, value: &str) -> StringStringEntryProto {
    StringStringEntryProto { key: key.to_owned(), value: value.to_owned(), ..Default::default() }
}

pub fn net() -> Net {
    Net::default()
}
