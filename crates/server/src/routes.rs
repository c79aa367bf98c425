//! The routes of a program and who may call each, as `litplex check` prints them. The rows are those
//! of the server's own table ([`RouteTable`]); here their access gets names.

use std::fmt::Write;

use litplex_config::{AdminAccess, ApiKeys, Endpoint, Jwt, Program};
use litplex_http::{Access, Builtin, Condition, RouteEntry, RouteTable};
use litplex_workers::Inspected;
use serde_json::{Value, json};

use crate::secrets::SHUTDOWN_KEY;

/// Returns a line for each route: methods, path and who may call it.
pub(crate) fn routes_text(program: &Program, inspected: &[Inspected]) -> String {
    let mut text = String::new();
    for (entry, callers) in routes(program, inspected) {
        let model = entry.model.as_ref().map(|model| format!(" ({model})")).unwrap_or_default();
        let path = format!("{}{model}", entry.path);
        let _ = writeln!(text, "  {:<10}{path:<27} {callers}", entry.methods);
    }
    text
}

/// Returns the routes as `litplex check --json` shows them.
pub(crate) fn routes_json(program: &Program, inspected: &[Inspected]) -> Value {
    let rows = routes(program, inspected).into_iter();
    rows.map(|(entry, callers)| {
        let mut row = entry.to_json();
        row["callers"] = json!(callers);
        row
    })
    .collect()
}

/// Returns the built-in routes as the app host receives them. It knows the endpoints of its program.
pub(crate) fn routes_for_app_host(program: &Program) -> Value {
    let table = RouteTable::new([], &builtin(program));
    // Requests of operators do not come to it.
    let own = table.entries().iter().filter(|entry| entry.access != Access::Operators);
    own.map(RouteEntry::for_app_host).collect()
}

/// Returns the built-in routes of a program, without what only a running server has.
pub(crate) fn builtin(program: &Program) -> Builtin {
    let routes = program.routes.clone();
    Builtin {
        health: routes.health,
        livez: routes.livez,
        readyz: routes.readyz,
        info: routes.info,
        metrics: routes.metrics,
        shutdown: routes.shutdown,
        openapi: routes.openapi,
        dashboard: routes.dashboard,
        ..Builtin::default()
    }
}

fn routes(program: &Program, inspected: &[Inspected]) -> Vec<(RouteEntry, String)> {
    let identities = program.endpoints.iter().map(|endpoint| &*endpoint.identity);
    let table = RouteTable::new(identities, &builtin(program));
    let entries = table.entries().iter().filter(|entry| is_there(entry.condition, inspected));
    entries.map(|entry| (entry.clone(), callers(program, entry.access))).collect()
}

fn is_there(condition: Condition, inspected: &[Inspected]) -> bool {
    match condition {
        Condition::Always => true,
        Condition::SpeaksOpenAi(index) => inspected.get(index).is_some_and(|m| m.spec.is_some()),
        Condition::AnyOpenAi => inspected.iter().any(|model| model.spec.is_some()),
        Condition::AnyTool => inspected.iter().any(|model| model.tool),
    }
}

fn callers(program: &Program, access: Access) -> String {
    let Program { api_keys, jwt, endpoints, .. } = program;
    let server = || holders(api_keys.as_ref(), jwt.as_ref(), &[]);
    match access {
        Access::Public => holders(None, None, &[]),
        Access::Endpoint(index) => endpoint_callers(program, &endpoints[index]),
        Access::Models if api_keys.is_some() || jwt.is_some() => {
            format!("{}, or with access to a model", server())
        }
        Access::Models => "clients with access to a model".into(),
        Access::Server => server(),
        Access::Shutdown => format!("holders of {SHUTDOWN_KEY}"),
        Access::Operators => program.admin.as_ref().map(operators).unwrap_or_default(),
    }
}

fn endpoint_callers(program: &Program, endpoint: &Endpoint) -> String {
    let takes_tokens = endpoint.api_keys.is_none() || endpoint.jwt_scopes.is_some();
    let jwt = program.jwt.as_ref().filter(|_| takes_tokens);
    let scopes = endpoint.jwt_scopes.as_deref().unwrap_or_default();
    holders(endpoint.api_keys.as_ref().or(program.api_keys.as_ref()), jwt, scopes)
}

/// Returns the operators, and those who may only read.
pub(crate) fn operators(admin: &AdminAccess) -> String {
    let readers = admin.read_keys.as_ref();
    let readers = readers.map(|keys| format!("; only to read: {}", key_holders(keys)));
    let operators = admin.keys.as_ref().map_or_else(|| "none".to_owned(), key_holders);
    format!("{operators}{}", readers.unwrap_or_default())
}

/// Returns the holders of these keys, and the file with more.
pub(crate) fn key_holders(keys: &ApiKeys) -> String {
    holders(Some(keys), None, &[])
}

fn holders(keys: Option<&ApiKeys>, jwt: Option<&Jwt>, scopes: &[String]) -> String {
    if keys.is_none() && jwt.is_none() {
        return "public".into();
    }
    let named = keys.into_iter().flat_map(|keys| keys.named.keys().cloned());
    let file = keys.and_then(|keys| keys.file.as_ref());
    let file = file.map(|file| format!("keys in {}", file.display()));
    let parts: Vec<_> = named.chain(file).chain(jwt.map(|jwt| tokens(jwt, scopes))).collect();
    if parts.is_empty() { "no one (no key configured)".into() } else { parts.join(", ") }
}

fn tokens(jwt: &Jwt, scopes: &[String]) -> String {
    let scopes: String = scopes.iter().map(|scope| format!(" {scope}")).collect();
    let with = if scopes.is_empty() { "" } else { " with" };
    format!("tokens of {}{with}{scopes}", jwt.issuer)
}

#[cfg(test)]
mod tests {
    use litplex_config::{Origin, resolve};
    use serde_json::Map;

    use super::*;

    fn program(paths: &[&str]) -> Result<Program, litplex_config::ConfigError> {
        let endpoints: Vec<_> =
            paths.iter().map(|path| json!({"path": path, "source": {}})).collect();
        let raw = json!({
            "endpoint": endpoints,
            "shutdown_path": "/stop",
            "admin_dashboard": true,
            "admin_keys_file": "keys",
        });
        resolve(raw.as_object().cloned().unwrap_or_else(Map::new), &Origin::Sdk)
    }

    #[test]
    fn the_paths_of_protocols_that_name_a_model_can_be_shared() {
        for dialect in ["openai_chat", "openai_embeddings"] {
            let path = litplex_http::dialect_path(&litplex_core::DialectId::new(dialect));
            assert!(path.is_some_and(litplex_config::can_be_shared), "{dialect}");
        }
        assert!(!litplex_config::can_be_shared("/predict"));
    }

    #[test]
    fn no_endpoint_may_take_the_path_of_a_built_in_route() {
        let table = RouteTable::new([], &builtin(&program(&["/a"]).unwrap()));
        assert!(table.entries().len() > 10);
        for entry in table.entries().iter().filter(|entry| !entry.path.ends_with('*')) {
            let error = program(&[&entry.path]).expect_err(&entry.path).to_string();
            assert!(error.contains("built-in route"), "{}: {error}", entry.path);
        }
    }
}
