//! The model of an endpoint's batches: what their time depends on, and which size is best.
//!
//! Nothing is assumed of the model. Three lines predict the time of a batch: from its number of jobs, from
//! the sum of their sizes, and from the padded size (the number of jobs times the largest size). The one
//! with the smallest error holds. If it is the padded one, jobs of similar size are batched together. The
//! size of a job is its cost where that is known, else its pixels or its length in bytes.
//!
//! A full batch of mixed jobs nearly always has a large one, and shows nothing of its padding. So while the
//! time seems to depend on the number of jobs alone, there are trials now and then: batches of jobs of
//! similar size, and batches of half or twice the size. Trials that find nothing are repeated ever more
//! seldom.

use std::fmt;
use std::time::Duration;

use litplex_metrics::BatchLimit;

use crate::{Speed, fill};

/// The number of batches after which errors of predictions are compared.
const ENOUGH: u32 = 5;

/// The weight of a new error in the mean error.
const WEIGHT_OF_NEW: f64 = 0.05;

/// The part of the error of the line in use that the error of another one must be below to replace it.
const BETTER: f64 = 0.75;

/// The work of a batch, as far as it is known before it is computed.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct BatchWork {
    /// The number of jobs.
    pub jobs: usize,
    /// The largest size of a job.
    pub largest: f64,
    /// The sum of the sizes.
    pub sum: f64,
}

impl BatchWork {
    /// Returns the work of jobs with these sizes.
    pub fn of(sizes: impl IntoIterator<Item = f64>) -> Self {
        sizes.into_iter().fold(Self::default(), |work, size| Self {
            jobs: work.jobs + 1,
            largest: work.largest.max(size),
            sum: work.sum + size,
        })
    }

    /// Returns the size of the batch with each job padded to the largest.
    pub fn padded(&self) -> f64 {
        self.jobs as f64 * self.largest
    }
}

/// The basis on which the time of a batch depends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Basis {
    /// The number of its jobs.
    #[default]
    Jobs,
    /// The sum of the sizes of its jobs.
    Sum,
    /// The number of its jobs times the largest size.
    Padded,
}

impl Basis {
    /// Returns the word for it in metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Jobs => "requests",
            Self::Sum => "sum",
            Self::Padded => "padded",
        }
    }

    fn units(self, work: &BatchWork) -> f64 {
        match self {
            Self::Jobs => work.jobs as f64,
            Self::Sum => work.sum,
            Self::Padded => work.padded(),
        }
    }
}

/// The findings of an endpoint about its batches.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Learned {
    /// The basis on which the time of a batch depends.
    pub basis: Basis,
    /// The most jobs of a batch.
    pub most_jobs: usize,
    /// The mean error of predicted times, as a part of the time.
    pub error: f64,
    /// Whether the endpoint learns; otherwise its batches have the fixed basis.
    pub is_adaptive: bool,
}

impl fmt::Display for Learned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = (self.error * 100.0).round();
        f.write_str(match (self.is_adaptive, self.basis) {
            (false, Basis::Padded) => "requests of similar cost go together",
            (false, _) => "as full as they can be (`batch_policy`)",
            (true, Basis::Padded) => {
                "their time grows with the padded size, so requests of similar size go together"
            }
            (true, Basis::Sum) => "their time grows with the sum of the sizes of requests",
            (true, Basis::Jobs) => "their time does not depend on the sizes of requests",
        })?;
        if self.is_adaptive && self.basis == Basis::Jobs {
            write!(f, ", and at most {} go together", self.most_jobs)?;
        }
        write!(f, "; predicted within {percent} %")
    }
}

/// A line, and how well it has predicted.
#[derive(Debug, Clone, Copy, Default)]
struct Fit {
    speed: Speed,
    /// The mean error of predictions, as a part of the time.
    error: f64,
    predicted: u32,
}

impl Fit {
    fn observe(&mut self, units: f64, took: Duration) {
        if let Some(expected) = self.speed.time_of(units).filter(|_| !took.is_zero()) {
            let error = (expected.as_secs_f64() / took.as_secs_f64() - 1.0).abs().min(1.0);
            // A mean of all at first, so that no first value weighs more than others.
            let weight = WEIGHT_OF_NEW.max(1.0 / f64::from(self.predicted + 1));
            self.error += weight * (error - self.error);
            self.predicted = self.predicted.saturating_add(1);
        }
        self.speed.observe(units, took);
    }
}

/// The model of an endpoint's batches. It changes by observed batches alone.
#[derive(Debug, Clone, Default)]
pub struct BatchModel {
    by_jobs: Fit,
    by_sum: Fit,
    by_padded: Fit,
    basis: Basis,
    /// Whether the basis and the size of batches are learned.
    is_adaptive: bool,
    search: SizeSearch,
}

impl BatchModel {
    /// Returns a model that learns what the time of batches depends on, and which size is best.
    pub fn adaptive() -> Self {
        Self { is_adaptive: true, ..Self::default() }
    }

    /// Returns a model with a fixed basis, under which batches are as full as they can be, or grouped by
    /// cost if it is [`Basis::Padded`].
    pub fn fixed(basis: Basis) -> Self {
        Self { basis, ..Self::default() }
    }

    /// Adds an observation: a batch took this long.
    pub fn observe(&mut self, work: &BatchWork, max_jobs: usize, took: Duration) {
        for basis in [Basis::Jobs, Basis::Sum, Basis::Padded] {
            self.fit_mut(basis).observe(basis.units(work), took);
        }
        if !self.is_adaptive {
            return;
        }
        self.choose_basis();
        if self.basis == Basis::Jobs {
            self.search.observe(work.jobs, max_jobs, took);
        }
    }

    /// Returns whether the time of a batch is known.
    pub fn is_learned(&self) -> bool {
        self.by_jobs.speed.time_of(1.0).is_some()
    }

    fn choose_basis(&mut self) {
        if self.by_jobs.predicted < ENOUGH {
            return;
        }
        let error = |basis| self.fit(basis).error;
        let others = [Basis::Jobs, Basis::Sum, Basis::Padded];
        let best = others.into_iter().min_by(|a, b| error(*a).total_cmp(&error(*b)));
        if let Some(best) = best
            && error(best) < BETTER * error(self.basis)
        {
            self.basis = best;
            // A trial of the size belongs to the other basis.
            self.search = SizeSearch::default();
        }
    }

    fn fit(&self, basis: Basis) -> &Fit {
        match basis {
            Basis::Jobs => &self.by_jobs,
            Basis::Sum => &self.by_sum,
            Basis::Padded => &self.by_padded,
        }
    }

    fn fit_mut(&mut self, basis: Basis) -> &mut Fit {
        match basis {
            Basis::Jobs => &mut self.by_jobs,
            Basis::Sum => &mut self.by_sum,
            Basis::Padded => &mut self.by_padded,
        }
    }

    /// Returns what the time of a batch depends on.
    pub fn basis(&self) -> Basis {
        self.basis
    }

    /// Returns whether the next batch is chosen by the sizes of the jobs, and is not the first jobs of the
    /// queue.
    pub fn chooses(&self) -> bool {
        self.basis == Basis::Padded || self.search.tries_similar()
    }

    /// Returns the most jobs of the next batch.
    pub fn most_jobs(&self, max_jobs: usize) -> usize {
        match self.basis {
            Basis::Jobs => self.search.next(max_jobs),
            Basis::Sum | Basis::Padded => max_jobs,
        }
    }

    /// Returns what is learned, once predictions can be compared.
    pub fn learned(&self, max_jobs: usize) -> Option<Learned> {
        let Fit { error, predicted, .. } = *self.fit(self.basis);
        let (basis, is_adaptive) = (self.basis, self.is_adaptive);
        let most_jobs = match basis {
            Basis::Jobs => halved(max_jobs, self.search.halvings),
            Basis::Sum | Basis::Padded => max_jobs,
        };
        (predicted >= ENOUGH).then_some(Learned { basis, most_jobs, error, is_adaptive })
    }

    /// Returns what limits a batch with this work to its number of jobs, if others wait and it is not full.
    pub(crate) fn limit(&self, work: &BatchWork, max_size: Option<f64>) -> BatchLimit {
        let more = (work.jobs + 1) as f64 * work.largest;
        match self.basis {
            Basis::Padded if max_size.is_some_and(|most| more > most) => BatchLimit::Cost,
            Basis::Padded => BatchLimit::Padding,
            _ if self.search.is_trial() => BatchLimit::Trial,
            Basis::Jobs | Basis::Sum => BatchLimit::Size,
        }
    }

    /// Returns the expected time of a batch; `None` before the first observation.
    pub fn time_of(&self, work: &BatchWork) -> Option<Duration> {
        self.fit(self.basis).speed.time_of(self.basis.units(work))
    }

    /// Returns the next batch of jobs with these sizes, in the order of the queue: ascending positions,
    /// with the first job. Empty only without jobs. See [`fill`] for `max_size`.
    pub fn choose(&self, sizes: &[f64], max_jobs: usize, max_size: f64) -> Vec<usize> {
        match self.basis {
            Basis::Padded => {
                let overhead = self.by_padded.speed.overhead_in_units();
                fill(sizes, max_jobs, max_size, overhead)
            }
            Basis::Jobs if self.search.tries_similar() => {
                let mean = sizes.iter().sum::<f64>() / sizes.len().max(1) as f64;
                fill(sizes, self.search.next(max_jobs), f64::INFINITY, mean)
            }
            Basis::Jobs | Basis::Sum => (0..sizes.len().min(self.most_jobs(max_jobs))).collect(),
        }
    }
}

/// The number of full batches before the first trial of similar jobs, which costs nothing where they are alike.
const FIRST_SIMILAR: u32 = 2;

/// The interval of trials of another size, in full batches. A single fan-out has a few full batches, and gets
/// no trial.
const FIRST_INTERVAL: u32 = 8;
const LONGEST_INTERVAL: u32 = 1024;

/// The number of batches of a size that make a trial.
const TRIAL: u32 = 3;

/// The number of batches of similar jobs that make a trial. The line forgets more of a shorter one than it
/// learns.
const SIMILAR: u32 = 4;

/// The part of the time per job that another size must save.
const GAIN: f64 = 0.05;

/// The search for the number of jobs at which a job takes the least time. The sizes that are tried are the
/// maximum, its half, and so on.
#[derive(Debug, Clone, Default)]
struct SizeSearch {
    /// The number of times that the maximum is halved.
    halvings: u32,
    /// The mean time of a job at this size.
    per_job: Option<f64>,
    /// The full batches since the last trial.
    since: u32,
    /// Zero before the first trial.
    interval: u32,
    trial: Option<Trial>,
    /// The number of batches of similar jobs that are tried next.
    similar: u32,
    /// Whether the next trial is of a larger size.
    upwards: bool,
}

#[derive(Debug, Clone, Copy)]
struct Trial {
    halvings: u32,
    batches: u32,
    seconds: f64,
}

fn halved(max_jobs: usize, halvings: u32) -> usize {
    (max_jobs >> halvings).max(1)
}

impl SizeSearch {
    fn next(&self, max_jobs: usize) -> usize {
        halved(max_jobs, self.trial.map_or(self.halvings, |trial| trial.halvings))
    }

    fn tries_similar(&self) -> bool {
        self.similar > 0
    }

    fn is_trial(&self) -> bool {
        self.similar > 0 || self.trial.is_some()
    }

    fn observe(&mut self, jobs: usize, max_jobs: usize, took: Duration) {
        if max_jobs < 2 {
            return;
        }
        if self.similar > 0 {
            self.similar -= 1;
            return;
        }
        if jobs != self.next(max_jobs) {
            return;
        }
        let per_job = took.as_secs_f64() / jobs as f64;
        match self.trial.take() {
            Some(mut trial) => {
                trial.batches += 1;
                trial.seconds += per_job;
                if trial.batches < TRIAL {
                    self.trial = Some(trial);
                } else {
                    self.end(trial.halvings, trial.seconds / f64::from(TRIAL));
                }
            }
            None => self.count(per_job, max_jobs),
        }
    }

    fn count(&mut self, per_job: f64, max_jobs: usize) {
        let known = *self.per_job.get_or_insert(per_job);
        self.per_job = Some(known + 0.1 * (per_job - known));
        self.since += 1;
        if self.since < self.interval.max(FIRST_SIMILAR) {
            return;
        }
        self.since = 0;
        self.similar = SIMILAR;
        if self.interval == 0 {
            self.interval = FIRST_INTERVAL;
            return;
        }
        let can_halve = halved(max_jobs, self.halvings) > 1;
        let up = self.halvings > 0 && (self.upwards || !can_halve);
        if up || can_halve {
            let halvings = if up { self.halvings - 1 } else { self.halvings + 1 };
            self.trial = Some(Trial { halvings, batches: 0, seconds: 0.0 });
        }
        self.upwards = !self.upwards;
    }

    /// Ends a trial, in which a job took this many seconds.
    fn end(&mut self, halvings: u32, per_job: f64) {
        if self.per_job.is_some_and(|known| per_job < (1.0 - GAIN) * known) {
            let (upwards, interval) = (halvings < self.halvings, FIRST_SIMILAR);
            *self = Self { halvings, per_job: Some(per_job), upwards, interval, ..Self::default() };
        } else {
            self.interval = (self.interval * 2).min(LONGEST_INTERVAL);
        }
    }
}
