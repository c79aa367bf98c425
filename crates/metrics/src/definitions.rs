//! The table of metrics: names, kinds, labels, buckets and help texts.

use prometheus::{HistogramOpts, Opts};

/// The definition of a metric: the source of its name, labels, buckets and documentation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Definition {
    /// The name.
    pub name: &'static str,
    /// The kind.
    pub kind: Kind,
    /// The labels; each has a bounded number of values.
    pub labels: &'static [&'static str],
    /// The help text, one sentence.
    pub help: &'static str,
}

/// The kind of a metric.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// A counter that grows until the server restarts.
    Counter,
    /// A value that goes up and down.
    Gauge,
    /// A histogram with these upper bounds of its buckets.
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

/// The upper bounds of the buckets of latencies, in seconds.
pub const LATENCY_BOUNDS: [f64; 15] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// Durations from a millisecond to a minute.
const SECONDS: Kind = Kind::Histogram(&LATENCY_BOUNDS);

/// Durations of stages, from 10 µs to a minute.
const STAGE_SECONDS: Kind = Kind::Histogram(&[
    0.00001, 0.0001, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
    30.0, 60.0,
]);

/// Numbers of requests in a batch.
const SIZES: Kind =
    Kind::Histogram(&[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0]);

/// Costs, in a unit that the endpoint chooses.
const COSTS: Kind = Kind::Histogram(&[1.0, 10.0, 100.0, 1e3, 1e4, 1e5, 1e6, 1e7]);

/// Sizes from 256 bytes to 256 MiB, in powers of four.
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

        /// The metrics of litplex, except for those of its process.
        pub const METRICS: &[Definition] = &[$($constant),*];
    };
}

metrics! {
    REQUESTS: COUNTER, "litplex_requests_total", ["endpoint" "outcome" "code"],
        "Requests that have ended, by outcome and status code of the response.";
    INFLIGHT: GAUGE, "litplex_inflight_requests", ["endpoint"],
        "Requests that have arrived and have not ended.";
    DURATION: SECONDS, "litplex_request_duration_seconds", ["endpoint" "outcome"],
        "Time from the headers of a request to the last byte of its response.";
    FIRST_CHUNK: SECONDS, "litplex_time_to_first_chunk_seconds", ["endpoint"],
        "Time from the headers of a request to the first items of its stream.";
    CHUNK_GAP: SECONDS, "litplex_time_between_chunks_seconds", ["endpoint"],
        "Time between consecutive chunks of a stream.";
    CHUNKS: COUNTER, "litplex_chunks_total", ["endpoint"],
        "Items of streamed responses.";
    REQUEST_BYTES: BYTES, "litplex_request_body_bytes", ["endpoint"],
        "Size of the request bodies that arrive at the queue.";
    RESPONSE_BYTES: COUNTER, "litplex_response_body_bytes_total", ["endpoint"],
        "Bytes of response bodies.";
    SHED: COUNTER, "litplex_shed_total", ["endpoint" "reason"],
        "Requests refused because of the state of the server.";
    AUTH_FAILURES: COUNTER, "litplex_auth_failures_total", ["reason"],
        "Requests with a missing or a wrong key.";
    BUFFERED_BYTES: GAUGE, "litplex_buffered_body_bytes", [],
        "Bytes of memory that requests and responses take.";
    BUFFER_LIMIT: GAUGE, "litplex_buffered_body_limit_bytes", [],
        "Bytes of memory that requests and responses may take (`max_buffered_bytes`).";
    QUEUE_DEPTH: GAUGE, "litplex_queue_depth", ["endpoint"],
        "Requests that wait for a worker.";
    QUEUE_LIMIT: GAUGE, "litplex_queue_limit", ["endpoint"],
        "Requests that may wait; fewer are admitted if they would miss their deadlines.";
    QUEUE_WAIT: SECONDS, "litplex_queue_wait_seconds", ["endpoint"],
        "Time that requests waited until their dispatch to a worker.";
    BATCH_SIZE: SIZES, "litplex_batch_size", ["endpoint"],
        "Requests in a batch that a worker computes together.";
    BATCHES: COUNTER, "litplex_batches_total", ["endpoint" "limit"],
        "Batches of endpoints that batch, by what limited their size: `full`, `queue` (no more requests were waiting), `size` (larger batches take longer per request), `padding` (requests of other sizes would be padded, or pad these, for longer than they save), `cost` (`max_batch_cost`) or `trial` (the endpoint tries another size, or requests of similar size).";
    BATCH_DURATION: SECONDS, "litplex_batch_duration_seconds", ["endpoint"],
        "Time that workers took for a batch, or on average for single requests, as seen by the queue; the first of each worker is ignored.";
    STAGES: STAGE_SECONDS, "litplex_stage_seconds", ["endpoint" "stage"],
        "Time that Python workers took to decode, predict (the whole batch or stream) and encode: for traced requests, and for one request per 10 ms of each worker.";
    STEPS: STAGE_SECONDS, "litplex_step_seconds", ["endpoint" "step" "outcome"],
        "Time that the steps of pipelines took, to their response or the first items of a stream; the outcome is `ok`, `failed`, `default` (a soft step that failed), `cancelled` or `skipped` (a shadow, because too many copies of it were running). Of a map, the steps for its items do not count.";
    CALLS: STAGE_SECONDS, "litplex_call_duration_seconds", ["caller" "endpoint" "status"],
        "Time that calls between endpoints took, to the end of the response, by the endpoint that calls and the one that is called (`_other`: one that does not exist); the status is `2xx`, `3xx`, `4xx`, `5xx` or `cancelled`.";
    BATCH_COST: COSTS, "litplex_batch_cost", ["endpoint"],
        "Cost of batches of endpoints that batch by cost: the size of the batch times the cost of its most expensive request.";
    BATCH_BASIS: GAUGE, "litplex_batch_basis", ["endpoint" "basis"],
        "1 for what the time of a batch depends on, as learned: `requests` (their number), `sum` (the sum of their sizes) or `padded` (their number times the largest size).";
    BATCH_LEARNED_SIZE: GAUGE, "litplex_batch_learned_size", ["endpoint"],
        "Requests that are at most batched together, as learned: fewer than `max_batch_size` where larger batches take longer per request.";
    BATCH_ERROR: GAUGE, "litplex_batch_prediction_error_ratio", ["endpoint"],
        "Mean error of the predicted times of batches, as a part of the time.";
    RETRIES: COUNTER, "litplex_retries_total", ["endpoint" "reason"],
        "Requests dispatched to another worker because theirs was lost, by whether it may have begun them.";
    READY: GAUGE, "litplex_endpoint_ready", ["endpoint"],
        "1 if the endpoint can serve requests, otherwise 0.";
    WORKERS: GAUGE, "litplex_workers", ["endpoint" "state"],
        "Workers by state.";
    WORKERS_WANTED: GAUGE, "litplex_workers_wanted", ["endpoint"],
        "Wanted workers.";
    WORKER_START: GAUGE, "litplex_worker_start_seconds", ["endpoint"],
        "Time from the launch of a worker until it is ready: a mean in which the last start weighs half.";
    RESTARTS: COUNTER, "litplex_worker_restarts_total", ["endpoint" "reason"],
        "Workers launched because the one before was lost or did not become ready, by the reason.";
    WORKER_BUSY: COUNTER, "litplex_worker_busy_seconds_total", ["endpoint" "worker"],
        "Time in which the worker of this slot had requests to compute.";
    DEVICE_SECONDS: COUNTER, "litplex_device_seconds_total", ["endpoint" "device"],
        "Time in which the workers of the endpoint computed on this device: their busy time, without the time in which they were interrupted for others.";
    WORKER_INFLIGHT: GAUGE, "litplex_worker_inflight_requests", ["endpoint" "worker"],
        "Requests dispatched to the worker of this slot and not answered yet.";
    WORKER_MEMORY: GAUGE, "litplex_worker_resident_memory_bytes", ["endpoint" "worker"],
        "Resident memory of the process of the worker in this slot, without its child processes.";
    WORKER_GPU_MEMORY: GAUGE, "litplex_worker_gpu_memory_bytes", ["endpoint" "worker"],
        "GPU memory of the worker in this slot, with its child processes and its CUDA context.";
    WORKER_GPU_LIMIT: GAUGE, "litplex_worker_gpu_memory_limit_bytes", ["endpoint" "worker"],
        "GPU memory that the worker of this slot may allocate (`gpu_memory_fraction`).";
    WORKER_PREDICTED: GAUGE, "litplex_worker_predicted_memory_bytes", ["endpoint"],
        "Host memory that the next worker of this endpoint is expected to need.";
    WORKER_LOADS: COUNTER, "litplex_worker_loads_total", ["endpoint"],
        "Workers that were loaded.";
    WORKER_LOAD_SECONDS: COUNTER, "litplex_worker_load_seconds_total", ["endpoint"],
        "Time that the loads of workers took.";
    WORKER_WAKES: COUNTER, "litplex_worker_wakes_total", ["endpoint"],
        "Workers that hibernated and were woken.";
    WORKER_WAKE_SECONDS: COUNTER, "litplex_worker_wake_seconds_total", ["endpoint"],
        "Time that workers took from a request for them until they were awake.";
    TIER: GAUGE, "litplex_endpoint_tier", ["endpoint" "tier"],
        "1 for how near a model is to serve: `hot`, `hibernated`, `template` or `cold`.";
    EVICTIONS: COUNTER, "litplex_worker_evictions_total", ["endpoint"],
        "Workers that left memory because others needed it.";
    NO_ROOM: COUNTER, "litplex_worker_no_room_total", ["endpoint"],
        "Starts of workers for which there was no room in memory.";
    RESIDENCY: COUNTER, "litplex_residency_requests_total", ["endpoint" "worker"],
        "Requests that came while a worker was in memory (`resident`) or none was (`absent`), of endpoints whose number of workers follows the load.";
    MEMORY_HELD: GAUGE, "litplex_memory_held_bytes", ["place"],
        "Memory of all workers in this place: as measured, or as predicted while they load.";
    TEMPLATE_MEMORY: GAUGE, "litplex_template_memory_bytes", ["place"],
        "The part of `litplex_memory_held_bytes` that templates have, from which workers are forked.";
    MEMORY_BUDGET: GAUGE, "litplex_memory_budget_bytes", ["place"],
        "Memory that all workers together may have in this place (`memory_budget`, `gpu_memory_budget`).";
    GPU_USED: GAUGE, "litplex_gpu_memory_used_bytes", ["gpu" "uuid"],
        "Memory of this GPU in use by all processes.";
    GPU_TOTAL: GAUGE, "litplex_gpu_memory_total_bytes", ["gpu" "uuid"],
        "Total memory of this GPU.";
    GPU_UTILIZATION: GAUGE, "litplex_gpu_utilization_ratio", ["gpu" "uuid"],
        "Share of the last sampling period, at most a second, in which this GPU computed.";
    BUILD: GAUGE, "litplex_build_info", ["version"],
        "Always 1; the label is the version of litplex.";
}

/// The metrics of the server's process, with the names of Prometheus client libraries.
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
    fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }
}

/// Returns the table as `docs/metrics.md` shows it.
pub fn table_markdown() -> String {
    let row = |metric: &Definition| {
        let labels: Vec<_> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let Definition { name, kind, help, .. } = metric;
        format!("| `{name}` | {} | {} | {help} |\n", kind.as_str(), labels.join(", "))
    };
    let process = |(name, kind): &(&str, Kind)| {
        format!(
            "| `{name}` | {} | | Standard metric of the server's process, without its workers. |\n",
            kind.as_str()
        )
    };
    let rows: String = METRICS.iter().map(row).chain(PROCESS_METRICS.iter().map(process)).collect();
    format!("| metric | kind | labels | |\n|---|---|---|---|\n{rows}")
}
