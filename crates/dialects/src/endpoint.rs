//! The endpoints as the edge knows them.

use std::sync::Arc;
use std::time::Duration;

use litplex_access::Guard;
use litplex_calls::TargetRef;
use litplex_core::ServeError;
use litplex_http_core::response::{self, HttpResponse};
use litplex_metrics::Edge;
use litplex_pages::EndpointSchema;

use crate::dialect::Dialect;
use crate::mcp::{Tool, ToolCache};
use crate::registry;

/// The settings of an endpoint at the edge.
#[derive(Debug, Clone)]
pub struct Route {
    /// The target that it calls.
    pub target: TargetRef,
    /// The time without an event after which an event stream is sent a comment.
    pub ping_interval: Option<Duration>,
    /// The largest request body, in bytes.
    pub max_body_bytes: usize,
    /// The guard that decides which callers may use it.
    pub guard: Arc<Guard>,
    /// The metrics of its requests.
    pub metrics: Edge,
    /// Whether its workers receive the ids of requests.
    pub tells_ids: bool,
    /// The tool that its model is, once a worker was ready.
    pub tool: ToolCache,
    /// The schemas and examples that the program declares.
    pub schema: EndpointSchema,
}

impl Route {
    /// Returns its dialect, once a worker was ready; `None` if it is plain.
    pub fn dialect(&self) -> Option<&'static dyn Dialect> {
        registry::for_model(self.target.get()?.model_info()?)
    }

    /// Returns the longest time budget of a request.
    pub fn timeout(&self) -> Duration {
        self.target.get().map_or(Duration::ZERO, |target| target.timeout)
    }

    /// Returns the tool that its model is, if it is one and a worker was ready.
    pub fn tool(&self) -> Option<Arc<Tool>> {
        self.tool.get(self.target.get()?.model_info()?)
    }

    /// Returns the response to an error, in the form of its dialect.
    pub fn error(&self, error: &ServeError) -> HttpResponse {
        self.dialect().map_or_else(|| response::error(error), |dialect| dialect.error(error))
    }
}

/// All endpoints with their paths, sorted by path. An endpoint is known by its index.
#[derive(Debug, Default)]
pub struct Endpoints(Vec<(String, Route)>);

impl Endpoints {
    /// Returns the endpoints with their paths, in the order of their indices.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &Route)> {
        self.0.iter().map(|(path, route)| (path, route))
    }

    /// Returns the endpoint with this index.
    ///
    /// # Panics
    /// The index is too large.
    pub fn route(&self, index: usize) -> &Route {
        &self.0[index].1
    }

    /// Returns the endpoint with this index, and its path.
    pub fn get(&self, index: usize) -> Option<(&String, &Route)> {
        self.0.get(index).map(|(path, route)| (path, route))
    }
}

impl FromIterator<(String, Route)> for Endpoints {
    fn from_iter<T: IntoIterator<Item = (String, Route)>>(endpoints: T) -> Self {
        let mut endpoints = Vec::from_iter(endpoints);
        endpoints.sort_by(|(one, _), (other, _)| one.cmp(other));
        Self(endpoints)
    }
}
