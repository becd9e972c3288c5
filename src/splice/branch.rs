//! Low-rank branches beside linear layers: `y + scale (x A) B`.

use super::{Error, PREFIX, Site, a_name, b_name, scale_name};
use crate::adapter::AdapterModule;
use crate::dtype::DType;
use crate::linear::{Part, Slice};
use crate::onnx::{Attribute, Constant, Dim, Model, Node, Parameter, Patch, Takeover};
use std::collections::{HashMap, HashSet};

/// The edit that gives every site a branch whose `A` [in, rank], `B` [rank, out] and scale are initializers, named by
/// [`a_name`], [`b_name`] and [`scale_name`].
///
/// `A`, `B` and the products are 32-bit floats whatever the model computes in; what is added to the result has its type.
/// The result of a layer keeps its name, so
/// everything that reads it stays as it is; what the layer's own node produces gets a new one.
///
/// # Errors
/// [`Error::Spliced`] when the model has branches, [`Error::Fused`] when no tensor holds the result of a layer,
/// [`Error::Opset`] when its operators are too old.
pub fn trainable(model: &Model, sites: &[Site<'_>]) -> Result<Patch, Error> {
    let mut patch = Patch::default();
    for module in modules(sites) {
        patch.constants.push((a_name(&module.module), constant(module.a.t().iter(), module.a.t().dim())));
        let b = module.b();
        patch.constants.push((b_name(&module.module), constant(b.t().iter(), b.t().dim())));
        let scale = Constant::F32(Vec::new(), vec![module.scale() as f32]);
        patch.constants.push((scale_name(&module.module), scale));
    }
    branches(model, sites, true, patch)
}

/// The edit that gives every site a branch whose `A` and `B` are graph inputs, empty unless given: the model then
/// computes what it did before. The scale is part of `B`, as in [`parameters`](super::parameters).
///
/// Every module has a symbol of its own for its rank, because ONNX Runtime takes equal symbols for equal sizes.
///
/// # Errors
/// As for [`trainable`].
pub fn adapter_inputs(model: &Model, sites: &[Site<'_>]) -> Result<Patch, Error> {
    let mut patch = Patch::default();
    for (index, module) in modules(sites).into_iter().enumerate() {
        let (inside, outside) = (module.a.ncols() as i64, module.out_features as i64);
        let rank = || Dim::Symbol(format!("lora_rank_{index}"));
        let empty = |name: String, shape: Vec<Dim>, dims: Vec<i64>| {
            let default = Constant::F32(dims, Vec::new());
            Parameter { name, shape, default }
        };
        let name = &module.module;
        patch.parameters.push(empty(a_name(name), vec![Dim::Fixed(inside), rank()], vec![inside, 0]));
        patch.parameters.push(empty(b_name(name), vec![rank(), Dim::Fixed(outside)], vec![0, outside]));
    }
    branches(model, sites, false, patch)
}

/// The modules at the sites, each once.
fn modules<'a>(sites: &[Site<'a>]) -> Vec<&'a AdapterModule> {
    let mut seen = HashSet::new();
    let all = sites.iter().flat_map(|site| site.modules.iter().flatten().copied());
    all.filter(|module| seen.insert(module.module.as_str())).collect()
}

fn constant<'v>(values: impl Iterator<Item = &'v f32>, (rows, columns): (usize, usize)) -> Constant {
    Constant::F32(vec![rows as i64, columns as i64], values.copied().collect())
}

fn branches(model: &Model, sites: &[Site<'_>], scaled: bool, mut patch: Patch) -> Result<Patch, Error> {
    if model.metadata(super::KEY).is_some() {
        return Err(Error::Spliced);
    }
    if let Some((site, reason)) = sites.iter().find_map(|site| Some((site, site.linear.fused.clone()?))) {
        return Err(Error::Fused { module: site.name().to_owned(), reason });
    }
    let is_packed = |part: &Part| part.columns.is_some() || part.slice.is_some();
    let packed = sites.iter().any(|site| site.linear.modules.iter().any(is_packed));
    let needed = if packed { 11 } else { 7 };
    if model.opset() < needed {
        return Err(Error::Opset { opset: model.opset(), needed });
    }
    let mut calls: HashMap<&str, usize> = HashMap::new();
    for site in sites {
        let call = calls.entry(site.name()).or_default();
        *call += 1;
        let stem = match call {
            1 => format!("{PREFIX}{}", site.name()),
            call => format!("{PREFIX}{}#{call}", site.name()),
        };
        let branch = Branch { site, stem, nodes: Vec::new(), constants: Vec::new(), opset: model.opset(), scaled };
        let (takeover, constants) = branch.build();
        patch.takeovers.push(takeover);
        patch.constants.extend(constants);
    }
    Ok(patch)
}

/// The nodes of one site while they are being made.
struct Branch<'s> {
    site: &'s Site<'s>,
    /// Start of the names of its nodes and tensors.
    stem: String,
    nodes: Vec<Node>,
    constants: Vec<(String, Constant)>,
    opset: i64,
    scaled: bool,
}

impl<'s> Branch<'s> {
    fn build(mut self) -> (Takeover, Vec<(String, Constant)>) {
        let linear = self.site.linear;
        let raw = format!("{}/base", self.stem);
        let x =
            if linear.dtype == DType::F32 { linear.input.clone() } else { self.cast("x", &linear.input, DType::F32) };
        match linear.modules.iter().any(|part| part.columns.is_some()) {
            true => self.packed(&x, &raw, &linear.output),
            false => {
                let slice = linear.modules.first().and_then(|part| part.slice);
                let delta = self.site.modules.iter().flatten().next().map(|module| self.product(module, slice, &x));
                self.node("Add", "Add", &[&raw, &delta.unwrap_or_default()], &linear.output, Vec::new());
            }
        }
        let takeover = Takeover { scope: linear.scope.clone(), tensor: linear.output.clone(), raw, nodes: self.nodes };
        (takeover, self.constants)
    }

    /// `scale (x A) B` of a module, in the type of the sum.
    fn product(&mut self, module: &AdapterModule, slice: Option<Slice>, x: &str) -> String {
        let own = self.site.name() == module.module;
        let stem = if own { self.stem.clone() } else { format!("{}/{}", self.stem, module.module) };
        let tensor = |part: &str| format!("{stem}/{part}");
        let (down, up) = (tensor("down"), tensor("up"));
        let (a, mut b) = (a_name(&module.module), b_name(&module.module));
        if let Some(slice) = slice {
            b = self.columns_of(&b, slice, &stem);
        }
        self.push(tensor("MatMul_A"), "MatMul", &[x, &a], &down, Vec::new());
        self.push(tensor("MatMul_B"), "MatMul", &[&down, &b], &up, Vec::new());
        let mut delta = up;
        if self.scaled {
            let scale = scale_name(&module.module);
            self.push(tensor("Mul"), "Mul", &[&delta, &scale], &tensor("delta"), Vec::new());
            delta = tensor("delta");
        }
        let dtype = self.site.linear.dtype;
        if dtype == DType::F32 {
            return delta;
        }
        let narrow = tensor("cast_delta");
        self.push(
            tensor("Cast_delta"),
            "Cast",
            &[&delta],
            &narrow,
            vec![("to", Attribute::Int(dtype.to_onnx().into()))],
        );
        narrow
    }

    /// The columns of `B` whose output features the node computes.
    fn columns_of(&mut self, b: &str, slice: Slice, stem: &str) -> String {
        let part = |name: &str| format!("{stem}/{name}");
        let bounds = [("from", slice.start), ("to", slice.end), ("axis", 1)];
        let inputs: Vec<String> = [b.to_owned()].into_iter().chain(bounds.map(|(name, _)| part(name))).collect();
        let bounds = bounds.map(|(name, value)| (part(name), Constant::I64(vec![1], vec![value as i64])));
        self.constants.extend(bounds);
        let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
        self.push(part("Slice_B"), "Slice", &inputs, &part("B_part"), Vec::new());
        part("B_part")
    }

    /// Splits the result by module, adds to those that the adapter has, and joins it again.
    fn packed(&mut self, x: &str, base: &str, sum: &str) {
        let pieces = self.pieces();
        let sizes: Vec<i64> = pieces.iter().map(|(width, _)| *width as i64).collect();
        let names: Vec<String> = (0..pieces.len()).map(|index| format!("{}/part{index}", self.stem)).collect();
        let mut inputs = vec![base.to_owned()];
        let mut attributes = vec![("axis", Attribute::Int(-1))];
        if self.opset < 13 {
            attributes.push(("split", Attribute::Ints(sizes)));
        } else {
            let name = format!("{}/widths", self.stem);
            self.constants.push((name.clone(), Constant::I64(vec![sizes.len() as i64], sizes)));
            inputs.push(name);
        }
        let name = format!("{}/Split", self.stem);
        self.nodes.push(Node { name, op: "Split", inputs, outputs: names.clone(), attributes });
        let mut joined = Vec::new();
        for (index, ((_, module), part)) in pieces.into_iter().zip(names).enumerate() {
            let Some(module) = module else {
                joined.push(part);
                continue;
            };
            let delta = self.product(module, None, x);
            let result = format!("{part}_sum");
            self.node(&format!("Add{index}"), "Add", &[&part, &delta], &result, Vec::new());
            joined.push(result);
        }
        let joined: Vec<&str> = joined.iter().map(String::as_str).collect();
        self.node("Concat", "Concat", &joined, sum, vec![("axis", Attribute::Int(-1))]);
    }

    /// The columns of the result from left to right: how many, and the module of the adapter that they belong to.
    fn pieces(&self) -> Vec<(usize, Option<&'s AdapterModule>)> {
        let site = self.site;
        let linear = site.linear;
        let mut parts: Vec<_> = linear.modules.iter().zip(&site.modules).collect();
        parts.sort_by_key(|(part, _)| part.columns);
        let mut pieces = Vec::new();
        let mut at = 0;
        for (part, module) in parts {
            let (from, to) = part.columns.unwrap_or((0, linear.out_features));
            if from > at {
                pieces.push((from - at, None));
            }
            pieces.push((to - from, *module));
            at = to;
        }
        if linear.out_features > at {
            pieces.push((linear.out_features - at, None));
        }
        pieces
    }

    fn cast(&mut self, name: &str, tensor: &str, dtype: DType) -> String {
        let output = format!("{}/{name}", self.stem);
        self.node(
            &format!("Cast_{name}"),
            "Cast",
            &[tensor],
            &output,
            vec![("to", Attribute::Int(dtype.to_onnx().into()))],
        );
        output
    }

    fn node(&mut self, name: &str, op: &'static str, inputs: &[&str], output: &str, attributes: Attributes) {
        self.push(format!("{}/{name}", self.stem), op, inputs, output, attributes);
    }

    fn push(&mut self, name: String, op: &'static str, inputs: &[&str], output: &str, attributes: Attributes) {
        let inputs = inputs.iter().map(|input| (*input).to_owned()).collect();
        self.nodes.push(Node { name, op, inputs, outputs: vec![output.to_owned()], attributes });
    }
}

type Attributes = Vec<(&'static str, Attribute)>;
