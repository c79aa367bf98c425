//! The state of the endpoints, in the words that clients may see.

use std::sync::Arc;

use litplex_core::{Identity, ModelInfo};

use crate::CallEdge;

/// The state of the whole server.
#[derive(Debug, Clone)]
pub struct Report {
    /// Every endpoint, in the order of the configuration.
    pub endpoints: Vec<EndpointReport>,
    /// The reason why the app host cannot serve; `None` if it can, or if there is no app host.
    pub app_host: Option<String>,
}

impl Report {
    /// Returns whether every endpoint is ready, and the app host, if there is one.
    pub fn is_ready(&self) -> bool {
        self.endpoints.iter().all(|endpoint| endpoint.problem.is_none()) && self.app_host.is_none()
    }

    /// Returns the label of each part that is not ready, and the reason.
    pub fn problems(&self) -> impl Iterator<Item = (&str, &str)> {
        let app_host = self.app_host.as_deref().map(|problem| ("app", problem));
        let endpoints = self.endpoints.iter();
        let endpoints = endpoints
            .filter_map(|e| e.problem.as_deref().map(|problem| (&*e.identity.label, problem)));
        endpoints.chain(app_host)
    }
}

/// The state of one endpoint.
#[derive(Debug, Clone)]
pub struct EndpointReport {
    /// The path and the names of the endpoint.
    pub identity: Arc<Identity>,
    /// `rust`, `python` or `pipeline`.
    pub kind: &'static str,
    /// The reason why the endpoint cannot serve; `None` if it can.
    pub problem: Option<String>,
    /// The reason why some worker is missing; `None` if none is.
    pub degraded: Option<String>,
    /// The number of the live generation of workers; `None` for a pipeline.
    pub generation: Option<u64>,
    /// The number of the last generation, if it failed, and the time in RFC 3339.
    pub failed_generation: Option<(u64, String)>,
    /// The number of workers that take jobs.
    pub workers_ready: usize,
    /// The target number of workers.
    pub workers: usize,
    /// The time budget of a request, in seconds.
    pub timeout: f64,
    /// The longest time that a request may wait for a worker, in seconds; `None` for no limit.
    pub queue_timeout: Option<f64>,
    /// The devices of the workers, each once.
    pub devices: Vec<String>,
    /// The distance of the model from serving: `hot`, `hibernated`, `template` or `cold`. `None` if it has no processes.
    pub tier: Option<&'static str>,
    /// The CPU threads of each worker that is a process.
    pub threads: Option<usize>,
    /// The largest request body, in bytes.
    pub max_body_bytes: usize,
    /// The findings about its batches, in words.
    pub batches: Option<String>,
    /// The properties of the model, once a worker was ready.
    pub info: Option<ModelInfo>,
    /// The calls of other endpoints that it declares, as far as they are known.
    pub calls: Vec<CallEdge>,
    /// The definition of the pipeline, if the endpoint is one.
    pub pipeline: Option<serde_json::Value>,
}
