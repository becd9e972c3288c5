//! The folder of an adapter that mlx-lm loads.
//!
//! `A` is [in, rank] and `B` [rank, out], with one rank and one scale. Source: `load_adapters` in `mlx_lm/tuner/utils.py`
//! and `mlx_lm/tuner/lora.py` (2026), which compare `keys` with whole names too.

use super::Error;
use super::tensors::{self, StoredTensor};
use crate::adapter::Adapter;
use crate::dtype::DType;
use crate::linear::module::{leaf, split_block};
use serde_json::json;

/// File name of the weights.
pub const WEIGHTS: &str = "adapters.safetensors";
/// File name of the config.
pub const CONFIG: &str = "adapter_config.json";

/// The weights file of an adapter whose modules have one rank and one alpha.
///
/// # Errors
/// [`Error::Overflow`] when a value is too large for `dtype`, [`Error::DType`] for types other than f32, f16 and bf16.
pub fn weights(adapter: &Adapter, dtype: DType) -> Result<Vec<u8>, Error> {
    let mut stored = Vec::with_capacity(2 * adapter.modules.len());
    for module in &adapter.modules {
        for (end, values) in [("lora_a", module.a.t().to_owned()), ("lora_b", module.b().t().to_owned())] {
            let values = values.as_standard_layout().to_owned();
            stored.push(StoredTensor::new(&module.module, format!("{}.{end}", module.module), &values, dtype)?);
        }
    }
    tensors::file(&stored, dtype, "mlx")
}

/// The config file of the same adapter.
pub fn config(adapter: &Adapter) -> String {
    let block = |module: &str| leaf(split_block(module).0).parse::<usize>().ok();
    let blocks = adapter.modules.iter().filter_map(|module| block(&module.module)).max().map_or(0, |last| last + 1);
    let first = adapter.modules.first();
    let config = json!({
        "fine_tune_type": "lora",
        "num_layers": blocks,
        "lora_parameters": {
            "rank": adapter.max_rank(),
            "scale": first.map_or(1.0, |module| module.scale()),
            "dropout": 0.0,
            "keys": adapter.modules.iter().map(|module| module.module.as_str()).collect::<Vec<_>>(),
        },
    });
    serde_json::to_string_pretty(&config).unwrap_or_default() + "\n"
}
