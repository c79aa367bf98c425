use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use litmux_core::Traits;
use litmux_scheduler::Endpoint;

/// What the edge needs to know of one endpoint.
#[derive(Debug, Clone)]
pub struct Route {
    /// Its queue.
    pub endpoint: Endpoint,
    /// The time budget of a request, from its arrival to its answer.
    pub timeout: Duration,
    /// The largest request body, in bytes.
    pub max_body_bytes: usize,
}

/// The state of the whole server, for `/`, `/health` and `/info`.
#[derive(Debug, Clone)]
pub struct Report {
    /// Every endpoint, in the order of the configuration.
    pub endpoints: Vec<EndpointReport>,
}

impl Report {
    /// Tells whether every endpoint is ready.
    pub fn is_ready(&self) -> bool {
        self.endpoints.iter().all(|endpoint| endpoint.problem.is_none())
    }
}

/// The state of one endpoint.
#[derive(Debug, Clone)]
pub struct EndpointReport {
    /// Its path.
    pub path: String,
    /// `rust` or `python`.
    pub kind: &'static str,
    /// Why it is not ready; nothing when it is.
    pub problem: Option<String>,
    /// Workers that take jobs.
    pub workers_ready: usize,
    /// Workers that there should be.
    pub workers: usize,
    /// The time budget of a request, in seconds.
    pub timeout: f64,
    /// What the model's author chose, once a worker was ready.
    pub traits: Option<Traits>,
}

/// Everything that is served on one socket.
pub struct App {
    routes: HashMap<String, Route>,
    report: Box<dyn Fn() -> Report + Send + Sync>,
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App").field("routes", &self.routes).finish_non_exhaustive()
    }
}

impl App {
    /// Makes an app of endpoints by path; `report` is asked whenever somebody wants to know.
    pub fn new(
        routes: HashMap<String, Route>,
        report: impl Fn() -> Report + Send + Sync + 'static,
    ) -> Self {
        Self { routes, report: Box::new(report) }
    }

    pub(crate) fn route(&self, path: &str) -> Option<&Route> {
        self.routes.get(path)
    }

    pub(crate) fn report(&self) -> Report {
        (self.report)()
    }
}
