//! A LoRA adapter as values: what the writers and the splicer take.

use ndarray::{Array2, s};
use std::collections::HashSet;

/// The adapter of one module: `W + (alpha / rank) B A`.
#[derive(Clone, Debug, PartialEq)]
pub struct AdapterModule {
    /// Full PyTorch name.
    pub module: String,
    /// `A` [rank, in_features].
    pub a: Array2<f32>,
    /// Features of the output.
    pub out_features: usize,
    /// `B` [out_features, rank]; `None` while it is zero everywhere.
    pub b: Option<Array2<f32>>,
    /// Numerator of the scale.
    pub alpha: f64,
    /// Whether the module keeps its weight as [in, out].
    pub fan_in_fan_out: bool,
}

impl AdapterModule {
    /// Rank of the adapter.
    pub fn rank(&self) -> usize {
        self.a.nrows()
    }

    /// What `B A` is multiplied by.
    pub fn scale(&self) -> f64 {
        self.alpha / self.rank() as f64
    }

    /// `B` [out_features, rank], zeros included.
    pub fn b(&self) -> Array2<f32> {
        self.b.clone().unwrap_or_else(|| Array2::zeros((self.out_features, self.rank())))
    }
}

/// The adapters of all modules with a rank above 0, in graph order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Adapter {
    /// The modules.
    pub modules: Vec<AdapterModule>,
    /// Other linear modules of the model, which name patterns must not reach.
    pub untouched: Vec<String>,
}

impl Adapter {
    /// Largest rank of any module.
    pub fn max_rank(&self) -> usize {
        self.modules.iter().map(AdapterModule::rank).max().unwrap_or(0)
    }

    /// The untouched modules whose names end in the name of a module with an adapter, so that PEFT would adapt them.
    pub fn reached(&self) -> Vec<String> {
        let adapted: HashSet<&str> = self.modules.iter().map(|module| module.module.as_str()).collect();
        let is_reached = |name: &&String| endings(name).any(|ending| adapted.contains(ending));
        self.untouched.iter().filter(is_reached).cloned().collect()
    }
}

/// The endings of a module's name that PEFT takes for the module too: what follows each dot, longest first.
pub(crate) fn endings(name: &str) -> impl Iterator<Item = &str> {
    name.match_indices('.').map(|(dot, _)| &name[dot + 1..])
}

/// The same adapter with one alpha for all modules: what each scale differs by goes into its `B`.
///
/// For readers that divide one alpha by the rank of each module, as llama.cpp does.
pub fn one_alpha(adapter: &Adapter) -> Adapter {
    let rank = adapter.max_rank();
    let largest = adapter.modules.iter().find(|module| module.rank() == rank);
    let alpha = largest.map_or(1.0, |module| module.alpha);
    with_scales(adapter, |module| alpha / module.rank() as f64)
}

/// The same adapter with one rank, one alpha and no module left out: `A` has more rows and `B` more columns of zeros,
/// and `missing` modules, given by name, input and output features, are zero everywhere.
///
/// For readers that know one rank, or take a kind of layer only if all its modules are there. Zeros stay zeros under
/// training, because each of the two gradients is a product with the other matrix.
pub fn uniform_rank(adapter: &Adapter, missing: &[(String, usize, usize)]) -> Adapter {
    let rank = adapter.max_rank();
    let scaled = one_alpha(adapter);
    let alpha = scaled.modules.first().map_or(1.0, |module| module.alpha);
    let mut uniform = with_scales(adapter, |_| alpha / rank as f64);
    for module in &mut uniform.modules {
        let mut a = Array2::zeros((rank, module.a.ncols()));
        a.slice_mut(s![..module.rank(), ..]).assign(&module.a);
        module.b = module.b.take().map(|old| {
            let mut b = Array2::zeros((module.out_features, rank));
            b.slice_mut(s![.., ..module.a.nrows()]).assign(&old);
            b
        });
        (module.a, module.alpha) = (a, alpha);
    }
    let fan_in_fan_out = adapter.modules.iter().any(|module| module.fan_in_fan_out);
    uniform.modules.extend(missing.iter().map(|(module, inside, outside)| AdapterModule {
        module: module.clone(),
        a: Array2::zeros((rank, *inside)),
        out_features: *outside,
        b: None,
        alpha,
        fan_in_fan_out,
    }));
    uniform
}

/// The same adapter with other scales; the quotient goes into `B`.
fn with_scales(adapter: &Adapter, scale: impl Fn(&AdapterModule) -> f64) -> Adapter {
    let mut adapter = adapter.clone();
    for module in &mut adapter.modules {
        let new = scale(module);
        let factor = (module.scale() / new) as f32;
        module.b = module.b.take().map(|b| b * factor);
        module.alpha = new * module.rank() as f64;
    }
    adapter
}

/// What an adapter says of the model it belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Base {
    /// `base_model_name_or_path` of PEFT.
    pub name: Option<String>,
    /// `task_type` of PEFT, one of its own.
    pub task_type: Option<String>,
}
