//! The options of `init` for long runs and several machines.

use super::error::Failure;
use super::shared_args::{MAX_COUNT, count};
use clap::{Args, ValueEnum};
use eva_onnx::options::{BlockOptions, Blocks, CheckpointOptions, Shard, Split, shard};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Parts of a run, in time and on machines.
#[derive(Args, Debug)]
#[command(next_help_heading = "Long runs and several machines")]
pub(crate) struct Parts {
    /// Write what is known of the rows to this file, which `merge` makes an adapter of; no adapter is written unless --out
    /// is given. If it is there already, of the same run, nothing is run
    #[arg(long, value_name = "FILE")]
    pub(crate) summary: Option<PathBuf>,
    /// Run only part I of N of the rows, from 0; auto or auto/N asks Slurm, Kubernetes or HyperQueue. --tau is then 1
    /// unless it is given
    #[arg(long, value_name = "I/N", requires = "summary", conflicts_with_all = ["out", "emit"])]
    pub(crate) shard: Option<String>,
    /// Keep the state of the run after every N batches, and on Ctrl-C in place of an adapter
    #[arg(long, value_name = "N", value_parser = count(1..=MAX_COUNT))]
    pub(crate) checkpoint_every: Option<usize>,
    /// Go on from that state, if there is one; the result has the bytes of an uninterrupted run
    #[arg(long)]
    pub(crate) resume: bool,
    /// Run the model in blocks, one after the other, so that one at a time is in memory: their number, bytes of weights a
    /// block such as 200MB, or auto, which cuts only a model that does not fit. All batches are run
    #[arg(long, value_name = "N|BYTES|auto", conflicts_with_all = ["checkpoint_every", "checkpoint_file"])]
    pub(crate) blocks: Option<Blocks>,
    /// Write the hidden states between blocks, and the state after each block, to this folder instead of keeping them in
    /// memory; --resume goes on from there
    #[arg(long, value_name = "DIR", requires = "blocks")]
    pub(crate) spill: Option<PathBuf>,
    /// What several devices share
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = SplitArg::Rows)]
    pub(crate) split: SplitArg,
    /// File of the state [default: the output with .checkpoint after its name]
    #[arg(long, value_name = "FILE")]
    pub(crate) checkpoint_file: Option<PathBuf>,
}

/// `--split`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum SplitArg {
    /// The batches: each device has the whole model
    Rows,
    /// The layers: each device has a part of the model, and batches run through all of them
    Layers,
}

impl From<SplitArg> for Split {
    fn from(split: SplitArg) -> Self {
        match split {
            SplitArg::Rows => Self::Rows,
            SplitArg::Layers => Self::Layers,
        }
    }
}

/// A part of the rows, and the variable that says so if it is one.
type Found = (Shard, Option<&'static str>);

impl Parts {
    /// The part of the rows, and the variable that says so.
    pub(crate) fn shard(&self) -> Result<Option<Found>, Failure> {
        let variable = |name: &str| std::env::var(name).ok();
        Ok(self.shard.as_deref().map(|text| shard(text, &variable)).transpose()?)
    }

    /// Where the state of a run with this output is kept, if it is.
    pub(crate) fn checkpoints(&self, output: &Path) -> Option<CheckpointOptions> {
        let wanted = self.checkpoint_every.is_some() || self.resume;
        (wanted && self.blocks.is_none()).then(|| CheckpointOptions {
            file: self.checkpoint_file.clone().unwrap_or_else(|| beside(output)),
            every: self.checkpoint_every,
            resume: self.resume,
        })
    }

    /// How the model runs in blocks, if it does.
    pub(crate) fn blocks(&self) -> Result<Option<BlockOptions>, Failure> {
        let Some(blocks) = self.blocks else { return Ok(None) };
        if self.resume && self.spill.is_none() {
            return Err(Failure::usage(
                "--resume beside --blocks needs --spill, the folder with the state after each block",
            ));
        }
        Ok(Some(BlockOptions { blocks, spill: self.spill.clone(), resume: self.resume }))
    }
}

/// The checkpoint of an output.
fn beside(output: &Path) -> PathBuf {
    // `out/` is `out`.
    let output: PathBuf = output.components().collect();
    let mut name = OsString::from(output.file_name().unwrap_or_default());
    name.push(".checkpoint");
    output.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checkpoints_are_beside_the_output() {
        for (output, file) in [("a/b", "a/b.checkpoint"), ("out/", "out.checkpoint"), ("s.x", "s.x.checkpoint")] {
            assert_eq!(beside(Path::new(output)), Path::new(file));
        }
    }
}
