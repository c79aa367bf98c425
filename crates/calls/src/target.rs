//! The endpoints that can be called.

use std::sync::Arc;
use std::time::Duration;

use litplex_core::{Cost, Identity, ModelInfo, Outcome, ServeError};
use litplex_metrics::{Edge, Shed};
use litplex_scheduler::Endpoint;
use tokio::time::timeout_at;

use crate::TimeBudget;

/// An endpoint as its callers see it.
#[derive(Debug, Clone)]
pub struct Target {
    /// Its path and its names.
    pub identity: Arc<Identity>,
    /// The queue.
    pub endpoint: Endpoint,
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
}

impl Target {
    /// Returns the properties of the model, once a worker was ready.
    ///
    /// # Errors
    /// A counted 503, if no worker was ready yet.
    pub fn info(&self) -> Outcome<&ModelInfo> {
        self.endpoint.model_info().ok_or_else(|| self.starting())
    }

    /// Returns the properties of the model, after the wait for them if requests wait for the first worker.
    ///
    /// # Errors
    /// A counted 503, if no worker was ready in time.
    pub async fn ready(&self, budget: TimeBudget) -> Outcome<&ModelInfo> {
        if self.waits_for_first_worker {
            let ready = timeout_at(budget.deadline, self.endpoint.ready()).await;
            ready.map_err(|_| self.starting())?;
        }
        self.info()
    }

    fn starting(&self) -> ServeError {
        self.metrics.shed(Shed::NoWorker);
        ServeError::not_ready("this endpoint is not ready yet", 1)
    }
}
