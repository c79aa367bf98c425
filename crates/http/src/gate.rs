//! The gate: refuses requests on their heads alone, because of the state of the server, the page that a
//! browser shows, or the guard of their target. Admitted requests go on to the layers of their endpoint.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use http::header::{ACCESS_CONTROL_REQUEST_METHOD, CONNECTION, HeaderValue, ORIGIN};
use http::{HeaderMap, Method, Request, Version};
use litplex_access::{Admission, Refusal};
use litplex_core::{ErrorCause, Origin, ServeError};
use litplex_dialects::openai;
use litplex_http_core::body::Body;
use litplex_http_core::response::HttpResponse;
use litplex_metrics::Shed;

use crate::app_host;
use crate::browsers::{Browsers, RouteKind};
use crate::context::Context;
use crate::dispatcher::Dispatcher;
use crate::layers::HttpService;
use crate::router::{LEAST_TIMEOUT, Router};
use crate::status::Status;
use crate::target::Target;
use crate::telemetry::Telemetry;

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
}

impl Gate {
    /// Responds to a request if it is admitted; its context gets the holder and the permit.
    pub(crate) async fn admit_and_route(
        &self,
        mut request: Request<Body>,
        context: &Context,
    ) -> HttpResponse {
        let target = self.router.target(request.uri().path());
        if self.status.is_draining() {
            self.router.edge(target).shed(Shed::Draining);
            return stopping(&request);
        }
        if let Some(error) = self.refuse_page(target, &request, context.forwarded_host.as_deref()) {
            return self.router.error(target, request.uri().path(), &error);
        }
        let client = context.client.map(|client| client.address);
        match self.admit(target, request.headers(), client) {
            Ok(admission) => {
                if let Some(scopes) = &admission.scopes {
                    request.extensions_mut().insert(Arc::new(Origin::with_scopes(scopes.clone())));
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
            let forwarded = app_host::forward(socket, target, request, context.client, limit);
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
            Target::Open => return Ok(Admission::default()),
            Target::Models => return self.admit_to_models(headers, client),
            Target::Probe => {
                let app_host = self.router.app_host.as_ref();
                app_host.map_or(Ok(()), |app_host| app_host.guard.knows(headers))?;
            }
            Target::Endpoint(_) | Target::Rest => {}
        }
        self.router.guard(target).admit(headers, client)
    }

    /// Admits the callers of any model. If every model requires a key and the server does not, only
    /// those callers may see the list.
    fn admit_to_models(
        &self,
        headers: &HeaderMap,
        client: Option<SocketAddr>,
    ) -> Result<Admission, Refusal> {
        let endpoints = || self.router.endpoints().map(|(_, route)| route);
        let models = || endpoints().filter(|route| route.dialect().is_some());
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
    fn preflight_socket<B>(&self, target: Target, request: &Request<B>) -> Option<&Path> {
        let has = |name| request.headers().contains_key(name);
        let is_preflight = request.method() == Method::OPTIONS
            && has(ORIGIN)
            && has(ACCESS_CONTROL_REQUEST_METHOD)
            && self.router.app_host.as_ref().is_some_and(|host| host.answers_preflights);
        let path = request.uri().path();
        let (socket, _) = self.router.app_host(target, path).filter(|_| is_preflight)?;
        Some(socket)
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
        let is_open = self.router.guard(target).is_open();
        let is_tools = || self.router.is_tools(request.uri().path());
        let kind = match is_open {
            _ if target == Target::Rest && is_tools() => RouteKind::Tools { is_open },
            true => RouteKind::Open,
            false => RouteKind::Guarded,
        };
        self.browsers.refuse(request, kind, forwarded)
    }
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
