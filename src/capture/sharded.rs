//! Several devices: each gathers the statistics of its own batches, and in the end they are merged.

use super::error::Error;
use super::interface::{Capture, Events, Timing};
use super::saved::{decode, encode, ensure};
use super::shard::{Known, Shard};
use crate::calib::Batch;
use crate::group::Group;
use crate::parallel::map_each;
use crate::pca::{Spectrum, Summary, joint_similarity};
use crate::worker::Answer;
use ndarray::Array2;
use std::time::Instant;

/// Captures of the same groups, each on a thread of its own, which take batches in turn.
///
/// While batches run, the spectrum of a group is an estimate from those of the shards; [`finish`](Capture::finish)
/// merges the statistics themselves. A batch is handed out when the one before it on the same shard is done, and the
/// estimate then covers the batches up to that one, however far the other shards are.
pub struct Sharded {
    shards: Vec<Shard>,
    /// Tensors of every group, as text.
    tensors: Vec<String>,
    wanted: usize,
    threads: usize,
    batches: usize,
    spectra: Vec<Spectrum>,
    components: Vec<Array2<f64>>,
    merging: Timing,
}

/// The state of a capture, what was known of it, and what the batch that had ended since then made known.
type SavedShard = (Vec<u8>, Known, Option<Known>);

impl Sharded {
    /// Captures of `groups`, each with at most `components` components; merging uses `threads` threads.
    pub fn new(shards: Vec<Box<dyn Capture + Send>>, groups: &[Group], components: usize, threads: usize) -> Self {
        Self {
            shards: shards.into_iter().map(|capture| Shard::start(capture, groups.len())).collect(),
            tensors: groups.iter().map(|group| group.tensors.join("`, `")).collect(),
            wanted: components,
            threads,
            batches: 0,
            spectra: vec![Spectrum::default(); groups.len()],
            components: Vec::new(),
            merging: Timing::default(),
        }
    }

    /// The answers of all shards to the same job, which they do at the same time.
    fn ask_all<T: Send + 'static>(
        &self,
        job: impl Fn(&mut dyn Capture) -> Result<T, Error> + Clone + Send + 'static,
    ) -> Result<Vec<T>, Error> {
        let answers: Vec<_> = self.shards.iter().map(|shard| shard.ask(job.clone())).collect();
        answers.into_iter().map(Answer::wait).collect()
    }

    /// Merges the statistics of all shards and decomposes them.
    fn merge(&mut self) -> Result<(), Error> {
        let started = Instant::now();
        let groups: Vec<_> = self.tensors.iter().zip(self.summaries()?).collect();
        let merged = map_each(&groups, self.threads, |(tensor, summary)| {
            let failed = |source| Error::Decompose { tensor: (*tensor).clone(), source };
            summary.decompose(self.wanted).map_err(failed)
        })?;
        self.components.clear();
        for (spectrum, (merged, components)) in self.spectra.iter_mut().zip(merged) {
            *spectrum = Spectrum { similarity: std::mem::take(&mut spectrum.similarity), ..merged };
            self.components.push(components);
        }
        self.merging.decompose += started.elapsed();
        Ok(())
    }

    fn estimate(&mut self) {
        for (group, spectrum) in self.spectra.iter_mut().enumerate() {
            *spectrum = estimate(self.shards.iter().map(|shard| &shard.known.spectra[group]));
        }
    }
}

impl Capture for Sharded {
    fn absorb(&mut self, batch: &Batch) -> Result<(), Error> {
        if batch.kept() == 0 {
            return Ok(());
        }
        let (next, groups) = (self.batches % self.shards.len(), self.tensors.len());
        self.shards[next].wait()?;
        self.estimate();
        self.batches += 1;
        let (batch, number) = (batch.clone(), self.batches);
        let shard = &mut self.shards[next];
        shard.running = Some(shard.ask(move |capture| {
            capture.absorb(&batch).map_err(|error| in_batch(error, number))?;
            Ok(Known::of(capture, groups))
        }));
        Ok(())
    }

    fn finish(&mut self) -> Result<Events, Error> {
        let (oldest, groups) = (self.batches % self.shards.len(), self.tensors.len());
        let (newer, older) = self.shards.split_at_mut(oldest);
        older.iter_mut().chain(newer).try_for_each(Shard::wait)?;
        let finished = self.ask_all(move |capture| {
            let events = capture.finish()?;
            Ok((Known::of(capture, groups), events))
        })?;
        let (known, events): (Vec<_>, Vec<_>) = finished.into_iter().unzip();
        self.shards.iter_mut().zip(known).for_each(|(shard, known)| shard.known = known);
        self.estimate();

        self.merge()?;
        Ok(Events {
            split_batches: events.iter().map(|events| events.split_batches).sum(),
            reloaded_in_f32: events.iter().any(|events| events.reloaded_in_f32),
            counted_others: events.iter().any(|events| events.counted_others),
        })
    }

    fn spectrum(&self, group: usize) -> &Spectrum {
        &self.spectra[group]
    }

    fn components(&self) -> Result<Vec<Array2<f64>>, Error> {
        Ok(self.components.clone())
    }

    fn summaries(&self) -> Result<Vec<Summary>, Error> {
        let mut shards: Vec<_> = self.ask_all(|capture| capture.summaries())?.into_iter().map(Vec::into_iter).collect();
        let groups = std::iter::repeat_with(|| shards.iter_mut().filter_map(Iterator::next).collect::<Vec<_>>());
        Ok(groups.take(self.tensors.len()).map(|parts| Summary::merge(&parts)).collect())
    }

    fn save(&mut self) -> Result<Vec<u8>, Error> {
        let mut states = Vec::with_capacity(self.shards.len());
        for shard in &mut self.shards {
            let ended = shard.pause()?;
            let state = shard.ask(|capture| capture.save()).wait()?;
            states.push((state, &shard.known, ended));
        }
        encode(&(self.batches, states))
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), Error> {
        let (batches, states): Saved = decode(state)?;
        ensure(states.len() == self.shards.len(), "it has another number of devices")?;
        let groups = self.tensors.len();
        for (shard, (state, known, ended)) in self.shards.iter_mut().zip(states) {
            let of_groups = |known: &Known| known.spectra.len() == groups;
            ensure(of_groups(&known) && ended.as_ref().is_none_or(of_groups), "it has other groups")?;
            shard.ask(move |capture| capture.restore(&state)).wait()?;
            shard.known = known;
            shard.running = ended.map(|known| Answer::ready(Ok(known)));
        }
        self.batches = batches;
        self.estimate();
        Ok(())
    }

    fn wait(&mut self) -> Result<(), Error> {
        self.shards.iter_mut().try_for_each(|shard| shard.pause().map(drop))
    }

    /// Of the shard that took longest, and of merging.
    fn timing(&self) -> Timing {
        let shards = || self.shards.iter().map(|shard| shard.known.timing);
        let forward = shards().map(|timing| timing.forward).max().unwrap_or_default();
        let decompose = shards().map(|timing| timing.decompose).max().unwrap_or_default();
        Timing { forward, decompose: decompose + self.merging.decompose }
    }
}

/// What a state holds.
type Saved = (usize, Vec<SavedShard>);

/// Whether bytes are the state of several devices.
pub(super) fn is_state(bytes: &[u8]) -> bool {
    decode::<Saved>(bytes).is_ok()
}

/// The spectrum of one group, estimated from those of all shards. Variances are added as if all had the same
/// components.
fn estimate<'a>(shards: impl Iterator<Item = &'a Spectrum> + Clone) -> Spectrum {
    let longest = shards.clone().map(|shard| shard.singular_values.len()).max().unwrap_or(0);
    let squares =
        |j: usize| shards.clone().filter_map(move |shard| shard.singular_values.get(j)).map(|value| value * value);
    Spectrum {
        rows: shards.clone().map(|shard| shard.rows).sum(),
        total_variance: shards.clone().map(|shard| shard.total_variance).sum(),
        noise: shards.clone().map(|shard| shard.noise).sum(),
        singular_values: (0..longest).map(|j| squares(j).sum::<f64>().sqrt()).collect(),
        similarity: joint_similarity(shards),
    }
}

/// The error of a shard, which counts its own batches, with the number of the batch among all.
fn in_batch(error: Error, number: usize) -> Error {
    match error {
        Error::NotFinite { group, tensor, others, .. } => Error::NotFinite { group, tensor, batch: number, others },
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_estimate_weighs_rotations_by_rows() {
        let shard = |rows, singular_values: &[f64], angle: f64| Spectrum {
            rows,
            total_variance: 30.0,
            singular_values: singular_values.to_vec(),
            noise: 0.0,
            similarity: vec![angle.cos()],
        };
        let (a, b) = (shard(30, &[3.0, 1.0], 0.4), shard(10, &[4.0], 0.8));
        let both = estimate([&a, &b].into_iter());
        assert_eq!((both.rows, both.total_variance, both.singular_values), (40, 60.0, vec![5.0, 1.0]));
        // 3/4 of 0.4 is more than 1/4 of 0.8.
        assert!((both.similarity[0].acos() - 0.3).abs() < 1e-12, "{:?}", both.similarity);
        let none = Spectrum::default();
        let with_none = estimate([&a, &none].into_iter());
        assert!(with_none.similarity.is_empty() && with_none.rows == 30);
    }
}
