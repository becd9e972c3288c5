//! The options of `splice` and `convert`.

use super::shared_args::{AdapterOptions, Naming};
use clap::{Args, ValueEnum};
use eva_onnx::options::{ConvertOptions, Form, Inputs, Link, Reader, Scaling, SpliceOptions};
use eva_onnx::results::Base;
use std::path::PathBuf;

pub(crate) const SPLICE_EXAMPLES: &str = "\
Examples:
  eva-onnx splice model.onnx adapter --out trainable
      A and B as initializers: every layer y becomes y + scale (x A) B
  eva-onnx splice model.onnx adapter --as adapter-inputs --out served
      the model with and without the adapter, for ONNX Runtime's LoraAdapter
  eva-onnx splice model.onnx adapter --as merged --out merged
      the same graph with the adapter in its weights

Files with weights are copied; file systems that can clone a file (Btrfs, XFS) need no space for it.
Exit status: 0 done, 1 the input is at fault, 2 usage or environment.";

pub(crate) const CONVERT_EXAMPLES: &str = "\
Examples:
  eva-onnx convert adapter adapter.onnx_adapter
      for ONNX Runtime's LoraAdapter, beside a model made with `splice --as adapter-inputs`
  eva-onnx convert trained/model.onnx adapter
      A and B of a trained graph back to PEFT
  eva-onnx convert adapter adapter.gguf --model model.onnx
      for llama.cpp
  eva-onnx convert adapter served --for vllm

Exit status: 0 done, 1 the input is at fault, 2 usage or environment.";

/// `splice`.
#[derive(Args, Debug)]
pub(crate) struct Splice {
    /// The ONNX model: its file, a folder with one, or a folder with several (an encoder and its decoders), which each get
    /// the modules that they have
    pub(crate) model: PathBuf,
    /// The adapter: a PEFT folder or an .onnx_adapter file
    pub(crate) adapter: PathBuf,
    /// What the model becomes
    #[arg(long = "as", value_name = "FORM", value_enum, default_value_t = FormArg::Trainable)]
    pub(crate) form: FormArg,
    /// With --as adapter-inputs: A and B must be given, for runtimes that ignore values for optional inputs (ONNX Runtime
    /// for JavaScript); their values are also written to adapter.safetensors
    #[arg(long)]
    pub(crate) required_inputs: bool,
    /// Modules of the adapter to use: a list of name endings, or one regular expression for whole names [default: all]
    #[arg(long, value_name = "NAMES")]
    pub(crate) modules: Option<String>,
    #[command(flatten)]
    pub(crate) naming: Naming,
    /// Folder to write; must not exist or be empty
    #[arg(long, value_name = "DIR", help_heading = "Output")]
    pub(crate) out: PathBuf,
    /// Replace files of the same names in the output folder
    #[arg(long, help_heading = "Output")]
    pub(crate) force: bool,
    /// How the files with weights come into the output folder
    #[arg(long, value_name = "HOW", value_enum, default_value_t = LinkArg::Copy, help_heading = "Output")]
    pub(crate) link: LinkArg,
    /// Print one JSON document instead of a summary
    #[arg(long, help_heading = "Output")]
    pub(crate) json: bool,
}

impl Splice {
    pub(crate) fn to_options(&self) -> SpliceOptions {
        SpliceOptions {
            form: self.form.into(),
            modules: self.modules.clone(),
            inputs: if self.required_inputs { Inputs::Required } else { Inputs::Optional },
            naming: self.naming.to_options(),
            link: self.link.into(),
            force: self.force,
        }
    }
}

/// `convert`.
#[derive(Args, Debug)]
pub(crate) struct Convert {
    /// A PEFT folder, an .onnx_adapter file, a model that `splice` made trainable (trained or not), or the folder of a step
    /// graph
    pub(crate) input: PathBuf,
    /// An .onnx_adapter or .gguf file, or else a folder
    pub(crate) output: PathBuf,
    /// The program that reads the result, if it is not PEFT or ONNX Runtime
    #[arg(long = "for", value_name = "READER", value_enum, conflicts_with_all = ["uniform_rank", "one_alpha"])]
    pub(crate) reader: Option<ReaderArg>,
    /// The model that the adapter is for: with --uniform-rank and --for tgi, its modules that the adapter lacks are added,
    /// if the adapter has others of their kind; for a .gguf file, its config.json names the architecture
    #[arg(long, value_name = "MODEL")]
    pub(crate) model: Option<PathBuf>,
    /// With --for diffusers: the part of the pipeline that the adapter is for, for example unet
    #[arg(long, value_name = "NAME", requires = "reader")]
    pub(crate) component: Option<String>,
    /// Replace what is there
    #[arg(long)]
    pub(crate) force: bool,
    /// One rank for all modules, padded with zeros, and one alpha: for readers without `rank_pattern`
    #[arg(long)]
    pub(crate) uniform_rank: bool,
    /// One alpha for all modules; B takes the rest of the scale: for readers that ignore `alpha_pattern`
    #[arg(long, conflicts_with = "uniform_rank")]
    pub(crate) one_alpha: bool,
    /// The modules store their weights as [in, out] (GPT-2), which an .onnx_adapter file does not record
    #[arg(long)]
    pub(crate) fan_in_fan_out: bool,
    #[command(flatten)]
    pub(crate) naming: Naming,
    #[command(flatten)]
    pub(crate) adapter: AdapterOptions,
}

impl Convert {
    /// Whether the options make use of `--model`.
    pub(crate) fn uses_model(&self) -> bool {
        let is_gguf = self.output.extension().is_some_and(|extension| extension == "gguf");
        self.uniform_rank || self.reader == Some(ReaderArg::Tgi) || is_gguf
    }

    fn reader(&self) -> Option<Reader> {
        Some(match self.reader? {
            ReaderArg::Vllm => Reader::Vllm,
            ReaderArg::Tgi => Reader::Tgi,
            ReaderArg::LlamaCpp => Reader::LlamaCpp,
            ReaderArg::Mlx => Reader::Mlx,
            ReaderArg::Diffusers => Reader::Diffusers { component: self.component.clone().unwrap_or_default() },
        })
    }

    pub(crate) fn to_options(&self) -> ConvertOptions {
        ConvertOptions {
            reader: self.reader(),
            model: self.model.clone().map(|model| (model, self.naming.to_options())),
            scaling: self.scaling(),
            dtype: self.adapter.dtype.into(),
            base: Base { names: self.naming.to_options().names, ..self.adapter.base() },
            fan_in_fan_out: self.fan_in_fan_out,
            force: self.force,
        }
    }

    fn scaling(&self) -> Scaling {
        if self.uniform_rank {
            let complete = self.model.clone().map(|model| (model, self.naming.to_options()));
            Scaling::UniformRank { complete }
        } else if self.one_alpha {
            Scaling::OneAlpha
        } else {
            Scaling::PerModule
        }
    }
}

/// `--for`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReaderArg {
    /// vLLM: a PEFT folder with one scale
    Vllm,
    /// TGI, LoRAX and SGLang: a PEFT folder with one rank and all modules of a kind
    Tgi,
    /// llama.cpp: a .gguf file
    #[value(name = "llama.cpp")]
    LlamaCpp,
    /// mlx-lm: a folder of its own
    Mlx,
    /// diffusers: a folder with pytorch_lora_weights.safetensors
    Diffusers,
}

/// `--link`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LinkArg {
    /// Copies, cloned by the file system where it can
    Copy,
    /// Clones, which need no space; refused where the file system cannot make them (Btrfs, XFS and APFS can)
    Reflink,
    /// Hard links, which need no time and no space; the onnx package (from 1.21) refuses to load such files, those of
    /// the original model too
    Hard,
}

impl From<LinkArg> for Link {
    fn from(link: LinkArg) -> Self {
        match link {
            LinkArg::Copy => Link::Copy,
            LinkArg::Reflink => Link::Reflink,
            LinkArg::Hard => Link::Hard,
        }
    }
}

/// `--as`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FormArg {
    /// A and B are initializers; the weights stay as they are
    Trainable,
    /// A and B are optional inputs, with an .onnx_adapter file for them
    AdapterInputs,
    /// The weights include the adapter; the graph is that of the model
    Merged,
}

impl From<FormArg> for Form {
    fn from(form: FormArg) -> Self {
        match form {
            FormArg::Trainable => Form::Trainable,
            FormArg::AdapterInputs => Form::AdapterInputs,
            FormArg::Merged => Form::Merged,
        }
    }
}
