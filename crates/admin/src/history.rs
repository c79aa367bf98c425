//! The history of an endpoint, as the admin API shows it.

use litplex_history::ErrorCounts;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The choice of a part of an endpoint's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryQuery {
    /// The path of the endpoint, its name or an alias.
    pub endpoint: String,
    /// The last seconds.
    pub seconds: u64,
    /// The least length of a point in seconds.
    pub step: u32,
}

impl HistoryQuery {
    /// The time that is kept, in seconds.
    pub const KEPT_SECONDS: u64 = 24 * 3600;

    /// The number of points of a history if the client does not say how long they are.
    pub const POINTS: u64 = 600;
}

/// The last seconds of an endpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EndpointHistory {
    /// The path of the endpoint, or its name where endpoints share the path.
    pub endpoint: String,
    /// The points, the oldest first. They are longer where the history is older and was busy.
    pub points: Vec<HistoryPoint>,
}

/// Some seconds of an endpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct HistoryPoint {
    /// The start, in seconds since 1970.
    pub time: f64,
    /// The length in seconds.
    pub seconds: u32,
    /// The number of requests of clients that ended.
    pub requests: u64,
    /// The requests of clients that ended, per second.
    pub rate: f64,
    /// The number of failed requests, by class.
    pub errors: ErrorCounts,
    /// The number of jobs that arrived at the queue, those of calls of other endpoints included.
    pub jobs: u64,
    /// The most jobs that workers held; of a pipeline, its requests in progress.
    pub in_flight: u64,
    /// The most jobs that waited.
    pub queued: u64,
    /// The median latency of successful requests in seconds.
    pub p50: Option<f64>,
    /// The latency in seconds that 99 % of the successful requests did not exceed.
    pub p99: Option<f64>,
    /// The fewest workers that were ready.
    pub workers_ready: u64,
    /// The number of workers that were replaced.
    pub restarts: u64,
}

/// The load of all endpoints now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Load {
    /// The endpoints, in the order of the configuration.
    pub endpoints: Vec<EndpointLoad>,
}

/// The load of an endpoint now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct EndpointLoad {
    /// The path of the endpoint, or its name where endpoints share the path.
    pub endpoint: String,
    /// `ready`, `unavailable`, `paused` or `draining`.
    pub state: String,
    /// The number of workers that are ready.
    pub workers_ready: usize,
    /// The number of wanted workers.
    pub workers: usize,
    /// The number of jobs that workers hold; of a pipeline, its requests in progress.
    pub in_flight: usize,
    /// The number of jobs that wait.
    pub queued: usize,
    /// The requests of clients that ended per second, over the last ten seconds.
    pub rate: f64,
    /// The jobs that arrived per second, those of calls included, over the last ten seconds.
    pub job_rate: f64,
    /// The number of requests that failed in the last minute.
    pub errors: ErrorCounts,
    /// The median latency of the last minute in seconds.
    pub p50: Option<f64>,
    /// The latency in seconds that 99 % of the requests of the last minute did not exceed.
    pub p99: Option<f64>,
    /// The bytes of memory that its workers use; `None` if they are threads of the server.
    pub memory: Option<u64>,
    /// Why the endpoint is slow, in words.
    pub slow: Option<String>,
    /// The findings about its batches, in words, if it batches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batches: Option<String>,
}
