//! The parts that a generation is launched from.

use std::sync::Arc;

use litplex_config::{Endpoint, Source};
use litplex_metrics::Edge;
use litplex_pages::EndpointSchema;

use crate::launch::WorkerEnvironment;
use crate::placement::Placement;
use crate::telemetry::Telemetry;

/// The parts that a generation is launched from. It can be launched again from them.
#[derive(Clone)]
pub(crate) struct GenerationSpec {
    pub(crate) config: Endpoint,
    pub(crate) placement: Placement,
    pub(crate) environment: Arc<WorkerEnvironment>,
    pub(crate) telemetry: Telemetry,
    /// The metrics of the endpoint's requests at the HTTP edge.
    pub(crate) edge: Edge,
    /// The types and examples that the program declares.
    pub(crate) schema: EndpointSchema,
    pub(crate) waits_for_first_worker: bool,
}

impl GenerationSpec {
    /// Returns the number of CPU threads of each worker, if the workers are processes.
    pub(crate) fn threads(&self) -> Option<usize> {
        let has_processes = matches!(self.config.source, Source::Python(_));
        has_processes.then_some(self.placement.threads.number)
    }
}
