use prometheus::{HistogramOpts, Opts};

/// One metric: the source of its name, labels, buckets and documentation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Definition {
    /// What it is called.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// What its series are told apart by; every label has a bounded number of values.
    pub labels: &'static [&'static str],
    /// A sentence.
    pub help: &'static str,
}

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// It only grows, until the server starts anew.
    Counter,
    /// It goes up and down.
    Gauge,
    /// How many values were at most each of these.
    Histogram(&'static [f64]),
}

impl Definition {
    pub(crate) fn opts(&self) -> Opts {
        Opts::new(self.name, self.help)
    }

    pub(crate) fn histogram_opts(&self) -> HistogramOpts {
        let opts = HistogramOpts::new(self.name, self.help);
        match self.kind {
            Kind::Histogram(buckets) => opts.buckets(buckets.to_vec()),
            Kind::Counter | Kind::Gauge => opts,
        }
    }
}

/// From what is computed in a millisecond to what somebody waits a minute for.
const SECONDS: Kind = Kind::Histogram(&[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
]);

/// From what is hardly anything.
const STAGE_SECONDS: Kind = Kind::Histogram(&[
    0.00001, 0.0001, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
    30.0, 60.0,
]);

const SIZES: Kind =
    Kind::Histogram(&[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0]);

/// Costs are in a unit that the endpoint chose.
const COSTS: Kind = Kind::Histogram(&[1.0, 10.0, 100.0, 1e3, 1e4, 1e5, 1e6, 1e7]);

/// From 256 bytes to 256 MiB, in steps of four.
const BYTES: Kind = Kind::Histogram(&[
    256.0,
    1024.0,
    4096.0,
    16384.0,
    65536.0,
    262_144.0,
    1_048_576.0,
    4_194_304.0,
    16_777_216.0,
    67_108_864.0,
    268_435_456.0,
]);

const COUNTER: Kind = Kind::Counter;
const GAUGE: Kind = Kind::Gauge;

macro_rules! metrics {
    ($($constant:ident: $kind:expr, $name:literal, [$($label:literal)*], $help:literal;)*) => {
        $(pub(crate) const $constant: Definition = Definition {
            name: $name,
            kind: $kind,
            labels: &[$($label),*],
            help: $help,
        };)*

        /// Every metric of litplex itself, besides those of its process.
        pub const METRICS: &[Definition] = &[$($constant),*];
    };
}

metrics! {
    REQUESTS: COUNTER, "litplex_requests_total", ["endpoint" "outcome" "code"],
        "Requests that have ended, by what became of them and the status that they were answered with.";
    INFLIGHT: GAUGE, "litplex_inflight_requests", ["endpoint"],
        "Requests that have come and have not ended.";
    DURATION: SECONDS, "litplex_request_duration_seconds", ["endpoint" "outcome"],
        "From the headers of a request to the last byte of its answer.";
    FIRST_CHUNK: SECONDS, "litplex_time_to_first_chunk_seconds", ["endpoint"],
        "From the headers of a request to the first items of its stream.";
    CHUNK_GAP: SECONDS, "litplex_time_between_chunks_seconds", ["endpoint"],
        "From some items of a stream to the next that come.";
    CHUNKS: COUNTER, "litplex_chunks_total", ["endpoint"],
        "Items of streams.";
    REQUEST_BYTES: BYTES, "litplex_request_body_bytes", ["endpoint"],
        "The size of the bodies that came to the queue.";
    RESPONSE_BYTES: COUNTER, "litplex_response_body_bytes_total", ["endpoint"],
        "Bytes of the bodies of answers.";
    SHED: COUNTER, "litplex_shed_total", ["endpoint" "reason"],
        "Requests that were refused because of the state of the server.";
    AUTH_FAILURES: COUNTER, "litplex_auth_failures_total", ["reason"],
        "Requests without the key of the server, or with a wrong one.";
    BUFFERED_BYTES: GAUGE, "litplex_buffered_body_bytes", [],
        "Bytes that requests and answers take.";
    BUFFER_LIMIT: GAUGE, "litplex_buffered_body_limit_bytes", [],
        "Bytes that requests and answers may take (`max_buffered_bytes`).";
    QUEUE_DEPTH: GAUGE, "litplex_queue_depth", ["endpoint"],
        "Requests that wait for a worker.";
    QUEUE_LIMIT: GAUGE, "litplex_queue_limit", ["endpoint"],
        "Requests that may wait; fewer where they could not be answered in their time.";
    QUEUE_WAIT: SECONDS, "litplex_queue_wait_seconds", ["endpoint"],
        "How long requests waited until a worker was given them.";
    BATCH_SIZE: SIZES, "litplex_batch_size", ["endpoint"],
        "Requests that a worker was given to compute together.";
    BATCH_DURATION: SECONDS, "litplex_batch_duration_seconds", ["endpoint"],
        "How long workers took for a batch, or for single requests on average, as the queue sees it; the first of each worker is left out.";
    STAGES: STAGE_SECONDS, "litplex_stage_seconds", ["endpoint" "stage"],
        "How long workers of models in Python took to decode, predict (the whole batch, or stream) and encode: of those requests that are traced, and of one every 10 ms of each worker.";
    BATCH_COST: COSTS, "litplex_batch_cost", ["endpoint"],
        "What batches cost that are put together by cost: their size times the cost of the most expensive request.";
    RETRIES: COUNTER, "litplex_retries_total", ["endpoint" "reason"],
        "Requests that were given to another worker because theirs was lost: it had not begun them, or may have.";
    READY: GAUGE, "litplex_endpoint_ready", ["endpoint"],
        "1 where the endpoint can serve, else 0.";
    WORKERS: GAUGE, "litplex_workers", ["endpoint" "state"],
        "Workers by what they are doing.";
    WORKERS_WANTED: GAUGE, "litplex_workers_wanted", ["endpoint"],
        "Workers that there should be.";
    WORKER_START: GAUGE, "litplex_worker_start_seconds", ["endpoint"],
        "How long a worker takes until it is ready: a mean in which the last start weighs half.";
    RESTARTS: COUNTER, "litplex_worker_restarts_total", ["endpoint" "reason"],
        "Workers that were started because the one before was gone or did not become ready, by why that was.";
    WORKER_BUSY: COUNTER, "litplex_worker_busy_seconds_total", ["endpoint" "worker"],
        "Time in which the worker of this slot had something to compute.";
    WORKER_INFLIGHT: GAUGE, "litplex_worker_inflight_requests", ["endpoint" "worker"],
        "Requests that the worker of this slot has been given and has not answered.";
    WORKER_MEMORY: GAUGE, "litplex_worker_resident_memory_bytes", ["endpoint" "worker"],
        "Memory of the process of the worker of this slot, without what that started.";
    WORKER_GPU_MEMORY: GAUGE, "litplex_worker_gpu_memory_bytes", ["endpoint" "worker"],
        "Memory of GPUs that the worker of this slot has, with what it started and its CUDA context.";
    WORKER_GPU_LIMIT: GAUGE, "litplex_worker_gpu_memory_limit_bytes", ["endpoint" "worker"],
        "Memory of its GPU that the worker of this slot may allocate (`gpu_memory_fraction`).";
    GPU_USED: GAUGE, "litplex_gpu_memory_used_bytes", ["gpu" "uuid"],
        "Memory of this GPU that is in use, by whomever.";
    GPU_TOTAL: GAUGE, "litplex_gpu_memory_total_bytes", ["gpu" "uuid"],
        "Memory that this GPU has.";
    GPU_UTILIZATION: GAUGE, "litplex_gpu_utilization_ratio", ["gpu" "uuid"],
        "The share of the last moment, up to a second, in which this GPU computed.";
    BUILD: GAUGE, "litplex_build_info", ["version"],
        "1; which litplex this is.";
}

/// What the process of the server says of itself, as the library of the field calls it.
pub const PROCESS_METRICS: &[(&str, Kind)] = &[
    ("process_cpu_seconds_total", COUNTER),
    ("process_max_fds", GAUGE),
    ("process_open_fds", GAUGE),
    ("process_resident_memory_bytes", GAUGE),
    ("process_start_time_seconds", GAUGE),
    ("process_threads", GAUGE),
    ("process_virtual_memory_bytes", GAUGE),
];

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }
}

/// Returns the table as `docs/metrics.md` shows it.
pub fn table_markdown() -> String {
    let row = |of: &Definition| {
        let labels: Vec<_> = of.labels.iter().map(|label| format!("`{label}`")).collect();
        format!("| `{}` | {} | {} | {} |\n", of.name, of.kind.word(), labels.join(", "), of.help)
    };
    let process = |(name, kind): &(&str, Kind)| {
        format!(
            "| `{name}` | {} | | Of the server's process, without its workers. |\n",
            kind.word()
        )
    };
    let rows: String = METRICS.iter().map(row).chain(PROCESS_METRICS.iter().map(process)).collect();
    format!("| metric | kind | labels | |\n|---|---|---|---|\n{rows}")
}
