//! The pace of an endpoint and what it has learned: published by its task, for admission at endpoints that
//! call it and for reports.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use crate::{Basis, Learned};

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
    /// As `pack` packs it.
    learned: AtomicU64,
}

impl PublishedPace {
    pub(crate) fn publish(&self, capacity: usize, batch_time: Option<Duration>, makes_calls: bool) {
        let nanos = batch_time.map_or(0, |time| time.as_nanos().try_into().unwrap_or(u64::MAX));
        self.capacity.store(capacity, Relaxed);
        self.batch_nanos.store(nanos, Relaxed);
        self.makes_calls.store(makes_calls, Relaxed);
    }

    /// Publishes what is learned of batches.
    pub(crate) fn publish_learned(&self, learned: Option<Learned>) {
        self.learned.store(learned.map_or(0, pack), Relaxed);
    }

    pub(crate) fn learned(&self) -> Option<Learned> {
        unpack(self.learned.load(Relaxed))
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

const BASES: [Basis; 3] = [Basis::Jobs, Basis::Sum, Basis::Padded];

/// The parts of one in which errors are kept.
const ERROR_STEPS: f64 = 1e6;

/// Returns what is learned as one number, so that no reader sees parts of two: from the lowest bit, 8 bits for
/// the basis and whether it is adaptive, 24 for the number of jobs, and 32 for the error. It is not 0.
fn pack(learned: Learned) -> u64 {
    let Learned { basis, most_jobs, error, is_adaptive } = learned;
    let kind = 1 + basis as u64 + if is_adaptive { BASES.len() as u64 } else { 0 };
    let jobs = (most_jobs as u64).min((1 << 24) - 1);
    kind | jobs << 8 | ((error * ERROR_STEPS) as u64).min(u32::MAX.into()) << 32
}

fn unpack(packed: u64) -> Option<Learned> {
    let kind = (packed & 0xff).checked_sub(1)? as usize;
    Some(Learned {
        basis: BASES[kind % BASES.len()],
        most_jobs: (packed >> 8 & 0xff_ffff) as usize,
        error: (packed >> 32) as f64 / ERROR_STEPS,
        is_adaptive: kind >= BASES.len(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_learned_is_read_as_it_was_published() {
        let published = PublishedPace::default();
        assert_eq!(published.learned(), None);
        for basis in BASES {
            for (most_jobs, error, is_adaptive) in [(1, 0.0, false), (65_536, 0.25, true)] {
                let learned = Learned { basis, most_jobs, error, is_adaptive };
                published.publish_learned(Some(learned));
                assert_eq!(published.learned(), Some(learned));
            }
        }
        published.publish_learned(None);
        assert_eq!(published.learned(), None);
    }
}
