//! What was run, and which rows were seen.

use crate::adapter::Base;
use crate::calib::{BadRows, RowCounts, Shard};
use crate::capture::{CaptureMethod, Events};
use crate::eva::{Settings, Stop};
use crate::group::Grouping;
use crate::linear::GraphNames;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Options that decide how many rows are read, and not what is made of them.
const HOW_MANY: [&str; 2] = ["tau", "max_batches"];

/// Everything in a summary but the numbers of its groups.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// What was run.
    pub run: RunFacts,
    /// The parameters of the method.
    pub settings: Settings,
    /// What the adapter records of the base model.
    pub base: BaseFacts,
    /// The modules that get adapters, and their groups.
    pub grouping: Grouping,
    /// Names of the other linear modules of the model.
    pub untargeted: Vec<String>,
    /// Remarks on the names of the modules.
    pub notes: Vec<String>,
    /// The rows, in parts that were seen each by one run.
    pub parts: Vec<Part>,
}

/// What was run. Hashes are SHA-256 in hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunFacts {
    /// The path of the model, for reports.
    pub path: String,
    /// Hash of the model.
    pub model: String,
    /// Hash of the encoder that it reads from.
    pub encoder: Option<String>,
    /// Hash of the model that makes the embeddings which it reads.
    pub embed_tokens: Option<String>,
    /// Hash of the settings of its processor of pictures or sounds.
    pub processor: Option<String>,
    /// Hash of the tokenizer and its chat templates.
    pub tokenizer: Option<String>,
    /// How statistics were gathered.
    pub capture: CaptureMethod,
    /// Components followed in each group.
    pub components: usize,
    /// How rows become batches.
    pub options: Map<String, Value>,
}

/// What the adapter records of the base model.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseFacts {
    /// Its name.
    pub name: Option<String>,
    /// PEFT's task type.
    pub task_type: Option<String>,
    /// The names of the graph by which modules are called, if those are not the names of PyTorch.
    pub names: Option<GraphNames>,
}

impl From<&BaseFacts> for Base {
    fn from(facts: &BaseFacts) -> Self {
        let BaseFacts { name, task_type, names } = facts.clone();
        Self { name, task_type, names, ..Self::default() }
    }
}

/// Rows that one run has seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// Hash of all data.
    pub data: String,
    /// The files of the data.
    pub files: Vec<String>,
    /// Which of its rows were read.
    pub shard: Shard,
    /// Batches run.
    pub batches: usize,
    /// Tokens that are not padding.
    pub tokens_seen: usize,
    /// Tokens that entered the statistics.
    pub tokens_kept: usize,
    /// What became of the rows.
    pub rows: RowCounts,
    /// Rows that were passed over.
    pub bad_rows: BadRows,
    /// Fields of the rows that change nothing.
    pub unused: Vec<String>,
    /// Why the run ended.
    pub stopped_by: Stop,
    /// What happened on the way.
    pub events: Events,
    /// The devices.
    pub device: String,
    /// Version of ONNX Runtime.
    pub onnxruntime: String,
    /// Version of this program.
    pub version: String,
}

impl Part {
    /// What tells it from other parts of the same data, in the order of merging.
    pub(super) fn key(&self) -> (&str, usize, usize) {
        (&self.data, self.shard.count, self.shard.index)
    }

    /// The part as a message names it.
    pub(super) fn name(&self) -> String {
        format!("shard {} of data {} ({})", self.shard, &self.data[..8], self.files.join(", "))
    }
}

impl Facts {
    /// What differs from another run in the model, the options or the modules, in words; empty if nothing does that decides
    /// what is made of a row.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        self.differ(other, &HOW_MANY)
    }

    /// As [`differences`](Self::differences), and in which rows are read, and how many.
    pub fn differences_in_all(&self, other: &Self) -> Vec<String> {
        let mut found = self.differ(other, &[]);
        let data = |facts: &Self| facts.parts.iter().map(|part| part.data.clone()).collect::<Vec<_>>();
        found.extend((data(self) != data(other)).then(|| "the data".to_owned()));
        let shards = |facts: &Self| {
            let shards: Vec<_> = facts.parts.iter().map(|part| part.shard.to_string()).collect();
            shards.join(", ")
        };
        found.extend(
            (shards(self) != shards(other)).then(|| format!("--shard ({} and {})", shards(self), shards(other))),
        );
        found
    }

    fn differ(&self, other: &Self, but: &[&str]) -> Vec<String> {
        let (one, two) = (&self.run, &other.run);
        let modules = (&self.grouping, &self.untargeted) != (&other.grouping, &other.untargeted);
        let all = [
            (one.model != two.model, "the model"),
            (one.encoder != two.encoder, "the encoder"),
            (one.embed_tokens != two.embed_tokens, "the model of --embed-tokens"),
            (one.processor != two.processor, "the processor"),
            (one.tokenizer != two.tokenizer, "the tokenizer"),
            (one.capture != two.capture, "--capture"),
            (one.components != two.components, "the number of components"),
            (modules, "the modules"),
            (self.base != other.base, "the base model"),
        ];
        let mut found: Vec<_> =
            all.into_iter().filter(|(differs, _)| *differs).map(|(_, what)| what.to_owned()).collect();
        found.extend(options(&one.options, &two.options, but));
        found.extend(options(&fields(&self.settings), &fields(&other.settings), but));
        found
    }
}

/// The options whose values differ, as a user writes them.
fn options(one: &Map<String, Value>, other: &Map<String, Value>, but: &[&str]) -> Vec<String> {
    let names = one.keys().chain(other.keys().filter(|name| !one.contains_key(*name)));
    let differ = names.filter(|name| one.get(*name) != other.get(*name) && !but.contains(&name.as_str()));
    let text =
        |value: Option<&Value>| value.filter(|value| !value.is_null()).map_or("none".to_owned(), Value::to_string);
    let option =
        |name: &String| format!("--{} ({} and {})", name.replace('_', "-"), text(one.get(name)), text(other.get(name)));
    differ.map(option).collect()
}

/// The fields of something, by name.
pub(crate) fn fields(of: &impl Serialize) -> Map<String, Value> {
    match serde_json::to_value(of) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    }
}
