use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use http::header::{ACCEPT_ENCODING, CONNECTION, CONTENT_ENCODING, EXPECT, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use litplex_core::{ErrorCause, Outcome, Reservation, ServeError};
use litplex_metrics::Shed;
use tower::{Layer, ServiceExt, service_fn};
use tower_http::cors::CorsLayer;

use crate::answer::{self, HttpResponse};
use crate::app::{App, LEAST_TIMEOUT, Route};
use crate::around::{Body, Context, Timing, X_REQUEST_ID};
use crate::line::OnLine;
use crate::predict::{predict, refusal};
use crate::proxy::{self, Peer};
use crate::routes::{Dispatch, Handler};
use crate::sending::{Follower, MeasuredBody};
use crate::target::Target;
use crate::upload::{Rest, Upload};
use crate::{builtin, head, mcp, openai, unpack, unread};

/// What a stream of HTTP/2 and the task of its request take, about.
const STREAM_BYTES: usize = 8 * 1024;

/// What a header takes beside its name and its value: an entry of a map and its index.
const HEADER_BYTES: usize = 128;

/// Takes one request of a client from its headers to the beginning of its answer.
pub(crate) async fn handle(
    app: &Arc<App>,
    request: Request<Incoming>,
    client: Option<Peer>,
    on_line: OnLine,
) -> Result<Response<MeasuredBody>, Infallible> {
    let (mut request, rest) = take_body(request);
    let settled = head::settle(&mut request);
    let mut ongoing = app.begin_request(app.target(request.uri().path()));
    let timing = app.around.server_timing.then(Timing::begin);
    let proxies = &app.around.trusted_proxies;
    let forwarded_host = client.and_then(|peer| proxies.host(peer, request.headers()));
    let forwarded_host = forwarded_host.map(Arc::from);
    let client = client.map(|peer| app.around.trusted_proxies.client(peer, request.headers()));
    let mut span = app.begin_span(&mut request, client.map_or("http", Peer::scheme));
    let id = app.around.request_ids.as_ref().map(|ids| ids.take(request.headers_mut()));
    let log = app.around.access_log.as_ref();
    let context = Context::of(client, forwarded_host);
    let mut record = log.map(|log| log.begin(&request, &context, id.clone()));
    let (is_head, version) = (request.method() == Method::HEAD, request.version());
    // What HEAD is answered has no body that could be smaller.
    let compression = app.around.compression.as_ref().filter(|_| !is_head);
    let packing = compression.map(|with| (with, with.choose(request.headers())));
    let head = settled.and_then(|()| hold_head(app, &request));
    let mut response = match (&head, &app.around.cors) {
        (Err(full), _) if full.cause == ErrorCause::Overloaded => without_room(app, &request, full),
        (Err(error), _) => answer::error(error),
        (Ok(_), None) => within_layers(app, request, &context).await,
        (Ok(_), Some(cors)) => {
            Box::pin(across(cors, request, |r| within_layers(app, r, &context))).await
        }
    };
    if let Some(rest) = rest {
        response = unread::settle(version, rest, response).await;
    }
    if let Some((compression, coding)) = packing {
        response = Box::pin(compression.apply(coding, response, &app.budget)).await;
    }
    let permit = context.admitted().permit.take();
    response.headers_mut().extend(id.map(|id| (X_REQUEST_ID, id)));
    if let Some(timing) = timing {
        timing.stamp(response.headers_mut());
    }
    ongoing.answered(response.status().as_u16());
    if let Some(span) = &mut span {
        span.answered(response.status().as_u16());
    }
    if let Some(record) = &mut record {
        record.status = response.status().as_u16();
    }
    if is_head && version == Version::HTTP_2 {
        answer::remove_body(&mut response);
    }
    // What carries no body is not asked for one.
    let is_bare =
        is_head || matches!(response.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    Ok(response.map(|body| {
        let ongoing = Some(ongoing);
        let _head = head.unwrap_or_default();
        let follower = Follower { ongoing, record, span, _permit: permit, _head };
        let budget = app.budget.clone();
        let mut body = MeasuredBody::new(body, follower, on_line, version, budget);
        if is_bare {
            body.ended();
        }
        body
    }))
}

/// Reserves what a request takes beside its body where it may have to wait. A connection of HTTP/1.1
/// has one request at a time, whose headers are within what a connection may hold.
fn hold_head(app: &App, request: &Request<Body>) -> Outcome<Reservation> {
    if request.version() != Version::HTTP_2 {
        return Ok(Reservation::default());
    }
    let (target, path) = (app.target(request.uri().path()), request.uri().path());
    let waits =
        app.route(target).is_some() || app.app_host(target, path).is_some() || app.is_tools(path);
    let reservation = app.budget.reserve();
    if waits {
        reservation.grow(head_bytes(request))?;
    }
    Ok(reservation)
}

/// Returns about what a request of HTTP/2 takes beside its body.
fn head_bytes<B>(request: &Request<B>) -> usize {
    let headers = request.headers().iter();
    let headers = headers.map(|(name, value)| HEADER_BYTES + name.as_str().len() + value.len());
    let (path, query) = (request.uri().path(), request.uri().query().unwrap_or_default());
    STREAM_BYTES + path.len() + query.len() + headers.sum::<usize>()
}

/// Refuses a request for whose headers there is no room.
fn without_room(app: &App, request: &Request<Body>, full: &ServeError) -> HttpResponse {
    let path = request.uri().path();
    let target = app.target(path);
    app.edge(target).shed(Shed::Memory);
    worded(app, target, path, full)
}

/// Takes the body out of a request, and returns where what is unread of it is found.
fn take_body(request: Request<Incoming>) -> (Request<Body>, Option<Rest>) {
    let (parts, body) = request.into_parts();
    if body.is_end_stream() {
        return (Request::from_parts(parts, Body::default()), None);
    }
    let (body, rest) = Upload::new(body, parts.headers.contains_key(EXPECT));
    (Request::from_parts(parts, body.into()), Some(rest))
}

/// Lets pages of other origins ask, and answers what their browsers ask before.
async fn across<F: Future<Output = HttpResponse>>(
    cors: &CorsLayer,
    request: Request<Body>,
    answer: impl Fn(Request<Body>) -> F,
) -> HttpResponse {
    let inner = service_fn(|request| {
        let answered = answer(request);
        async { Ok::<_, Infallible>(answered.await) }
    });
    let Ok(response) = cors.layer(inner).oneshot(request).await;
    response
}

/// Answers a request by way of the layers around the server, where there are any.
async fn within_layers(app: &Arc<App>, request: Request<Body>, context: &Context) -> HttpResponse {
    match app.stacks.of_the_server() {
        None => let_in(app, request, context).await,
        Some(layers) => Box::pin(layers.answer(request, context.clone())).await,
    }
}

/// Answers a request if it may be answered; what it was let in with is kept in its context.
pub(crate) async fn let_in(
    app: &Arc<App>,
    request: Request<Body>,
    context: &Context,
) -> HttpResponse {
    let target = app.target(request.uri().path());
    if app.is_draining() {
        app.edge(target).shed(Shed::Draining);
        return stopping(&request);
    }
    let forwarded = context.forwarded_host.as_deref();
    if let Some(error) = app.refuse_page(target, &request, forwarded) {
        return worded(app, target, request.uri().path(), &error);
    }
    let client = context.client.map(|client| client.address);
    match app.admit(target, request.headers(), client) {
        Ok(admission) => {
            // Before the answer: a client may leave while it waits for that.
            *context.admitted() = admission;
            let mut response = match app.stacks.of(target) {
                None => pass(app, target, request, context.client).await,
                Some(layers) => Box::pin(layers.answer(request, context.clone())).await,
            };
            response.headers_mut().extend(context.admitted().headers());
            response
        }
        Err(refused) => {
            context.admitted().holder.clone_from(&refused.holder);
            if let Some(socket) = app.for_preflights(target, &request) {
                // It is let in for nothing that asks for a key.
                let limit = Some(LEAST_TIMEOUT);
                let to_app = proxy::forward(socket, Target::Open, request, context.client, limit);
                return Box::pin(to_app).await;
            }
            if refused.error.cause == ErrorCause::Unauthenticated {
                app.metrics.unauthorized(litplex_access::carries_key(request.headers()));
            }
            let mut response = worded(app, target, request.uri().path(), &refused.error);
            response.headers_mut().extend(refused.into_headers());
            response
        }
    }
}

/// Says what went wrong in the words of the endpoint, or else of what is at this path.
fn worded(app: &App, target: Target, path: &str, error: &ServeError) -> HttpResponse {
    match app.route(target) {
        Some(route) => refusal(route, error),
        None => openai::error_at(path, error),
    }
}

/// Answers a request that was let in for this, by way of the app host where there is one.
pub(crate) async fn pass(
    app: &Arc<App>,
    target: Target,
    request: Request<Body>,
    client: Option<Peer>,
) -> HttpResponse {
    let Some((socket, limit)) = app.app_host(target, request.uri().path()) else {
        return answer(app, target, request, client.map(|client| client.address)).await;
    };
    Box::pin(proxy::forward(socket, target, request, client, limit)).await
}

/// Takes a request of the app host, which is part of one of a client: it has been let in, and is
/// answered while the server stops. It gets what that was let in for, whatever a middleware made of
/// its path. Where the app host `is_attached`, the test that asks it may have everything.
pub(crate) async fn handle_inner(
    app: &Arc<App>,
    mut request: Request<Incoming>,
    is_attached: bool,
    on_line: OnLine,
) -> Result<Response<MeasuredBody>, Infallible> {
    let mut span = app.begin_span(&mut request, "http");
    let compression = app.around.compression.as_ref().filter(|_| is_attached);
    let packing = compression.map(|with| (with, with.choose(request.headers())));
    let asked = app.target(request.uri().path());
    let admitted = proxy::take_admission(request.headers_mut());
    let client = proxy::take_client(request.headers_mut());
    let (version, (request, rest)) = (request.version(), take_body(request));
    let mut response = if is_attached || admitted.is_some_and(|target| target.covers(asked)) {
        answer(app, asked, request, client).await
    } else {
        builtin::not_found(request.uri().path())
    };
    if let Some(rest) = rest {
        response = unread::settle(version, rest, response).await;
    }
    if let Some((compression, coding)) = packing {
        response = Box::pin(compression.apply(coding, response, &app.budget)).await;
    }
    if let Some(span) = &mut span {
        span.answered(response.status().as_u16());
    }
    // Nothing is measured of it but its span: it is part of another.
    let follower = Follower { span, ..Follower::default() };
    let budget = app.budget.clone();
    Ok(response.map(|body| MeasuredBody::new(body, follower, on_line, version, budget)))
}

/// Answers a request that was admitted to a target, as the route table says.
async fn answer(
    app: &Arc<App>,
    target: Target,
    request: Request<Body>,
    client: Option<SocketAddr>,
) -> HttpResponse {
    match app.dispatch(target, request.method(), request.uri().path()) {
        Dispatch::To(Handler::Endpoint(index)) => {
            let (parts, body) = request.into_parts();
            answer_endpoint(app, app.endpoint(index), &parts, body).await
        }
        Dispatch::To(Handler::Tools) => Box::pin(mcp::answer(app.clone(), request, client)).await,
        Dispatch::To(Handler::Builtin(page)) => {
            Box::pin(builtin::answer(app, page, &request.into_parts().0)).await
        }
        Dispatch::NotAllowed(methods) => answer::not_allowed(request.uri().path(), &methods),
        Dispatch::NotFound => builtin::redirect_or_not_found(app, request.uri()),
    }
}

async fn answer_endpoint(app: &App, route: &Route, parts: &Parts, body: Body) -> HttpResponse {
    let response = predict(app, route, parts, body).await;
    let mut response = response.unwrap_or_else(|error| refusal(route, &error));
    if response.status() == StatusCode::UNSUPPORTED_MEDIA_TYPE
        && parts.headers.contains_key(CONTENT_ENCODING)
    {
        let accepted = HeaderValue::from_static(unpack::ACCEPTED);
        response.headers_mut().insert(ACCEPT_ENCODING, accepted);
    }
    response
}

fn stopping(request: &Request<Body>) -> HttpResponse {
    let error = ServeError::not_ready("the server is stopping", 1);
    let mut response = openai::error_at(request.uri().path(), &error);
    // HTTP/2 has no such header; there the connection says it.
    if request.version() <= Version::HTTP_11 {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_takes_what_its_headers_do() {
        let head = |value: usize| {
            let request = Request::get("/a?b").header("x", "a".repeat(value)).body(());
            head_bytes(&request.unwrap())
        };
        assert_eq!(head(0), STREAM_BYTES + "/a".len() + "b".len() + HEADER_BYTES + "x".len());
        assert_eq!(head(9_000) - head(0), 9_000);
    }
}
