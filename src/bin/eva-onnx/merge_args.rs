//! The options of `merge`.

use super::init_args::{RanksArg, at_least_one, positive, unit};
use super::shared_args::{Dtype, MAX_RANK, MAX_THREADS, count};
use clap::Args;
use eva_onnx::options::{MergeOptions, Selection};
use eva_onnx::results::Base;
use std::path::PathBuf;

pub(crate) const MERGE_EXAMPLES: &str = "\
Examples:
  eva-onnx merge part-*.safetensors --out adapter
  eva-onnx merge part-*.safetensors --out-summary all.safetensors
  eva-onnx merge all.safetensors --rank 8 --rho 1 --out small
      ranks again, without the model
  eva-onnx merge all.safetensors more.safetensors --out adapter
      with rows of other data

Exit status: 0 done, 1 the summaries are at fault, 2 usage or environment.";

/// `merge`.
#[derive(Args, Debug)]
pub(crate) struct Merge {
    /// Summaries that `init --summary` or `merge --out-summary` wrote; their order does not matter
    #[arg(required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// LoRA rank r [default: as in `init`]
    #[arg(long, value_parser = count(1..=MAX_RANK), help_heading = "Method")]
    pub(crate) rank: Option<usize>,
    /// LoRA alpha at rank r [default: as in `init`]
    #[arg(long, value_parser = positive, help_heading = "Method")]
    pub(crate) alpha: Option<f64>,
    /// Largest rank of a module, as a multiple of r [default: as in `init`]
    #[arg(long, value_parser = at_least_one, help_heading = "Method")]
    pub(crate) rho: Option<f64>,
    /// |cosine| at which a component counts as converged in the report
    #[arg(long, default_value_t = 0.99, value_parser = unit, help_heading = "Method")]
    pub(crate) tau: f64,
    /// Smallest rank of a module [default: as in `init`]
    #[arg(long, value_parser = count(0..=MAX_RANK), help_heading = "Method")]
    pub(crate) min_rank: Option<usize>,
    /// How ranks are allocated [default: as in `init`]
    #[arg(long, value_enum, help_heading = "Method")]
    pub(crate) ranks: Option<RanksArg>,
    /// Divide every row of A by the square root of its singular value [default: as in `init`]
    #[arg(long, help_heading = "Method")]
    pub(crate) whiten: bool,
    /// Modules to adapt, of those in the summary: a list of name endings, or one regular expression for whole names
    #[arg(long, value_name = "NAMES", default_value = "all-linear", help_heading = "Layers")]
    pub(crate) target_modules: String,
    /// Modules to leave out: a list of name endings, or one regular expression for whole names
    #[arg(long, value_name = "NAMES", help_heading = "Layers")]
    pub(crate) exclude_modules: Option<String>,
    /// Go on without the parts that are missing, and name them
    #[arg(long, help_heading = "Data")]
    pub(crate) allow_missing: bool,
    /// Element type of the saved matrices
    #[arg(long, value_enum, default_value_t = Dtype::F32, help_heading = "Adapter")]
    pub(crate) dtype: Dtype,
    /// `base_model_name_or_path` in the adapter config [default: as in `init`]
    #[arg(long, value_name = "NAME", help_heading = "Adapter")]
    pub(crate) base_model: Option<String>,
    /// Number of threads, which does not change the result [default: number of cores]
    #[arg(long, value_name = "N", value_parser = count(1..=MAX_THREADS))]
    pub(crate) threads: Option<usize>,
    #[command(flatten)]
    pub(crate) output: MergeOutput,
}

/// What is written and printed.
#[derive(Args, Debug)]
#[command(next_help_heading = "Output")]
pub(crate) struct MergeOutput {
    /// Folder of the adapter; must not exist or be empty [default: adapter, or none with --out-summary]
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// File of the merged summary, which merges with others in turn
    #[arg(long, value_name = "FILE")]
    pub(crate) out_summary: Option<PathBuf>,
    /// Also write a page with the ranks, curves and notes; `report` makes it later
    #[arg(long, value_name = "FILE.html")]
    pub(crate) report: Option<PathBuf>,
    /// Replace what is there
    #[arg(long)]
    pub(crate) force: bool,
    /// Print eva.json instead of tables
    #[arg(long)]
    pub(crate) json: bool,
    /// Print nothing but errors
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

impl Merge {
    pub(crate) fn to_options(&self) -> MergeOptions {
        MergeOptions {
            rank: self.rank,
            alpha: self.alpha,
            rho: self.rho,
            tau: Some(self.tau),
            min_rank: self.min_rank,
            ranks: self.ranks.map(Into::into),
            whiten: self.whiten,
            selection: Selection {
                target_modules: self.target_modules.clone(),
                exclude_modules: self.exclude_modules.clone(),
            },
            base: Base { name: self.base_model.clone(), ..Base::default() },
            dtype: Some(self.dtype.into()),
            allow_missing: self.allow_missing,
            threads: self.threads.unwrap_or(0),
            command: Vec::new(),
        }
    }
}
