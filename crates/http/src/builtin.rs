//! The routes that litmux answers itself.

use std::fmt::Write;

use http::StatusCode;
use serde_json::{Value, json};

use crate::answer::{HttpResponse, own};
use crate::app::{App, EndpointReport, Report};

const TEXT: &str = "text/plain; charset=utf-8";

pub(crate) fn answer(app: &App, path: &str) -> Option<HttpResponse> {
    match path {
        "/" => Some(own(StatusCode::OK, TEXT, index(&app.report()))),
        "/health" => Some(health(&app.report())),
        "/info" => Some(own(StatusCode::OK, "application/json", info(&app.report()).to_string())),
        _ => None,
    }
}

fn index(report: &Report) -> String {
    let mut text = "litmux running\n\n".to_owned();
    for EndpointReport { path, problem, .. } in &report.endpoints {
        let state = problem.as_deref().unwrap_or("ready");
        let _ = writeln!(text, "POST {path}  ({state})");
    }
    text + "GET /health\nGET /info\n"
}

/// `ok`, or `not ready` and why, a line for each endpoint that is not.
fn health(report: &Report) -> HttpResponse {
    if report.is_ready() {
        return own(StatusCode::OK, TEXT, "ok".into());
    }
    let mut text = "not ready".to_owned();
    for EndpointReport { path, problem, .. } in &report.endpoints {
        if let Some(problem) = problem {
            let _ = write!(text, "\n{path}: {problem}");
        }
    }
    own(StatusCode::SERVICE_UNAVAILABLE, TEXT, text)
}

fn info(report: &Report) -> Value {
    let endpoints: Vec<Value> = report.endpoints.iter().map(endpoint_info).collect();
    json!({"litmux": env!("CARGO_PKG_VERSION"), "endpoints": endpoints})
}

fn endpoint_info(endpoint: &EndpointReport) -> Value {
    let traits = endpoint.traits.as_ref();
    json!({
        "path": endpoint.path,
        "kind": endpoint.kind,
        "ready": endpoint.problem.is_none(),
        "problem": endpoint.problem.as_ref().or(endpoint.degraded.as_ref()),
        "workers": endpoint.workers,
        "workers_ready": endpoint.workers_ready,
        "timeout": endpoint.timeout,
        "max_batch_size": traits.map(|traits| traits.max_batch_size),
        "batch_timeout": traits.map(|traits| traits.batch_timeout.as_secs_f64()),
        "max_concurrency": traits.map(|traits| traits.concurrency),
        "stream": traits.map(|traits| traits.stream),
    })
}
