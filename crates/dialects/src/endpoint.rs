//! The endpoints as the edge knows them.

use std::sync::Arc;
use std::time::Duration;

use litplex_access::Guard;
use litplex_calls::TargetRef;
use litplex_core::{Identity, ServeError};
use litplex_http_core::response::{self, HttpResponse};
use litplex_metrics::Edge;
use litplex_pages::EndpointSchema;

use crate::dialect::Dialect;
use crate::mcp::{Tool, ToolCache};
use crate::registry;

/// The settings of an endpoint at the edge.
#[derive(Debug, Clone)]
pub struct Route {
    /// Its path and its names.
    pub identity: Arc<Identity>,
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
    /// Returns its dialect, once a worker was ready; `None` if it is plain. That of a model which sleeps since the
    /// server started is known by its path, if that is one of a dialect.
    pub fn dialect(&self) -> Option<&'static dyn Dialect> {
        let target = self.target.get()?;
        match target.model_info() {
            Some(info) => registry::for_model(info),
            None if target.waits_for_first_worker => registry::for_path(&self.identity.path),
            None => None,
        }
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

/// All endpoints, sorted by path and name. An endpoint is known by its index.
#[derive(Debug, Default)]
pub struct Endpoints(Vec<Route>);

impl Endpoints {
    /// Returns the endpoints in the order of their indices.
    pub fn iter(&self) -> impl Iterator<Item = &Route> {
        self.0.iter()
    }

    /// Returns the endpoint with this index.
    ///
    /// # Panics
    /// The index is too large.
    pub fn route(&self, index: usize) -> &Route {
        &self.0[index]
    }

    /// Returns the endpoint with this index, if there is one.
    pub fn get(&self, index: usize) -> Option<&Route> {
        self.0.get(index)
    }

    /// Returns the index of the endpoint with this label.
    pub fn labelled(&self, label: &str) -> Option<usize> {
        self.0.iter().position(|route| route.identity.label == label)
    }

    /// Returns the endpoints with the path of the endpoint with this index, and their indices.
    pub fn sharing(&self, index: usize) -> impl Iterator<Item = (usize, &Route)> {
        let path = self.get(index).map(|route| &route.identity.path);
        self.0.iter().enumerate().filter(move |(_, route)| Some(&route.identity.path) == path)
    }
}

impl FromIterator<Route> for Endpoints {
    fn from_iter<T: IntoIterator<Item = Route>>(endpoints: T) -> Self {
        let mut endpoints = Vec::from_iter(endpoints);
        endpoints.sort_by(|one, other| {
            let key = |route: &Route| (route.identity.path.clone(), route.identity.name.clone());
            key(one).cmp(&key(other))
        });
        Self(endpoints)
    }
}
