//! The metrics of requests at the HTTP edge.

use std::array::from_fn;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prometheus::core::Metric;
use prometheus::proto::{Bucket, Histogram as Observed};
use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge};
use tokio::time::Instant;

use crate::definitions::LATENCY_BOUNDS;

/// The outcome of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestOutcome {
    /// The request was answered successfully.
    Ok,
    /// The request is invalid.
    BadInput,
    /// The model raised an error.
    ModelError,
    /// The request missed its deadline.
    Timeout,
    /// The client left before the end of the response.
    Cancelled,
    /// The request was refused because of the state of the server.
    Unavailable,
    /// The worker of the request was lost.
    WorkerLost,
}

const OUTCOMES: [(RequestOutcome, &str); 7] = [
    (RequestOutcome::Ok, "ok"),
    (RequestOutcome::BadInput, "bad_input"),
    (RequestOutcome::ModelError, "model_error"),
    (RequestOutcome::Timeout, "timeout"),
    (RequestOutcome::Cancelled, "cancelled"),
    (RequestOutcome::Unavailable, "unavailable"),
    (RequestOutcome::WorkerLost, "worker_lost"),
];

impl RequestOutcome {
    /// Returns the outcome for a status.
    pub fn from_status(status: u16) -> Self {
        match status {
            408 | 504 => Self::Timeout,
            502 => Self::WorkerLost,
            429 | 503 => Self::Unavailable,
            ..400 => Self::Ok,
            400..500 => Self::BadInput,
            _ => Self::ModelError,
        }
    }

    /// Returns the word for the outcome, as metrics have it.
    pub fn as_str(self) -> &'static str {
        OUTCOMES[self as usize].1
    }
}

/// The reason why a request was shed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shed {
    /// The queue is full.
    QueueFull,
    /// The request would miss its deadline.
    Deadline,
    /// No worker is ready or will be soon.
    NoWorker,
    /// The memory for requests and responses is full.
    Memory,
    /// The server is stopping.
    Draining,
}

const SHED: [&str; 5] = ["queue_full", "deadline", "no_worker", "memory", "draining"];

/// The counters of shed requests by reason.
#[derive(Debug, Clone)]
pub(crate) struct ShedCounters([IntCounter; SHED.len()]);

impl ShedCounters {
    pub(crate) fn new(family: &IntCounterVec, endpoint: &str) -> Self {
        Self(SHED.map(|reason| family.with_label_values(&[endpoint, reason])))
    }

    pub(crate) fn count(&self, reason: Shed) {
        self.0[reason as usize].inc();
    }
}

/// The number of statuses in HTTP, from 100 to 999.
const STATUSES: usize = 900;

/// The metrics of the requests to an endpoint. Cheap to clone; each series is looked up once.
#[derive(Clone)]
pub struct Edge(Arc<Inner>);

struct Inner {
    endpoint: String,
    families: EdgeFamilies,
    inflight: IntGauge,
    response_bytes: IntCounter,
    shed: ShedCounters,
    /// The series of streams, created at the first stream.
    streams: OnceLock<Streams>,
    /// The counters of requests by status, for requests whose outcome follows from their status.
    requests: Box<[OnceLock<IntCounter>]>,
    durations: [OnceLock<Histogram>; OUTCOMES.len()],
}

struct Streams {
    first_chunk: Histogram,
    chunk_gap: Histogram,
    chunks: IntCounter,
}

#[derive(Clone)]
pub(crate) struct EdgeFamilies {
    pub(crate) requests: IntCounterVec,
    pub(crate) inflight: prometheus::IntGaugeVec,
    pub(crate) durations: HistogramVec,
    pub(crate) first_chunk: HistogramVec,
    pub(crate) chunk_gap: HistogramVec,
    pub(crate) chunks: IntCounterVec,
    pub(crate) response_bytes: IntCounterVec,
    pub(crate) shed: IntCounterVec,
}

impl fmt::Debug for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Edge").field("endpoint", &self.0.endpoint).finish_non_exhaustive()
    }
}

impl Edge {
    pub(crate) fn new(families: &EdgeFamilies, endpoint: &str) -> Self {
        let labels = &[endpoint];
        Self(Arc::new(Inner {
            endpoint: endpoint.to_owned(),
            inflight: families.inflight.with_label_values(labels),
            response_bytes: families.response_bytes.with_label_values(labels),
            streams: OnceLock::new(),
            shed: ShedCounters::new(&families.shed, endpoint),
            requests: (0..STATUSES).map(|_| OnceLock::new()).collect(),
            durations: from_fn(|_| OnceLock::new()),
            families: families.clone(),
        }))
    }

    /// Returns the label of the endpoint, or `_other` for requests to no endpoint.
    pub fn endpoint(&self) -> &str {
        &self.0.endpoint
    }

    /// Begins to measure a request that arrives now. The guard is dropped when the request ends.
    pub fn begin(&self) -> RequestGuard {
        self.0.inflight.inc();
        let begun = Instant::now();
        let (edge, later) = (self.clone(), None);
        RequestGuard { edge, later, begun, status: 0, bytes: 0, is_counted: false }
    }

    /// Begins to measure a request whose endpoint is known later.
    pub fn begin_before_endpoint(&self) -> (RequestGuard, LaterEdge) {
        let mut guard = self.begin();
        let later = LaterEdge(Arc::new(Later { before: self.clone(), endpoint: OnceLock::new() }));
        guard.later = Some(later.clone());
        (guard, later)
    }

    /// Returns the number of requests that have ended: the sum of `litplex_requests_total`.
    pub fn ended(&self) -> u64 {
        // Every counted request is observed in a histogram. Missing series are not created.
        let observed = self.0.durations.iter().filter_map(OnceLock::get);
        observed.map(Histogram::get_sample_count).sum()
    }

    /// Returns the counts of the requests that have ended.
    pub fn totals(&self) -> EdgeTotals {
        let mut totals = EdgeTotals::default();
        for (outcome, observed) in self.0.durations.iter().enumerate() {
            let Some(observed) = observed.get().map(Metric::metric) else { continue };
            let observed = observed.get_histogram();
            totals.outcomes[outcome] = observed.get_sample_count();
            totals.seconds += observed.get_sample_sum();
            if outcome == RequestOutcome::Ok as usize {
                totals.latencies = by_bucket(observed);
            }
        }
        totals
    }

    /// Returns the number of requests that have arrived and not ended.
    pub fn inflight(&self) -> i64 {
        self.0.inflight.get()
    }

    /// Counts a request that is shed.
    pub fn shed(&self, reason: Shed) {
        self.0.shed.count(reason);
    }

    /// Records the first items of a stream, this long after its request.
    pub fn first_chunk(&self, after: Duration, items: usize) {
        let streams = self.0.streams();
        streams.first_chunk.observe(after.as_secs_f64());
        streams.chunks.inc_by(items as u64);
    }

    /// Records further items of a stream, this long after the ones before.
    pub fn next_chunk(&self, after: Duration, items: usize) {
        let streams = self.0.streams();
        streams.chunk_gap.observe(after.as_secs_f64());
        streams.chunks.inc_by(items as u64);
    }
}

/// The counts of the requests to an endpoint that have ended.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct EdgeTotals {
    /// The number of requests by outcome, in the order of [`RequestOutcome`].
    pub outcomes: [u64; OUTCOMES.len()],
    /// The number of successful requests by duration: one count for each of [`LATENCY_BOUNDS`], and one
    /// for those above.
    pub latencies: [u64; LATENCY_BOUNDS.len() + 1],
    /// The sum of the durations of all requests in seconds.
    pub seconds: f64,
}

/// Returns the count of each bucket; Prometheus adds those of the buckets below.
fn by_bucket(observed: &Observed) -> [u64; LATENCY_BOUNDS.len() + 1] {
    let mut below = 0;
    from_fn(|at| {
        let bucket = observed.get_bucket().get(at).map(Bucket::cumulative_count);
        let until = bucket.unwrap_or(observed.get_sample_count());
        until - std::mem::replace(&mut below, until)
    })
}

impl Inner {
    fn count(&self, status: u16, outcome: RequestOutcome) {
        let index = usize::from(status).wrapping_sub(100);
        if outcome == RequestOutcome::from_status(status)
            && let Some(counter) = self.requests.get(index)
        {
            counter.get_or_init(|| self.counter(&status.to_string(), outcome)).inc();
        } else {
            let code = if status == 0 { String::new() } else { status.to_string() };
            self.counter(&code, outcome).inc();
        }
    }

    fn counter(&self, code: &str, outcome: RequestOutcome) -> IntCounter {
        self.families.requests.with_label_values(&[&self.endpoint, outcome.as_str(), code])
    }

    fn streams(&self) -> &Streams {
        let (families, labels) = (&self.families, &[&self.endpoint]);
        self.streams.get_or_init(|| Streams {
            first_chunk: families.first_chunk.with_label_values(labels),
            chunk_gap: families.chunk_gap.with_label_values(labels),
            chunks: families.chunks.with_label_values(labels),
        })
    }

    fn duration(&self, outcome: RequestOutcome) -> &Histogram {
        let make =
            || self.families.durations.with_label_values(&[&self.endpoint, outcome.as_str()]);
        self.durations[outcome as usize].get_or_init(make)
    }
}

/// The metrics to which a request is moved once its endpoint is known.
#[derive(Debug, Clone)]
pub struct LaterEdge(Arc<Later>);

#[derive(Debug)]
struct Later {
    before: Edge,
    /// Empty until the endpoint is known; `None` if the request ended before.
    endpoint: OnceLock<Option<Edge>>,
}

impl LaterEdge {
    /// Counts the request for this endpoint from now on. Only the first endpoint counts.
    pub fn set(&self, endpoint: &Edge) {
        if self.0.endpoint.set(Some(endpoint.clone())).is_ok() {
            endpoint.0.inflight.inc();
            self.0.before.0.inflight.dec();
        }
    }

    fn get(&self) -> Option<&Edge> {
        self.0.endpoint.get()?.as_ref()
    }
}

/// A guard that measures a request until it ends. If it is dropped before [`ended`](Self::ended) or
/// [`broke`](Self::broke), the client has left.
#[derive(Debug)]
pub struct RequestGuard {
    edge: Edge,
    /// The endpoint, if it is known later than the request begins.
    later: Option<LaterEdge>,
    begun: Instant,
    /// The status of the response; 0 before it begins.
    status: u16,
    bytes: u64,
    is_counted: bool,
}

impl RequestGuard {
    /// Returns when the request arrived.
    pub fn begun(&self) -> Instant {
        self.begun
    }

    /// Returns the label of the endpoint, if it became known after the request began.
    pub fn decided_endpoint(&self) -> Option<&str> {
        Some(self.later.as_ref()?.get()?.endpoint())
    }

    /// Records the status of the response, whose body may follow.
    pub fn answered(&mut self, status: u16) {
        self.status = status;
    }

    /// Records that bytes of the response are sent.
    pub fn sent(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }

    /// Records that the last bytes of the response are about to be sent, so that a client that has
    /// them finds its request counted.
    pub fn ended(&mut self) {
        self.count(RequestOutcome::from_status(self.status));
    }

    /// Records that the response breaks off with an error of this status.
    pub fn broke(&mut self, status: u16) {
        self.count(RequestOutcome::from_status(status));
    }

    fn current(&self) -> &Edge {
        self.later.as_ref().and_then(LaterEdge::get).unwrap_or(&self.edge)
    }

    fn count(&mut self, outcome: RequestOutcome) {
        if std::mem::replace(&mut self.is_counted, true) {
            return;
        }
        let inner = &*self.current().0;
        inner.count(self.status, outcome);
        inner.duration(outcome).observe(self.begun.elapsed().as_secs_f64());
        if self.bytes > 0 {
            inner.response_bytes.inc_by(self.bytes);
        }
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        self.count(RequestOutcome::Cancelled);
        if let Some(later) = &self.later {
            later.0.endpoint.get_or_init(|| None);
        }
        self.current().0.inflight.dec();
    }
}
