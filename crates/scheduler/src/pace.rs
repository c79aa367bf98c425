//! The pace of an endpoint: published by its task, for admission at endpoints that call it.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

/// The pace at which an endpoint computes jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// The number of jobs that its workers compute at the same time; at least 1.
    pub capacity: usize,
    /// The time in which they compute so many.
    pub batch_time: Duration,
}

impl Pace {
    /// Returns the time in which this many jobs are computed.
    pub fn time_for(&self, jobs: f64) -> Duration {
        self.batch_time.mul_f64((jobs / self.capacity as f64).max(1.0))
    }
}

/// The last known pace of an endpoint, and whether its model calls others. The values are read one by
/// one: readers want estimates.
#[derive(Debug, Default)]
pub(crate) struct PublishedPace {
    capacity: AtomicUsize,
    /// Zero while it is unknown.
    batch_nanos: AtomicU64,
    makes_calls: AtomicBool,
}

impl PublishedPace {
    pub(crate) fn publish(&self, capacity: usize, batch_time: Option<Duration>, makes_calls: bool) {
        let nanos = batch_time.map_or(0, |time| time.as_nanos().try_into().unwrap_or(u64::MAX));
        self.capacity.store(capacity, Relaxed);
        self.batch_nanos.store(nanos, Relaxed);
        self.makes_calls.store(makes_calls, Relaxed);
    }

    /// Returns the pace; `None` while it is unknown, or without a worker.
    pub(crate) fn pace(&self) -> Option<Pace> {
        let (capacity, nanos) = (self.capacity.load(Relaxed), self.batch_nanos.load(Relaxed));
        let batch_time = Duration::from_nanos(nanos);
        (capacity > 0 && nanos > 0).then_some(Pace { capacity, batch_time })
    }

    pub(crate) fn makes_calls(&self) -> bool {
        self.makes_calls.load(Relaxed)
    }
}
