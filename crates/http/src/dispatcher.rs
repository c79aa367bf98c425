//! The innermost service: sends an admitted request to the app host or to its handler.

use std::net::SocketAddr;
use std::sync::Arc;

use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, HeaderValue};
use http::request::Parts;
use http::{Method, Request, StatusCode};
use litplex_core::{MemoryBudget, Origin};
use litplex_dialects::openai::{ModelRequest, NoEndpoint};
use litplex_dialects::{Route, mcp, predict};
use litplex_http_core::body::Body;
use litplex_http_core::decompress;
use litplex_http_core::response::HttpResponse;

use crate::app_host::{self, Admitted};
use crate::builtin::{self, Pages};
use crate::cold_start;
use crate::peer::Peer;
use crate::router::Router;
use crate::routes::{Dispatch, Handler};
use crate::target::Target;

/// The handlers of all routes.
#[derive(Debug)]
pub(crate) struct Dispatcher {
    pub(crate) router: Arc<Router>,
    pub(crate) pages: Arc<Pages>,
    /// The budget of all requests and responses.
    pub(crate) memory: Arc<MemoryBudget>,
}

impl Dispatcher {
    /// Responds to a request that was admitted to this target, through the app host if there is one.
    pub(crate) async fn forward_or_serve(
        &self,
        target: Target,
        request: Request<Body>,
        client: Option<Peer>,
    ) -> HttpResponse {
        let Some(to) = self.router.app_host(target, request.uri().path()) else {
            return self.serve(target, request, client.map(|client| client.address)).await;
        };
        Box::pin(app_host::forward(to, target, request, client)).await
    }

    /// Responds to a request of the app host. It is part of a client's request, which was admitted to a
    /// target, and reaches only routes of that target, even if a middleware changed its path. If the app
    /// host `is_attached`, it is the process of a test, which may use every route.
    pub(crate) async fn serve_inner(
        &self,
        mut request: Request<Body>,
        admitted: Option<Admitted>,
        is_attached: bool,
    ) -> HttpResponse {
        let target = self.router.target(request.uri().path());
        let client = app_host::take_client(request.headers_mut());
        let (admitted, scopes) = admitted.map(|it| (it.target, it.scopes)).unzip();
        if let Some(scopes) = scopes.flatten() {
            request.extensions_mut().insert(Arc::new(Origin::with_scopes(scopes)));
        }
        let target = match (target, admitted) {
            (Target::SharedPath(first), None)
                if is_attached && request.method() == Method::POST =>
            {
                return Box::pin(self.serve_attached_model(first, request)).await;
            }
            // The body decided the endpoint when the request was admitted, and decides nothing now.
            (Target::SharedPath(first), Some(Target::Endpoint(index)))
                if self.router.sharing(first).any(|(other, _)| other == index) =>
            {
                Target::Endpoint(index)
            }
            _ => target,
        };
        if is_attached || admitted.is_some_and(|admitted| admitted.covers(target)) {
            self.serve(target, request, client).await
        } else {
            builtin::not_found(request.uri().path())
        }
    }

    /// Responds to a request of a test at a path that several endpoints share, all of which it may use.
    async fn serve_attached_model(&self, first: usize, request: Request<Body>) -> HttpResponse {
        let endpoints: Vec<_> = self.router.sharing(first).collect();
        match self.read_model(&endpoints, request).await {
            Ok((_, route, parts, body)) => self.serve_endpoint(route, &parts, body).await,
            Err(response) => *response,
        }
    }

    /// Reads the body of a request for one of these endpoints, and returns the endpoint that it is for.
    ///
    /// # Errors
    /// The response of a request that is for none of them.
    pub(crate) async fn read_model<'a>(
        &self,
        endpoints: &[(usize, &'a Route)],
        request: Request<Body>,
    ) -> Result<(usize, &'a Route, Parts, Body), Box<HttpResponse>> {
        let (mut parts, body) = request.into_parts();
        let routes: Vec<_> = endpoints.iter().map(|(_, route)| *route).collect();
        let is_encoded = parts.headers.contains_key(CONTENT_ENCODING);
        let refuse =
            |error: NoEndpoint| Box::new(with_accepted_codings(error.response(), is_encoded));
        let read = ModelRequest::read(&self.memory, &routes, &mut parts, body).await;
        let read = read.map_err(refuse)?;
        let (index, route) = read.endpoint(endpoints).map_err(refuse)?;
        Ok((index, route, parts, read.into_body()))
    }

    /// Responds to a request that was admitted to this target, by the route table.
    async fn serve(
        &self,
        target: Target,
        request: Request<Body>,
        client: Option<SocketAddr>,
    ) -> HttpResponse {
        let router = &self.router;
        if matches!(target, Target::SharedPath(_)) && request.method() == Method::POST {
            // It was admitted to no endpoint.
            return builtin::not_found(request.uri().path());
        }
        match router.dispatch(target, request.method(), request.uri().path()) {
            Dispatch::To(Handler::Endpoint(index)) => {
                let (parts, body) = request.into_parts();
                self.serve_endpoint(router.endpoint(index), &parts, body).await
            }
            Dispatch::To(Handler::Tools) => {
                Box::pin(mcp::respond(router.endpoints.clone(), &self.memory, request, client))
                    .await
            }
            // The gate hands requests of operators over; those of the app host do not come from them.
            Dispatch::To(Handler::Operators) => builtin::not_found(request.uri().path()),
            Dispatch::To(Handler::Builtin(page)) => {
                let (parts, _) = request.into_parts();
                Box::pin(self.pages.respond(router, &self.memory, page, &parts)).await
            }
            Dispatch::NotAllowed(methods) => builtin::not_allowed(request.uri().path(), &methods),
            Dispatch::NotFound => builtin::redirect_or_not_found(router, request.uri()),
        }
    }

    async fn serve_endpoint(&self, route: &Route, parts: &Parts, body: Body) -> HttpResponse {
        match cold_start::is_asked(&parts.headers) {
            Ok(true) if cold_start::wait_for(route).await.is_some() => {
                let (memory, route, parts) = (self.memory.clone(), route.clone(), parts.clone());
                return cold_start::respond(memory, route, parts, body);
            }
            Ok(_) => {}
            Err(error) => return route.error(&error),
        }
        let response = predict(&self.memory, route, parts, body).await;
        let response = response.unwrap_or_else(|error| route.error(&error));
        with_accepted_codings(response, parts.headers.contains_key(CONTENT_ENCODING))
    }
}

/// Adds the codings of bodies that the server reads to the response to a body that it does not.
fn with_accepted_codings(mut response: HttpResponse, is_encoded: bool) -> HttpResponse {
    if is_encoded && response.status() == StatusCode::UNSUPPORTED_MEDIA_TYPE {
        let accepted = HeaderValue::from_static(decompress::ACCEPTED);
        response.headers_mut().insert(ACCEPT_ENCODING, accepted);
    }
    response
}
