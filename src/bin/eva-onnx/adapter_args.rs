//! The command line of `splice` and `convert`.

use super::args::{AdapterOptions, Naming};
use clap::{Args, ValueEnum};
use std::path::PathBuf;

pub(crate) const SPLICE_EXAMPLES: &str = "\
Examples:
  eva-onnx splice model.onnx adapter --out trainable
      A and B as initializers: every layer y becomes y + scale (x A) B
  eva-onnx splice model.onnx adapter --ort-training --out training && python training/train.py --data rows.jsonl
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
  eva-onnx convert adapter padded --uniform-rank --model model.onnx

Exit status: 0 done, 1 the input is at fault, 2 usage or environment.";

/// `splice`.
#[derive(Args, Debug)]
pub(crate) struct Splice {
    /// The ONNX model
    pub model: PathBuf,
    /// The adapter: a folder of PEFT or an .onnx_adapter file
    pub adapter: PathBuf,
    /// Folder to write; must not exist or be empty
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Replace files of the same names in the output folder
    #[arg(long)]
    pub force: bool,
    /// How the files with weights come into the output folder
    #[arg(long, value_name = "HOW", value_enum, default_value_t = LinkArg::Copy)]
    pub link: LinkArg,
    /// What the model becomes
    #[arg(long = "as", value_name = "FORM", value_enum, default_value_t = FormArg::Trainable)]
    pub form: FormArg,
    /// Also put the loss into the graph and meet what ONNX Runtime Training 1.19.2 (its last release) asks for, with a
    /// manifest.json and a train.py to run; needs --as trainable
    #[arg(long)]
    pub ort_training: bool,
    /// With --ort-training: what the model is trained for [default: by the dimensions of its logits]
    #[arg(long, value_enum, requires = "ort_training")]
    pub loss: Option<LossArg>,
    #[command(flatten)]
    /// The names of the model.
    pub naming: Naming,
    /// Print one JSON document instead of a table
    #[arg(long)]
    pub json: bool,
}

/// How a file comes into another folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LinkArg {
    /// Copies, cloned by the file system where it can
    Copy,
    /// Hard links, which need no time and no space; the onnx package (from 1.21) refuses to load such files, those of
    /// the original model too
    Hard,
}

/// `convert`.
#[derive(Args, Debug)]
pub(crate) struct Convert {
    /// A folder of PEFT, an .onnx_adapter file, a model that `splice` made trainable, trained or not, or a checkpoint
    /// of ONNX Runtime Training
    pub input: PathBuf,
    /// An .onnx_adapter file, or else a folder for PEFT
    pub output: PathBuf,
    /// Replace what is there
    #[arg(long)]
    pub force: bool,
    /// One rank for all modules, filled up with zeros, and one alpha: for readers without `rank_pattern`
    #[arg(long)]
    pub uniform_rank: bool,
    /// With --uniform-rank: add modules of this model that the adapter leaves out, if it has others of their kind
    #[arg(long, value_name = "MODEL", requires = "uniform_rank")]
    pub model: Option<PathBuf>,
    #[command(flatten)]
    /// The names of the model.
    pub naming: Naming,
    /// One alpha for all modules, the rest of the scale in B: for llama.cpp, which ignores `alpha_pattern`
    #[arg(long, conflicts_with = "uniform_rank")]
    pub one_alpha: bool,
    /// The modules keep their weights as [in, out] (GPT-2); an .onnx_adapter file does not tell
    #[arg(long)]
    pub fan_in_fan_out: bool,
    #[command(flatten)]
    /// The files.
    pub adapter: AdapterOptions,
}

/// `--as`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FormArg {
    /// A and B are initializers, beside the untouched weights
    Trainable,
    /// A and B are inputs that may be left out, with an .onnx_adapter file for them
    AdapterInputs,
    /// The weights hold the product; the graph is that of the model
    Merged,
}

/// `--loss`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LossArg {
    /// Each position predicts the next token
    CausalLm,
    /// Each row has one class
    Classification,
}
