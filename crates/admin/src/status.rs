//! The status of a running server.

use serde::{Deserialize, Serialize};

/// The status of a server.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The process id.
    pub pid: u32,
    /// The address of the server, such as `http://127.0.0.1:8000`.
    pub url: String,
    /// The port of the address.
    pub port: u16,
    /// The seconds since the start of the server.
    pub uptime: f64,
    /// The endpoints, in the order of the configuration.
    pub endpoints: Vec<EndpointStatus>,
}

/// The status of an endpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EndpointStatus {
    /// The path.
    pub path: String,
    /// The name.
    #[serde(default)]
    pub name: String,
    /// Further names.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// `python`, `rust` or `pipeline`, which has no workers.
    pub kind: String,
    /// `ready`, or a word for the problem.
    pub state: String,
    /// The reason why the endpoint is not ready.
    pub problem: Option<String>,
    /// The number of wanted workers.
    pub wanted: usize,
    /// The lower limit of autoscaling.
    pub min_workers: Option<usize>,
    /// The upper limit of autoscaling.
    pub max_workers: Option<usize>,
    /// The number of jobs that wait. A request with several inputs, such as a list of texts to
    /// embed, is several jobs.
    pub queued: usize,
    /// The number of jobs that workers hold.
    pub in_flight: usize,
    /// The number of requests that have ended since the start, refused ones included: the sum of
    /// `litplex_requests_total` on `/metrics`.
    pub requests: u64,
    /// The workers, by slot.
    pub workers: Vec<WorkerStatus>,
}

/// The status of a worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// The number of the slot.
    pub slot: usize,
    /// The state of the slot, in a word: `starting`, `ready`, …
    pub state: String,
    /// The process id; `None` for a worker that is a thread.
    pub pid: Option<u32>,
    /// The device that the worker computes on.
    pub device: String,
    /// The number of jobs that the worker holds.
    pub in_flight: usize,
    /// The number of times that the slot's worker was replaced.
    pub restarts: u64,
    /// The seconds since the worker became ready; `None` while it is not.
    pub ready_for: Option<f64>,
    /// The reason why the worker is not ready, or why the one before it ended.
    pub reason: Option<String>,
}
