//! The metrics of a server, and of each worker.

use litplex_metrics::{Metrics, StageTimes, UserMetrics, UserSink};
use litplex_workers::Unwell;

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
            unwell: Unwell::default(),
            user: self.user.sink(endpoint),
            stages: self.metrics.stages(endpoint),
        }
    }
}

/// The receivers of what the workers of one endpoint report.
pub(crate) struct WorkerTelemetry {
    /// The number of unhealthy workers.
    pub(crate) unwell: Unwell,
    /// The metrics that the model defines.
    pub(crate) user: UserSink,
    /// The times of the stages of requests.
    pub(crate) stages: StageTimes,
}
