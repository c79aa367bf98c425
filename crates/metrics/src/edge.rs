use std::array::from_fn;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge};
use tokio::time::Instant;

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was answered as its client wished.
    Ok,
    /// Something is wrong with it.
    BadInput,
    /// The model raised.
    ModelError,
    /// Its time ran out.
    Timeout,
    /// Its client left before it had the whole answer.
    Cancelled,
    /// It was refused because of the state of the server.
    Unavailable,
    /// Its worker was lost.
    WorkerLost,
}

const OUTCOMES: [(Outcome, &str); 7] = [
    (Outcome::Ok, "ok"),
    (Outcome::BadInput, "bad_input"),
    (Outcome::ModelError, "model_error"),
    (Outcome::Timeout, "timeout"),
    (Outcome::Cancelled, "cancelled"),
    (Outcome::Unavailable, "unavailable"),
    (Outcome::WorkerLost, "worker_lost"),
];

impl Outcome {
    /// Returns what a status says.
    pub fn of_status(status: u16) -> Self {
        match status {
            408 | 504 => Self::Timeout,
            502 => Self::WorkerLost,
            429 | 503 => Self::Unavailable,
            ..400 => Self::Ok,
            400..500 => Self::BadInput,
            _ => Self::ModelError,
        }
    }

    fn word(self) -> &'static str {
        OUTCOMES[self as usize].1
    }
}

/// Why a request was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shed {
    /// As many wait as may wait.
    QueueFull,
    /// Those that wait will take longer than it has.
    Deadline,
    /// There is no worker, and none will be there soon.
    NoWorker,
    /// The server holds as much for its clients as it may.
    Memory,
    /// The server is stopping.
    Draining,
}

const SHED: [&str; 5] = ["queue_full", "deadline", "no_worker", "memory", "draining"];

/// Counts refusals by their reasons.
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

/// Statuses that HTTP can carry, from 100 on.
const STATUSES: usize = 900;

/// What is measured of the requests to an endpoint. Cheap to clone; what costs a look-up is looked
/// up once.
#[derive(Clone)]
pub struct Edge(Arc<Inner>);

struct Inner {
    endpoint: String,
    families: EdgeFamilies,
    inflight: IntGauge,
    response_bytes: IntCounter,
    shed: ShedCounters,
    /// Of endpoints that stream.
    streams: OnceLock<Streams>,
    /// Requests by their status, where that says what became of them.
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

    /// Returns the path of the endpoint; nothing for what is none.
    pub fn endpoint(&self) -> &str {
        &self.0.endpoint
    }

    /// Measures a request that has come now, until what is returned is dropped.
    pub fn begin(&self) -> Ongoing {
        self.0.inflight.inc();
        let begun = Instant::now();
        Ongoing { edge: self.clone(), begun, status: 0, bytes: 0, is_counted: false }
    }

    /// Returns how many requests have ended: the sum of `litplex_requests_total` over its outcomes.
    pub fn ended(&self) -> u64 {
        // Each is observed as it is counted. A series that is not there yet is not made.
        let observed = self.0.durations.iter().filter_map(OnceLock::get);
        observed.map(Histogram::get_sample_count).sum()
    }

    /// Returns how many requests have come and not ended.
    pub fn inflight(&self) -> i64 {
        self.0.inflight.get()
    }

    /// Counts a request that is refused.
    pub fn shed(&self, reason: Shed) {
        self.0.shed.count(reason);
    }

    /// Notes that the first items of a stream have come, this long after its request.
    pub fn first_chunk(&self, after: Duration, items: usize) {
        let streams = self.0.streams();
        streams.first_chunk.observe(after.as_secs_f64());
        streams.chunks.inc_by(items as u64);
    }

    /// Notes that more items of a stream have come, this long after those before.
    pub fn next_chunk(&self, after: Duration, items: usize) {
        let streams = self.0.streams();
        streams.chunk_gap.observe(after.as_secs_f64());
        streams.chunks.inc_by(items as u64);
    }
}

impl Inner {
    fn count(&self, status: u16, outcome: Outcome) {
        let place = usize::from(status).wrapping_sub(100);
        if outcome == Outcome::of_status(status)
            && let Some(counter) = self.requests.get(place)
        {
            counter.get_or_init(|| self.counter(&status.to_string(), outcome)).inc();
        } else {
            let code = if status == 0 { String::new() } else { status.to_string() };
            self.counter(&code, outcome).inc();
        }
    }

    fn counter(&self, code: &str, outcome: Outcome) -> IntCounter {
        self.families.requests.with_label_values(&[&self.endpoint, outcome.word(), code])
    }

    fn streams(&self) -> &Streams {
        let (families, labels) = (&self.families, &[&self.endpoint]);
        self.streams.get_or_init(|| Streams {
            first_chunk: families.first_chunk.with_label_values(labels),
            chunk_gap: families.chunk_gap.with_label_values(labels),
            chunks: families.chunks.with_label_values(labels),
        })
    }

    fn duration(&self, outcome: Outcome) -> &Histogram {
        let make = || self.families.durations.with_label_values(&[&self.endpoint, outcome.word()]);
        self.durations[outcome as usize].get_or_init(make)
    }
}

/// A request that has come and not ended. Dropped before it has [`ended`](Self::ended), its client
/// has left.
#[derive(Debug)]
pub struct Ongoing {
    edge: Edge,
    begun: Instant,
    /// 0 before it is answered.
    status: u16,
    bytes: u64,
    is_counted: bool,
}

impl Ongoing {
    /// Notes the status of its answer, whose body may follow.
    pub fn answered(&mut self, status: u16) {
        self.status = status;
    }

    /// Notes that so many bytes of its answer go out.
    pub fn sent(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
    }

    /// Notes that the last of its answer goes out: whoever has it finds it counted.
    pub fn ended(&mut self) {
        self.count(Outcome::of_status(self.status));
    }

    /// Notes that its answer breaks off, for what this status would say.
    pub fn broke(&mut self, status: u16) {
        self.count(Outcome::of_status(status));
    }

    fn count(&mut self, outcome: Outcome) {
        if std::mem::replace(&mut self.is_counted, true) {
            return;
        }
        let inner = &*self.edge.0;
        inner.count(self.status, outcome);
        inner.duration(outcome).observe(self.begun.elapsed().as_secs_f64());
        if self.bytes > 0 {
            inner.response_bytes.inc_by(self.bytes);
        }
    }
}

impl Drop for Ongoing {
    fn drop(&mut self) {
        self.count(Outcome::Cancelled);
        self.edge.0.inflight.dec();
    }
}
