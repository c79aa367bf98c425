//! An endpoint's view of one attached worker: its window, its load and its batches.

use std::collections::VecDeque;
use std::time::Duration;

use litplex_core::{Done, Job, ModelInfo, Worker};
use tokio::time::Instant;

use crate::event::WorkerId;
use crate::turn::WorkerTurn;
use crate::{BatchWork, Load, Rules, ServiceTime, WorkerLoad, window};

/// An attached worker in the view of its endpoint.
pub(crate) struct AttachedWorker {
    pub(crate) id: WorkerId,
    pub(crate) slot: usize,
    since: Instant,
    pub(crate) link: Box<dyn Worker>,
    pub(crate) turn: WorkerTurn,
    concurrency: usize,
    in_flight: usize,
    /// The number of these jobs whose callers have left.
    pub(crate) abandoned: usize,
    is_alone: bool,
    service_time: ServiceTime,
    batches: Batches,
    /// Single jobs of one round of decisions, dispatched together at its end.
    outbox: Vec<Job>,
}

impl AttachedWorker {
    pub(crate) fn new(
        id: WorkerId,
        slot: usize,
        info: &ModelInfo,
        worker: Box<dyn Worker>,
        turn: WorkerTurn,
        now: Instant,
    ) -> Self {
        Self {
            id,
            slot,
            since: now,
            link: worker,
            turn,
            concurrency: info.concurrency.max(1),
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
        WorkerLoad { slot, since, in_flight }
    }

    /// Returns the time since which it takes jobs.
    pub(crate) fn since(&self) -> Instant {
        self.since
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Returns the load. With `exact` the worker holds no more jobs than it computes, so that if it
    /// is lost, every job that it held may have begun and no other.
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

    /// Returns the number of jobs that the worker computes at the same time.
    pub(crate) fn capacity(&self, rules: &Rules) -> usize {
        self.concurrency * rules.max_batch_size
    }

    /// Returns the number of further jobs that the worker would start at once.
    pub(crate) fn free_capacity(&self, rules: &Rules) -> usize {
        match self.concurrency {
            1 if self.in_flight > 0 => 0,
            _ => self.capacity(rules).saturating_sub(self.in_flight),
        }
    }

    /// Assigns jobs to the worker: a batch at once, single jobs with the next
    /// [`flush`](Self::flush).
    pub(crate) fn assign(&mut self, jobs: Vec<Job>, rules: &Rules, now: Instant) {
        self.in_flight += jobs.len();
        self.service_time.started(now);
        if rules.max_batch_size > 1 || self.concurrency > 1 {
            self.batches.started(&jobs, now);
        }
        if rules.max_batch_size == 1 {
            self.outbox.extend(jobs);
        } else {
            self.link.dispatch(jobs);
        }
    }

    /// Assigns one job; the worker gets no other until that one is done.
    pub(crate) fn assign_alone(&mut self, job: Job, rules: &Rules, now: Instant) {
        self.is_alone = true;
        self.assign(vec![job], rules, now);
    }

    /// Dispatches the assigned single jobs.
    pub(crate) fn flush(&mut self) {
        if !self.outbox.is_empty() {
            self.link.dispatch(std::mem::take(&mut self.outbox));
        }
    }

    /// Records finished jobs. Calls `observe` with the work, the duration and whether no job was
    /// cut short: for each batch that is now complete, or for the mean of consecutive single jobs.
    pub(crate) fn finished(
        &mut self,
        Done { jobs, cut_short }: Done,
        rules: &Rules,
        now: Instant,
        mut observe: impl FnMut(BatchWork, Duration, bool),
    ) {
        self.abandoned = self.abandoned.saturating_sub(cut_short);
        let is_whole = cut_short == 0;
        self.in_flight = self.in_flight.saturating_sub(jobs);
        self.is_alone &= self.in_flight > 0;
        let per_job = self.service_time.finished(jobs, is_whole, self.in_flight == 0, now);
        if rules.max_batch_size > 1 || self.concurrency > 1 {
            self.batches.finished(jobs, is_whole, self.concurrency > 1, now, observe);
        } else if let Some(per_job) = per_job {
            observe(BatchWork::of([1.0]), per_job, is_whole);
        }
    }
}

/// Returns the work of a batch.
pub(crate) fn work(batch: &[Job]) -> BatchWork {
    BatchWork::of(batch.iter().map(|job| job.cost))
}

/// The batches that a worker holds, in the order of their dispatch.
#[derive(Debug, Default)]
struct Batches {
    held: VecDeque<HeldBatch>,
    /// The time at which the last one was completed.
    completed: Option<Instant>,
}

#[derive(Debug)]
struct HeldBatch {
    /// The number of jobs that are not finished.
    jobs: usize,
    work: BatchWork,
    dispatched: Instant,
    /// Whether none of the finished jobs was cut short.
    is_whole: bool,
}

impl Batches {
    fn started(&mut self, jobs: &[Job], dispatched: Instant) {
        let (jobs, work) = (jobs.len(), work(jobs));
        self.held.push_back(HeldBatch { jobs, work, dispatched, is_whole: true });
    }

    /// Counts finished jobs against the oldest batches. Where batches overlap this is an estimate
    /// that is right on average.
    fn finished(
        &mut self,
        mut jobs: usize,
        is_whole: bool,
        overlap: bool,
        now: Instant,
        mut observe: impl FnMut(BatchWork, Duration, bool),
    ) {
        while let Some(batch) = self.held.front_mut() {
            let done = jobs.min(batch.jobs);
            batch.jobs -= done;
            batch.is_whole &= is_whole;
            jobs -= done;
            if batch.jobs > 0 {
                return;
            }
            let HeldBatch { work, dispatched, is_whole, .. } = *batch;
            self.held.pop_front();
            // The first batch is ignored: the first call of a model is slow.
            if let Some(completed) = self.completed.replace(now) {
                let begun = if overlap { dispatched } else { dispatched.max(completed) };
                observe(work, now - begun, is_whole);
            }
        }
    }
}
