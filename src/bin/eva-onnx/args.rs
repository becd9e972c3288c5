//! The command line: the commands, and the options of `inspect`.

use super::adapter_args::{CONVERT_EXAMPLES, Convert, SPLICE_EXAMPLES, Splice};
use super::init_args::{INIT_EXAMPLES, Init};
use super::merge_args::{MERGE_EXAMPLES, Merge};
use super::shared_args::{Naming, Selection};
use super::train_args::{TRAIN_EXAMPLES, Train};
use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use eva_onnx::options::Blocks;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  eva-onnx inspect model.onnx
  eva-onnx init model.onnx --data calibration.jsonl
  eva-onnx init model.onnx --data a.jsonl --data b.jsonl --rank 32 --max-batches 50 --out adapter

Options may also come from the environment, `--batch-size 8` as EVA_ONNX_BATCH_SIZE=8, and from a file of `--config`.";

const COMPLETIONS_EXAMPLES: &str = "\
Examples:
  eva-onnx completions bash > ~/.local/share/bash-completion/completions/eva-onnx
  eva-onnx completions zsh > _eva-onnx      # in a folder of $fpath
  eva-onnx completions fish > ~/.config/fish/completions/eva-onnx.fish";

/// LoRA adapters initialised by EVA, from an exported ONNX model and calibration data.
#[derive(Debug, Parser)]
#[command(name = "eva-onnx", version, after_help = EXAMPLES, max_term_width = 110)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Log decisions to stderr; -vv logs more
    #[arg(long, short, action = ArgAction::Count, global = true, help_heading = "Output")]
    pub(crate) verbose: u8,
    /// Take options from this TOML file, by their names; for one command in a table such as [init]
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) config: Option<PathBuf>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the linear layers of a model and their PyTorch names, without running it
    Inspect(Inspect),
    /// Run calibration data through a model and write an EVA-initialised LoRA adapter
    #[command(after_help = INIT_EXAMPLES)]
    Init(Box<Init>),
    /// Make an adapter of what several runs of `init --summary` know, without running the model
    #[command(after_help = MERGE_EXAMPLES)]
    Merge(Box<Merge>),
    /// Say whether a LoRA adapter fits a model, without running anything; the exit status is 1 if it does not
    Check(Check),
    /// Train a LoRA adapter inside an ONNX model, without PyTorch
    #[command(after_help = TRAIN_EXAMPLES)]
    Train(Box<Train>),
    /// Put a LoRA adapter into a model: to train it, to feed it at run time, or merged into the weights
    #[command(after_help = SPLICE_EXAMPLES)]
    Splice(Splice),
    /// Convert an adapter between PEFT folders and .onnx_adapter files, or take it out of a spliced model
    #[command(after_help = CONVERT_EXAMPLES)]
    Convert(Convert),
    /// Show what init and train recorded: a heat map of the ranks, or a page with curves, notes and timings
    Report(Report),
    /// Say what is there to run models: ONNX Runtime, its devices, CUDA; the exit status is 2 if no model can run
    Doctor(Doctor),
    /// Print a script with which a shell completes commands and options
    #[command(after_help = COMPLETIONS_EXAMPLES)]
    Completions(Completions),
    /// Write the manual pages
    Man(Man),
}

/// `inspect`.
#[derive(Args, Debug)]
pub(crate) struct Inspect {
    /// The ONNX model: its file, or a folder with one
    pub(crate) model: PathBuf,
    #[command(flatten)]
    pub(crate) selection: Selection,
    /// Show the blocks that `init --blocks` runs instead of the layers: their number, bytes of weights a block such as
    /// 200MB, or auto
    #[arg(long, value_name = "N|BYTES|auto")]
    pub(crate) blocks: Option<Blocks>,
    /// Print one JSON document instead of a table
    #[arg(long, help_heading = "Output")]
    pub(crate) json: bool,
}

/// `check`.
#[derive(Args, Debug)]
pub(crate) struct Check {
    /// The ONNX model: its file, or a folder with one
    pub(crate) model: PathBuf,
    /// The adapter: a PEFT folder or an .onnx_adapter file
    pub(crate) adapter: PathBuf,
    #[command(flatten)]
    pub(crate) naming: Naming,
    /// Print one JSON document instead of a summary
    #[arg(long, help_heading = "Output")]
    pub(crate) json: bool,
}

/// `doctor`.
#[derive(Args, Debug)]
pub(crate) struct Doctor {
    /// The ONNX Runtime library, or its folder [default: search the usual places]
    #[arg(long, value_name = "PATH")]
    pub(crate) ort_lib: Option<PathBuf>,
    /// Print one JSON document instead of a summary
    #[arg(long, help_heading = "Output")]
    pub(crate) json: bool,
}

/// `completions`.
#[derive(Args, Debug)]
pub(crate) struct Completions {
    /// The shell
    pub(crate) shell: Shell,
}

/// `man`.
#[derive(Args, Debug)]
pub(crate) struct Man {
    /// Folder for the pages
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// Replace pages that are there
    #[arg(long)]
    pub(crate) force: bool,
}

/// `report`.
#[derive(Args, Debug)]
pub(crate) struct Report {
    /// The output folder of init or train, or an eva.json or train.json
    pub(crate) folder: PathBuf,
    /// Write one self-contained HTML page, instead of drawing in the terminal
    #[arg(long, value_name = "FILE")]
    pub(crate) html: Option<PathBuf>,
    /// Replace the page if it exists
    #[arg(long, requires = "html")]
    pub(crate) force: bool,
    /// Colours of the drawing
    #[arg(long, value_enum, default_value_t = ColorArg::Auto, conflicts_with = "html")]
    pub(crate) color: ColorArg,
}

/// `--color`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ColorArg {
    /// What the terminal says that it shows; none where stdout is none or NO_COLOR is set
    Auto,
    /// 24 bits
    Truecolor,
    /// 256 colours
    #[value(name = "256")]
    Ansi256,
    /// 16 colours
    #[value(name = "16")]
    Ansi16,
    /// No colours: a bar beside each rank
    None,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        let refused = [
            ("--rank", "0"),
            ("--rank", "65537"),
            ("--min-rank", "65537"),
            ("--rho", "0.5"),
            ("--tau", "0"),
            ("--tau", "1.5"),
            ("--alpha", "nan"),
            ("--threads", "0"),
            ("--threads", "1025"),
            ("--batch-size", "0"),
            ("--max-length", "-1"),
        ];
        for (flag, value) in refused {
            let value = format!("{flag}={value}");
            let parsed = Cli::try_parse_from(["eva-onnx", "init", "m.onnx", "--data", "d.jsonl", &value]);
            assert!(parsed.is_err(), "{value}");
        }
    }

    #[test]
    fn the_defaults_are_those_of_the_library() {
        let cli = Cli::try_parse_from(["eva-onnx", "init", "m.onnx", "--data", "d.jsonl"]).unwrap();
        let Command::Init(init) = cli.command else { panic!("not init") };
        let settings = eva_onnx::options::Settings { tau: init.statistics.tau(false), ..init.method.to_options() };
        assert_eq!(settings, eva_onnx::options::Settings::default());
        assert_eq!(init.data_options.to_options(), eva_onnx::options::DataOptions::default());
        assert_eq!(init.runtime.to_options(), eva_onnx::options::RuntimeOptions::default());
        assert_eq!(init.selection.to_options(), eva_onnx::options::Selection::default());
        assert_eq!(init.selection.naming.to_options(), eva_onnx::options::Naming::default());
    }
}
