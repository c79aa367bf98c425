//! The metrics of an endpoint's queue.

use std::cell::{Cell, OnceCell};
use std::fmt;
use std::time::Duration;

use prometheus::local::{LocalHistogram, LocalIntCounter};
use prometheus::{HistogramVec, IntCounterVec};

use crate::edge::{Shed, ShedCounters};

/// The limit of the number of jobs in a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchLimit {
    /// The batch is full.
    Full,
    /// No more jobs were waiting.
    Queue,
    /// Larger batches take longer per job.
    Size,
    /// The other jobs would be padded, or would pad these, for longer than they save.
    Padding,
    /// The batch would cost more than `max_batch_cost`.
    Cost,
    /// The endpoint tries another size, or jobs of similar size.
    Trial,
}

const LIMITS: [&str; 6] = ["full", "queue", "size", "padding", "cost", "trial"];

/// The metrics of an endpoint's queue. They belong to the task of the queue: an observation costs
/// only its arithmetic, and becomes visible with [`flush`](Self::flush).
pub struct Queue {
    wait: LocalHistogram,
    batch_size: LocalHistogram,
    /// The series of the limits of batches, created at the first batch of an endpoint that batches.
    batch_limits: OnceCell<[LocalIntCounter; LIMITS.len()]>,
    batches: IntCounterVec,
    batch_duration: LocalHistogram,
    /// The series of batch costs, created at the first batch by cost.
    batch_cost: OnceCell<LocalHistogram>,
    batch_costs: HistogramVec,
    endpoint: String,
    request_bytes: LocalHistogram,
    retries: [LocalIntCounter; 2],
    shed: ShedCounters,
    /// Whether observations are dropped.
    is_muted: Cell<bool>,
}

#[derive(Clone)]
pub(crate) struct QueueFamilies {
    pub(crate) wait: HistogramVec,
    pub(crate) batch_size: HistogramVec,
    pub(crate) batches: IntCounterVec,
    pub(crate) batch_duration: HistogramVec,
    pub(crate) batch_cost: HistogramVec,
    pub(crate) request_bytes: HistogramVec,
    pub(crate) retries: IntCounterVec,
    pub(crate) shed: IntCounterVec,
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").finish_non_exhaustive()
    }
}

impl Queue {
    pub(crate) fn new(families: &QueueFamilies, endpoint: &str) -> Self {
        let local = |family: &HistogramVec| family.with_label_values(&[endpoint]).local();
        let retries = |why| families.retries.with_label_values(&[endpoint, why]).local();
        Self {
            wait: local(&families.wait),
            batch_size: local(&families.batch_size),
            batch_limits: OnceCell::new(),
            batches: families.batches.clone(),
            batch_duration: local(&families.batch_duration),
            batch_cost: OnceCell::new(),
            batch_costs: families.batch_cost.clone(),
            endpoint: endpoint.to_owned(),
            request_bytes: local(&families.request_bytes),
            retries: ["not_begun", "maybe_begun"].map(retries),
            shed: ShedCounters::new(&families.shed, endpoint),
            is_muted: Cell::new(false),
        }
    }

    /// Sets whether observations are dropped from now on: those of jobs that are no client's.
    pub fn set_muted(&self, is_muted: bool) {
        self.is_muted.set(is_muted);
    }

    fn observe(&self, histogram: &LocalHistogram, value: f64) {
        if !self.is_muted.get() {
            histogram.observe(value);
        }
    }

    /// Records the arrival of a request with a body of this size.
    pub fn arrived(&self, bytes: usize) {
        self.observe(&self.request_bytes, bytes as f64);
    }

    /// Records the time that a request waited until its dispatch.
    pub fn waited(&self, time: Duration) {
        self.observe(&self.wait, time.as_secs_f64());
    }

    /// Records the number of requests in a batch.
    pub fn batched(&self, size: usize) {
        self.observe(&self.batch_size, size as f64);
    }

    /// Counts a batch by what limited its size.
    pub fn batch_limit(&self, limit: BatchLimit) {
        let make = |limit| self.batches.with_label_values(&[&*self.endpoint, limit]).local();
        self.batch_limits.get_or_init(|| LIMITS.map(make))[limit as usize].inc();
    }

    /// Records the time that a worker took for a batch.
    pub fn computed(&self, time: Duration) {
        self.observe(&self.batch_duration, time.as_secs_f64());
    }

    /// Records the cost of a batch.
    pub fn batch_cost(&self, cost: f64) {
        let make = || self.batch_costs.with_label_values(&[&self.endpoint]).local();
        self.observe(self.batch_cost.get_or_init(make), cost);
    }

    /// Counts a request that is dispatched again after the loss of its worker.
    pub fn retried(&self, may_have_begun: bool) {
        if !self.is_muted.get() {
            self.retries[usize::from(may_have_begun)].inc();
        }
    }

    /// Counts a request that is shed.
    pub fn shed(&self, reason: Shed) {
        if !self.is_muted.get() {
            self.shed.count(reason);
        }
    }

    /// Makes the observations visible.
    pub fn flush(&self) {
        let always = [&self.wait, &self.batch_size, &self.batch_duration, &self.request_bytes];
        always.into_iter().chain(self.batch_cost.get()).for_each(LocalHistogram::flush);
        let limits = self.batch_limits.get().into_iter().flatten();
        self.retries.iter().chain(limits).for_each(LocalIntCounter::flush);
    }
}
