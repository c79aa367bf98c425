use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use http::header::{ACCESS_CONTROL_REQUEST_METHOD, ORIGIN};
use http::{HeaderMap, Method, Request};
use litplex_calls::{Report, TargetRef};
use litplex_core::{BoxFuture, MemoryBudget, ServeError};
use litplex_metrics::{Edge, Metrics, RequestGuard};
use litplex_pages::EndpointSchema;
use litplex_traces::ServerSpan;
use tokio::sync::Notify;

use crate::around::{Around, Layers, Stacks};
use crate::browsers::Asked;
use crate::dialect::{self, Dialect};
use crate::routes::{Access, Builtin, Condition, Dispatch, Handler, RouteEntry, RouteTable};
use crate::target::Target;
use crate::{ToolCache, mcp, openai, path};
use litplex_access::{Admission, Guard, Refusal};

/// How long the app host may take at least to answer what is no endpoint.
pub(crate) const LEAST_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a connection may be idle, unless the program says otherwise: longer than most load
/// balancers keep theirs.
const KEEP_ALIVE: Duration = Duration::from_secs(75);

/// What the edge needs to know of one endpoint.
#[derive(Debug, Clone)]
pub struct Route {
    /// What it calls.
    pub target: TargetRef,
    /// After how long a silence an event stream is sent a comment.
    pub ping_interval: Option<Duration>,
    /// The largest request body, in bytes.
    pub max_body_bytes: usize,
    /// Who may call it.
    pub guard: Arc<Guard>,
    /// What measures its requests.
    pub metrics: Edge,
    /// Whether its workers are told the ids of requests.
    pub tells_ids: bool,
    /// The tool that its model is, once that is known.
    pub tool: ToolCache,
    /// The schemas and examples of the program.
    pub schema: EndpointSchema,
}

impl Route {
    /// Returns the dialect of its clients, once a worker was ready; `None` where it is plain.
    pub(crate) fn dialect(&self) -> Option<&'static dyn Dialect> {
        dialect::for_model(self.target.get()?.endpoint.model_info()?)
    }

    /// Returns the longest time budget of a request.
    pub(crate) fn timeout(&self) -> Duration {
        self.target.get().map_or(Duration::ZERO, |target| target.timeout)
    }
}

/// The app host of a program, and what goes by way of it.
#[derive(Debug)]
pub struct AppHost {
    /// Where it listens.
    pub socket: PathBuf,
    /// The paths that it has no part in: endpoints, and those of [`Builtin`].
    pub direct: HashSet<String>,
    /// Whether each app in it answers what browsers ask before they send a request.
    pub answers_preflights: bool,
    /// Whether it may have routes that are not known here, which may take as long as they like.
    pub has_routes: bool,
    /// What it would ask for at the paths of [`Builtin`] that do not go by way of it.
    pub guard: Guard,
}

/// Where an endpoint is that was given no path.
const DEFAULT_PATH: &str = "/predict";

/// Everything that is served on one socket.
pub struct App {
    /// By their paths, in the order of those.
    routes: Vec<(String, Route)>,
    /// Every path that is served, and who may call it.
    pub(crate) table: RouteTable,
    pub(crate) builtin: Builtin,
    /// Who may ask for what is no endpoint.
    guard: Guard,
    /// Where the program has one.
    app_host: Option<AppHost>,
    /// What is done around every request.
    pub(crate) around: Around,
    /// The layers of the program.
    pub(crate) stacks: Stacks,
    shutdown: Notify,
    report: Box<dyn Fn() -> Report + Send + Sync>,
    pub(crate) metrics: Metrics,
    /// What measures requests to what is no endpoint.
    other: Edge,
    scrape: Box<dyn Fn() -> BoxFuture<'static, String> + Send + Sync>,
    is_draining: AtomicBool,
    /// What requests and answers may take together.
    pub(crate) budget: Arc<MemoryBudget>,
    /// How long a connection may be idle between two requests.
    pub(crate) keep_alive: Duration,
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App").field("routes", &self.routes).finish_non_exhaustive()
    }
}

impl App {
    /// Makes an app of endpoints by path, and of what litplex answers itself to whom `guard` lets in.
    /// It holds no more than `max_buffered_bytes` of requests and answers at a time; `report` and
    /// `scrape`, which writes the `metrics`, are asked whenever somebody wants to know.
    pub fn new(
        routes: HashMap<String, Route>,
        builtin: Builtin,
        guard: Guard,
        max_buffered_bytes: usize,
        metrics: Metrics,
        report: impl Fn() -> Report + Send + Sync + 'static,
        scrape: impl Fn() -> BoxFuture<'static, String> + Send + Sync + 'static,
    ) -> Self {
        let mut routes = Vec::from_iter(routes);
        routes.sort_by(|(one, _), (other, _)| one.cmp(other));
        let table = RouteTable::new(routes.iter().map(|(path, _)| path.as_str()), &builtin);
        Self {
            table,
            routes,
            builtin,
            guard,
            app_host: None,
            around: Around::default(),
            stacks: Stacks::default(),
            shutdown: Notify::new(),
            report: Box::new(report),
            other: metrics.edge(None),
            metrics,
            scrape: Box::new(scrape),
            is_draining: AtomicBool::new(false),
            budget: MemoryBudget::new(max_buffered_bytes),
            keep_alive: KEEP_ALIVE,
        }
    }

    /// Passes requests on to this app host, where there is one; it asks on the inner socket for what
    /// it does not answer itself, and checks the key.
    #[must_use]
    pub fn behind(self, app_host: Option<AppHost>) -> Self {
        Self { app_host, ..self }
    }

    /// Sets how long a connection may be idle between two requests. Default: 75 s.
    #[must_use]
    pub fn keep_alive(self, keep_alive: Duration) -> Self {
        Self { keep_alive, ..self }
    }

    /// Sets what is done around every request. Default: nothing.
    #[must_use]
    pub fn within(self, around: Around) -> Self {
        Self { around, ..self }
    }

    /// Puts the layers of the program around it, which ends its making.
    pub fn layered(self, layers: Layers) -> Arc<Self> {
        Arc::new_cyclic(|app| {
            let stacks = Stacks::build(layers, app, |path| self.table.endpoint(path));
            Self { stacks, ..self }
        })
    }

    /// Resolves when somebody who may has asked to stop the server.
    pub async fn shutdown_asked(&self) {
        self.shutdown.notified().await;
    }

    /// Resolves when the access log has all requests that have ended.
    pub async fn logged(&self) {
        if let Some(log) = &self.around.access_log {
            log.flush().await;
        }
    }

    pub(crate) fn ask_for_shutdown(&self) {
        self.shutdown.notify_one();
    }

    /// Decides what a request to this path, as it was sent, is for.
    pub(crate) fn target(&self, raw: &str) -> Target {
        let Some(path) = path::decode(raw) else { return Target::Rest };
        if let Some(index) = self.table.endpoint(&path).or_else(|| self.default_at(&path)) {
            return Target::Endpoint(index);
        }
        let has =
            |access: &[Access]| self.table.at(&path).any(|entry| access.contains(&entry.access));
        if has(&[Access::Public, Access::Shutdown]) {
            // What stops the server has a key of its own, which its handler checks.
            Target::Open
        } else if self.is_direct(&path) {
            Target::Probe
        } else if has(&[Access::Models]) {
            Target::Models
        } else {
            Target::Rest
        }
    }

    /// Returns the endpoint that was given no path, where its clients ask at this one: what an API
    /// speaks that is given by its name is known once a worker is ready.
    fn default_at(&self, path: &str) -> Option<usize> {
        let index = self.table.endpoint(DEFAULT_PATH)?;
        let (_, route) = self.routes.get(index)?;
        (route.dialect()?.path() == path).then_some(index)
    }

    /// Lets a request for this in, or not.
    pub(crate) fn admit(
        &self,
        target: Target,
        headers: &HeaderMap,
        client: Option<SocketAddr>,
    ) -> Result<Admission, Refusal> {
        match target {
            Target::Open => Ok(Admission::default()),
            Target::Models => self.admit_to_models(headers, client),
            Target::Probe => {
                let of_the_app = self.app_host.as_ref().map(|host| host.guard.knows(headers));
                of_the_app.transpose()?;
                self.guard.admit(headers, client)
            }
            _ => {
                self.route(target).map_or(&self.guard, |route| &*route.guard).admit(headers, client)
            }
        }
    }

    /// Lets in who may call a model. Where the server asks for no key and all models do, nobody else
    /// has anything to see there.
    fn admit_to_models(
        &self,
        headers: &HeaderMap,
        client: Option<SocketAddr>,
    ) -> Result<Admission, Refusal> {
        let models = || self.routes.iter().filter(|(_, route)| openai::is_spoken(route));
        if models().any(|(_, route)| route.guard.knows(headers).is_ok()) {
            return Ok(Admission::default());
        }
        let admission = self.guard.admit(headers, client)?;
        match models().next() {
            Some((_, route)) if self.guard.schemes().is_empty() => {
                route.guard.knows(headers).map(|()| admission)
            }
            _ => Ok(admission),
        }
    }

    /// Returns whether who sends these headers may call the endpoint at this path.
    pub(crate) fn may_call(&self, path: &str, headers: &HeaderMap) -> bool {
        self.route_at(path).is_some_and(|route| route.guard.knows(headers).is_ok())
    }

    /// Refuses requests that come from here on.
    pub(crate) fn begin_drain(&self) {
        self.is_draining.store(true, Relaxed);
    }

    /// Returns what measures requests for this.
    pub(crate) fn edge(&self, target: Target) -> &Edge {
        self.route(target).map_or(&self.other, |route| &route.metrics)
    }

    /// Measures a request for this until what is returned is dropped.
    pub(crate) fn begin_request(&self, target: Target) -> RequestGuard {
        self.edge(target).begin()
    }

    /// Tells whether a request is being answered.
    pub(crate) fn is_active(&self) -> bool {
        let endpoints = self.routes.iter().map(|(_, route)| &route.metrics);
        endpoints.chain([&self.other]).any(|edge| edge.inflight() > 0)
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.is_draining.load(Relaxed)
    }

    pub(crate) fn routes(&self) -> impl Iterator<Item = (&String, &Route)> {
        self.routes.iter().map(|(path, route)| (path, route))
    }

    /// Returns the socket of the app host and how long it may take to begin its answer, where
    /// requests for this, at this path as it was sent, go by way of it.
    pub(crate) fn app_host(&self, target: Target, raw: &str) -> Option<(&Path, Option<Duration>)> {
        let host = self.app_host.as_ref()?;
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
        Some((&host.socket, limit))
    }

    /// Returns the socket of the app host where a request is what browsers ask, without a key, before
    /// they send another, and something there answers that.
    pub(crate) fn for_preflights<B>(&self, target: Target, request: &Request<B>) -> Option<&Path> {
        let has = |name| request.headers().contains_key(name);
        let is_preflight = request.method() == Method::OPTIONS
            && has(ORIGIN)
            && has(ACCESS_CONTROL_REQUEST_METHOD)
            && self.app_host.as_ref().is_some_and(|host| host.answers_preflights);
        let (socket, _) = self.app_host(target, request.uri().path()).filter(|_| is_preflight)?;
        Some(socket)
    }

    /// Returns why a request of a page of another site is refused, if it is.
    pub(crate) fn refuse_page<B>(
        &self,
        target: Target,
        request: &Request<B>,
        forwarded: Option<&str>,
    ) -> Option<ServeError> {
        // What everybody may ask for tells pages nothing.
        if target == Target::Open {
            return None;
        }
        let is_open = self.route(target).map_or(&self.guard, |route| &*route.guard).is_open();
        let is_tools = || self.is_tools(request.uri().path());
        let asked = match is_open {
            _ if target == Target::Rest && is_tools() => Asked::Tools { is_open },
            true => Asked::Open,
            false => Asked::Guarded,
        };
        self.around.browsers.refuse(request, asked, forwarded)
    }

    /// Returns whether the tools are at a path, as it was sent.
    pub(crate) fn is_tools(&self, raw: &str) -> bool {
        let mut found = path::decode(raw).into_iter().flat_map(|path| self.table.at(&path));
        found.any(|entry| entry.handler == Handler::Tools)
    }

    /// Decides by the route table what answers a request of this target at this path, as it was
    /// sent.
    pub(crate) fn dispatch(&self, target: Target, method: &Method, raw: &str) -> Dispatch {
        if let Target::Endpoint(index) = target {
            let routes = self.table.endpoint_routes(index);
            return Dispatch::among(routes.filter(|entry| self.is_offered(entry)), method);
        }
        let Some(path) = path::decode(raw) else { return Dispatch::NotFound };
        Dispatch::among(self.offered(&path), method)
    }

    /// Returns the routes that are there at a path, which was decoded.
    pub(crate) fn offered(&self, path: &str) -> impl Iterator<Item = &RouteEntry> {
        self.table.at(path).filter(|entry| self.is_offered(entry))
    }

    /// Returns all routes that are there.
    pub(crate) fn routes_there(&self) -> impl Iterator<Item = &RouteEntry> {
        self.table.entries().iter().filter(|entry| self.is_offered(entry))
    }

    fn is_offered(&self, entry: &RouteEntry) -> bool {
        let speaks = |target| self.route(target).is_some_and(openai::is_spoken);
        match entry.condition {
            Condition::Always => true,
            Condition::SpeaksOpenAi(index) => speaks(Target::Endpoint(index)),
            Condition::AnyOpenAi => (0..self.routes.len()).any(|i| speaks(Target::Endpoint(i))),
            Condition::AnyTool => mcp::is_offered(self),
        }
    }

    fn is_direct(&self, path: &str) -> bool {
        self.app_host.as_ref().is_some_and(|host| host.direct.contains(path))
    }

    /// Returns how long what is no endpoint may take: a call of a tool as long as the tool.
    fn longest_timeout(&self) -> Duration {
        let timeouts = self.routes.iter().map(|(_, route)| route.timeout());
        timeouts.max().unwrap_or_default().max(LEAST_TIMEOUT)
    }

    /// Returns the endpoint with this path, as the program has it.
    pub(crate) fn route_at(&self, path: &str) -> Option<&Route> {
        self.table.endpoint(path).and_then(|index| self.route(Target::Endpoint(index)))
    }

    /// Returns the endpoint with this index, which is one of the route table.
    pub(crate) fn endpoint(&self, index: usize) -> &Route {
        &self.routes[index].1
    }

    pub(crate) fn route(&self, target: Target) -> Option<&Route> {
        let Target::Endpoint(index) = target else { return None };
        self.routes.get(index).map(|(_, route)| route)
    }

    /// Returns the path of an endpoint, as the program has it.
    pub(crate) fn path_of(&self, target: Target) -> Option<&String> {
        let Target::Endpoint(index) = target else { return None };
        self.routes.get(index).map(|(path, _)| path)
    }

    /// Begins the span of a request, if it is traced. Of what is no endpoint nothing is: probes
    /// would be most of it.
    pub(crate) fn begin_span<B>(
        &self,
        request: &mut Request<B>,
        scheme: &'static str,
    ) -> Option<ServerSpan> {
        let route_of = |raw: &str| {
            let tools = || path::decode(raw).filter(|_| self.is_tools(raw)).map(Cow::into_owned);
            self.path_of(self.target(raw)).cloned().or_else(tools)
        };
        self.around.begin_span(request, scheme, route_of)
    }

    pub(crate) fn report(&self) -> Report {
        (self.report)()
    }

    /// Returns what was measured, as Prometheus reads it.
    pub(crate) async fn scrape(&self) -> String {
        self.metrics.buffered(self.budget.taken(), self.budget.limit());
        (self.scrape)().await
    }
}
