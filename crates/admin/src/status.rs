use serde::{Deserialize, Serialize};

/// What a server is and does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Its process id.
    pub pid: u32,
    /// Where it listens, `http://127.0.0.1:8000`.
    pub url: String,
    /// The port of that.
    pub port: u16,
    /// Seconds since it started.
    pub uptime: f64,
    /// Its endpoints, in the order in which they were given.
    pub endpoints: Vec<EndpointStatus>,
}

/// What an endpoint is and does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EndpointStatus {
    /// Where it is served.
    pub path: String,
    /// `python` or `rust`.
    pub kind: String,
    /// `ready` where nothing is wrong, else in a word what is.
    pub state: String,
    /// Why it is not ready.
    pub problem: Option<String>,
    /// Workers that it is to have.
    pub wanted: usize,
    /// The fewest that it may be given as load moves.
    pub min_workers: Option<usize>,
    /// The most that it may be given as load moves.
    pub max_workers: Option<usize>,
    /// Jobs that wait: a request of several inputs, such as a list of texts to embed, is as many.
    pub queued: usize,
    /// Jobs that workers have.
    pub in_flight: usize,
    /// Requests that have ended since the server started, refused ones among them: the sum of
    /// `litplex_requests_total` on `/metrics`.
    pub requests: u64,
    /// Its workers, by slot.
    pub workers: Vec<WorkerStatus>,
}

/// What a worker is and does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// The slot that it fills.
    pub slot: usize,
    /// What the slot is doing, in a word: `starting`, `ready`, …
    pub state: String,
    /// Its process id, where it is a process.
    pub pid: Option<u32>,
    /// What it computes on.
    pub device: String,
    /// Jobs that it has.
    pub in_flight: usize,
    /// How often the slot's worker was replaced.
    pub restarts: u64,
    /// Seconds since it became ready, while it is.
    pub ready_for: Option<f64>,
    /// Why it is not ready, or why the one before it is gone.
    pub reason: Option<String>,
}
