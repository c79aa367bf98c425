//! An application for tests.

use litplex_access::Guard;
use litplex_calls::Report;
use litplex_http::{App, AppBuilder, Builtin};
use litplex_metrics::Metrics;
use serde_json::Value;

/// Returns an application without endpoints.
pub(crate) fn app() -> AppBuilder {
    let builtin = Builtin {
        health: "/health".into(),
        status_reasons: true,
        index: None,
        livez: "/livez".into(),
        readyz: "/readyz".into(),
        info: "/info".into(),
        info_server: None,
        metrics: None,
        shutdown: None,
        shutdown_key: None,
        model_metadata: Value::Null,
        openapi: true,
        dashboard: false,
    };
    let report = || Report { endpoints: Vec::new(), app_host: None };
    let scrape = || Box::pin(async { String::new() }) as _;
    let guard = Guard::default();
    App::builder(Vec::new(), builtin, guard, 1 << 20, Metrics::new(), report, scrape)
}
