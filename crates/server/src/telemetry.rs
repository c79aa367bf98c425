//! The metrics of a server, and of each worker.

use litplex_metrics::{Metrics, UserMetrics};
use litplex_workers::{UnhealthyCount, WorkerTelemetry};

/// The metrics of a server: its own, and those that models report.
#[derive(Clone)]
pub(crate) struct Telemetry {
    pub(crate) metrics: Metrics,
    pub(crate) user: UserMetrics,
}

impl Telemetry {
    /// Starts to collect metrics. Needs a runtime, on which the models' metrics are added up.
    pub(crate) fn new() -> Self {
        Self { metrics: Metrics::new(), user: UserMetrics::spawn() }
    }

    /// Returns the receivers of what an endpoint's workers report.
    pub(crate) fn for_workers(&self, endpoint: &str) -> WorkerTelemetry {
        WorkerTelemetry {
            unhealthy: UnhealthyCount::default(),
            metrics: self.user.sink(endpoint),
            stages: self.metrics.stages(endpoint),
        }
    }
}
