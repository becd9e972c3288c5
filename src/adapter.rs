//! A LoRA adapter as values: what the writers and the splicer take.

use ndarray::Array2;

/// The adapter of one module: `W + (alpha / rank) B A`, with `B` = 0.
#[derive(Clone, Debug, PartialEq)]
pub struct AdapterModule {
    /// Full PyTorch name.
    pub module: String,
    /// `A` [rank, in_features].
    pub a: Array2<f32>,
    /// Features of the output: `B` is [out_features, rank].
    pub out_features: usize,
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
}
