use std::convert::Infallible;

use http::header::{ALLOW, HeaderValue};
use http::request::Parts;
use http::{HeaderMap, Method, Request};
use hyper::body::Incoming;
use litmux_core::{Job, Meta, Outcome, ServeError, Traits, reply};
use tokio::time::{Instant, timeout_at};

use crate::answer::{self, HttpResponse};
use crate::app::{App, Route};
use crate::{body, builtin};

/// Takes one request from its headers to the beginning of its answer.
pub(crate) async fn handle(
    app: &App,
    request: Request<Incoming>,
) -> Result<HttpResponse, Infallible> {
    let (parts, body) = request.into_parts();
    Ok(match app.route(parts.uri.path()) {
        Some(route) if parts.method == Method::POST => {
            let response = predict(route, &parts, body).await;
            response.unwrap_or_else(|error| answer::error(&error))
        }
        Some(_) => not_allowed("POST"),
        None => builtin_or_not_found(app, &parts),
    })
}

/// The life of a request to an endpoint, in order:
async fn predict(route: &Route, parts: &Parts, body: Incoming) -> Outcome<HttpResponse> {
    let arrived = Instant::now();
    // Before the body is read: a server that cannot serve must not take it.
    let traits = route.endpoint.traits().ok_or_else(starting)?;
    let deadline = arrived + route.timeout;
    let read = body::read(&parts.headers, body, route.max_body_bytes);
    let (content, body) = timeout_at(deadline, read).await.map_err(|_| slow_client())??;
    let meta = meta(traits, parts);
    let (reply, mut answers) = reply();
    let request = litmux_core::Request { content, body, meta };
    route.endpoint.submit(Job { request, arrived, deadline, reply });
    // Dropping `answers`, here or because the client left, is what cancels the job.
    let answer = timeout_at(deadline, answers.recv()).await;
    let answer = answer.map_err(|_| ServeError::deadline())??;
    answer::from(answer, &parts.headers)
}

fn meta(traits: &Traits, parts: &Parts) -> Option<Meta> {
    traits.context.then(|| Meta {
        method: parts.method.to_string(),
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        headers: header_pairs(&parts.headers),
    })
}

fn header_pairs(headers: &HeaderMap) -> Vec<(String, String)> {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    headers.iter().map(|(name, value)| (name.to_string(), text(value))).collect()
}

fn builtin_or_not_found(app: &App, parts: &Parts) -> HttpResponse {
    match builtin::answer(app, parts.uri.path()) {
        Some(_) if ![Method::GET, Method::HEAD].contains(&parts.method) => not_allowed("GET, HEAD"),
        Some(response) => response,
        None => {
            let detail = format!("there is no endpoint `{}`", parts.uri.path());
            answer::error(&ServeError::new(404, detail))
        }
    }
}

fn not_allowed(methods: &'static str) -> HttpResponse {
    let detail = format!("this path takes {methods}");
    let mut response = answer::error(&ServeError::new(405, detail));
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
    response
}

fn starting() -> ServeError {
    ServeError::unavailable("this endpoint is not ready yet", 1)
}

fn slow_client() -> ServeError {
    ServeError::new(408, "the request body did not arrive in time")
}
