//! The load of an endpoint and its workers, for status pages, metrics and the autoscaler.

use std::time::Duration;

use litplex_core::Mode;
use tokio::time::Instant;

/// The load of an endpoint.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct EndpointLoad {
    /// The number of jobs that have arrived so far, refused ones included.
    pub arrived: u64,
    /// The number of jobs refused so far.
    pub refused: u64,
    /// The number of jobs that wait.
    pub queued: usize,
    /// The most jobs that may wait.
    pub queue_limit: usize,
    /// The number of jobs that workers hold.
    pub in_flight: usize,
    /// The jobs per second that one busy worker answers; `None` while that is unknown.
    pub worker_rate: Option<f64>,
    /// The workers that take jobs.
    pub workers: Vec<WorkerLoad>,
    /// For each slot, the total time in which its workers had jobs.
    pub busy: Vec<Duration>,
    /// For each slot, the part of that time in which they were paused, because others computed on the device.
    pub paused: Vec<Duration>,
    /// The mode of the endpoint.
    pub mode: Mode,
    /// The time until a worker is ready; `None` if one is, or that is not known.
    pub expected: Option<Duration>,
}

/// The load of a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WorkerLoad {
    /// The slot that the worker fills.
    pub slot: usize,
    /// The time at which the worker was attached.
    pub since: Instant,
    /// The number of jobs that the worker holds.
    pub in_flight: usize,
}
