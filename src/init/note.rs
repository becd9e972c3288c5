//! Remarks on a run.

use super::error::bytes;
use crate::pca::RANGE_APART;
use std::fmt;

/// Names that a note lists.
const SHOWN: usize = 6;

/// What the user of an adapter should know. `Display` is a sentence.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Note {
    /// Module names are in doubt, or the checkpoint and the graph disagree.
    Names(String),
    /// Fields of the rows that change nothing.
    UnusedFields {
        /// Their names.
        fields: Vec<String>,
    },
    /// Rows were at fault and passed over.
    BadRows {
        /// How many.
        count: usize,
        /// What is wrong with the first.
        first: String,
    },
    /// The model ran in blocks.
    Blocks {
        /// How many.
        blocks: usize,
        /// Bytes of the weights of the largest.
        largest: u64,
        /// Most bytes of hidden states at one time.
        states: u64,
        /// Whether they were in files.
        spilled: bool,
        /// Batches after which all components that were used had converged, if they did before the end.
        converged: Option<usize>,
    },
    /// The layers were divided among devices.
    Layers {
        /// The devices, and bytes of the weights of each.
        weights: Vec<(String, u64)>,
    },
    /// A run in blocks began anew, as a block found how batches must be split.
    Anew {
        /// The block, from 1, and all blocks.
        block: (usize, usize),
    },
    /// Blocks were allowed and not needed.
    Whole,
    /// Batches did not fit into the memory of the device and were split.
    SplitBatches {
        /// How many were split, halves that were split again included.
        count: usize,
    },
    /// The model was loaded a second time because 16-bit products overflowed or padding was not finite.
    Reloaded,
    /// A run went on with other threads than it began with.
    OtherThreads {
        /// Those that it began with.
        then: usize,
        /// Those that it ended with.
        now: usize,
    },
    /// The leading component of some modules is so strong that weak ones are approximate.
    WeakComponents {
        /// Modules concerned.
        modules: usize,
        /// All modules.
        of: usize,
        /// Largest ratio of singular values at which both components are found well.
        range: f64,
    },
    /// Modules behind a router counted rows of tokens that should not count, as they cannot be matched with tokens.
    RoutedTokens,
    /// Summaries were merged that lack rows.
    MissingRows {
        /// The parts that are in no file.
        parts: Vec<String>,
    },
    /// Rows of several data sets were merged.
    SeveralData {
        /// How many.
        count: usize,
    },
    /// Modules that no row reached have no adapter.
    NoRows {
        /// Their names.
        modules: Vec<String>,
    },
    /// Modules whose input is the same for all tokens, so that there are no components.
    NoVariance {
        /// Their names.
        modules: Vec<String>,
    },
    /// Modules whose inputs vary in fewer directions than the rank.
    FewDirections {
        /// Their names.
        modules: Vec<String>,
        /// All modules.
        of: usize,
        /// The rank.
        rank: usize,
        /// The fewest and the most directions among them.
        directions: (usize, usize),
    },
    /// Ranks were asked for where the data has no directions.
    ArbitraryRanks {
        /// How many.
        count: usize,
    },
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Names(text) => f.write_str(text),
            Self::UnusedFields { fields } => write!(
                f,
                "fields of the rows that nothing here or in the model reads: {}; --text-template puts fields into the text",
                listed(fields)
            ),
            Self::BadRows { count, first } => {
                let s = if *count == 1 { " was" } else { "s were" };
                write!(f, "{count} row{s} passed over; the first: {first}; eva.json lists up to 20")
            }
            Self::Blocks { blocks, largest, states, spilled, converged } => {
                let place = if *spilled { "written to files" } else { "kept in memory" };
                write!(
                    f,
                    "the model ran in {blocks} blocks of at most {} of weights; at most {} of hidden states were {place}",
                    bytes(*largest),
                    bytes(*states)
                )?;
                converged.map_or(Ok(()), |batches| {
                    write!(
                        f,
                        "; the components had converged after {batches} batches, where a run without blocks stops"
                    )
                })
            }
            Self::Layers { weights } => {
                let of_each = |(device, weights): &(String, u64)| format!("{device} had {}", bytes(*weights));
                let shares: Vec<String> = weights.iter().map(of_each).collect();
                write!(f, "the layers were divided among the devices: {} of weights", shares.join(", "))
            }
            Self::Anew { block: (block, of) } => write!(
                f,
                "block {block} of {of} found that batches must be split by the lengths of their rows: the run began anew \
                 with the first block"
            ),
            Self::Whole => f.write_str("the model fits, and was not cut into blocks"),
            Self::SplitBatches { count } => write!(
                f,
                "the device has too little memory for some batches: {count} were split in two; lower --batch-size or \
                 --batch-tokens"
            ),
            Self::Reloaded => f.write_str(
                "activations overflowed 16 bits, or padding was not finite: the model was loaded again with a slower \
                 sketch in 32 bits",
            ),
            Self::OtherThreads { then, now } => write!(
                f,
                "the run began with {then} threads and went on with {now}: ONNX Runtime rounds sums otherwise, and the last \
                 digits may not be those of a run that was never interrupted; --threads {then} keeps them"
            ),
            Self::WeakComponents { modules, of, range } => write!(
                f,
                "in {modules} of {of} modules the leading component is over {range} times as strong as the last one used; \
                 weak components there are approximate{}",
                if *range < RANGE_APART { "; on a CPU (--device cpu) they are exact up to 100000 times" } else { "" }
            ),
            Self::MissingRows { parts } => {
                write!(f, "rows are missing: {}", parts.join("; "))
            }
            Self::SeveralData { count } => {
                write!(f, "rows of {count} data sets are merged; rows that are in two of them count twice")
            }
            Self::RoutedTokens => f.write_str(
                "experts are calibrated on all rows that the router sends them, also those of prompts and other tokens \
                 that should not count: their rows cannot be matched with tokens",
            ),
            Self::NoRows { modules } => {
                let (count, shown) = (modules.len(), listed(modules));
                let (s, have) = if count == 1 { ("", "has") } else { ("s", "have") };
                write!(
                    f,
                    "{count} module{s} received no token of the calibration data and {have} no adapter ({shown}); more \
                     data may reach them"
                )
            }
            Self::NoVariance { modules } => {
                let (s, have) = if modules.len() == 1 { ("", "has") } else { ("s", "have") };
                write!(
                    f,
                    "{} module{s} always read the same input, to rounding, and {have} no component to start from ({})",
                    modules.len(),
                    listed(modules)
                )
            }
            Self::FewDirections { modules, of, rank, directions: (least, most) } => {
                let count = if least == most { least.to_string() } else { format!("{least} to {most}") };
                write!(
                    f,
                    "in {} of {of} modules the inputs vary in fewer directions than --rank {rank}, in {count} ({}): \
                     components beyond have no variance and get no ranks; more data, or more varied data, has more \
                     directions",
                    modules.len(),
                    listed(modules)
                )
            }
            Self::ArbitraryRanks { count } => write!(
                f,
                "{count} ranks that --min-rank or --ranks uniform ask for are beyond the directions of the data: these \
                 rows of A are arbitrary orthogonal vectors"
            ),
        }
    }
}

/// The first of some names.
fn listed(names: &[String]) -> String {
    let shown: Vec<String> = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect();
    let more = if names.len() > SHOWN { ", ..." } else { "" };
    shown.join(", ") + more
}
