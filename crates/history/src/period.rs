//! One period of an endpoint's history.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The number of buckets of latencies; the last one has no upper bound.
pub const BUCKETS: usize = 16;

/// The number of failed requests, by class as in `litplex_requests_total`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct ErrorCounts {
    /// Requests that are invalid.
    pub bad_input: u64,
    /// Requests for which the model raised an error.
    pub model_error: u64,
    /// Requests that missed their deadline.
    pub timeout: u64,
    /// Requests whose client left.
    pub cancelled: u64,
    /// Requests that were refused because of the state of the server.
    pub unavailable: u64,
    /// Requests whose worker was lost.
    pub worker_lost: u64,
}

impl ErrorCounts {
    /// Returns the counts, in the order of the fields.
    pub fn counts(self) -> [u64; 6] {
        let Self { bad_input, model_error, timeout, cancelled, unavailable, worker_lost } = self;
        [bad_input, model_error, timeout, cancelled, unavailable, worker_lost]
    }

    /// Returns the errors with these counts, in the order of the fields.
    pub fn from_counts(counts: [u64; 6]) -> Self {
        let [bad_input, model_error, timeout, cancelled, unavailable, worker_lost] = counts;
        Self { bad_input, model_error, timeout, cancelled, unavailable, worker_lost }
    }

    /// Returns the number of all errors.
    pub fn total(self) -> u64 {
        self.counts().iter().sum()
    }
}

/// What happened to an endpoint in some seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Period {
    /// The length in seconds.
    pub seconds: u32,
    /// The number of requests that were answered successfully, by latency.
    pub latencies: [u64; BUCKETS],
    /// The number of requests that failed.
    pub errors: ErrorCounts,
    /// The number of jobs that arrived at its queue, those of calls of other endpoints included.
    pub jobs: u64,
    /// The number of workers that were replaced.
    pub restarts: u64,
    /// The most jobs that workers held.
    pub in_flight: u64,
    /// The most jobs that waited.
    pub queued: u64,
    /// The fewest workers that were ready.
    pub ready: u64,
}

impl Period {
    /// Returns the number of requests that were answered successfully.
    pub fn answered(&self) -> u64 {
        self.latencies.iter().sum()
    }

    /// Returns the number of requests that ended.
    pub fn ended(&self) -> u64 {
        self.answered() + self.errors.total()
    }

    /// Adds the period that follows: counts are summed, and of the levels the worst is kept.
    pub fn extend(&mut self, next: &Self) {
        if self.seconds == 0 {
            *self = *next;
            return;
        }
        self.seconds += next.seconds;
        for (count, more) in self.latencies.iter_mut().zip(next.latencies) {
            *count += more;
        }
        let (mut errors, more) = (self.errors.counts(), next.errors.counts());
        errors.iter_mut().zip(more).for_each(|(count, more)| *count += more);
        self.errors = ErrorCounts::from_counts(errors);
        self.jobs += next.jobs;
        self.restarts += next.restarts;
        self.in_flight = self.in_flight.max(next.in_flight);
        self.queued = self.queued.max(next.queued);
        self.ready = self.ready.min(next.ready);
    }
}

/// Returns the latency in seconds that this share (0 to 1) of requests does not exceed, between the
/// `bounds` of their bucket as Prometheus' `histogram_quantile` interpolates; `None` without requests. A
/// latency above the last bound is returned as that bound.
pub fn quantile(latencies: &[u64], bounds: &[f64], share: f64) -> Option<f64> {
    let total: u64 = latencies.iter().sum();
    let rank = share * total as f64;
    let mut before = 0;
    for (bucket, &count) in latencies.iter().enumerate() {
        let until = before + count;
        if count > 0 && until as f64 >= rank {
            let low = if bucket == 0 { 0.0 } else { bounds[bucket - 1] };
            let Some(high) = bounds.get(bucket) else { return Some(low) };
            return Some(low + (high - low) * (rank - before as f64).max(0.0) / count as f64);
        }
        before = until;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn latencies(counts: &[u64]) -> [u64; BUCKETS] {
        let mut all = [0; BUCKETS];
        all[..counts.len()].copy_from_slice(counts);
        all
    }

    #[test]
    fn a_quantile_is_interpolated_in_its_bucket() {
        let bounds = [1.0, 2.0, 4.0];
        let near = |found: Option<f64>, wanted: f64| (found.unwrap() - wanted).abs() < 1e-9;
        assert!(near(quantile(&latencies(&[0, 10]), &bounds, 0.5), 1.5));
        assert!(near(quantile(&latencies(&[50, 49, 1]), &bounds, 0.99), 2.0));
        assert!(near(quantile(&latencies(&[50, 40, 10]), &bounds, 0.95), 3.0));
        // Above the last bound nothing is known but that bound.
        assert!(near(quantile(&latencies(&[0, 0, 0, 7]), &bounds, 0.5), 4.0));
        assert_eq!(quantile(&latencies(&[]), &bounds, 0.5), None);
    }

    #[test]
    fn the_worst_level_of_two_periods_is_kept() {
        let mut first =
            Period { seconds: 1, queued: 3, in_flight: 1, ready: 2, ..Period::default() };
        first.extend(&Period {
            seconds: 2,
            queued: 1,
            in_flight: 4,
            ready: 1,
            ..Period::default()
        });
        let both = (first.seconds, first.queued, first.in_flight, first.ready);
        assert_eq!(both, (3, 3, 4, 1));
    }
}
