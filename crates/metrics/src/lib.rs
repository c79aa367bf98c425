//! The metrics of a server, in the text format of Prometheus.
//!
//! ```text
//! http ──► Edge    ─┐
//!                   ├─► Metrics ──► text
//! scheduler ─► Queue┘      ▲
//!                          ├── Observed: values read from the endpoints at each scrape
//! workers ──► UserMetrics ─┘
//! ```
//!
//! [`METRICS`] is the table of all names. Every server has its own [`Metrics`]: nothing is global.
//! Counting costs an atomic addition or less; names and labels are looked up once. No label has a value
//! that a client chooses.

mod calls;
mod definitions;
mod distribution;
mod edge;
mod observed;
mod queue;
mod stages;
mod steps;
mod user;

use std::fmt;
use std::sync::Arc;

use prometheus::process_collector::ProcessCollector;
use prometheus::{
    HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Registry, TextEncoder, core::Collector,
};

pub use calls::{CallGuard, CallTimes, CallTotals};
pub use definitions::{Definition, Kind, LATENCY_BOUNDS, METRICS, PROCESS_METRICS, table_markdown};
pub use distribution::Distribution;
pub use edge::{Edge, EdgeTotals, LaterEdge, RequestGuard, RequestOutcome, Shed};
pub use observed::{
    Observed, ObservedBatches, ObservedGpu, ObservedPlace, ObservedResidency, ObservedWorker,
};
pub use queue::{BatchLimit, Queue};
pub use stages::StageTimes;
pub use steps::{StepOutcome, StepTimes};
pub use user::{UserFamilies, UserMetrics, UserSink};

use edge::EdgeFamilies;
use queue::QueueFamilies;

/// The media type of [rendered](Metrics::render) metrics.
pub const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The `endpoint` label of requests to no endpoint.
const NO_ENDPOINT: &str = "_other";

/// The metrics of one server. Cheap to clone.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    registry: Registry,
    edge: EdgeFamilies,
    queue: QueueFamilies,
    stages: HistogramVec,
    steps: HistogramVec,
    calls: HistogramVec,
    auth_failures: IntCounterVec,
    buffered_bytes: IntGauge,
    buffer_limit: IntGauge,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// The batches of an endpoint since the start.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct BatchTotals {
    /// The numbers of jobs in them.
    pub sizes: Distribution,
    /// The seconds that workers took for them.
    pub seconds: Distribution,
    /// Their costs, if jobs have one.
    pub costs: Option<Distribution>,
}

impl Metrics {
    /// Returns the metrics of a new server.
    pub fn new() -> Self {
        use definitions as d;
        let registry = Registry::new();
        let shed = counter(&registry, &d::SHED);
        let edge = EdgeFamilies {
            requests: counter(&registry, &d::REQUESTS),
            inflight: gauge(&registry, &d::INFLIGHT),
            durations: histogram(&registry, &d::DURATION),
            first_chunk: histogram(&registry, &d::FIRST_CHUNK),
            chunk_gap: histogram(&registry, &d::CHUNK_GAP),
            chunks: counter(&registry, &d::CHUNKS),
            response_bytes: counter(&registry, &d::RESPONSE_BYTES),
            shed: shed.clone(),
        };
        let queue = QueueFamilies {
            wait: histogram(&registry, &d::QUEUE_WAIT),
            batch_size: histogram(&registry, &d::BATCH_SIZE),
            batches: counter(&registry, &d::BATCHES),
            batch_duration: histogram(&registry, &d::BATCH_DURATION),
            batch_cost: histogram(&registry, &d::BATCH_COST),
            request_bytes: histogram(&registry, &d::REQUEST_BYTES),
            retries: counter(&registry, &d::RETRIES),
            shed,
        };
        let stages = histogram(&registry, &d::STAGES);
        let steps = histogram(&registry, &d::STEPS);
        let calls = histogram(&registry, &d::CALLS);
        let build = gauge(&registry, &d::BUILD);
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let unlabelled = |definition| gauge(&registry, definition).with_label_values::<&str>(&[]);
        let auth_failures = counter(&registry, &d::AUTH_FAILURES);
        AUTH.iter().for_each(|reason| drop(auth_failures.with_label_values(&[reason])));
        let (buffered_bytes, buffer_limit) =
            (unlabelled(&d::BUFFERED_BYTES), unlabelled(&d::BUFFER_LIMIT));
        register(&registry, ProcessCollector::for_self());
        let inner = Inner {
            registry,
            edge,
            queue,
            stages,
            steps,
            calls,
            auth_failures,
            buffered_bytes,
            buffer_limit,
        };
        Self(Arc::new(inner))
    }

    /// Returns the metrics of requests to an endpoint; with `None`, of requests to no endpoint.
    pub fn edge(&self, endpoint: Option<&str>) -> Edge {
        Edge::new(&self.0.edge, endpoint.unwrap_or(NO_ENDPOINT))
    }

    /// Returns the durations of stages in the workers of an endpoint.
    pub fn stages(&self, endpoint: &str) -> StageTimes {
        StageTimes::new(&self.0.stages, endpoint)
    }

    /// Returns the durations of the steps of a pipeline.
    pub fn steps(&self, endpoint: &str) -> StepTimes {
        StepTimes::new(&self.0.steps, endpoint)
    }

    /// Returns the durations of the calls between endpoints.
    pub fn calls(&self) -> CallTimes {
        CallTimes::new(&self.0.calls)
    }

    /// Returns the batches of an endpoint, as far as its queue has flushed them.
    pub fn batches(&self, endpoint: &str) -> BatchTotals {
        let QueueFamilies { batch_size, batch_duration, batch_cost, .. } = &self.0.queue;
        let read = |family| distribution::read(family).remove(&vec![endpoint.to_owned()]);
        BatchTotals {
            sizes: read(batch_size).unwrap_or_default(),
            seconds: read(batch_duration).unwrap_or_default(),
            costs: read(batch_cost),
        }
    }

    /// Returns the metrics of an endpoint's queue.
    pub fn queue(&self, endpoint: &str) -> Queue {
        Queue::new(&self.0.queue, endpoint)
    }

    /// Counts a request that is refused for its key: a wrong one if `has_key`, otherwise a missing
    /// one.
    pub fn unauthorized(&self, has_key: bool) {
        self.0.auth_failures.with_label_values(&[AUTH[usize::from(has_key)]]).inc();
    }

    /// Sets the bytes of memory that large bodies take, and their limit.
    pub fn buffered(&self, bytes: usize, limit: usize) {
        self.0.buffered_bytes.set(bytes as i64);
        self.0.buffer_limit.set(limit as i64);
    }

    /// Returns all metrics, with the given observations, in the text format of Prometheus. Takes
    /// about a millisecond and reads files of `/proc`.
    pub fn render(
        &self,
        observed: &[Observed],
        gpus: &[ObservedGpu],
        places: &[ObservedPlace],
        user: UserFamilies,
    ) -> String {
        let mut families = self.0.registry.gather();
        families.extend(observed::families(observed, gpus, places));
        families.extend(user.0);
        families.retain(|family| !family.get_metric().is_empty());
        families.sort_by(|a, b| a.name().cmp(b.name()));
        TextEncoder::new().encode_to_string(&families).unwrap_or_else(|error| {
            tracing::error!(%error, "metrics cannot be written");
            String::new()
        })
    }
}

const AUTH: [&str; 2] = ["missing", "wrong"];

const BUG: &str = "the table of metrics is well-formed. This is a bug.";

fn register(registry: &Registry, collector: impl Collector + 'static) {
    registry.register(Box::new(collector)).expect(BUG);
}

fn counter(registry: &Registry, definition: &Definition) -> IntCounterVec {
    let family = IntCounterVec::new(definition.opts(), definition.labels).expect(BUG);
    register(registry, family.clone());
    family
}

fn gauge(registry: &Registry, definition: &Definition) -> IntGaugeVec {
    let family = IntGaugeVec::new(definition.opts(), definition.labels).expect(BUG);
    register(registry, family.clone());
    family
}

fn histogram(registry: &Registry, definition: &Definition) -> HistogramVec {
    let family = HistogramVec::new(definition.histogram_opts(), definition.labels).expect(BUG);
    register(registry, family.clone());
    family
}
