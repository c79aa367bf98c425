//! The durations of the calls between endpoints.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use prometheus::HistogramVec;
use prometheus::core::Collector;
use prometheus::proto::MetricFamily;
use tokio::time::Instant;

use crate::NO_ENDPOINT;

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

impl CallTimes {
    /// Returns the seconds that all calls took so far, by caller and callee.
    pub fn seconds(&self) -> BTreeMap<(String, String), f64> {
        let mut seconds = BTreeMap::new();
        for metric in self.0.collect().iter().flat_map(MetricFamily::get_metric) {
            let label = |name| {
                let label = metric.get_label().iter().find(|label| label.name() == name);
                label.map(|label| label.value().to_owned()).unwrap_or_default()
            };
            let calls = (label("caller"), label("endpoint"));
            *seconds.entry(calls).or_default() += metric.get_histogram().get_sample_sum();
        }
        seconds
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
