//! The durations of the calls between endpoints.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use prometheus::HistogramVec;
use tokio::time::Instant;

use crate::NO_ENDPOINT;
use crate::distribution::{self, Distribution};

/// The durations of calls by caller and callee, so that they can be shown on the edges of the graph of
/// endpoints. Cheap to clone.
#[derive(Clone)]
pub struct CallTimes(HistogramVec);

impl fmt::Debug for CallTimes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallTimes").finish_non_exhaustive()
    }
}

impl CallTimes {
    pub(crate) fn new(family: &HistogramVec) -> Self {
        Self(family.clone())
    }

    /// Begins to measure a call that this endpoint makes now.
    pub fn begin(&self, caller: Arc<str>) -> CallGuard {
        let (times, begun) = (self.clone(), Instant::now());
        CallGuard { times, caller, callee: None, begun, is_counted: false }
    }
}

/// The calls of one endpoint by another since the start.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct CallTotals {
    /// The durations in seconds.
    pub durations: Distribution,
    /// The number of calls that failed; calls that their callers gave up are not among them.
    pub failed: u64,
}

impl CallTimes {
    /// Returns the calls that have ended, by caller and callee.
    pub fn totals(&self) -> BTreeMap<(String, String), CallTotals> {
        let mut totals: BTreeMap<_, CallTotals> = BTreeMap::new();
        for (labels, durations) in distribution::read(&self.0) {
            let [caller, callee, status] = labels.try_into().unwrap_or_default();
            let calls = totals.entry((caller, callee)).or_default();
            calls.durations.add(&durations);
            if matches!(status.as_str(), "4xx" | "5xx") {
                calls.failed += durations.count();
            }
        }
        totals
    }
}

/// A guard that measures a call until it ends. If it is dropped before [`ended`](Self::ended), the caller
/// did not wait for the end.
#[derive(Debug)]
pub struct CallGuard {
    times: CallTimes,
    caller: Arc<str>,
    /// `None`: there is no such endpoint.
    callee: Option<Arc<str>>,
    begun: Instant,
    is_counted: bool,
}

impl CallGuard {
    /// Records the label of the endpoint that is called. Only labels of endpoints that exist are recorded,
    /// so that there are few.
    pub fn set_callee(&mut self, callee: &str) {
        self.callee = Some(callee.into());
    }

    /// Records that the call has ended with this status.
    pub fn ended(&mut self, status: u16) {
        self.count(match status {
            499 => "cancelled",
            ..300 => "2xx",
            300..400 => "3xx",
            400..500 => "4xx",
            _ => "5xx",
        });
    }

    fn count(&mut self, status: &str) {
        if !std::mem::replace(&mut self.is_counted, true) {
            let labels = [&*self.caller, self.callee.as_deref().unwrap_or(NO_ENDPOINT), status];
            let took = self.begun.elapsed();
            self.times.0.with_label_values(&labels).observe(took.as_secs_f64());
        }
    }
}

impl Drop for CallGuard {
    fn drop(&mut self) {
        self.count("cancelled");
    }
}

#[cfg(test)]
mod tests {
    use crate::Metrics;

    #[test]
    fn calls_are_added_up_by_caller_and_callee() {
        let calls = Metrics::new().calls();
        for status in [200, 200, 503, 499] {
            let mut guard = calls.begin("/a".into());
            guard.set_callee("/b");
            guard.ended(status);
        }
        let before = calls.totals();
        let mut guard = calls.begin("/a".into());
        guard.set_callee("/b");
        guard.ended(400);
        let key = ("/a".to_owned(), "/b".to_owned());
        let (before, now) = (&before[&key], &calls.totals()[&key]);
        assert_eq!((before.durations.count(), before.failed), (4, 1));
        assert_eq!((now.durations.since(&before.durations).count(), now.failed), (1, 2));
        assert_eq!(now.durations.bounds.len() + 1, now.durations.counts.len());
    }
}
