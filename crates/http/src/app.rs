//! The application that a server answers requests with: put together here from its parts, each of which
//! its users take by name.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use http::{Method, Request};
use litplex_access::{Browsers, Guard};
use litplex_calls::Report;
use litplex_core::{BoxFuture, MemoryBudget};
use litplex_dialects::Route;
use litplex_history::RequestLogs;
use litplex_http_core::body::Body;
use litplex_metrics::Metrics;
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::app_host::AppHost;
use crate::builtin::Pages;
use crate::context::Context;
use crate::dispatcher::Dispatcher;
use crate::gate::Gate;
use crate::layers::{BoxLayer, HttpService, Layers, layered};
use crate::middleware::EdgeMiddleware;
use crate::operators::Operators;
use crate::pages;
use crate::peer::Peer;
use crate::recording::{Arrival, Beginning, Logs, Recording};
use crate::router::Router;
use crate::routes::Builtin;
use crate::status::Status;
use crate::target::Target;
use crate::telemetry::Telemetry;

/// The time that a connection may be idle by default: longer than most load balancers keep theirs.
const KEEP_ALIVE: Duration = Duration::from_secs(75);

/// Everything that is served on one socket.
pub struct App {
    pub(crate) middleware: EdgeMiddleware,
    /// The program's layers around the server.
    pub(crate) layers: Option<HttpService>,
    /// The gate of new requests. It is replaced as a whole; a request keeps the gate that it began with.
    gate: watch::Sender<Arc<Gate>>,
    /// The time that a connection may be idle between two requests.
    pub(crate) keep_alive: Duration,
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App").field("router", &self.gate().router).finish_non_exhaustive()
    }
}

/// The parts of an [`App`] while it is configured.
#[derive(Debug)]
pub struct AppBuilder {
    router: Router,
    builtin: Builtin,
    status: Status,
    telemetry: Telemetry,
    memory: Arc<MemoryBudget>,
    middleware: EdgeMiddleware,
    keep_alive: Duration,
    operators: Option<Operators>,
}

impl App {
    /// Returns an application of endpoints, and of built-in routes behind this guard.
    ///
    /// Requests and responses take at most `max_buffered_bytes` of memory together. `report` is called
    /// for each status page, and `scrape`, which writes the metrics, for each read of them.
    pub fn builder(
        endpoints: Vec<Route>,
        builtin: Builtin,
        guard: Guard,
        max_buffered_bytes: usize,
        metrics: Metrics,
        report: impl Fn() -> Report + Send + Sync + 'static,
        scrape: impl Fn() -> BoxFuture<'static, String> + Send + Sync + 'static,
    ) -> AppBuilder {
        AppBuilder {
            router: Router::new(endpoints, &builtin, guard, metrics.edge(None)),
            builtin,
            status: Status::new(report),
            telemetry: Telemetry::new(metrics, scrape),
            memory: MemoryBudget::new(max_buffered_bytes),
            middleware: EdgeMiddleware::default(),
            keep_alive: KEEP_ALIVE,
            operators: None,
        }
    }

    /// Replaces the endpoints, the app host and the rules for browsers of new requests. A request keeps
    /// those that it began with. Returns the use of the replaced ones.
    ///
    /// Only for programs without layers: those of the server are around the gate of each request, and those
    /// of endpoints are left out.
    pub fn replace(
        &self,
        endpoints: Vec<Route>,
        app_host: Option<AppHost>,
        browsers: Browsers,
    ) -> Replaced {
        let before = self.gate();
        self.gate.send_replace(Arc::new(before.next(endpoints, app_host, browsers)));
        Replaced(Arc::downgrade(&before))
    }

    /// Returns the `OpenAPI` document of the endpoints, whether or not a route shows it.
    pub fn document(&self) -> Value {
        let gate = self.gate();
        pages::document(&gate.router, &gate.status.report())
    }

    /// Requests the shutdown.
    pub fn request_shutdown(&self) {
        self.status().request_shutdown();
    }

    /// Resolves when the shutdown was requested.
    pub async fn shutdown_asked(&self) {
        self.status().shutdown_requested().await;
    }

    /// Returns the gate of requests that begin now.
    pub(crate) fn gate(&self) -> Arc<Gate> {
        self.gate.borrow().clone()
    }

    /// Resolves when the access log has all requests that have ended.
    pub async fn logged(&self) {
        if let Some(log) = &self.middleware.access_log {
            log.flush().await;
        }
    }

    /// Returns the state of the endpoints, and the calls that they declare.
    pub fn report(&self) -> Report {
        self.status().report()
    }

    /// Returns the requests that it remembers, if it does.
    pub fn requests(&self) -> Option<&RequestLogs> {
        self.middleware.requests.as_ref()
    }

    pub(crate) fn status(&self) -> Arc<Status> {
        self.gate.borrow().status.clone()
    }

    /// Returns whether a request is in progress.
    pub(crate) fn is_active(&self) -> bool {
        self.gate.borrow().router.is_active()
    }

    /// Begins to record a request for this target, if it is remembered or exported. Only requests to
    /// endpoints and tools are: most others are probes.
    pub(crate) fn begin_recording(
        &self,
        router: &Router,
        request: &mut Request<Body>,
        target: Target,
        client: Option<Peer>,
        arrival: Arrival,
    ) -> Option<Recording> {
        let middleware = &self.middleware;
        if middleware.tracer.is_none() && middleware.requests.is_none() {
            return None;
        }
        let route = router.recorded_path(target, request.uri().path())?;
        let (began, outer) = match arrival {
            Arrival::Client(began) => (Some(began), None),
            Arrival::AppHost(outer) => (None, outer),
        };
        // Requests of the app host are parts of those of clients.
        let is_remembered = began.is_some() && request.method() != Method::OPTIONS;
        let all = middleware.requests.as_ref().filter(|_| is_remembered).cloned();
        let logs = all.and_then(|all| {
            let leads = router.app_host(target, request.uri().path()).is_some();
            Some(Logs { log: router.log(target)?.clone(), all, leads })
        });
        let scheme = client.map_or("http", Peer::scheme);
        let began = began.unwrap_or_else(Instant::now);
        let beginning = Beginning { scheme, route: &route, logs, outer, began };
        Recording::begin(middleware.tracer.as_ref(), request, beginning)
    }
}

impl AppBuilder {
    /// Forwards requests to this app host, if there is one. It checks keys, and sends requests that it
    /// has no route for back on the inner socket.
    #[must_use]
    pub fn behind(mut self, app_host: Option<AppHost>) -> Self {
        self.router.app_host = app_host;
        self
    }

    /// Hands the requests of operators over, if the dashboard is on this port. Default: there is none.
    #[must_use]
    pub fn operated(self, operators: Option<Operators>) -> Self {
        Self { operators, ..self }
    }

    /// Sets the time that a connection may be idle between two requests. Default: 75 s.
    #[must_use]
    pub fn keep_alive(self, keep_alive: Duration) -> Self {
        Self { keep_alive, ..self }
    }

    /// Sets the middleware around every request. Default: none.
    #[must_use]
    pub fn within(self, middleware: EdgeMiddleware) -> Self {
        Self { middleware, ..self }
    }

    /// Returns the application with the layers of the program: those of endpoints around the dispatcher,
    /// those of the server around the gate.
    pub fn layered(self, layers: Layers) -> Arc<App> {
        let Self {
            mut router,
            builtin,
            status,
            telemetry,
            memory,
            mut middleware,
            keep_alive,
            operators,
        } = self;
        if let Some(requests) = &middleware.requests {
            router.remember(requests);
        }
        let (router, status) = (Arc::new(router), Arc::new(status));
        let telemetry = Arc::new(telemetry);
        let pages = Pages { builtin, status: status.clone(), telemetry: telemetry.clone() };
        let pages = Arc::new(pages);
        let dispatcher = Arc::new(Dispatcher { router: router.clone(), pages, memory });
        let gate = watch::Sender::new(Arc::new(Gate {
            status,
            telemetry,
            browsers: std::mem::take(&mut middleware.browsers),
            layers: endpoint_layers(layers.endpoints, &router, &dispatcher),
            router,
            dispatcher,
            operators,
            earlier: Vec::new(),
        }));
        let layers = layered(&layers.server, gate_service(gate.subscribe()));
        Arc::new(App { middleware, layers, gate, keep_alive })
    }
}

/// The endpoints that were replaced by others, as far as requests still use them.
#[derive(Debug, Clone)]
pub struct Replaced(Weak<Gate>);

impl Replaced {
    /// Returns whether a request in progress may still come to them.
    pub fn is_used(&self) -> bool {
        self.0.strong_count() > 0
    }
}

/// Returns the innermost service of the layers around the server.
fn gate_service(gate: watch::Receiver<Arc<Gate>>) -> HttpService {
    HttpService::innermost(move |request: Request<Body>, context: Context| {
        let gate = gate.borrow().clone();
        async move { gate.admit_and_route(request, &context).await }
    })
}

/// Returns the innermost service of the layers around an endpoint. The target of a request was decided
/// before: a layer that changes the path of a request does not change its endpoint.
fn endpoint_service(dispatcher: Arc<Dispatcher>, target: Target) -> HttpService {
    HttpService::innermost(move |request: Request<Body>, context: Context| {
        let dispatcher = dispatcher.clone();
        async move { dispatcher.forward_or_serve(target, request, context.client).await }
    })
}

/// Returns the layers around endpoints, by their indices.
fn endpoint_layers(
    layers: HashMap<String, Vec<BoxLayer>>,
    router: &Router,
    dispatcher: &Arc<Dispatcher>,
) -> HashMap<usize, HttpService> {
    let services = layers.into_iter().filter_map(|(label, layers)| {
        let index = router.labelled(&label)?;
        let innermost = endpoint_service(dispatcher.clone(), Target::Endpoint(index));
        Some((index, layered(&layers, innermost)?))
    });
    services.collect()
}
