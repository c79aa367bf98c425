//! All routes of a server and who may call them, for people and for the test that tries each.

use std::fmt::Write;

use litmux_config::{ApiKeys, Endpoint, OPENAPI_PATHS, Program};

/// Returns a line for each route: method, path and who may call it.
pub(crate) fn describe_routes(program: &Program) -> String {
    let mut text = String::new();
    for (method, path, who) in routes(program) {
        let _ = writeln!(text, "  {method:<5}{path:<27} {who}");
    }
    text
}

fn routes(program: &Program) -> Vec<(&'static str, &str, String)> {
    let built_in = &program.routes;
    let of_the_server = who(program.api_keys.as_ref());
    let everybody = || who(None);
    let of = |endpoint: &Endpoint| who(endpoint.api_keys.as_ref().or(program.api_keys.as_ref()));
    let endpoints = program.endpoints.iter();
    let mut routes: Vec<_> =
        endpoints.map(|endpoint| ("POST", endpoint.path.as_str(), of(endpoint))).collect();
    let pages = if built_in.openapi { &OPENAPI_PATHS[..] } else { &[] };
    let own = ["/", &built_in.health, &built_in.info].into_iter();
    let pages = own.chain(built_in.metrics.as_deref()).chain(pages.iter().copied());
    routes.extend(pages.map(|path| ("GET", path, of_the_server.clone())));
    routes.extend(
        [&built_in.livez, &built_in.readyz].map(|path| ("GET", path.as_str(), everybody())),
    );
    let stop = built_in.shutdown.as_deref();
    routes.extend(stop.map(|path| ("POST", path, "whoever has LIT_SHUTDOWN_API_KEY".into())));
    routes
}

fn who(keys: Option<&ApiKeys>) -> String {
    let Some(ApiKeys { named, file }) = keys else { return "everybody".into() };
    let holders: Vec<_> = named.keys().map(String::as_str).collect();
    let file = file.as_ref().map(|file| format!("whoever {} names", file.display()));
    let parts: Vec<_> = holders.into_iter().map(str::to_owned).chain(file).collect();
    if parts.is_empty() { "nobody".into() } else { parts.join(", ") }
}
