//! The gate: refuses requests on their heads alone, because of the state of the server, the page that a
//! browser shows, or the guard of their target. Admitted requests go on to the layers of their endpoint.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use http::header::{ACCESS_CONTROL_REQUEST_METHOD, CONNECTION, HeaderValue, ORIGIN};
use http::{HeaderMap, Method, Request, Version};
use litplex_access::{Admission, Refusal};
use litplex_core::{ErrorCause, Origin, Priority, ServeError};
use litplex_dialects::{Route, openai};
use litplex_http_core::body::Body;
use litplex_http_core::response::HttpResponse;
use litplex_metrics::Shed;

use crate::app_host::{self, AppHost, Forwarding};
use crate::app_host_socket::AppHostSocket;
use crate::builtin;
use crate::context::Context;
use crate::dispatcher::Dispatcher;
use crate::layers::HttpService;
use crate::operators::Operators;
use crate::router::{LEAST_TIMEOUT, Router};
use crate::status::Status;
use crate::target::Target;
use crate::telemetry::Telemetry;
use litplex_access::{Browsers, RouteKind};

/// The decision which requests are admitted, and the way of those.
#[derive(Debug)]
pub(crate) struct Gate {
    pub(crate) status: Arc<Status>,
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) router: Arc<Router>,
    pub(crate) browsers: Browsers,
    /// The layers of endpoints, by their indices.
    pub(crate) layers: HashMap<usize, HttpService>,
    pub(crate) dispatcher: Arc<Dispatcher>,
    /// The way to the admin API, if the dashboard is on this port.
    pub(crate) operators: Option<Operators>,
    /// The gates before this one, as long as requests are in progress that they have admitted.
    pub(crate) earlier: Vec<Weak<Gate>>,
}

impl Gate {
    /// Returns the gate with this number: this one, or an earlier one.
    pub(crate) fn numbered(self: &Arc<Self>, number: u64) -> Option<Arc<Self>> {
        if number == self.router.number {
            return Some(self.clone());
        }
        let mut earlier = self.earlier.iter().filter_map(Weak::upgrade);
        earlier.find(|gate| gate.router.number == number)
    }

    /// Returns the gate that follows this one, with other endpoints, another app host and other rules for
    /// browsers. It has no layers of endpoints: only programs in Rust have those, and their endpoints stay.
    pub(crate) fn next(
        self: &Arc<Self>,
        endpoints: Vec<Route>,
        app_host: Option<AppHost>,
        browsers: Browsers,
    ) -> Self {
        let Dispatcher { pages, memory, .. } = &*self.dispatcher;
        let router = Arc::new(self.router.next(endpoints, &pages.builtin, app_host));
        let (pages, memory) = (pages.clone(), memory.clone());
        let earlier = self.earlier.iter().filter(|gate| gate.strong_count() > 0).cloned();
        Self {
            status: self.status.clone(),
            telemetry: self.telemetry.clone(),
            browsers: Browsers { is_loopback: self.browsers.is_loopback, ..browsers },
            layers: HashMap::new(),
            dispatcher: Arc::new(Dispatcher { router: router.clone(), pages, memory }),
            router,
            operators: self.operators.clone(),
            earlier: earlier.chain([Arc::downgrade(self)]).collect(),
        }
    }

    /// Responds to a request if it is admitted; its context gets the holder and the permit.
    pub(crate) async fn admit_and_route(
        &self,
        mut request: Request<Body>,
        context: &Context,
    ) -> HttpResponse {
        let mut target = self.router.target(request.uri().path());
        if self.status.is_draining() {
            self.router.edge(target).shed(Shed::Draining);
            return stopping(&request);
        }
        if target == Target::Operators {
            return match &self.operators {
                // It has a guard of its own, also against pages of other sites.
                Some(operators) => {
                    let forwarded_host = context.forwarded_host.clone();
                    Box::pin(operators.respond(request, forwarded_host)).await
                }
                None => builtin::not_found(request.uri().path()),
            };
        }
        if let Some(error) = self.refuse_page(target, &request, context.forwarded_host.as_deref()) {
            return self.router.error(target, request.uri().path(), &error);
        }
        if let Target::SharedPath(first) = target
            && request.method() == Method::POST
        {
            match Box::pin(self.find_model(first, request, context)).await {
                Ok(found) => (target, request) = found,
                Err(response) => return *response,
            }
        }
        let client = context.client.map(|client| client.address);
        match self.admit(target, request.headers(), client) {
            Ok(admission) => {
                if let Some(origin) = origin(&admission) {
                    request.extensions_mut().insert(Arc::new(origin));
                }
                let headers = admission.headers();
                // Before the response: the client may leave while it waits for it.
                context.admit(admission);
                let mut response = self.route(target, request, context).await;
                response.headers_mut().extend(headers);
                response
            }
            Err(refusal) => self.refuse(target, request, context, refusal).await,
        }
    }

    /// Returns a request at a shared path as one to the endpoint that its body names, among those that its
    /// headers admit it to.
    ///
    /// # Errors
    /// The response to a request that is for none of them.
    async fn find_model(
        &self,
        first: usize,
        request: Request<Body>,
        context: &Context,
    ) -> Result<(Target, Request<Body>), Box<HttpResponse>> {
        let (permitted, refusal) = self.permitted(first, request.headers());
        if let Some(refusal) = refusal {
            let refused = self.refuse(Target::SharedPath(first), request, context, refusal);
            return Err(Box::new(refused.await));
        }
        if let Some(error) = starting(&permitted) {
            return Err(Box::new(openai::error(&error)));
        }
        let unknown = self.unknown_to_app_host(first, &request);
        let (index, route, parts, body) =
            match self.dispatcher.read_model(&permitted, request).await {
                Ok(read) => read,
                // Only callers that the app host would admit learn the names of models.
                Err(response) => return Err(unknown.unwrap_or(response)),
            };
        let (target, request) = (Target::Endpoint(index), Request::from_parts(parts, body));
        context.count_for(&route.metrics);
        match self.refuse_page(target, &request, context.forwarded_host.as_deref()) {
            Some(error) => Err(Box::new(route.error(&error))),
            None => Ok((target, request)),
        }
    }

    /// Returns the response to a caller without the key that the app host checks, if it is asked for
    /// requests to this shared path.
    fn unknown_to_app_host(
        &self,
        first: usize,
        request: &Request<Body>,
    ) -> Option<Box<HttpResponse>> {
        self.router.app_host(Target::SharedPath(first), request.uri().path())?;
        let refusal = self.router.app_host.as_ref()?.guard.knows(request.headers()).err()?;
        let mut response = openai::error(&refusal.error);
        response.headers_mut().extend(refusal.into_headers());
        Some(Box::new(response))
    }

    /// Returns the endpoints of a shared path that headers admit to, by key or token; if there are none,
    /// also the refusal of one of them.
    fn permitted(
        &self,
        first: usize,
        headers: &HeaderMap,
    ) -> (Vec<(usize, &Route)>, Option<Refusal>) {
        let (mut permitted, mut refusal) = (Vec::new(), None);
        for (index, route) in self.router.sharing(first) {
            match route.guard.knows(headers) {
                Ok(()) => permitted.push((index, route)),
                // A token that lacks a scope is known; the refusal says so.
                Err(found) if found.error.cause == ErrorCause::Forbidden => refusal = Some(found),
                Err(found) => refusal = refusal.or(Some(found)),
            }
        }
        let refusal = refusal.filter(|_| permitted.is_empty());
        (permitted, refusal)
    }

    /// Sends an admitted request through the layers of its endpoint.
    async fn route(
        &self,
        target: Target,
        request: Request<Body>,
        context: &Context,
    ) -> HttpResponse {
        let index = if let Target::Endpoint(index) = target { Some(index) } else { None };
        match index.and_then(|index| self.layers.get(&index)) {
            Some(layers) => Box::pin(layers.send(request, context)).await,
            None => self.dispatcher.forward_or_serve(target, request, context.client).await,
        }
    }

    async fn refuse(
        &self,
        target: Target,
        request: Request<Body>,
        context: &Context,
        refusal: Refusal,
    ) -> HttpResponse {
        context.set_holder(refusal.holder.clone());
        if let Some(socket) = self.preflight_socket(target, &request) {
            // It is admitted to no target that requires a key.
            let (target, limit) = (Target::Open, Some(LEAST_TIMEOUT));
            let to = Forwarding { socket, limit, endpoint: None, gate: self.router.number };
            let forwarded = app_host::forward(to, target, request, context.client);
            return Box::pin(forwarded).await;
        }
        if refusal.error.cause == ErrorCause::Unauthenticated {
            self.telemetry.unauthorized(litplex_access::carries_key(request.headers()));
        }
        let mut response = self.router.error(target, request.uri().path(), &refusal.error);
        response.headers_mut().extend(refusal.into_headers());
        response
    }

    fn admit(
        &self,
        target: Target,
        headers: &HeaderMap,
        client: Option<SocketAddr>,
    ) -> Result<Admission, Refusal> {
        match target {
            Target::Open | Target::Operators => return Ok(Admission::default()),
            Target::Models => return self.admit_to_models(headers, client),
            Target::Probe => {
                let app_host = self.router.app_host.as_ref();
                app_host.map_or(Ok(()), |app_host| app_host.guard.knows(headers))?;
            }
            Target::SharedPath(first) => return self.admit_to_shared_path(first, headers),
            Target::Endpoint(_) | Target::Rest => {}
        }
        self.router.guard(target).admit(headers, client)
    }

    /// Admits the callers of any endpoint with this path to everything but the endpoints themselves.
    fn admit_to_shared_path(
        &self,
        first: usize,
        headers: &HeaderMap,
    ) -> Result<Admission, Refusal> {
        match self.permitted(first, headers) {
            (_, Some(refusal)) => Err(refusal),
            _ => Ok(Admission::default()),
        }
    }

    /// Admits the callers of any model. If every model requires a key and the server does not, only
    /// those callers may see the list.
    fn admit_to_models(
        &self,
        headers: &HeaderMap,
        client: Option<SocketAddr>,
    ) -> Result<Admission, Refusal> {
        let models = || self.router.endpoints().filter(|route| route.dialect().is_some());
        if models().any(|route| route.guard.knows(headers).is_ok()) {
            return Ok(Admission::default());
        }
        let server = &self.router.guard;
        let admission = server.admit(headers, client)?;
        match models().next() {
            Some(route) if server.is_open() => route.guard.knows(headers).map(|()| admission),
            _ => Ok(admission),
        }
    }

    /// Returns the socket of the app host if a request is a preflight request of a browser, which has no
    /// key, and the app host responds to those.
    fn preflight_socket<B>(&self, target: Target, request: &Request<B>) -> Option<&AppHostSocket> {
        let has = |name| request.headers().contains_key(name);
        let is_preflight = request.method() == Method::OPTIONS
            && has(ORIGIN)
            && has(ACCESS_CONTROL_REQUEST_METHOD)
            && self.router.app_host.as_ref().is_some_and(|host| host.answers_preflights);
        let path = request.uri().path();
        Some(self.router.app_host(target, path).filter(|_| is_preflight)?.socket)
    }

    /// Returns why a request of a page of another site is refused, if it is.
    fn refuse_page<B>(
        &self,
        target: Target,
        request: &Request<B>,
        forwarded: Option<&str>,
    ) -> Option<ServeError> {
        // Public routes have no secrets from pages.
        if target == Target::Open {
            return None;
        }
        let is_open = self.router.is_open(target);
        let is_tools = || self.router.is_tools(request.uri().path());
        let kind = match is_open {
            _ if target == Target::Rest && is_tools() => RouteKind::Tools { is_open },
            true => RouteKind::Open,
            false => RouteKind::Guarded,
        };
        self.browsers.refuse(request, kind, forwarded)
    }
}

/// Returns the error of endpoints of which no worker was ever ready, if that is the state of all: a server
/// that cannot serve must not take a body.
fn starting(endpoints: &[(usize, &Route)]) -> Option<ServeError> {
    let targets: Vec<_> = endpoints.iter().filter_map(|(_, route)| route.target.get()).collect();
    let are_starting = targets
        .iter()
        .all(|target| target.model_info().is_none() && !target.waits_for_first_worker);
    are_starting.then(|| targets.first()?.info().err()).flatten()
}

fn stopping(request: &Request<Body>) -> HttpResponse {
    let error = ServeError::not_ready("the server is stopping", 1);
    let mut response = openai::error_at(request.uri().path(), &error);
    // HTTP/2 has no such header; there the connection announces its end.
    if request.version() <= Version::HTTP_11 {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}
/// Returns what an admission says about its request, if that is more than the request does.
fn origin(admission: &Admission) -> Option<Origin> {
    let scopes = admission.scopes.clone();
    if scopes.is_none() && !admission.is_batch {
        return None;
    }
    let origin = scopes.map(Origin::with_scopes).unwrap_or_default();
    Some(if admission.is_batch { origin.with_priority(Priority::Batch) } else { origin })
}
