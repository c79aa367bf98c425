//! The endpoints that can be called.

use std::sync::Arc;
use std::time::Duration;

use litplex_core::{Cost, Identity, ModelInfo, Outcome, Root, ServeError};
use litplex_metrics::{Edge, Shed};
use litplex_scheduler::Endpoint;
use tokio::time::timeout_at;

use crate::composed::Composed;
use crate::deadlock::WatchedQueue;
use crate::demand::Demand;
use crate::{TimeBudget, Trial};

/// The part of an endpoint that answers its requests.
#[derive(Debug, Clone)]
pub enum Backend {
    /// A queue with workers.
    Queue(Endpoint),
    /// Calls of other endpoints.
    Composed(Arc<dyn Composed>),
}

/// An endpoint as its callers see it.
#[derive(Debug, Clone)]
pub struct Target {
    /// Its path and its names.
    pub identity: Arc<Identity>,
    /// The part that answers its requests.
    pub backend: Backend,
    /// The longest time budget of a request: to its response, or to the first items of a stream.
    pub timeout: Duration,
    /// The time budget between two parts of a stream.
    pub chunk_timeout: Duration,
    /// The rule by which the cost of a request is read from its body. Without a rule the model computes
    /// the cost, if it has a hook for that ([`ModelInfo::has_cost`]).
    pub cost: Option<Cost>,
    /// Whether requests wait, within their time budget, for the first worker. Otherwise they are refused
    /// until a worker was ready.
    pub waits_for_first_worker: bool,
    /// The scopes that a client's token must have for calls that are made for its requests.
    pub scopes: Vec<String>,
    /// The metrics of the requests.
    pub metrics: Edge,
    /// The calls that its requests lead to, and those of it that requests of others will make.
    pub demand: Arc<Demand>,
    /// The queue, as the detector of deadlocks knows it; that of a pipeline has no workers.
    pub watched: WatchedQueue,
    /// Held while the target is: its generation is in use as long as there is a clone.
    pub lease: Lease,
    /// Its part in the trial of a new generation, if there is one.
    pub trial: Option<Trial>,
}

/// A mark of the targets of one generation. The generation is in use as long as there is a clone of it.
#[derive(Debug, Clone, Default)]
pub struct Lease(Arc<()>);

impl Lease {
    /// Returns whether there is another clone of it.
    pub fn is_shared(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }
}

/// The wait of requests for a worker of an endpoint that has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ColdStart {
    /// The time until one is ready; `None` if that is not known.
    pub expected: Option<Duration>,
}

impl Target {
    /// Returns the target that a request with this root is for: this one, or that of a generation on trial.
    /// All calls for a request of a client choose the same.
    #[must_use]
    pub fn chosen(self: Arc<Self>, root: Option<&Root>) -> Arc<Self> {
        match &self.trial {
            None => self,
            Some(trial) => trial.choose(root).unwrap_or(self),
        }
    }

    /// Returns the properties of the model, once a worker was ready.
    ///
    /// # Errors
    /// A counted 503, if no worker was ready yet.
    pub fn info(&self) -> Outcome<&ModelInfo> {
        self.model_info().ok_or_else(|| self.starting())
    }

    /// Returns the properties of the model, if a worker was ready.
    pub fn model_info(&self) -> Option<&ModelInfo> {
        match &self.backend {
            Backend::Queue(endpoint) => endpoint.model_info(),
            Backend::Composed(composed) => Some(composed.info()),
        }
    }

    /// Returns the queue, if the endpoint has workers.
    pub fn queue(&self) -> Option<&Endpoint> {
        match &self.backend {
            Backend::Queue(endpoint) => Some(endpoint),
            Backend::Composed(_) => None,
        }
    }

    /// Returns whether its requests lead to calls, as far as that is known.
    pub fn makes_calls(&self) -> bool {
        self.queue().is_none_or(Endpoint::makes_calls)
    }

    /// Returns the number of requests that may wait, if the endpoint limits it.
    pub fn max_queue(&self) -> Option<usize> {
        self.queue().and_then(Endpoint::max_queue)
    }

    /// Tells the endpoint that the caller of one of its jobs has left.
    pub(crate) fn caller_left(&self) {
        if let Some(endpoint) = self.queue() {
            endpoint.caller_left();
        }
    }

    /// Returns the properties of the model, after the wait for them if requests wait for the first worker.
    ///
    /// # Errors
    /// A counted 503, if no worker was ready in time or none is expected.
    pub async fn ready(&self, budget: TimeBudget) -> Outcome<&ModelInfo> {
        if let Some(endpoint) = self.queue()
            && self.waits_for_first_worker
        {
            let ready = timeout_at(budget.deadline, endpoint.first_worker()).await;
            return ready.map_err(|_| self.starting())?;
        }
        self.info()
    }

    /// Returns the wait for a worker; `None` if one is ready, or the endpoint has no workers of its own.
    pub async fn cold_start(&self) -> Option<ColdStart> {
        let load = self.queue()?.load().await;
        load.workers.is_empty().then_some(ColdStart { expected: load.expected })
    }

    fn starting(&self) -> ServeError {
        self.metrics.shed(Shed::NoWorker);
        ServeError::not_ready("this endpoint is not ready yet", 1)
    }
}
