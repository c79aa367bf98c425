//! The metrics of the server, and the text that Prometheus reads.

use std::fmt;

use litplex_core::{BoxFuture, MemoryBudget};
use litplex_metrics::Metrics;

/// The metrics that the edge counts, and the function that writes all metrics.
pub(crate) struct Telemetry {
    metrics: Metrics,
    scrape: Box<dyn Fn() -> BoxFuture<'static, String> + Send + Sync>,
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Telemetry")
    }
}

impl Telemetry {
    pub(crate) fn new(
        metrics: Metrics,
        scrape: impl Fn() -> BoxFuture<'static, String> + Send + Sync + 'static,
    ) -> Self {
        Self { metrics, scrape: Box::new(scrape) }
    }

    /// Counts a request without an accepted key or token; `has_key`: it carried one.
    pub(crate) fn unauthorized(&self, has_key: bool) {
        self.metrics.unauthorized(has_key);
    }

    /// Returns all metrics as Prometheus reads them, with the state of this budget.
    pub(crate) async fn scrape(&self, memory: &MemoryBudget) -> String {
        self.metrics.buffered(memory.taken(), memory.limit());
        (self.scrape)().await
    }
}
