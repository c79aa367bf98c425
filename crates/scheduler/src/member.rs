use std::collections::VecDeque;
use std::time::Duration;

use litplex_core::{Done, Job, Traits, Worker};
use tokio::time::Instant;

use crate::handle::WorkerId;
use crate::{Load, Rules, ServiceTime, WorkerLoad, window};

/// One worker, as its endpoint sees it.
pub(crate) struct Member {
    pub(crate) id: WorkerId,
    pub(crate) slot: usize,
    since: Instant,
    pub(crate) worker: Box<dyn Worker>,
    concurrency: usize,
    in_flight: usize,
    /// Those of them whose callers have left.
    pub(crate) abandoned: usize,
    is_alone: bool,
    service_time: ServiceTime,
    batches: Batches,
    /// Single jobs that one round of decisions gave it, handed over together at its end.
    outbox: Vec<Job>,
}

impl Member {
    pub(crate) fn new(
        id: WorkerId,
        slot: usize,
        traits: &Traits,
        worker: Box<dyn Worker>,
        now: Instant,
    ) -> Self {
        Self {
            id,
            slot,
            since: now,
            worker,
            concurrency: traits.concurrency.max(1),
            in_flight: 0,
            abandoned: 0,
            is_alone: false,
            service_time: ServiceTime::default(),
            batches: Batches::default(),
            outbox: Vec::new(),
        }
    }

    pub(crate) fn report(&self) -> WorkerLoad {
        let Self { slot, since, in_flight, .. } = *self;
        WorkerLoad { slot, pid: self.worker.pid(), since, in_flight }
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// `exact`: should the worker be lost, it must be known what it had begun, so it is given no
    /// more than that.
    pub(crate) fn load(&self, rules: &Rules, workers: usize, by_cost: bool, exact: bool) -> Load {
        let window = if self.concurrency > 1 || exact {
            self.capacity(rules)
        } else {
            window(rules, self.service_time.mean(), workers, by_cost)
        };
        let is_free = self.in_flight == 0
            || (self.concurrency > 1 && self.in_flight + rules.max_batch_size <= window);
        Load { in_flight: self.in_flight, window, is_free, is_alone: self.is_alone }
    }

    /// Jobs that it computes at a time.
    pub(crate) fn capacity(&self, rules: &Rules) -> usize {
        self.concurrency * rules.max_batch_size
    }

    /// Jobs that it would begin at once with.
    pub(crate) fn room(&self, rules: &Rules) -> usize {
        match self.concurrency {
            1 if self.in_flight > 0 => 0,
            _ => self.capacity(rules).saturating_sub(self.in_flight),
        }
    }

    /// Takes a batch, or single jobs that go out with the next [`flush`](Self::flush).
    pub(crate) fn take(&mut self, jobs: Vec<Job>, rules: &Rules, now: Instant) {
        self.in_flight += jobs.len();
        self.service_time.started(now);
        if rules.max_batch_size > 1 || self.concurrency > 1 {
            self.batches.started(&jobs, now);
        }
        if rules.max_batch_size == 1 {
            self.outbox.extend(jobs);
        } else {
            self.worker.dispatch(jobs);
        }
    }

    /// Takes one job and nothing else until it is done with it.
    pub(crate) fn take_alone(&mut self, job: Job, rules: &Rules, now: Instant) {
        self.is_alone = true;
        self.take(vec![job], rules, now);
    }

    /// Hands over the single jobs that it was given.
    pub(crate) fn flush(&mut self) {
        if !self.outbox.is_empty() {
            self.worker.dispatch(std::mem::take(&mut self.outbox));
        }
    }

    /// Notes that it is done with jobs, and tells how long work of how many units took, and whether
    /// all of it was done: each batch that this completes, or the mean of single jobs that come one
    /// after the other.
    pub(crate) fn finished(
        &mut self,
        Done { jobs, cut_short }: Done,
        rules: &Rules,
        now: Instant,
        mut observe: impl FnMut(f64, Duration, bool),
    ) {
        self.abandoned = self.abandoned.saturating_sub(cut_short);
        let is_whole = cut_short == 0;
        self.in_flight = self.in_flight.saturating_sub(jobs);
        self.is_alone &= self.in_flight > 0;
        let per_job = self.service_time.finished(jobs, is_whole, self.in_flight == 0, now);
        if rules.max_batch_size > 1 || self.concurrency > 1 {
            self.batches.finished(jobs, is_whole, self.concurrency > 1, now, observe);
        } else if let Some(per_job) = per_job {
            observe(1.0, per_job, is_whole);
        }
    }
}

/// What a batch costs, because models pad to the longest.
pub(crate) fn units(batch: &[Job]) -> f64 {
    batch.len() as f64 * batch.iter().map(|job| job.cost).fold(0.0, f64::max)
}

/// The batches that a worker holds, in the order in which they were given to it.
#[derive(Debug, Default)]
struct Batches {
    held: VecDeque<Held>,
    /// When the last was completed.
    completed: Option<Instant>,
}

#[derive(Debug)]
struct Held {
    jobs: usize,
    units: f64,
    given: Instant,
    /// Whether the callers of all that was answered so far stayed.
    is_whole: bool,
}

impl Batches {
    fn started(&mut self, jobs: &[Job], given: Instant) {
        let (jobs, units) = (jobs.len(), units(jobs));
        self.held.push_back(Held { jobs, units, given, is_whole: true });
    }

    /// Takes answers for those of the oldest batches: where batches overlap that is a guess, and
    /// right on average.
    fn finished(
        &mut self,
        mut jobs: usize,
        is_whole: bool,
        overlap: bool,
        now: Instant,
        mut observe: impl FnMut(f64, Duration, bool),
    ) {
        while let Some(batch) = self.held.front_mut() {
            let done = jobs.min(batch.jobs);
            batch.jobs -= done;
            batch.is_whole &= is_whole;
            jobs -= done;
            if batch.jobs > 0 {
                return;
            }
            let Held { units, given, is_whole, .. } = *batch;
            self.held.pop_front();
            // Its first is not learned from: models are slow when they are called for the first
            // time.
            if let Some(completed) = self.completed.replace(now) {
                let begun = if overlap { given } else { given.max(completed) };
                observe(units, now - begun, is_whole);
            }
        }
    }
}
