//! Programs that read adapters, and what each of them needs.

use crate::adapter::{self, Adapter, AdapterModule};
use crate::error::Error;
use crate::formats;
use crate::hub::config::ModelConfig;
use crate::hub::layout;
use crate::hub::llama_cpp::Layout;
use crate::output::model::MODEL;
use std::path::Path;

/// A program that reads adapters in its own way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reader {
    /// vLLM, which reads one rank and one alpha: the scale is the same for all modules.
    Vllm,
    /// TGI, LoRAX and SGLang, which need one rank, and every module of a kind.
    Tgi,
    /// llama.cpp, which reads a GGUF file with one alpha.
    LlamaCpp,
    /// mlx-lm, which has files of its own with one rank and one scale.
    Mlx,
    /// diffusers, which reads no alpha and takes it to be the rank.
    Diffusers {
        /// The part of the pipeline that the adapter is for, for example `unet`.
        component: String,
    },
}

/// Ranks that vLLM can be started with. Source: `MaxLoRARanks` in `vllm/config/lora.py` (0.14).
const VLLM_RANKS: [usize; 9] = [1, 8, 16, 32, 64, 128, 256, 320, 512];

impl Reader {
    /// Its name on the command line.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Vllm => "vllm",
            Self::Tgi => "tgi",
            Self::LlamaCpp => "llama.cpp",
            Self::Mlx => "mlx",
            Self::Diffusers { .. } => "diffusers",
        }
    }

    /// The adapter with the ranks and alphas that it needs; `missing` modules are added for a reader that needs all.
    pub(crate) fn adapted(&self, adapter: &Adapter, missing: &[(String, usize, usize)]) -> Adapter {
        match self {
            Self::Vllm if has_one_scale(adapter) => adapter.clone(),
            Self::Vllm => adapter::one_scale(adapter),
            Self::Tgi => adapter::uniform_rank(adapter, missing),
            Self::LlamaCpp => adapter::one_alpha(adapter),
            Self::Mlx => adapter::uniform_rank(adapter, &[]),
            // Some versions take alpha to be the rank of the first module.
            Self::Diffusers { .. } => adapter::without_scale(&adapter::uniform_rank(adapter, &[])),
        }
    }

    /// What its user should know, as a sentence.
    ///
    /// # Errors
    /// When it cannot be used with such ranks.
    pub(crate) fn advice(&self, adapter: &Adapter, output: &Path) -> Result<String, Error> {
        let (rank, output) = (adapter.max_rank(), output.display());
        Ok(match self {
            Self::Vllm => {
                let Some(most) = VLLM_RANKS.into_iter().find(|most| *most >= rank) else {
                    let hint = "make the adapter with a lower --rank or --rho";
                    return Err(Error::usage(
                        format!("vLLM takes ranks up to 512, and the largest is {rank}"),
                        Some(hint),
                    ));
                };
                format!("start vLLM with `--enable-lora --max-lora-rank {most} --lora-modules NAME={output}`")
            }
            Self::Tgi => format!("start TGI with `LORA_ADAPTERS=NAME={output}`"),
            Self::LlamaCpp => format!("start llama.cpp with `--lora {output}`"),
            Self::Mlx => format!("load it with `mlx_lm.generate --adapter-path {output}`"),
            Self::Diffusers { .. } => format!("load it with `pipeline.load_lora_weights(\"{output}\")`"),
        })
    }
}

fn has_one_scale(adapter: &Adapter) -> bool {
    let mut scales = adapter.modules.iter().map(AdapterModule::scale);
    let first = scales.next();
    scales.all(|scale| Some(scale) == first)
}

/// The layout in llama.cpp of the model at `path`: its ONNX file, or a folder with that or with its config.json.
///
/// # Errors
/// When nothing there describes a model whose layout is known.
pub(crate) fn llama_cpp(path: &Path) -> Result<Layout, Error> {
    let model = if path.join("config.json").is_file() { path.join(MODEL) } else { layout::model(path)?.model };
    let config = ModelConfig::read(&model, None);
    let unknown = || formats::Error::NoLayout { path: path.to_owned(), model_type: config.model_type.clone() };
    Ok(Layout::new(&config).ok_or_else(unknown)?)
}
