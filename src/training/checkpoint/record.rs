//! What the result of a training depends on.

use super::error::Difference;
use crate::calib::BatchSize;
use crate::eva::Settings;
use crate::init::DataOptions;
use crate::train::AdamW;
use crate::training::TrainSettings;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What the result depends on: the names of settings and inputs, and their values as text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record(BTreeMap<String, String>);

impl Record {
    /// The settings of a training, named as the options of the command line.
    pub(crate) fn of(settings: &TrainSettings, data: &DataOptions) -> Self {
        let mut record = Self::default();
        record.add_settings(settings);
        record.add_data(data);
        record
    }

    fn add_settings(&mut self, settings: &TrainSettings) {
        // What an evaluation or a check finds changes no parameter.
        let TrainSettings {
            epochs,
            steps,
            rate,
            schedule,
            warmup,
            accumulate,
            adamw,
            eval_every: _,
            // What it becomes depends on the model too.
            loss: _,
            check: _,
            recompute,
        } = settings;
        let AdamW { beta1, beta2, epsilon, weight_decay, clip } = adamw;
        match steps {
            Some(steps) => self.add("--steps", steps.to_string()),
            None => self.add("--epochs", epochs.to_string()),
        }
        self.add("--lr", rate.to_string());
        self.add("--schedule", schedule.as_str().to_owned());
        self.add("--warmup", warmup.to_string());
        self.add("--accumulate", accumulate.to_string());
        self.add("--weight-decay", weight_decay.to_string());
        self.add("--clip", clip.to_string());
        self.add("--recompute", recompute.as_str().to_owned());
        self.add("the constants of AdamW", format!("{beta1}, {beta2}, {epsilon}"));
    }

    /// Adds the settings by which the adapter is initialised.
    pub(crate) fn add_method(&mut self, method: &Settings) {
        let Settings { rank, alpha, rho, tau, min_rank, ranks, whiten } = method;
        self.add("--rank", rank.to_string());
        self.add("--alpha", alpha.to_string());
        self.add("--rho", rho.to_string());
        self.add("--tau", tau.to_string());
        self.add("--min-rank", min_rank.to_string());
        self.add("--ranks", format!("{ranks:?}").to_lowercase());
        self.add("--whiten", whiten.to_string());
    }

    fn add_data(&mut self, data: &DataOptions) {
        let batch = match data.batch_size {
            BatchSize::Rows(rows) => format!("{rows} rows"),
            BatchSize::Tokens(tokens) => format!("{tokens} tokens"),
        };
        self.add("the size of a batch", batch);
        self.add("--max-length", data.max_length.to_string());
        self.add("--completion-only", data.completion_only.to_string());
        self.add("the order of rows", format!("{:?}", data.order).to_lowercase());
        self.add("--seed", data.seed.to_string());
        let most = data.max_batches.map_or("none".to_owned(), |most| most.to_string());
        self.add("--max-batches", most);
    }

    /// Adds something that the result depends on.
    pub(crate) fn add(&mut self, setting: &str, value: String) {
        self.0.insert(setting.to_owned(), value);
    }

    /// What is not what it was at the time of `then`.
    pub(crate) fn differences(&self, then: &Self) -> Vec<Difference> {
        let mut names: Vec<&String> = then.0.keys().chain(self.0.keys()).collect();
        names.sort();
        names.dedup();
        let value = |record: &Self, name: &String| record.0.get(name).cloned().unwrap_or_else(|| "not set".to_owned());
        let difference = |name: &String| {
            let (then, now) = (value(then, name), value(self, name));
            (then != now).then(|| Difference { setting: name.clone(), then, now })
        };
        names.into_iter().filter_map(difference).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::error::listed;
    use super::*;

    #[test]
    fn differences_are_named() {
        let settings = TrainSettings { steps: Some(3), ..TrainSettings::default() };
        let mut then = Record::of(&settings, &DataOptions::default());
        let mut now = Record::of(&TrainSettings { rate: 0.5, ..settings }, &DataOptions::default());
        then.add("the rows", "1".to_owned());
        now.add("the rows", "2".to_owned());
        assert_eq!(listed(&now.differences(&then)), "--lr 0.0002, now 0.5; the rows");
        assert!(then.differences(&then).is_empty());
        let epochs = Record::of(&TrainSettings::default(), &DataOptions::default());
        let mut steps = Record::of(&settings, &DataOptions::default());
        steps.add("the order of rows", "kept".to_owned());
        let listed = listed(&steps.differences(&epochs));
        assert!(listed.starts_with("--epochs 1, now not set; --steps not set, now 3; the order of rows"), "{listed}");
    }
}
