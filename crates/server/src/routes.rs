//! All routes of a server and who may call them, for people and for the test that tries each.

use std::fmt::Write;

use litplex_config::{ApiKeys, Endpoint, Jwt, OPENAPI_PATHS, Program};
use litplex_workers::Inspected;

/// Returns a line for each route: method, path and who may call it.
pub(crate) fn describe_routes(program: &Program, inspected: &[Inspected]) -> String {
    let mut text = String::new();
    for (method, path, who) in routes(program, inspected) {
        let _ = writeln!(text, "  {method:<5}{path:<27} {who}");
    }
    text
}

fn routes<'a>(
    program: &'a Program,
    inspected: &[Inspected],
) -> Vec<(&'static str, &'a str, String)> {
    let built_in = &program.routes;
    let of_the_server = who(program.api_keys.as_ref(), program.jwt.as_ref(), &[]);
    let everybody = || who(None, None, &[]);
    let of = |endpoint: &Endpoint| of_endpoint(program, endpoint);
    let endpoints = program.endpoints.iter();
    let mut routes: Vec<_> =
        endpoints.map(|endpoint| ("POST", endpoint.path.as_str(), of(endpoint))).collect();
    if inspected.iter().any(|model| model.spec.is_some()) {
        routes.push(("GET", "/v1/models", of_the_server.clone()));
    }
    if inspected.iter().any(|model| model.tool) {
        routes.push(("POST", "/mcp", of_the_server.clone()));
    }
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

fn of_endpoint(program: &Program, endpoint: &Endpoint) -> String {
    let takes_tokens = endpoint.api_keys.is_none() || endpoint.jwt_scopes.is_some();
    let jwt = program.jwt.as_ref().filter(|_| takes_tokens);
    let scopes = endpoint.jwt_scopes.as_deref().unwrap_or_default();
    who(endpoint.api_keys.as_ref().or(program.api_keys.as_ref()), jwt, scopes)
}

fn who(keys: Option<&ApiKeys>, jwt: Option<&Jwt>, scopes: &[String]) -> String {
    if keys.is_none() && jwt.is_none() {
        return "everybody".into();
    }
    let holders = keys.into_iter().flat_map(|keys| keys.named.keys().cloned());
    let file = keys.and_then(|keys| keys.file.as_ref());
    let file = file.map(|file| format!("whoever {} names", file.display()));
    let parts: Vec<_> = holders.chain(file).chain(jwt.map(|jwt| of_issuer(jwt, scopes))).collect();
    if parts.is_empty() { "nobody".into() } else { parts.join(", ") }
}

fn of_issuer(jwt: &Jwt, scopes: &[String]) -> String {
    let scopes: String = scopes.iter().map(|scope| format!(" {scope}")).collect();
    let with = if scopes.is_empty() { "" } else { " with" };
    format!("tokens of {}{with}{scopes}", jwt.issuer)
}
