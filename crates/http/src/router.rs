//! The routes of a server: finds the target of a request by its path, and its handler by the route table.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::Method;
use litplex_access::Guard;
use litplex_core::ServeError;
use litplex_dialects::{Endpoints, Route, openai};
use litplex_history::{RequestLog, RequestLogs};
use litplex_http_core::path;
use litplex_http_core::response::HttpResponse;
use litplex_metrics::Edge;

use crate::app_host::{AppHost, Forwarding};
use crate::routes::{Access, Builtin, Condition, Dispatch, Handler, RouteEntry, RouteTable};
use crate::target::Target;

/// The shortest time limit of a route without an endpoint.
pub(crate) const LEAST_TIMEOUT: Duration = Duration::from_secs(30);

/// The path of an endpoint that was configured without one.
const DEFAULT_PATH: &str = "/predict";

/// The label of calls of tools among remembered requests.
const TOOLS: &str = "/mcp";

/// The endpoints, the route table, and the app host that some requests are forwarded to.
pub(crate) struct Router {
    pub(crate) endpoints: Arc<Endpoints>,
    table: RouteTable,
    /// The guard of all routes without an endpoint.
    pub(crate) guard: Arc<Guard>,
    pub(crate) app_host: Option<AppHost>,
    /// The metrics of requests to routes without an endpoint.
    other: Edge,
    /// The number of its gate; the first is 1.
    pub(crate) number: u64,
    /// The metrics of endpoints that were removed, by their labels: their last requests may be in progress.
    removed: BTreeMap<String, Edge>,
    /// The logs of requests, if they are remembered.
    logs: Option<Logs>,
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Router").field("endpoints", &self.endpoints).finish_non_exhaustive()
    }
}

/// Returns endpoints in the order of their indices, and their route table.
fn routes(
    endpoints: impl IntoIterator<Item = Route>,
    builtin: &Builtin,
) -> (Arc<Endpoints>, RouteTable) {
    let endpoints = Endpoints::from_iter(endpoints);
    let table = RouteTable::new(endpoints.iter().map(|route| &*route.identity), builtin);
    (Arc::new(endpoints), table)
}

/// The logs of requests.
struct Logs {
    all: RequestLogs,
    /// The logs of endpoints, by their indices.
    endpoints: Vec<Arc<RequestLog>>,
    /// The log of calls of tools.
    tools: Arc<RequestLog>,
}

impl Logs {
    fn new(all: &RequestLogs, endpoints: &Endpoints) -> Self {
        let log = |route: &Route| all.log(&route.identity.label, &route.identity.path);
        let (endpoints, tools) = (endpoints.iter().map(log).collect(), all.log(TOOLS, TOOLS));
        Self { all: all.clone(), endpoints, tools }
    }
}

impl Router {
    /// Returns the routes of endpoints, and the built-in ones behind this guard.
    pub(crate) fn new(
        endpoints: impl IntoIterator<Item = Route>,
        builtin: &Builtin,
        guard: Guard,
        other: Edge,
    ) -> Self {
        let (endpoints, table) = routes(endpoints, builtin);
        let (guard, app_host, removed) = (Arc::new(guard), None, BTreeMap::new());
        Self { endpoints, table, guard, app_host, other, number: 1, removed, logs: None }
    }

    /// Returns the router that follows this one, with other endpoints and another app host.
    pub(crate) fn next(
        &self,
        endpoints: impl IntoIterator<Item = Route>,
        builtin: &Builtin,
        app_host: Option<AppHost>,
    ) -> Self {
        let (endpoints, table) = routes(endpoints, builtin);
        let mut removed = self.removed.clone();
        let before = self.endpoints().map(|it| (it.identity.label.clone(), it.metrics.clone()));
        removed.extend(before);
        removed.retain(|label, _| endpoints.labelled(label).is_none());
        let (guard, other, number) = (self.guard.clone(), self.other.clone(), self.number + 1);
        let logs = self.logs.as_ref().map(|logs| Logs::new(&logs.all, &endpoints));
        Self { endpoints, table, guard, app_host, other, number, removed, logs }
    }

    /// Returns the target of a request with this path, as it was sent.
    pub(crate) fn target(&self, raw: &str) -> Target {
        let Some(path) = path::decode(raw) else { return Target::Rest };
        if let Some(target) = self.table.endpoint(&path).or_else(|| self.default_at(&path)) {
            return target;
        }
        let has =
            |access: &[Access]| self.table.at(&path).any(|entry| access.contains(&entry.access));
        if has(&[Access::Operators]) {
            Target::Operators
        } else if has(&[Access::Public, Access::Shutdown]) {
            // The route that stops the server has a key of its own, which its handler checks.
            Target::Open
        } else if self.is_direct(&path) {
            Target::Probe
        } else if has(&[Access::Models]) {
            Target::Models
        } else {
            Target::Rest
        }
    }

    /// Returns the endpoint that was configured without a path, if this is the path of its dialect. The
    /// dialect of a model that is given by its name is known once a worker is ready.
    fn default_at(&self, path: &str) -> Option<Target> {
        let target = self.table.endpoint(DEFAULT_PATH)?;
        (self.route(target)?.dialect()?.path() == path).then_some(target)
    }

    /// Returns the path that names a request in recordings, if it is recorded: that of its endpoint, or its
    /// own if the tools are there.
    pub(crate) fn recorded_path(&self, target: Target, raw: &str) -> Option<Cow<'_, str>> {
        let tools = || path::decode(raw).filter(|_| self.is_tools(raw));
        let endpoint = self.path_of(target).map(Cow::from);
        endpoint.or_else(|| tools().map(|path| path.into_owned().into()))
    }

    /// Remembers the requests to its endpoints and tools in these logs.
    pub(crate) fn remember(&mut self, requests: &RequestLogs) {
        self.logs = Some(Logs::new(requests, &self.endpoints));
    }

    /// Returns the log of the requests for this target, if they are remembered. For a shared path it is that
    /// of the first endpoint.
    pub(crate) fn log(&self, target: Target) -> Option<&Arc<RequestLog>> {
        let logs = self.logs.as_ref()?;
        match target {
            Target::Endpoint(index) | Target::SharedPath(index) => logs.endpoints.get(index),
            _ => Some(&logs.tools),
        }
    }

    /// Returns the guard of a target.
    pub(crate) fn guard(&self, target: Target) -> &Guard {
        self.route(target).map_or(&self.guard, |route| &*route.guard)
    }

    /// Returns whether every caller is admitted to a target; to a shared path, to all of its endpoints.
    pub(crate) fn is_open(&self, target: Target) -> bool {
        match target {
            Target::SharedPath(first) => {
                self.sharing(first).all(|(_, route)| route.guard.is_open())
            }
            target => self.guard(target).is_open(),
        }
    }

    /// Returns the response to an error, in the form that clients of this target or path read.
    pub(crate) fn error(&self, target: Target, path: &str, error: &ServeError) -> HttpResponse {
        match self.route(target) {
            Some(route) => route.error(error),
            None if matches!(target, Target::SharedPath(_)) => openai::error(error),
            None => openai::error_at(path, error),
        }
    }

    /// Returns the index of the endpoint with this label.
    pub(crate) fn labelled(&self, label: &str) -> Option<usize> {
        self.endpoints.labelled(label)
    }

    /// Returns the endpoints with the path of the endpoint with this index, and their indices.
    pub(crate) fn sharing(&self, index: usize) -> impl Iterator<Item = (usize, &Route)> {
        self.endpoints.sharing(index)
    }

    /// Returns the metrics of requests for this target.
    pub(crate) fn edge(&self, target: Target) -> &Edge {
        self.route(target).map_or(&self.other, |route| &route.metrics)
    }

    /// Returns whether a request is in progress.
    pub(crate) fn is_active(&self) -> bool {
        let endpoints = self.endpoints.iter().map(|route| &route.metrics);
        let all = endpoints.chain([&self.other]).chain(self.removed.values());
        all.into_iter().any(|edge| edge.inflight() > 0)
    }

    /// Returns all endpoints.
    pub(crate) fn endpoints(&self) -> impl Iterator<Item = &Route> {
        self.endpoints.iter()
    }

    /// Returns how requests for this target at this path, as it was sent, are forwarded to the app host,
    /// if they are.
    pub(crate) fn app_host(&self, target: Target, raw: &str) -> Option<Forwarding<'_>> {
        // A program does not see the keys of operators.
        let host = self.app_host.as_ref().filter(|_| target != Target::Operators)?;
        let path = match self.path_of(target) {
            Some(path) => Some(path.into()),
            None => path::decode(raw),
        };
        if path.as_deref().is_some_and(|path| host.direct.contains(path)) {
            return None;
        }
        let is_known = path.is_some_and(|path| self.table.at(&path).next().is_some());
        let limit = match self.route(target) {
            Some(route) => Some(route.timeout()),
            None if host.has_routes && !is_known => None,
            None => Some(self.longest_timeout()),
        };
        let identity = self.route(target).map(|route| &*route.identity);
        let endpoint = identity.filter(|it| it.shares_path()).map(|it| &*it.label);
        Some(Forwarding { socket: &host.socket, limit, endpoint, gate: self.number })
    }

    /// Returns whether the tools are at this path, as it was sent.
    pub(crate) fn is_tools(&self, raw: &str) -> bool {
        let mut found = path::decode(raw).into_iter().flat_map(|path| self.table.at(&path));
        found.any(|entry| entry.handler == Handler::Tools)
    }

    /// Returns the handler in the route table of a request for this target at this path, as it was sent.
    pub(crate) fn dispatch(&self, target: Target, method: &Method, raw: &str) -> Dispatch {
        if let Target::Endpoint(index) = target {
            let routes = self.table.endpoint_routes(index);
            return Dispatch::among(routes.filter(|entry| self.is_offered(entry)), method);
        }
        let Some(path) = path::decode(raw) else { return Dispatch::NotFound };
        Dispatch::among(self.offered(&path), method)
    }

    /// Returns the routes that exist at a path, which was decoded.
    pub(crate) fn offered(&self, path: &str) -> impl Iterator<Item = &RouteEntry> {
        self.table.at(path).filter(|entry| self.is_offered(entry))
    }

    /// Returns all routes that exist.
    pub(crate) fn all_offered(&self) -> impl Iterator<Item = &RouteEntry> {
        self.table.entries().iter().filter(|entry| self.is_offered(entry))
    }

    fn is_offered(&self, entry: &RouteEntry) -> bool {
        let speaks = |target| self.route(target).is_some_and(|route| route.dialect().is_some());
        match entry.condition {
            Condition::Always => true,
            Condition::SpeaksOpenAi(index) => speaks(Target::Endpoint(index)),
            Condition::AnyOpenAi => self.endpoints().any(|route| route.dialect().is_some()),
            Condition::AnyTool => self.endpoints().any(|route| route.tool().is_some()),
        }
    }

    fn is_direct(&self, path: &str) -> bool {
        self.app_host.as_ref().is_some_and(|host| host.direct.contains(path))
    }

    /// Returns the time limit of a route without an endpoint: a call of a tool takes as long as the tool.
    fn longest_timeout(&self) -> Duration {
        let timeouts = self.endpoints.iter().map(Route::timeout);
        timeouts.max().unwrap_or_default().max(LEAST_TIMEOUT)
    }

    /// Returns the endpoint with this label.
    pub(crate) fn route_labelled(&self, label: &str) -> Option<&Route> {
        self.labelled(label).map(|index| self.endpoint(index))
    }

    /// Returns the endpoint with this index of the route table.
    pub(crate) fn endpoint(&self, index: usize) -> &Route {
        self.endpoints.route(index)
    }

    /// Returns the endpoint of a target, if it is one.
    pub(crate) fn route(&self, target: Target) -> Option<&Route> {
        let Target::Endpoint(index) = target else { return None };
        self.endpoints.get(index)
    }

    /// Returns the path of an endpoint or of several, as the program declares it.
    pub(crate) fn path_of(&self, target: Target) -> Option<&String> {
        let (Target::Endpoint(index) | Target::SharedPath(index)) = target else { return None };
        self.endpoints.get(index).map(|route| &route.identity.path)
    }
}
