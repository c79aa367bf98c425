//! The parts of a server as the admin API shows them: its graph, batches, keys and options.

use std::env;
use std::fmt::Display;
use std::fs;

use litplex_admin::{
    Buckets, CallGraph, Configuration, EndpointBatches, EndpointSettings, GraphEdge, GraphNode,
    KeyHolders, KeyScope, Setting,
};
use litplex_calls::{CallEdge, EdgeKind, Report};
use litplex_config::{AdminAddress, ApiKeys, Endpoint, Origin, Program};
use litplex_metrics::{BatchTotals, Distribution};
use serde_json::json;

use crate::access::LIT_SERVER_API_KEY;
use crate::describe::endpoint_options;
use crate::history::RecentCalls;
use crate::routes::key_holders;

/// The value of an option that may have a secret in it.
const HIDDEN: &str = "set";

/// The value of an option that is not set.
const UNSET: &str = "none";

/// Returns the batches of the endpoint with this label.
pub(crate) fn batches(label: &str, totals: BatchTotals) -> EndpointBatches {
    let BatchTotals { sizes, seconds, costs } = totals;
    EndpointBatches {
        endpoint: label.to_owned(),
        sizes: buckets(sizes),
        seconds: buckets(seconds),
        costs: costs.map(buckets),
    }
}

fn buckets(observed: Distribution) -> Buckets {
    let Distribution { bounds, counts, sum } = observed;
    Buckets { bounds, counts, sum }
}

/// Returns the graph of the calls between endpoints: those that are declared, and these.
pub(crate) fn graph(report: &Report, calls: &[RecentCalls]) -> CallGraph {
    let nodes = report.endpoints.iter().map(|endpoint| GraphNode {
        id: endpoint.identity.label.clone(),
        name: endpoint.identity.name.clone(),
        path: endpoint.identity.path.clone(),
        kind: endpoint.kind.to_owned(),
    });
    let declared = || report.endpoints.iter().flat_map(|endpoint| &endpoint.calls);
    let is_declared = |made: &&RecentCalls| {
        declared().any(|it| (&it.caller, &it.callee) == (&made.caller, &made.callee))
    };
    // Models in Python may call what they do not declare.
    let others = calls.iter().filter(|made| !is_declared(made)).map(|made| CallEdge {
        caller: made.caller.clone(),
        callee: made.callee.clone(),
        kind: EdgeKind::Call,
        steps: Vec::new(),
    });
    let edges = declared().cloned().chain(others).map(|declared| edge(declared, calls));
    CallGraph { nodes: nodes.collect(), edges: edges.collect() }
}

fn edge(declared: CallEdge, calls: &[RecentCalls]) -> GraphEdge {
    let CallEdge { caller, callee, kind, steps } = declared;
    let made = calls.iter().find(|made| (&made.caller, &made.callee) == (&caller, &callee));
    GraphEdge {
        from: caller,
        to: callee,
        kind: kind.as_str().to_owned(),
        steps,
        rate: made.map_or(0.0, |made| made.rate),
        errors: made.map_or(0, |made| made.failed),
        p50: made.and_then(|made| made.p50),
        p99: made.and_then(|made| made.p99),
    }
}

/// Returns the callers and operators that this program admits.
pub(crate) fn keys(program: &Program) -> KeyHolders {
    let issuer = program.jwt.as_ref().map(|jwt| jwt.issuer.clone());
    let mut server = scope("server", program.api_keys.as_ref());
    if env::var_os(LIT_SERVER_API_KEY).is_some() {
        server.holders.push(LIT_SERVER_API_KEY.to_owned());
    }
    server.issuer.clone_from(&issuer);
    let own =
        program.endpoints.iter().filter(|it| it.api_keys.is_some() || it.jwt_scopes.is_some());
    let endpoint = |endpoint: &Endpoint| KeyScope {
        endpoint: Some(endpoint.label().to_owned()),
        issuer: issuer.clone().filter(|_| endpoint.jwt_scopes.is_some()),
        token_scopes: endpoint.jwt_scopes.clone().unwrap_or_default(),
        ..scope("endpoint", endpoint.api_keys.as_ref().or(program.api_keys.as_ref()))
    };
    let admin = program.admin.iter().flat_map(|admin| {
        let operators = admin.keys.as_ref().map(|keys| scope("admin", Some(keys)));
        let readers = admin.read_keys.as_ref().map(|keys| scope("admin_read", Some(keys)));
        operators.into_iter().chain(readers)
    });
    let scopes = [server].into_iter().chain(own.map(endpoint)).chain(admin);
    let opened = scopes.map(|scope| KeyScope {
        is_open: scope.holders.is_empty() && scope.file.is_none() && scope.issuer.is_none(),
        ..scope
    });
    KeyHolders { scopes: opened.collect() }
}

fn scope(scope: &str, keys: Option<&ApiKeys>) -> KeyScope {
    KeyScope {
        scope: scope.to_owned(),
        endpoint: None,
        is_open: false,
        holders: keys.map(holders).unwrap_or_default(),
        file: keys.and_then(|keys| Some(keys.file.as_ref()?.display().to_string())),
        issuer: None,
        token_scopes: Vec::new(),
    }
}

/// Returns the holders of keys: those in the configuration, then those in the file. The server keeps the keys
/// that it has if the file cannot be read; their holders are not known here.
fn holders(keys: &ApiKeys) -> Vec<String> {
    let text = keys.file.as_ref().and_then(|file| fs::read_to_string(file).ok());
    let in_file = text.and_then(|text| ApiKeys::parse_file(&text).ok()).unwrap_or_default();
    let mut holders = Vec::from_iter(keys.named.keys().cloned());
    for (holder, _) in in_file {
        if !holders.contains(&holder) {
            holders.push(holder);
        }
    }
    holders
}

/// Returns the options of a program, without secrets.
pub(crate) fn configuration(program: &Program) -> Configuration {
    let by_default = default_program().map(|program| server_options(&program)).unwrap_or_default();
    let server = server_options(program).into_iter().map(|row| Setting {
        is_default: by_default.contains(&row),
        name: row.0.to_owned(),
        value: row.1,
    });
    let endpoints = program.endpoints.iter().map(|endpoint| EndpointSettings {
        endpoint: endpoint.label().to_owned(),
        options: endpoint_options(endpoint)
            .map(|(name, value, is_default)| Setting { name: name.to_owned(), value, is_default })
            .collect(),
    });
    Configuration { server: server.collect(), endpoints: endpoints.collect() }
}

/// Returns a program without options.
fn default_program() -> Option<Program> {
    let raw = json!({"endpoint": [{"path": "/predict", "source": {}}]});
    litplex_config::resolve(raw.as_object()?.clone(), &Origin::Sdk).ok()
}

type Rows = Vec<(&'static str, String)>;

fn server_options(program: &Program) -> Rows {
    let Program { routes, admin, .. } = program;
    let port = admin.as_ref().and_then(|admin| admin.port.as_ref());
    let holders = |keys: Option<&ApiKeys>| keys.map_or_else(|| UNSET.to_owned(), key_holders);
    let mut rows = vec![
        ("host", program.host.clone()),
        ("port", program.port.to_string()),
        ("tls_cert", hidden(program.tls.is_some())),
        ("grace", format!("{:?}", program.grace)),
        ("http_threads", option(program.http_threads)),
        ("device_concurrency", program.device_concurrency.to_string()),
        ("max_connections", option(program.max_connections)),
        ("keep_alive_timeout", format!("{:?}", program.keep_alive_timeout)),
        ("memory_budget", option(program.memory_budget)),
        ("gpu_memory_budget", option(program.gpu_memory_budget)),
        ("max_buffered_bytes", program.max_buffered_bytes.to_string()),
        ("healthcheck_path", routes.health.clone()),
        ("livez_path", routes.livez.clone()),
        ("readyz_path", routes.readyz.clone()),
        ("info_path", routes.info.clone()),
        ("metrics_path", option(routes.metrics.as_ref())),
        ("shutdown_path", option(routes.shutdown.as_ref())),
        ("openapi", routes.openapi.to_string()),
        ("api_keys", holders(program.api_keys.as_ref())),
        ("jwt_issuer", option(program.jwt.as_ref().map(|jwt| &jwt.issuer))),
        ("admin_port", option(port.map(|AdminAddress { host, port }| format!("{host}:{port}")))),
        ("admin_dashboard", routes.dashboard.to_string()),
        ("admin_keys", holders(admin.as_ref().and_then(|admin| admin.keys.as_ref()))),
        ("admin_read_keys", holders(admin.as_ref().and_then(|admin| admin.read_keys.as_ref()))),
    ];
    rows.extend([
        ("request_id", program.request_id.to_string()),
        ("server_timing", program.server_timing.to_string()),
        ("access_log", option(program.access_log.as_ref().map(|file| file.display()))),
        ("recent_requests", program.recent_requests.to_string()),
        ("keep_bodies", program.keep_bodies.to_string()),
        // The address of a collector may have a password in it.
        ("otlp_endpoint", hidden(program.otlp_endpoint.is_some())),
        ("trace_ratio", option(program.trace_ratio)),
        ("cors_origins", list(&program.cors_origins)),
        ("allowed_hosts", list(&program.allowed_hosts)),
        ("trusted_proxies", list(&program.trusted_proxies)),
        ("compression", list(&program.compression)),
        ("app_heartbeat", format!("{:?}", program.app_heartbeat)),
    ]);
    rows
}

fn hidden(is_set: bool) -> String {
    if is_set { HIDDEN } else { UNSET }.to_owned()
}

fn option(value: Option<impl Display>) -> String {
    value.map_or_else(|| UNSET.to_owned(), |value| value.to_string())
}

fn list(values: &[impl Display]) -> String {
    let values: Vec<_> = values.iter().map(ToString::to_string).collect();
    if values.is_empty() { UNSET.to_owned() } else { values.join(", ") }
}

#[cfg(test)]
mod tests {
    use litplex_config::{parse_toml, resolve};

    use super::*;

    const SECRET: &str = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

    fn program(text: &str) -> Program {
        resolve(parse_toml(text).unwrap(), &Origin::File("/etc/litplex.toml".into())).unwrap()
    }

    #[test]
    fn keys_are_named_and_never_shown() {
        let text = format!(
            "api_keys = {{ ann = {SECRET:?} }}\nadmin_port = 1\nadmin_read_keys_file = \"look\"\n\
             otlp_endpoint = \"http://user:word@host\"\n\
             [[endpoint]]\npath = \"/a\"\napi = \"a:A\"\ntimeout = 5\nenv = {{ TOKEN = \"word\" }}\n\
             [[endpoint]]\npath = \"/b\"\napi = \"a:B\"\napi_keys = {{ bob = {SECRET:?} }}"
        );
        let program = program(&text);
        let keys = keys(&program);
        let shown: Vec<_> = keys
            .scopes
            .iter()
            .map(|it| {
                (&*it.scope, it.endpoint.as_deref(), it.holders.join(","), it.file.as_deref())
            })
            .collect();
        assert_eq!(
            shown,
            [
                ("server", None, "ann".to_owned(), None),
                ("endpoint", Some("/b"), "bob".to_owned(), None),
                ("admin_read", None, String::new(), Some("/etc/look")),
            ]
        );
        let configuration = configuration(&program);
        let find = |options: &[Setting], name: &str| {
            options.iter().find(|it| it.name == name).map(|it| (it.value.clone(), it.is_default))
        };
        assert_eq!(find(&configuration.server, "api_keys"), Some(("ann".into(), false)));
        assert_eq!(find(&configuration.server, "grace"), Some(("30s".into(), true)));
        let options = &configuration.endpoints[0].options;
        assert_eq!(find(options, "timeout"), Some(("5s".into(), false)));
        assert_eq!(find(options, "kill_after"), Some(("10s".into(), true)));
        let all = format!("{}{keys:?}", serde_json::to_string(&configuration).unwrap());
        for secret in ["9f86d081", "word"] {
            assert!(!all.contains(secret), "{all}");
        }
    }

    #[test]
    fn holders_in_a_file_are_named_once_and_its_keys_are_not_shown() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("keys");
        fs::write(&file, format!("# ours\nann {SECRET}\nbob {SECRET}\nbob {SECRET}\n")).unwrap();
        let text = format!(
            "api_keys = {{ ann = {SECRET:?} }}\napi_keys_file = {file:?}\n\
             [[endpoint]]\npath = \"/a\"\napi = \"a:A\""
        );
        let known = keys(&program(&text));
        assert_eq!(known.scopes[0].holders, ["ann", "bob"]);
        assert!(!format!("{known:?}").contains("9f86d081"));
        fs::remove_file(&file).unwrap();
        let known = keys(&program(&text));
        assert_eq!(
            (&*known.scopes[0].holders, known.scopes[0].is_open),
            (&["ann".to_owned()][..], false)
        );
    }

    #[test]
    fn a_server_without_keys_is_open() {
        let keys = keys(&program("[[endpoint]]\npath = \"/a\"\napi = \"a:A\""));
        assert_eq!(keys.scopes.len(), 1);
        assert!(keys.scopes[0].is_open);
    }
}
