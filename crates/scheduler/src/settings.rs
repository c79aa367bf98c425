//! The settings of an endpoint's queue, and its outlook on workers.

use std::time::Duration;

/// The settings of an endpoint's queue.
#[derive(Debug, Clone, Default)]
pub struct QueueSettings {
    /// The most jobs that may wait. Default: as many as can be answered before their deadlines.
    pub max_queue: Option<usize>,
    /// The longest time that a job may wait for a worker. Default: until its deadline.
    pub queue_timeout: Option<Duration>,
    /// Whether a job is retried whose worker was lost while it may have computed the job. Default:
    /// unless its response is a stream.
    pub idempotent: Option<bool>,
    /// Whether jobs of similar cost are batched together ([`fill`](crate::fill)).
    pub by_cost: bool,
    /// Whether newer jobs go first while the queue stands, if the endpoint is idempotent and its responses
    /// are no streams.
    pub adaptive_order: bool,
    /// Whether batches are as full as they can be, whatever the endpoint learns of their time.
    pub fixed_batches: bool,
    /// The highest cost of a batch, padding included.
    pub max_batch_cost: Option<f64>,
    /// The weight of the endpoint on devices that it shares; `None`: that of its seats.
    pub device_weight: Option<f64>,
    /// The generation of the workers, as recordings of requests show it.
    pub generation: u64,
    /// Whether its jobs are shadows, which are in no metric of the queue.
    pub is_shadow: bool,
}

/// The outlook of an endpoint that has no ready worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outlook {
    /// A worker will be ready: jobs wait for it.
    Coming {
        /// The expected time until it is ready, from the moment this outlook is set; `None` while
        /// that is unknown.
        within: Option<Duration>,
        /// Whether the endpoint is scaled to zero, so that a request starts a worker.
        is_asleep: bool,
    },
    /// No worker will be ready soon: jobs are refused.
    Down {
        /// The reason, as a text for clients.
        reason: String,
        /// The delay after which a client should try again.
        retry_after: Duration,
    },
}

impl Default for Outlook {
    fn default() -> Self {
        Self::Coming { within: None, is_asleep: false }
    }
}
