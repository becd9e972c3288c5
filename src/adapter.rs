//! A LoRA adapter in memory: what formats read and write, and what goes into a graph.

use crate::linear::GraphNames;
use crate::linear::module::endings;
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
    /// With DoRA (Liu et al. 2024), the norm that the weights of each output feature get in the whole sum.
    pub magnitude: Option<Vec<f32>>,
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
    /// Linear modules of the model without an adapter.
    pub unadapted: Vec<String>,
}

impl Adapter {
    /// Largest rank of any module.
    pub fn max_rank(&self) -> usize {
        self.modules.iter().map(AdapterModule::rank).max().unwrap_or(0)
    }

    /// PEFT's `exclude_modules`: the modules without an adapter whose names end in the name of a module with one, which
    /// PEFT would adapt too.
    pub fn exclude_modules(&self) -> Vec<String> {
        let adapted: HashSet<&str> = self.modules.iter().map(|module| module.module.as_str()).collect();
        let is_reached = |name: &&String| endings(name).any(|ending| adapted.contains(ending));
        self.unadapted.iter().filter(is_reached).cloned().collect()
    }
}

/// The same adapter with one alpha for all modules: the ratio of the old scale and the new one is multiplied into `B`.
///
/// For readers that divide one alpha by the rank of each module, as llama.cpp does.
pub fn one_alpha(adapter: &Adapter) -> Adapter {
    // A module with an alpha of 0 gets a `B` of zeros.
    let scaled = adapter.modules.iter().filter(|module| module.alpha != 0.0);
    let largest = scaled.reduce(|most, module| if module.rank() > most.rank() { module } else { most });
    let alpha = largest.map_or(1.0, |module| module.alpha);
    with_scales(adapter, |module| alpha / module.rank() as f64)
}

/// The same adapter with one scale for all modules, that of the module with the largest rank; `B` takes the rest.
///
/// For readers that divide one alpha by one rank, as vLLM does.
pub fn one_scale(adapter: &Adapter) -> Adapter {
    let rank = adapter.max_rank();
    let largest = adapter.modules.iter().find(|module| module.rank() == rank);
    let scale = largest.map(AdapterModule::scale).filter(|scale| *scale != 0.0).unwrap_or(1.0);
    with_scales(adapter, |_| scale)
}

/// The same adapter with a scale of 1: for readers without alpha.
pub fn without_scale(adapter: &Adapter) -> Adapter {
    with_scales(adapter, |_| 1.0)
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
        module.b = module.b.take().map(|b| padded(&b, (module.out_features, rank)));
        module.a = padded(&module.a, (rank, module.a.ncols()));
        module.alpha = alpha;
    }
    let fan_in_fan_out = adapter.modules.iter().any(|module| module.fan_in_fan_out);
    uniform.modules.extend(missing.iter().map(|(module, inside, outside)| AdapterModule {
        module: module.clone(),
        a: Array2::zeros((rank, *inside)),
        out_features: *outside,
        b: None,
        alpha,
        fan_in_fan_out,
        magnitude: None,
    }));
    uniform
}

/// The same adapter with other scales; the ratio of the old scale and the new one is multiplied into `B`.
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

/// The matrix in the upper left corner of a larger one of zeros.
fn padded(matrix: &Array2<f32>, shape: (usize, usize)) -> Array2<f32> {
    let mut larger = Array2::zeros(shape);
    larger.slice_mut(s![..matrix.nrows(), ..matrix.ncols()]).assign(matrix);
    larger
}

/// What an adapter records of its base model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Base {
    /// `base_model_name_or_path` of PEFT.
    pub name: Option<String>,
    /// `task_type` of PEFT, for example `CAUSAL_LM`.
    pub task_type: Option<String>,
    /// The weights that the adapter is added to.
    pub weights: BaseWeights,
    /// The names of a graph by which the modules are called, if those are not the names of PyTorch.
    pub names: Option<GraphNames>,
}

/// The weights that an adapter is added to, where its matrices have rank r and the scale s.
///
/// PEFT changes the weights when it begins such an adapter, and again whenever it loads one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BaseWeights {
    /// Those of the base model.
    #[default]
    Original,
    /// Those less their best approximation of rank r (Meng et al. 2024, PiSSA).
    Pissa,
    /// Those less s times their projection on the span of their first r columns (Buyukakyuz 2024, OLoRA).
    Olora,
}

impl BaseWeights {
    /// The value of PEFT's `init_lora_weights`, if they are not the original ones.
    pub fn init(self) -> Option<&'static str> {
        match self {
            Self::Original => None,
            Self::Pissa => Some("pissa"),
            Self::Olora => Some("olora"),
        }
    }
}
