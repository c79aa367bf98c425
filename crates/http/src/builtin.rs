//! The built-in pages: index, health, description, metrics, models, `OpenAPI`.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::sync::Arc;

use http::header::{ALLOW, CONTENT_TYPE, HeaderValue, LOCATION, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderMap, StatusCode, Uri};
use litplex_calls::{EndpointReport, Report, graph_json};
use litplex_core::{MemoryBudget, ServeError};
use litplex_dialects::openai;
use litplex_http_core::path;
use litplex_http_core::response::{self, HttpResponse, detail, json, text_response};
use litplex_metrics::MEDIA_TYPE;
use serde_json::{Map, Value, json};

use crate::pages;
use crate::router::Router;
use crate::routes::{Builtin, Page, RouteEntry};
use crate::status::Status;
use crate::telemetry::Telemetry;

const TEXT: &str = "text/plain; charset=utf-8";

/// The built-in pages, and the state that they show.
#[derive(Debug)]
pub(crate) struct Pages {
    pub(crate) builtin: Builtin,
    pub(crate) status: Arc<Status>,
    pub(crate) telemetry: Arc<Telemetry>,
}

impl Pages {
    /// Returns a page. Only the pages that show the report make one.
    pub(crate) async fn respond(
        &self,
        router: &Router,
        memory: &MemoryBudget,
        page: Page,
        parts: &Parts,
    ) -> HttpResponse {
        let (builtin, report) = (&self.builtin, || self.status.report());
        let text = |text: String| text_response(StatusCode::OK, TEXT, text);
        match page {
            Page::Preflight => text_response(StatusCode::OK, "text/plain", String::new()),
            Page::Index => text(index(builtin, &report())),
            Page::Health => is_ready(builtin, &report()),
            Page::Livez => text("ok".into()),
            Page::Readyz => readiness(&report(), false),
            Page::Info => json(StatusCode::OK, &describe(builtin, router, &report())),
            Page::Metrics => {
                text_response(StatusCode::OK, MEDIA_TYPE, self.telemetry.scrape(memory).await)
            }
            Page::Shutdown => self.stop(parts),
            Page::OpenApi => json(StatusCode::OK, &pages::document(router, &report())),
            Page::Models => at_path(parts, |path| models(router, path, &report(), &parts.headers)),
            Page::SwaggerUi => at_path(parts, |path| pages::page(path, &parts.headers)),
        }
    }

    /// Stops the server if the request has the key; without a key in the configuration, never.
    fn stop(&self, parts: &Parts) -> HttpResponse {
        let Some(key) = &self.builtin.shutdown_key else {
            let text = "set LIT_SHUTDOWN_API_KEY where the server is started";
            return detail(StatusCode::UNAUTHORIZED, text);
        };
        if let Some(error) = litplex_access::refuse_bearer(key, &parts.headers) {
            let mut response = response::error(&error);
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            return response;
        }
        self.status.request_shutdown();
        text_response(StatusCode::OK, TEXT, "the server is stopping".into())
    }
}

/// Returns the page at the path of a request, if there is one.
fn at_path(parts: &Parts, find: impl Fn(&str) -> Option<HttpResponse>) -> HttpResponse {
    let found = path::decode(parts.uri.path()).and_then(|path| find(&path));
    found.unwrap_or_else(|| not_found(parts.uri.path()))
}

/// Returns the models that the caller may call; `None` if no endpoint is a model.
fn models(
    router: &Router,
    path: &str,
    report: &Report,
    headers: &HeaderMap,
) -> Option<HttpResponse> {
    let has_dialect = |endpoint: &&EndpointReport| {
        let route = router.route_labelled(&endpoint.identity.label);
        route.is_some_and(|route| route.dialect().is_some())
    };
    let may_call = |endpoint: &&EndpointReport| {
        let route = router.route_labelled(&endpoint.identity.label);
        route.is_some_and(|route| route.guard.knows(headers).is_ok())
    };
    let models = || report.endpoints.iter().filter(has_dialect);
    models().next()?;
    openai::models(path, models().filter(may_call))
}

/// Redirects to the path with a final slash, or without it, if there is a route.
pub(crate) fn redirect_or_not_found(router: &Router, uri: &Uri) -> HttpResponse {
    let path = path::decode(uri.path());
    let redirected = path.as_deref().and_then(|path| redirect(router, path, uri));
    redirected.unwrap_or_else(|| not_found(path.as_deref().unwrap_or(uri.path())))
}

fn redirect(router: &Router, path: &str, uri: &Uri) -> Option<HttpResponse> {
    let other = path::with_other_ending(path);
    router.offered(&other).next()?;
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let location = format!("{}{}", path::encode(&other), path::escape(&query));
    let location = HeaderValue::try_from(location).ok()?;
    let mut response = text_response(StatusCode::TEMPORARY_REDIRECT, TEXT, String::new());
    response.headers_mut().remove(CONTENT_TYPE);
    response.headers_mut().insert(LOCATION, location);
    Some(response)
}

pub(crate) fn not_found(path: &str) -> HttpResponse {
    let text = format!("there is no endpoint `{path}`");
    match openai::hint_at(path) {
        // Such clients show only errors in their own form.
        Some(hint) => openai::error(&ServeError::not_found(format!("{text}; {hint}"))),
        None => openai::error_at(path, &ServeError::not_found(text)),
    }
}

/// Returns the response to a method that a path does not have.
pub(crate) fn not_allowed(path: &str, methods: &str) -> HttpResponse {
    let error = ServeError::method_not_allowed(format!("this path takes {methods}"));
    let mut response = openai::error_at(path, &error);
    response.headers_mut().extend(HeaderValue::from_str(methods).ok().map(|value| (ALLOW, value)));
    response
}

fn index(builtin: &Builtin, report: &Report) -> String {
    if let Some(index) = &builtin.index {
        return index.clone();
    }
    let mut text = "litplex running\n\n".to_owned();
    for EndpointReport { identity, problem, .. } in &report.endpoints {
        let path = &identity.path;
        let state = problem.as_deref().unwrap_or("ready");
        let _ = writeln!(text, "POST {path}  ({state})");
    }
    for path in [&builtin.health, &builtin.info].into_iter().chain(&builtin.metrics) {
        let _ = writeln!(text, "GET {path}");
    }
    if builtin.openapi {
        text.push_str("GET /docs\n");
    }
    if builtin.dashboard {
        text.push_str("GET /dashboard\n");
    }
    text
}

/// Returns `ok`, or `not ready`, and a line for each endpoint that is not if reasons are shown.
fn is_ready(builtin: &Builtin, report: &Report) -> HttpResponse {
    readiness(report, builtin.status_reasons)
}

fn readiness(report: &Report, has_reasons: bool) -> HttpResponse {
    if report.is_ready() {
        return text_response(StatusCode::OK, TEXT, "ok".into());
    }
    let mut text = "not ready".to_owned();
    for (what, problem) in report.problems().filter(|_| has_reasons) {
        let _ = write!(text, "\n{what}: {problem}");
    }
    text_response(StatusCode::SERVICE_UNAVAILABLE, TEXT, text)
}

fn describe(builtin: &Builtin, router: &Router, report: &Report) -> Value {
    let server = whole_server(&report.endpoints);
    if let Some(given) = &builtin.info_server {
        return json!({"model": builtin.model_metadata, "server": overlaid(server, given)});
    }
    let endpoints: Vec<Value> = report.endpoints.iter().map(endpoint_info).collect();
    json!({
        "litplex": env!("CARGO_PKG_VERSION"),
        "endpoints": endpoints,
        "graph": graph(&report.endpoints),
        "routes": router.all_offered().map(RouteEntry::to_json).collect::<Vec<_>>(),
        "model": builtin.model_metadata,
        "server": server,
    })
}

/// Returns the graph of the endpoints: nodes, and edges for the calls that they declare.
fn graph(endpoints: &[EndpointReport]) -> Value {
    let nodes = endpoints.iter().map(|endpoint| (&*endpoint.identity, endpoint.kind));
    graph_json(nodes, endpoints.iter().flat_map(|endpoint| &endpoint.calls))
}

/// Returns an object with entries replaced by those of another.
fn overlaid(mut object: Value, over: &Map<String, Value>) -> Value {
    for (name, value) in over {
        object[name] = value.clone();
    }
    object
}

/// Returns the settings of the whole server. Settings that each endpoint has are those of the first
/// endpoint: clients that expect one model per server read them.
fn whole_server(endpoints: &[EndpointReport]) -> Value {
    let devices: BTreeSet<&String> = endpoints.iter().flat_map(|e| &e.devices).collect();
    let first = |of: fn(&EndpointReport) -> Value| endpoints.first().map(of);
    let by_path = |of: fn(&EndpointReport) -> Value| -> Value {
        endpoints.iter().map(|endpoint| (endpoint.identity.label.clone(), of(endpoint))).collect()
    };
    json!({
        "devices": devices,
        "workers_per_device": by_path(|e| json!(e.workers / e.devices.len().max(1))),
        "timeout": first(|e| json!(e.queue_timeout.unwrap_or(e.timeout))),
        "stream": by_path(|e| json!(e.info.as_ref().map(|info| info.stream))),
        "max_payload_size": first(|e| json!(e.max_body_bytes)),
        "track_requests": true,
    })
}

fn endpoint_info(endpoint: &EndpointReport) -> Value {
    // A pipeline has none of the properties of workers.
    let info = endpoint.info.as_ref().filter(|_| endpoint.pipeline.is_none());
    let mut shown = json!({
        "name": endpoint.identity.name,
        "aliases": endpoint.identity.aliases,
        "path": endpoint.identity.path,
        "kind": endpoint.kind,
        "ready": endpoint.problem.is_none(),
        "problem": endpoint.problem.as_ref().or(endpoint.degraded.as_ref()),
        "workers": endpoint.workers,
        "workers_ready": endpoint.workers_ready,
        "threads": endpoint.threads,
        "timeout": endpoint.timeout,
        "queue_timeout": endpoint.queue_timeout.unwrap_or(endpoint.timeout),
        "max_batch_size": info.map(|info| info.max_batch_size),
        "batch_timeout": info.map(|info| info.batch_timeout.as_secs_f64()),
        "max_concurrency": info.map(|info| info.concurrency),
        "stream": info.map(|info| info.stream),
    });
    if let Some(tier) = endpoint.tier {
        shown["tier"] = json!(tier);
    }
    if let Some(generation) = endpoint.generation {
        shown["generation"] = json!(generation);
    }
    if let Some((generation, since)) = &endpoint.failed_generation {
        // What a model raises is for operators.
        let reason = "its workers did not become ready; the log and `litplex ps` say why";
        shown["failed_generation"] =
            json!({"generation": generation, "since": since, "reason": reason});
    }
    if let Some(batches) = &endpoint.batches {
        shown["batches"] = json!(batches);
    }
    if let Some(pipeline) = &endpoint.pipeline {
        shown["pipeline"] = pipeline.clone();
    }
    shown
}
