//! LoRA branches beside linear layers: `y + scale (x A) B`.

use super::error::Error;
use super::fit::{Site, check_not_in_function};
use super::names::{PREFIX, a_name, b_name, scale_name};
use super::record::KEY;
use crate::adapter::{Adapter, AdapterModule};
use crate::dtype::DType;
use crate::linear::{Linear, Part, Slice};
use crate::onnx::{Builder, Constant, Dim, Input, Model, Names, OptionalInput, Patch, Takeover};
use ndarray::Array2;
use std::collections::HashSet;

/// The edit that gives every site a branch whose `A` [in, rank], `B` [rank, out] and scale are initializers, named by
/// [`a_name`], [`b_name`] and [`scale_name`].
///
/// `A`, `B` and the products are 32-bit floats whatever the model computes in; what is added to the layer's result is
/// cast to its type. The result keeps its name, so everything that reads it stays as it is; the output of the layer's
/// own node gets a new name.
///
/// # Errors
/// As [`check_branches`].
pub fn trainable(model: &Model, sites: &[Site<'_>]) -> Result<Patch, Error> {
    let mut patch = Patch::default();
    for module in modules(sites) {
        patch.constants.push((a_name(&module.module), transposed(&module.a)));
        patch.constants.push((b_name(&module.module), transposed(&module.b())));
        patch.constants.push(scale(module));
    }
    add_branches(model, sites, Scale::Initializer, &mut patch)?;
    Ok(patch)
}

/// The edit that gives every site a branch that reads tensors called [`a_name`] [in, rank] and [`b_name`] [rank, out],
/// which are not part of the edit. The scale is part of the latter.
///
/// # Errors
/// As [`check_branches`].
pub(crate) fn branches(model: &Model, sites: &[Site<'_>]) -> Result<Patch, Error> {
    let mut patch = Patch::default();
    add_branches(model, sites, Scale::InB, &mut patch)?;
    Ok(patch)
}

/// Whether `A` and `B` may be left out when a model with them as inputs is run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Inputs {
    /// Without them the model computes what it did before.
    #[default]
    Optional,
    /// They must be given. Runtimes for JavaScript ignore what is given for an optional input.
    Required,
}

/// The edit that gives every site a branch whose `A` and `B` are graph inputs. Optional ones are empty by default, so that
/// the model computes what it did before. The scale is part of `B`, as in [`parameters`].
///
/// Every optional input has a symbol of its module for the rank, because ONNX Runtime takes equal symbols for equal
/// sizes; a required one has none.
///
/// # Errors
/// As [`check_branches`].
pub fn adapter_inputs(model: &Model, sites: &[Site<'_>], inputs: Inputs) -> Result<Patch, Error> {
    let mut patch = Patch::default();
    for (index, module) in modules(sites).into_iter().enumerate() {
        let in_features = module.a.ncols() as i64;
        let out_features = module.out_features as i64;
        if inputs == Inputs::Required {
            let required = |name, shape| Input { name, dtype: DType::F32, shape };
            patch.inputs.push(required(a_name(&module.module), vec![Some(in_features), None]));
            patch.inputs.push(required(b_name(&module.module), vec![None, Some(out_features)]));
            continue;
        }
        let rank = || Dim::Symbol(format!("lora_rank_{index}"));
        patch.optional_inputs.push(OptionalInput {
            name: a_name(&module.module),
            shape: vec![Dim::Fixed(in_features), rank()],
            default: Constant::F32(vec![in_features, 0], Vec::new()),
        });
        patch.optional_inputs.push(OptionalInput {
            name: b_name(&module.module),
            shape: vec![rank(), Dim::Fixed(out_features)],
            default: Constant::F32(vec![0, out_features], Vec::new()),
        });
    }
    add_branches(model, sites, Scale::InB, &mut patch)?;
    Ok(patch)
}

/// The values for the inputs of a graph of [`adapter_inputs`], by name: `A` [in, rank], and `B` [rank, out] times the
/// scale.
pub fn parameters(adapter: &Adapter) -> Vec<(String, Array2<f32>)> {
    let mut all = Vec::with_capacity(2 * adapter.modules.len());
    for module in &adapter.modules {
        let scale = module.scale() as f32;
        all.push((a_name(&module.module), module.a.t().to_owned()));
        all.push((b_name(&module.module), module.b().t().mapv(|value| value * scale)));
    }
    all
}

/// Checks that every layer that computes one of these modules can get a branch, which depends on the graph and the
/// names alone: it can be checked before there is an adapter.
///
/// # Errors
/// [`Error::Spliced`] when the model has branches, [`Error::InFunction`] when a layer is in a local function,
/// [`Error::Fused`] when no tensor holds the result of a layer, [`Error::Opset`] when the model's operator set is too
/// old.
pub fn check_branches<'n>(
    model: &Model,
    linears: &[Linear],
    modules: impl IntoIterator<Item = &'n str>,
) -> Result<(), Error> {
    let modules: HashSet<&str> = modules.into_iter().collect();
    let adapted = |linear: &&Linear| linear.modules.iter().any(|part| modules.contains(part.module.as_str()));
    check(model, linears.iter().filter(adapted), |part| modules.contains(part.module.as_str()))
}

/// Checks that the adapter has nothing but low-rank products.
///
/// # Errors
/// [`Error::Dora`].
pub fn check_products(sites: &[Site<'_>]) -> Result<(), Error> {
    match modules(sites).into_iter().find(|module| module.magnitude.is_some()) {
        Some(module) => Err(Error::Dora { module: module.module.clone() }),
        None => Ok(()),
    }
}

fn check<'l>(
    model: &Model,
    linears: impl Iterator<Item = &'l Linear>,
    is_adapted: impl Fn(&Part) -> bool,
) -> Result<(), Error> {
    if model.metadata(KEY).is_some() {
        return Err(Error::Spliced);
    }
    let mut needed = OLDEST_OPSET;
    for linear in linears {
        let module = linear.modules.iter().find(|part| is_adapted(part)).map_or("", |part| part.module.as_str());
        check_not_in_function(linear, module)?;
        if let Some(reason) = linear.output.fused {
            return Err(Error::Fused { module: module.to_owned(), reason });
        }
        if linear.modules.iter().any(|part| part.columns.is_some() || part.slice.is_some()) {
            needed = OLDEST_OPSET_OF_PARTS;
        }
    }
    if model.opset() < needed {
        return Err(Error::Opset { opset: model.opset(), needed });
    }
    Ok(())
}

/// The operator set in which `Add` and `Mul` broadcast.
const OLDEST_OPSET: i64 = 7;
/// The operator set in which `Split` and `Concat` take negative axes.
const OLDEST_OPSET_OF_PARTS: i64 = 11;

/// The modules at the sites, each once.
fn modules<'a>(sites: &[Site<'a>]) -> Vec<&'a AdapterModule> {
    let mut seen = HashSet::new();
    let all = sites.iter().flat_map(|site| site.modules.iter().flatten().copied());
    all.filter(|module| seen.insert(module.module.as_str())).collect()
}

fn scale(module: &AdapterModule) -> (String, Constant) {
    (scale_name(&module.module), Constant::scalar(module.scale() as f32))
}

fn transposed(matrix: &Array2<f32>) -> Constant {
    let (rows, columns) = matrix.t().dim();
    Constant::F32(vec![rows as i64, columns as i64], matrix.t().iter().copied().collect())
}

/// Where the scale of a module is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scale {
    /// In a tensor of its own.
    Initializer,
    /// Multiplied into `B`.
    InB,
}

fn add_branches(model: &Model, sites: &[Site<'_>], scale: Scale, patch: &mut Patch) -> Result<(), Error> {
    check_products(sites)?;
    let adapted: HashSet<&str> = modules(sites).into_iter().map(|module| module.module.as_str()).collect();
    check(model, sites.iter().map(|site| site.linear), |part| adapted.contains(part.module.as_str()))?;
    let mut stems = Names::default();
    for site in sites {
        let stem = stems.fresh(&format!("{PREFIX}{}", site.name()));
        let branch = Branch { site, scale, graph: Builder::new(stem, model.opset()) };
        let (takeover, constants) = branch.build();
        patch.takeovers.push(takeover);
        patch.constants.extend(constants);
    }
    Ok(())
}

/// The branch of one site while it is being made.
struct Branch<'s> {
    site: &'s Site<'s>,
    scale: Scale,
    graph: Builder,
}

impl<'s> Branch<'s> {
    fn build(mut self) -> (Takeover, Vec<(String, Constant)>) {
        let linear = self.site.linear;
        let base = self.graph.name("base");
        let x = self.input();
        if linear.modules.iter().any(|part| part.columns.is_some()) {
            self.add_by_columns(&x, &base);
        } else if let Some(module) = self.site.modules.iter().flatten().next() {
            let slice = linear.modules.first().and_then(|part| part.slice);
            let delta = self.delta(module, slice, &x);
            self.graph.op("Add", &[&base, &delta]).named("Add").to(&linear.output.tensor);
        }
        let (nodes, constants) = self.graph.finish();
        (
            Takeover { subgraph: linear.at.subgraph.clone(), tensor: linear.output.tensor.clone(), raw: base, nodes },
            constants,
        )
    }

    /// The layer's input in 32 bits.
    fn input(&mut self) -> String {
        let linear = self.site.linear;
        if linear.weight.dtype == DType::F32 {
            return linear.input.tensor.clone();
        }
        self.graph.cast(&linear.input.tensor, DType::F32).named("Cast_x").output("x")
    }

    /// `scale (x A) B` of a module, in the type of the layer's result.
    fn delta(&mut self, module: &AdapterModule, slice: Option<Slice>, x: &str) -> String {
        let is_first = self.site.name() == module.module;
        let part = |name: &str| if is_first { name.to_owned() } else { format!("{}/{name}", module.module) };
        let mut b = b_name(&module.module);
        if let Some(slice) = slice {
            b = self.columns_of(&b, slice, &part);
        }
        let down =
            self.graph.op("MatMul", &[x, &a_name(&module.module)]).named(&part("MatMul_A")).output(&part("down"));
        let mut delta = self.graph.op("MatMul", &[&down, &b]).named(&part("MatMul_B")).output(&part("up"));
        if self.scale == Scale::Initializer {
            let scale = scale_name(&module.module);
            delta = self.graph.op("Mul", &[&delta, &scale]).named(&part("Mul")).output(&part("delta"));
        }
        let dtype = self.site.linear.weight.dtype;
        if dtype == DType::F32 {
            return delta;
        }
        self.graph.cast(&delta, dtype).named(&part("Cast_delta")).output(&part("cast_delta"))
    }

    /// The columns of `B` whose output features the node computes.
    fn columns_of(&mut self, b: &str, slice: Slice, part: &impl Fn(&str) -> String) -> String {
        let graph = &mut self.graph;
        let from = graph.constant(&part("from"), Constant::ints(vec![slice.start as i64]));
        let to = graph.constant(&part("to"), Constant::ints(vec![slice.end as i64]));
        let axis = graph.constant(&part("axis"), Constant::ints(vec![1]));
        graph.op("Slice", &[b, &from, &to, &axis]).named(&part("Slice_B")).output(&part("B_part"))
    }

    /// Splits the result by module, adds to the columns of those that the adapter has, and joins them again.
    fn add_by_columns(&mut self, x: &str, base: &str) {
        let runs = self.runs();
        let sizes: Vec<i64> = runs.iter().map(|(width, _)| *width as i64).collect();
        let names: Vec<String> = (0..runs.len()).map(|index| self.graph.name(&format!("part{index}"))).collect();
        self.graph.split(base, -1, sizes, "widths").named("Split").outputs(names.clone());
        let mut joined = Vec::new();
        for (index, ((_, module), part)) in runs.into_iter().zip(names).enumerate() {
            let Some(module) = module else {
                joined.push(part);
                continue;
            };
            let delta = self.delta(module, None, x);
            let add = self.graph.op("Add", &[&part, &delta]).named(&format!("Add{index}"));
            joined.push(add.output(&format!("part{index}_sum")));
        }
        let joined: Vec<&str> = joined.iter().map(String::as_str).collect();
        self.graph.op("Concat", &joined).int("axis", -1).named("Concat").to(&self.site.linear.output.tensor);
    }

    /// The columns of the result from left to right: how many, and the module of the adapter that they belong to.
    fn runs(&self) -> Vec<(usize, Option<&'s AdapterModule>)> {
        let site = self.site;
        let out_features = site.linear.out_features;
        let mut parts: Vec<_> = site.linear.modules.iter().zip(&site.modules).collect();
        parts.sort_by_key(|(part, _)| part.columns);
        let mut runs = Vec::new();
        let mut at = 0;
        for (part, module) in parts {
            let (from, to) = part.columns.unwrap_or((0, out_features));
            if from > at {
                runs.push((from - at, None));
            }
            runs.push((to - from, *module));
            at = to;
        }
        if out_features > at {
            runs.push((out_features - at, None));
        }
        runs
    }
}
