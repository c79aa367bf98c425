use std::collections::HashMap;

use litmux_http::{App, Builtin, Guard, Report};
use serde_json::Value;

/// Makes an app without endpoints.
pub(crate) fn app() -> App {
    let builtin = Builtin {
        health: "/health".into(),
        health_reasons: true,
        livez: "/livez".into(),
        readyz: "/readyz".into(),
        info: "/info".into(),
        shutdown: None,
        shutdown_key: None,
        model_metadata: Value::Null,
        openapi: true,
        gzip: false,
    };
    let report = || Report { endpoints: Vec::new() };
    App::new(HashMap::new(), builtin, Guard::default(), 1 << 20, report)
}
