//! Several devices: each gathers the statistics of its own batches, and in the end they are merged.

use super::{Capture, Error, Events, Timing};
use crate::calib::Batch;
use crate::group::Group;
use crate::parallel::map_each;
use crate::pca::{Spectrum, Summary};
use ndarray::Array2;
use std::panic::{self, AssertUnwindSafe};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;
use std::time::Instant;

/// Captures of the same groups, each on a thread of its own, which take batches in turn.
///
/// While batches run, what is known of a group is an estimate, joined from what each shard says of its own rows.
/// [`finish`](Capture::finish) merges the statistics themselves. Whatever the threads do meanwhile, a batch is handed
/// out when the one before it on the same shard is done, and what is known then is what the batches up to that one say.
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

type Job = Box<dyn FnOnce(&mut dyn Capture) + Send>;

/// What a shard answers when a job is done; a panic goes on in the thread that waits.
struct Answer<T>(Receiver<std::thread::Result<T>>);

/// One capture on its thread.
struct Shard {
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    running: Option<Answer<Result<Known, Error>>>,
    known: Known,
}

/// What a shard knows after its last batch.
struct Known {
    spectra: Vec<Spectrum>,
    timing: Timing,
}

impl Sharded {
    /// Captures of `groups`, of which `components` are wanted each; merging takes so many threads.
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

    /// What each shard answers, asked all at once.
    fn ask_all<T: Send + 'static>(
        &self,
        job: impl Fn(&mut dyn Capture) -> Result<T, Error> + Clone + Send + 'static,
    ) -> Result<Vec<T>, Error> {
        let answers: Vec<_> = self.shards.iter().map(|shard| shard.ask(job.clone())).collect();
        answers.into_iter().map(Answer::wait).collect()
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
        self.shards[next].settle()?;
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
        older.iter_mut().chain(newer).try_for_each(Shard::settle)?;
        let finished = self.ask_all(move |capture| {
            let events = capture.finish()?;
            Ok((Known::of(capture, groups), events))
        })?;
        let (known, events): (Vec<_>, Vec<_>) = finished.into_iter().unzip();
        self.shards.iter_mut().zip(known).for_each(|(shard, known)| shard.known = known);
        self.estimate();

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
        Ok(Events {
            split_batches: events.iter().map(|events| events.split_batches).sum(),
            reloaded_in_f32: events.iter().any(|events| events.reloaded_in_f32),
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

    /// Of the shard that took longest, and of merging.
    fn timing(&self) -> Timing {
        let shards = || self.shards.iter().map(|shard| shard.known.timing);
        let forward = shards().map(|timing| timing.forward).max().unwrap_or_default();
        let decompose = shards().map(|timing| timing.decompose).max().unwrap_or_default();
        Timing { forward, decompose: decompose + self.merging.decompose }
    }
}

impl Shard {
    fn start(mut capture: Box<dyn Capture + Send>, groups: usize) -> Self {
        let known = Known::of(&*capture, groups);
        let (jobs, queue) = mpsc::channel::<Job>();
        let thread = std::thread::spawn(move || queue.into_iter().for_each(|job| job(&mut *capture)));
        Self { jobs: Some(jobs), thread: Some(thread), running: None, known }
    }

    /// Sends a job; the answer comes when it is done.
    fn ask<T: Send + 'static>(&self, job: impl FnOnce(&mut dyn Capture) -> T + Send + 'static) -> Answer<T> {
        let (sender, answer) = mpsc::channel();
        let job: Job = Box::new(move |capture| {
            // Nobody waits for the answer when the run has failed elsewhere.
            let _ = sender.send(panic::catch_unwind(AssertUnwindSafe(|| job(capture))));
        });
        let sent = self.jobs.as_ref().map(|jobs| jobs.send(job));
        debug_assert!(matches!(sent, Some(Ok(()))), "the thread takes jobs as long as the shard lives");
        Answer(answer)
    }

    /// Waits for the batch that runs, if any.
    fn settle(&mut self) -> Result<(), Error> {
        if let Some(running) = self.running.take() {
            self.known = running.wait()?;
        }
        Ok(())
    }
}

impl Drop for Shard {
    fn drop(&mut self) {
        self.jobs = None;
        // Its panics were caught with the jobs.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

impl<T> Answer<T> {
    fn wait(self) -> T {
        match self.0.recv() {
            Ok(answer) => answer.unwrap_or_else(|panic| panic::resume_unwind(panic)),
            Err(_) => unreachable!("every job is answered"),
        }
    }
}

impl Known {
    fn of(capture: &dyn Capture, groups: usize) -> Self {
        Self { spectra: (0..groups).map(|group| capture.spectrum(group).clone()).collect(), timing: capture.timing() }
    }
}

/// What the spectra of all shards say about one group: variances add up as if all had the same directions. A batch that
/// turns the component of a shard turns that of all by as small a part of the angle as the shard has of the rows, for the
/// gaps between the eigenvalues of all are larger by that; the largest such angle counts.
fn estimate<'a>(shards: impl Iterator<Item = &'a Spectrum> + Clone) -> Spectrum {
    let longest = shards.clone().map(|shard| shard.singular_values.len()).max().unwrap_or(0);
    let shortest = shards.clone().map(|shard| shard.similarity.len()).min().unwrap_or(0);
    let squares =
        |j: usize| shards.clone().filter_map(move |shard| shard.singular_values.get(j)).map(|value| value * value);
    let rows: u64 = shards.clone().map(|shard| shard.rows).sum();
    let turned = |shard: &Spectrum, j: usize| (shard.similarity[j].acos() * shard.rows as f64 / rows as f64).cos();
    let similarity = |j: usize| shards.clone().map(|shard| turned(shard, j)).fold(1.0, f64::min);
    Spectrum {
        rows,
        total_variance: shards.clone().map(|shard| shard.total_variance).sum(),
        singular_values: (0..longest).map(|j| squares(j).sum::<f64>().sqrt()).collect(),
        similarity: (0..shortest).map(similarity).collect(),
    }
}

/// The error of a shard, which counts its own batches, with the number among all.
fn in_batch(error: Error, number: usize) -> Error {
    match error {
        Error::NotFinite { group, tensor, .. } => Error::NotFinite { group, tensor, batch: number },
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_estimate_weighs_what_turned_by_rows() {
        let shard = |rows, singular_values: &[f64], angle: f64| Spectrum {
            rows,
            total_variance: 30.0,
            singular_values: singular_values.to_vec(),
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
