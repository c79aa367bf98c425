//! The routes that litplex answers itself.

use std::collections::BTreeSet;
use std::fmt::Write;

use http::header::{CONTENT_TYPE, HeaderValue, LOCATION, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderMap, StatusCode, Uri};
use litplex_calls::{EndpointReport, Report};
use litplex_core::ServeError;
use litplex_metrics::MEDIA_TYPE;
use serde_json::{Map, Value, json};

use crate::answer::{self, HttpResponse, detail, json, own};
use crate::app::App;
use crate::routes::{Builtin, Page, RouteEntry};
use crate::{openai, pages, path};

const TEXT: &str = "text/plain; charset=utf-8";

/// Answers with a page. A report is made only where one is shown.
pub(crate) async fn answer(app: &App, page: Page, parts: &Parts) -> HttpResponse {
    let builtin = &app.builtin;
    let text = |text: String| own(StatusCode::OK, TEXT, text);
    match page {
        Page::Preflight => own(StatusCode::OK, "text/plain", String::new()),
        Page::Index => text(index(builtin, &app.report())),
        Page::Health => is_ready(builtin, &app.report()),
        Page::Livez => text("ok".into()),
        Page::Readyz => readiness(&app.report(), false),
        Page::Info => json(StatusCode::OK, &describe(app, &app.report())),
        Page::Metrics => own(StatusCode::OK, MEDIA_TYPE, app.scrape().await),
        Page::Shutdown => stop(app, parts),
        Page::OpenApi => json(StatusCode::OK, &pages::document(app)),
        Page::Models => at_path(parts, |path| models(app, path, &parts.headers)),
        Page::SwaggerUi => at_path(parts, |path| pages::page(path, &parts.headers)),
    }
}

/// Answers with what is at the path of a request, where there is anything.
fn at_path(parts: &Parts, find: impl Fn(&str) -> Option<HttpResponse>) -> HttpResponse {
    let found = path::decode(parts.uri.path()).and_then(|path| find(&path));
    found.unwrap_or_else(|| not_found(parts.uri.path()))
}

fn models(app: &App, path: &str, headers: &HeaderMap) -> Option<HttpResponse> {
    openai::models(path, &app.report(), |endpoint| app.may_call(&endpoint.path, headers))
}

/// Sends clients on that wrote a slash too many at the end of a path, or left one out.
pub(crate) fn redirect_or_not_found(app: &App, uri: &Uri) -> HttpResponse {
    let path = path::decode(uri.path());
    let redirected = path.as_deref().and_then(|path| redirect(app, path, uri));
    redirected.unwrap_or_else(|| not_found(path.as_deref().unwrap_or(uri.path())))
}

fn redirect(app: &App, path: &str, uri: &Uri) -> Option<HttpResponse> {
    let other = path::with_other_ending(path);
    app.offered(&other).next()?;
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let location = format!("{}{}", path::encode(&other), path::escape(&query));
    let location = HeaderValue::try_from(location).ok()?;
    let mut response = own(StatusCode::TEMPORARY_REDIRECT, TEXT, String::new());
    response.headers_mut().remove(CONTENT_TYPE);
    response.headers_mut().insert(LOCATION, location);
    Some(response)
}

pub(crate) fn not_found(path: &str) -> HttpResponse {
    let text = format!("there is no endpoint `{path}`");
    match openai::hint_at(path) {
        // It is one of these clients, which show the message in their own form alone.
        Some(hint) => openai::error(&ServeError::not_found(format!("{text}; {hint}"))),
        None => openai::error_at(path, &ServeError::not_found(text)),
    }
}

/// Stops the server for whoever has the key; where there is none, for nobody.
fn stop(app: &App, parts: &Parts) -> HttpResponse {
    let Some(key) = &app.builtin.shutdown_key else {
        let text = "set LIT_SHUTDOWN_API_KEY where the server is started";
        return detail(StatusCode::UNAUTHORIZED, text);
    };
    if let Some(error) = litplex_access::refuse_bearer(key, &parts.headers) {
        let mut response = answer::error(&error);
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        return response;
    }
    app.ask_for_shutdown();
    own(StatusCode::OK, TEXT, "the server is stopping".into())
}

fn index(builtin: &Builtin, report: &Report) -> String {
    if let Some(index) = &builtin.index {
        return index.clone();
    }
    let mut text = "litplex running\n\n".to_owned();
    for EndpointReport { path, problem, .. } in &report.endpoints {
        let state = problem.as_deref().unwrap_or("ready");
        let _ = writeln!(text, "POST {path}  ({state})");
    }
    for path in [&builtin.health, &builtin.info].into_iter().chain(&builtin.metrics) {
        let _ = writeln!(text, "GET {path}");
    }
    if builtin.openapi {
        text.push_str("GET /docs\n");
    }
    text
}

/// `ok`, or `not ready` and, if that may be told, why: a line for each endpoint that is not.
fn is_ready(builtin: &Builtin, report: &Report) -> HttpResponse {
    readiness(report, builtin.status_reasons)
}

fn readiness(report: &Report, has_reasons: bool) -> HttpResponse {
    if report.is_ready() {
        return own(StatusCode::OK, TEXT, "ok".into());
    }
    let mut text = "not ready".to_owned();
    for (what, problem) in report.problems().filter(|_| has_reasons) {
        let _ = write!(text, "\n{what}: {problem}");
    }
    own(StatusCode::SERVICE_UNAVAILABLE, TEXT, text)
}

fn describe(app: &App, report: &Report) -> Value {
    let builtin = &app.builtin;
    let server = whole_server(&report.endpoints);
    if let Some(given) = &builtin.info_server {
        return json!({"model": builtin.model_metadata, "server": overlaid(server, given)});
    }
    let endpoints: Vec<Value> = report.endpoints.iter().map(endpoint_info).collect();
    json!({
        "litplex": env!("CARGO_PKG_VERSION"),
        "endpoints": endpoints,
        "routes": app.routes_there().map(RouteEntry::to_json).collect::<Vec<_>>(),
        "model": builtin.model_metadata,
        "server": server,
    })
}

/// Returns an object with the entries of another in the place of its own.
fn overlaid(mut object: Value, over: &Map<String, Value>) -> Value {
    for (name, value) in over {
        object[name] = value.clone();
    }
    object
}

/// Returns the settings of the whole server. Those that each endpoint has for itself are the first
/// endpoint's; clients that expect one model per server read them.
fn whole_server(endpoints: &[EndpointReport]) -> Value {
    let devices: BTreeSet<&String> = endpoints.iter().flat_map(|e| &e.devices).collect();
    let first = |of: fn(&EndpointReport) -> Value| endpoints.first().map(of);
    let by_path = |of: fn(&EndpointReport) -> Value| -> Value {
        endpoints.iter().map(|endpoint| (endpoint.path.clone(), of(endpoint))).collect()
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
    let info = endpoint.info.as_ref();
    json!({
        "path": endpoint.path,
        "kind": endpoint.kind,
        "ready": endpoint.problem.is_none(),
        "problem": endpoint.problem.as_ref().or(endpoint.degraded.as_ref()),
        "workers": endpoint.workers,
        "workers_ready": endpoint.workers_ready,
        "timeout": endpoint.timeout,
        "queue_timeout": endpoint.queue_timeout.unwrap_or(endpoint.timeout),
        "max_batch_size": info.map(|info| info.max_batch_size),
        "batch_timeout": info.map(|info| info.batch_timeout.as_secs_f64()),
        "max_concurrency": info.map(|info| info.concurrency),
        "stream": info.map(|info| info.stream),
    })
}
